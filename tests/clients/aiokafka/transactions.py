"""Transactions over partitions: committed, aborted and open ones, a fenced producer, and offsets that move with what was
made of them."""

import asyncio

from aiokafka import TopicPartition
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from support import consumer, create_topic, equal, fill, main, named, poll, producer, read

PARTITIONS = 3


async def send_everywhere(sender, topic, value):
    await asyncio.gather(*[await sender.send(topic, value.encode(), partition=partition) for partition in range(PARTITIONS)])


async def values(partition, level):
    """What a reader without a group sees of the partition, to the end that it may see."""
    async with consumer(isolation_level=level) as reader:
        reader.assign([partition])
        await reader.seek_to_beginning(partition)
        end, records = (await reader.end_offsets([partition]))[partition], []
        async with asyncio.timeout(60):
            while await reader.position(partition) < end:
                await poll(reader, records)
        return [record.value.decode() for record in records], end


async def check_commit_and_abort():
    topic = named("ledger")
    await create_topic(topic, PARTITIONS)
    partition = TopicPartition(topic, 0)
    async with producer(transactional_id=named("ledger-writer")) as sender:
        for number in range(20):
            await sender.begin_transaction()
            await send_everywhere(sender, topic, str(number))
            await (sender.abort_transaction() if number % 4 == 3 else sender.commit_transaction())
        await sender.begin_transaction()
        await send_everywhere(sender, topic, "open")
        # Each of the 20 transactions put a record and a marker into the partition, and the open one a record.
        equal("what is committed", await values(partition, "read_committed"), ([str(number) for number in range(20) if number % 4 != 3], 40))
        equal("what is there", await values(partition, "read_uncommitted"), ([*map(str, range(20)), "open"], 41))
        await sender.abort_transaction()
    equal("what is committed at last", (await values(partition, "read_committed"))[0], [str(number) for number in range(20) if number % 4 != 3])


async def check_fencing():
    topic, transactional_id = named("fenced"), named("twins")
    await create_topic(topic, PARTITIONS)
    async with producer(transactional_id=transactional_id) as zombie:
        await zombie.begin_transaction()
        await send_everywhere(zombie, topic, "zombie")
        async with producer(transactional_id=transactional_id) as heir:
            try:
                await send_everywhere(zombie, topic, "late")
                raise AssertionError("the fenced producer could send")
            except (ProducerFenced, InvalidProducerEpoch):
                pass
            async with heir.transaction():
                await send_everywhere(heir, topic, "heir")
    for partition in range(PARTITIONS):
        equal("what is committed", (await values(TopicPartition(topic, partition), "read_committed"))[0], ["heir"])


async def check_transforming():
    """Every record of one topic is doubled into the other exactly once, although every third transaction is aborted."""
    source, target, group, count = named("numbers"), named("doubles"), named("doublers"), 150
    await create_topic(source, PARTITIONS)
    await create_topic(target, PARTITIONS)
    await fill(source, PARTITIONS, 0, count)
    async with (consumer(source, group=group, isolation_level="read_committed", max_poll_records=10) as reader,
                producer(transactional_id=named("doubler")) as sender):
        done, attempt = 0, 0
        while done < count:
            records = await read(reader, 1)
            await sender.begin_transaction()
            offsets = {}
            for record in records:
                await sender.send(target, str(2 * int(record.value)).encode(), partition=record.partition)
                offsets[TopicPartition(source, record.partition)] = OffsetAndMetadata(record.offset + 1, "")
            await sender.send_offsets_to_transaction(offsets, group)
            if attempt % 3 == 2:
                await sender.abort_transaction()
                for partition in reader.assignment():
                    reader.seek(partition, await reader.committed(partition) or 0)
            else:
                await sender.commit_transaction()
                done += len(records)
            attempt += 1
        equal("the number of records", done, count)
        for partition in range(PARTITIONS):
            equal("the committed offset", await reader.committed(TopicPartition(source, partition)), count // PARTITIONS)
    for partition in range(PARTITIONS):
        expected = [str(2 * number) for number in range(partition, count, PARTITIONS)]
        equal("the doubles", (await values(TopicPartition(target, partition), "read_committed"))[0], expected)


async def body():
    await check_commit_and_abort()
    await check_fencing()
    await check_transforming()


main("aiokafka transactions: commit, abort, fencing, consume-transform-produce", body)
