"""Two members share the partitions of a topic; what was committed is where the next member begins."""

from confluent_kafka import TopicPartition

from support import consumer, create_topic, main, named, poll, producer, until

PARTITIONS = 4
COUNT = 400


def fill(topic, start, count):
    sender = producer()
    for number in range(start, start + count):
        sender.produce(topic, str(number).encode(), partition=number % PARTITIONS)
    assert sender.flush(30) == 0


def check_sharing():
    for strategy in ["range,roundrobin", "cooperative-sticky"]:
        topic = named(f"shared-{strategy[:5]}")
        create_topic(topic, PARTITIONS)
        settings = {"partition_assignment_strategy": strategy, "heartbeat_interval_ms": 300}
        members = [consumer(named(f"share-{strategy[:5]}"), **settings) for _ in range(2)]
        seen = [[], []]
        for member in members:
            member.subscribe([topic])

        def both_hold_half():
            for member, records in zip(members, seen):
                poll(member, records)
            return all(len(member.assignment()) == PARTITIONS // 2 for member in members)

        until("both hold half of the partitions", both_hold_half)
        fill(topic, 0, COUNT)

        def all_seen():
            for member, records in zip(members, seen):
                poll(member, records)
            return sum(map(len, seen)) >= COUNT

        until("all is seen", all_seen)
        numbers = sorted(int(message.value()) for records in seen for message in records)
        assert numbers == list(range(COUNT))
        assert len(seen[0]) == len(seen[1]) == COUNT // 2
        for member in members:
            member.close()
        print(f"{strategy}: shared evenly")


def check_resuming():
    topic, group = named("resume"), named("resumers")
    create_topic(topic, 1)
    fill_one = producer()
    for number in range(100):
        fill_one.produce(topic, str(number).encode())
    assert fill_one.flush(30) == 0

    first, seen = consumer(group), []
    first.subscribe([topic])
    until("40 are seen", lambda: poll(first, seen) or len(seen) >= 40)
    first.commit(offsets=[TopicPartition(topic, 0, seen[39].offset() + 1, "at forty")], asynchronous=False)
    first.close()

    second, rest = consumer(group, group_instance_id="static-1"), []
    second.subscribe([topic])
    until("the rest is seen", lambda: poll(second, rest) or len(rest) >= 60)
    assert [int(message.value()) for message in rest] == list(range(40, 100))
    [committed] = second.committed([TopicPartition(topic, 0)], timeout=30)
    assert committed.offset == 40, committed
    second.commit(message=rest[-1], asynchronous=False)
    [committed] = second.committed([TopicPartition(topic, 0)], timeout=30)
    assert committed.offset == 100, committed
    second.close()

    [never] = consumer(named("never")).committed([TopicPartition(topic, 0)], timeout=30)
    assert never.offset == -1001, never  # no offset


def body():
    check_sharing()
    check_resuming()


main("python groups: sharing, committing, resuming", body)
