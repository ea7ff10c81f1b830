"""Ends of a partition, offsets by time, seeking and pausing without a group's help."""

from aiokafka import TopicPartition

from support import consumer, create_topic, equal, main, named, numbers, producer, read

START = 1_700_000_000_000


async def body():
    topic = named("times")
    await create_topic(topic, 2)
    async with producer() as sender:
        for number in range(100):
            await sender.send_and_wait(topic, str(number).encode(), partition=0, timestamp_ms=START + 1000 * number)
        for number in range(10):
            await sender.send_and_wait(topic, str(number).encode(), partition=1)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    async with consumer() as reader:
        equal("the starts", await reader.beginning_offsets([first, second]), {first: 0, second: 0})
        equal("the ends", await reader.end_offsets([first, second]), {first: 100, second: 10})
        for asked, expected in [(-1, 0), (42_000, 42), (42_001, 43), (99_000, 99)]:
            found = (await reader.offsets_for_times({first: START + asked}))[first]
            equal(f"the offset at {asked}", (found.offset, found.timestamp), (expected, START + 1000 * expected))
        equal("the offset after the end", (await reader.offsets_for_times({first: START + 99_001}))[first], None)

        reader.assign([first, second])
        reader.seek(first, 95)
        reader.seek(second, 10)
        equal("the last five", numbers(await read(reader, 5)), list(range(95, 100)))
        equal("the position", await reader.position(first), 100)
        equal("the high watermark", reader.highwater(first), 100)
        equal("the last stable offset", reader.last_stable_offset(first), 100)
        reader.pause(first)
        await reader.seek_to_beginning(first, second)
        equal("the partition that is not paused", numbers(await read(reader, 10)), list(range(10)))
        reader.resume(first)
        equal("the partition after its pause", numbers(await read(reader, 100)), list(range(100)))


main("aiokafka offsets: ends, offsets for times, seeking, pausing", body)
