"""Two members share the partitions of a topic; one restarts under its instance's name; what was committed is where the
next member begins. This client rebalances eagerly only."""

import asyncio
from contextlib import asynccontextmanager

from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.structs import OffsetAndMetadata

from support import consumer, create_topic, equal, fill, main, named, numbers, poll, read, until

PARTITIONS = 4


class Member(ConsumerRebalanceListener):
    """What a member holds and has seen, and how often it was given something."""

    def __init__(self, client):
        self.client, self.held, self.seen, self.assignments = client, set(), [], 0

    async def on_partitions_revoked(self, revoked):
        if revoked:
            await self.client.commit()
        self.held = set()

    async def on_partitions_assigned(self, assigned):
        self.assignments += 1
        self.held = set(assigned)

    async def work(self):
        while True:
            await poll(self.client, self.seen)


@asynccontextmanager
async def member(group, topic, **settings):
    """A member that reads until the block ends, then commits and leaves, unless it is static."""
    async with consumer(group=group, heartbeat_interval_ms=200, **settings) as client:
        made = Member(client)
        client.subscribe([topic], listener=made)
        work = asyncio.create_task(made.work())
        try:
            yield made
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await client.commit()


async def check_sharing():
    for assignor in [RangePartitionAssignor, RoundRobinPartitionAssignor, StickyPartitionAssignor]:
        topic, group = named(f"shared-{assignor.name}"), named(f"share-{assignor.name}")
        await create_topic(topic, PARTITIONS)
        async with member(group, topic, partition_assignment_strategy=[assignor]) as first:
            await until("the first holds all", lambda: len(first.held) == PARTITIONS)
            async with member(group, topic, partition_assignment_strategy=[assignor]) as second:
                await until("both hold half", lambda: len(first.held) == len(second.held) == PARTITIONS // 2)
                equal("what both hold", first.held | second.held, {TopicPartition(topic, partition) for partition in range(PARTITIONS)})
                await fill(topic, PARTITIONS, 0, 400)
                await until("all is seen", lambda: len(first.seen) + len(second.seen) >= 400)
                equal("what the first sees", len(first.seen), 200)
            await until("the first holds all again", lambda: len(first.held) == PARTITIONS)
            await fill(topic, PARTITIONS, 400, 500)
            await until("the rest is seen", lambda: len(first.seen) + len(second.seen) >= 500)
        equal("what both see", sorted(numbers(first.seen + second.seen)), list(range(500)))
        print(f"{assignor.name}: shared evenly")


async def check_static():
    topic, group = named("static"), named("static-group")
    await create_topic(topic, PARTITIONS)
    async with member(group, topic, group_instance_id="a") as stays:
        async with member(group, topic, group_instance_id="b") as restarts:
            await until("both hold half", lambda: len(stays.held) == len(restarts.held) == PARTITIONS // 2)
            held, assignments = restarts.held, stays.assignments
        async with member(group, topic, group_instance_id="b") as restarted:
            await until("the restarted member holds something", lambda: restarted.held)
            equal("what the restarted member holds", restarted.held, held)
            equal("how often the other was assigned something", stays.assignments, assignments)


async def check_resuming():
    topic, group = named("resume"), named("resumers")
    await create_topic(topic, 1)
    await fill(topic, 1, 0, 100)
    partition = TopicPartition(topic, 0)
    async with consumer(topic, group=group) as first:
        await read(first, 40)
        await first.commit({partition: OffsetAndMetadata(40, "at forty")})
    async with consumer(topic, group=group) as second:
        equal("the rest", numbers(await read(second, 60)), list(range(40, 100)))
        equal("the committed offset", await second.committed(partition), 40)
        await second.commit()
        equal("the committed offset", await second.committed(partition), 100)
        await second.seek_to_beginning(partition)
        await second.seek_to_committed(partition)
        equal("the position", await second.position(partition), 100)
    async with consumer(topic, group=named("never")) as stranger:
        equal("the offset of a new group", await stranger.committed(partition), None)


async def body():
    await check_sharing()
    await check_static()
    await check_resuming()


main("aiokafka groups: sharing, static members, resuming", body)
