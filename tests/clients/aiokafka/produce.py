"""Every codec and every acknowledgement; keys, headers, tombstones and timestamps come back as they were sent; the
idempotent producer stores each record once and in order."""

import asyncio

from support import consumer, create_topic, equal, main, named, producer, read

CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
COUNT = 200
START = 1_700_000_000_000
HEADERS = [("codec", b"any"), ("twice", b"a"), ("twice", b"b"), ("empty", b""), ("nothing", None)]


async def check_codecs():
    for codec in CODECS:
        for acks in [0, 1, "all"]:
            topic = named(f"{codec}-{acks}")
            await create_topic(topic, 1)
            values = [f"{codec} {acks} {number} ".encode() * 20 for number in range(COUNT)]
            async with producer(compression_type=codec, acks=acks, linger_ms=20) as sender:
                sent = [await sender.send(topic, value, key=b"key", partition=0, headers=HEADERS, timestamp_ms=START + number)
                        for number, value in enumerate(values)]
                answers = await asyncio.gather(*sent)
            if acks != 0:
                equal("the acknowledged offsets", [answer.offset for answer in answers], list(range(COUNT)))
            async with consumer(topic) as reader:
                records = await read(reader, COUNT)
            equal("the offsets", [record.offset for record in records], list(range(COUNT)))
            equal("the values", [record.value for record in records], values)
            for number, record in enumerate(records):
                equal("the key", record.key, b"key")
                equal("the headers", list(record.headers), HEADERS)
                equal("the timestamp", (record.timestamp_type, record.timestamp), (0, START + number))  # 0: set by the producer
            print(f"{codec} with acks={acks}: {COUNT} records")


async def check_tombstones():
    topic = named("tombstones")
    await create_topic(topic, 1)
    sent = [(b"k", b"v"), (b"k", None), (None, b"")]
    async with producer() as sender:
        for key, value in sent:
            await sender.send_and_wait(topic, value, key=key)
    async with consumer(topic) as reader:
        equal("keys and values", [(record.key, record.value) for record in await read(reader, 3)], sent)


async def check_batches():
    topic = named("batches")
    await create_topic(topic, 1)
    async with producer() as sender:
        batch = sender.create_batch()
        for number in range(50):
            batch.append(key=None, value=str(number).encode(), timestamp=START)
        answer = await (await sender.send_batch(batch, topic, partition=0))
        equal("the offset of the batch", answer.offset, 0)
    async with consumer(topic) as reader:
        equal("the values", [int(record.value) for record in await read(reader, 50)], list(range(50)))


async def check_idempotence():
    topic, count = named("once"), 1000
    await create_topic(topic, 1)
    for session in range(2):
        async with producer(enable_idempotence=True, max_batch_size=1000, linger_ms=1) as sender:
            sent = [await sender.send(topic, f"{session}-{number}".encode()) for number in range(count)]
            answers = await asyncio.gather(*sent)
        equal("the acknowledged offsets", [answer.offset for answer in answers], list(range(session * count, (session + 1) * count)))
    async with consumer(topic) as reader:
        values = [record.value for record in await read(reader, 2 * count)]
    equal("what is stored", values, [f"{session}-{number}".encode() for session in range(2) for number in range(count)])


async def body():
    await check_codecs()
    await check_tombstones()
    await check_batches()
    await check_idempotence()


main("aiokafka produce: codecs, acks, keys, headers, tombstones, batches, idempotence", body)
