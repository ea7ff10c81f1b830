"""Ends of a partition, offsets by time, seeking and pausing without a group's help."""

from kafka import TopicPartition

from support import consumer, create_topic, equal, main, named, numbers, producer, read

START = 1_700_000_000_000


def body():
    topic = named("times")
    create_topic(topic, 2)
    sender = producer()
    for number in range(100):
        sender.send(topic, str(number).encode(), partition=0, timestamp_ms=START + 1000 * number).get(60)
    for number in range(10):
        sender.send(topic, str(number).encode(), partition=1).get(60)
    sender.close()
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    reader = consumer()
    equal("the starts", reader.beginning_offsets([first, second]), {first: 0, second: 0})
    equal("the ends", reader.end_offsets([first, second]), {first: 100, second: 10})
    for asked, expected in [(-1, 0), (42_000, 42), (42_001, 43), (99_000, 99)]:
        found = reader.offsets_for_times({first: START + asked})[first]
        equal(f"the offset at {asked}", (found.offset, found.timestamp), (expected, START + 1000 * expected))
    equal("the offset after the end", reader.offsets_for_times({first: START + 99_001})[first], None)

    reader.assign([first, second])
    reader.seek(first, 95)
    reader.seek(second, 10)
    equal("the last five", numbers(read(reader, 5)), list(range(95, 100)))
    equal("the position", reader.position(first), 100)
    reader.seek_to_beginning(first, second)
    reader.pause(first)
    equal("the partition that is not paused", numbers(read(reader, 10)), list(range(10)))
    reader.resume(first)
    equal("the partition after its pause", numbers(read(reader, 100)), list(range(100)))
    reader.close()


main("kafka-python offsets: ends, offsets for times, seeking, pausing", body)
