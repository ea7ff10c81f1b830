"""Every codec and every acknowledgement; keys, headers, tombstones and timestamps come back as they were sent.

The last check is the idempotent producer's, which this client is unless told otherwise."""

from support import consumer, create_topic, equal, main, named, producer, read

CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
COUNT = 200
START = 1_700_000_000_000
HEADERS = [("codec", b"any"), ("twice", b"a"), ("twice", b"b"), ("empty", b"")]  # this client sends no absent values


def check_codecs():
    for codec in CODECS:
        for acks in [0, 1, "all"]:
            topic = named(f"{codec}-{acks}")
            create_topic(topic, 1)
            sender = producer(compression_type=codec, acks=acks, enable_idempotence=False, linger_ms=20)
            values = [f"{codec} {acks} {number} ".encode() * 20 for number in range(COUNT)]
            sent = [sender.send(topic, value, key=b"key", headers=HEADERS, timestamp_ms=START + number) for number, value in enumerate(values)]
            sender.flush(60)
            if acks != 0:
                equal("the acknowledged offsets", [future.get(60).offset for future in sent], list(range(COUNT)))
            sender.close()
            reader = consumer()
            reader.subscribe([topic])
            records = read(reader, COUNT)
            reader.close()
            equal("the offsets", [record.offset for record in records], list(range(COUNT)))
            equal("the values", [record.value for record in records], values)
            for number, record in enumerate(records):
                equal("the key", record.key, b"key")
                equal("the headers", [tuple(header) for header in record.headers], HEADERS)
                equal("the timestamp", (record.timestamp_type, record.timestamp), (0, START + number))  # 0: set by the producer
            print(f"{codec} with acks={acks}: {COUNT} records")


def check_tombstones():
    topic = named("tombstones")
    create_topic(topic, 1)
    sender = producer()
    for key, value in [(b"k", b"v"), (b"k", None), (None, b"")]:
        sender.send(topic, value, key=key).get(60)
    sender.close()
    reader = consumer()
    reader.subscribe([topic])
    records = read(reader, 3)
    reader.close()
    equal("keys and values", [(record.key, record.value) for record in records], [(b"k", b"v"), (b"k", None), (None, b"")])


def check_idempotence():
    topic, count = named("once"), 1000
    create_topic(topic, 1)
    for session in range(2):
        sender = producer(batch_size=1000, linger_ms=1)
        sent = [sender.send(topic, f"{session}-{number}".encode()) for number in range(count)]
        sender.flush(60)
        equal("the acknowledged offsets", [future.get(60).offset for future in sent], list(range(session * count, (session + 1) * count)))
        sender.close()
    reader = consumer()
    reader.subscribe([topic])
    values = [record.value for record in read(reader, 2 * count)]
    reader.close()
    equal("what is stored", values, [f"{session}-{number}".encode() for session in range(2) for number in range(count)])


def body():
    check_codecs()
    check_tombstones()
    check_idempotence()


main("kafka-python produce: codecs, acks, keys, headers, tombstones, idempotence", body)
