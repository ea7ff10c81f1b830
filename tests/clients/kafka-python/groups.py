"""Two members share the partitions of a topic, eagerly and cooperatively; one restarts under its instance's name; what
was committed is where the next member begins."""

import threading

from kafka import ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from support import admin, consumer, create_topic, equal, fill, main, named, numbers, poll, read, until

PARTITIONS = 4


class Member(ConsumerRebalanceListener):
    """A member with a thread of its own, as applications have it: joining waits for the others. It commits by itself,
    before it gives partitions back and when it leaves."""

    def __init__(self, group, topic, **settings):
        self.consumer = consumer(group, heartbeat_interval_ms=200, enable_auto_commit=True, **settings)
        self.held, self.revoked, self.seen = set(), [], []
        self.failure, self.leaving = None, threading.Event()
        self.consumer.subscribe([topic], listener=self)
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        try:
            while not self.leaving.is_set():
                poll(self.consumer, self.seen)
            self.consumer.close()
        except BaseException as failure:
            self.failure = failure

    def on_partitions_revoked(self, revoked):
        self.revoked.extend(revoked)
        self.held -= set(revoked)

    def on_partitions_assigned(self, assigned):
        self.held |= set(assigned)

    def leave(self):
        self.leaving.set()
        self.thread.join(60)
        if self.failure:
            raise self.failure


def hold(*members, each):
    def check():
        for member in members:
            if member.failure:
                raise member.failure
        return all(len(member.held) == each for member in members)

    until(f"every member holds {each}", check)


def check_sharing():
    for assignor in [RangePartitionAssignor, RoundRobinPartitionAssignor, StickyPartitionAssignor, CooperativeStickyAssignor]:
        topic, group = named(f"shared-{assignor.name}"), named(f"share-{assignor.name}")
        create_topic(topic, PARTITIONS)
        settings = {"partition_assignment_strategy": [assignor]}
        first = Member(group, topic, **settings)
        hold(first, each=PARTITIONS)
        second = Member(group, topic, **settings)
        hold(first, second, each=PARTITIONS // 2)
        equal("what both hold", first.held | second.held, {TopicPartition(topic, partition) for partition in range(PARTITIONS)})
        cooperative = assignor is CooperativeStickyAssignor
        equal("what the first was revoked", len(first.revoked), PARTITIONS // 2 if cooperative else PARTITIONS)

        fill(topic, PARTITIONS, 0, 400)
        until("all is seen", lambda: len(first.seen) + len(second.seen) >= 400)
        equal("what the first sees", len(first.seen), 200)
        second.leave()
        hold(first, each=PARTITIONS)
        fill(topic, PARTITIONS, 400, 500)
        until("the rest is seen", lambda: len(first.seen) + len(second.seen) >= 500)
        first.leave()
        equal("what both see", sorted(numbers(first.seen + second.seen)), list(range(500)))
        print(f"{assignor.name}: shared evenly")


def check_static():
    topic, group = named("static"), named("static-group")
    create_topic(topic, PARTITIONS)
    stays = Member(group, topic, group_instance_id="a")
    restarts = Member(group, topic, group_instance_id="b")
    hold(stays, restarts, each=PARTITIONS // 2)
    held, lost = set(restarts.held), len(stays.revoked)
    restarts.leave()
    restarts = Member(group, topic, group_instance_id="b")
    hold(restarts, each=len(held))
    equal("what the restarted member holds", restarts.held, held)
    equal("what the other lost", len(stays.revoked), lost)
    client = admin()
    members = client.describe_groups([group])[group]["members"]
    equal("the instances", sorted(member["group_instance_id"] for member in members), ["a", "b"])
    client.close()
    stays.leave()
    restarts.leave()


def check_resuming():
    topic, group = named("resume"), named("resumers")
    create_topic(topic, 1)
    fill(topic, 1, 0, 100)
    partition = TopicPartition(topic, 0)
    first = consumer(group)
    first.subscribe([topic])
    read(first, 40)
    first.commit({partition: OffsetAndMetadata(40, "at forty", -1)})
    first.close()
    second = consumer(group)
    second.subscribe([topic])
    equal("the rest", numbers(read(second, 60)), list(range(40, 100)))
    found = second.committed(partition, metadata=True)
    equal("the committed offset", (found.offset, found.metadata), (40, "at forty"))
    second.commit()
    equal("the committed offset", second.committed(partition), 100)
    second.close()
    stranger = consumer(named("never"))
    equal("the offset of a new group", stranger.committed(partition), None)
    stranger.close()


def body():
    check_sharing()
    check_static()
    check_resuming()


main("kafka-python groups: sharing eagerly and cooperatively, static members, resuming", body)
