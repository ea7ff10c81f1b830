"""Ends of a partition, offsets by time, and reading from a chosen offset without a group's help."""

from confluent_kafka import OFFSET_END, TopicPartition
from confluent_kafka.admin import OffsetSpec

from support import admin, consumer, create_topic, main, named, poll, producer, until

START = 1_700_000_000_000


def body():
    topic = named("times")
    create_topic(topic, 1)
    sender = producer(linger_ms=0)
    for number in range(100):
        sender.produce(topic, str(number).encode(), timestamp=START + 1000 * number)
        if number % 10 == 9:
            assert sender.flush(30) == 0
    reader = consumer(named("seekers"))
    assert reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=30) == (0, 100)

    def offset_at(timestamp):
        [found] = reader.offsets_for_times([TopicPartition(topic, 0, timestamp)], timeout=30)
        return found.offset

    assert offset_at(START - 1) == 0
    assert offset_at(START + 42_000) == 42
    assert offset_at(START + 42_001) == 43
    assert offset_at(START + 99_000) == 99
    assert offset_at(START + 99_001) == OFFSET_END

    client = admin()
    for spec, expected in [(OffsetSpec.earliest(), 0), (OffsetSpec.latest(), 100), (OffsetSpec.max_timestamp(), 99)]:
        partition = TopicPartition(topic, 0)
        found = client.list_offsets({partition: spec})[partition].result(30)
        assert found.offset == expected, (spec, found.offset)

    reader.assign([TopicPartition(topic, 0, 95)])
    seen = []
    until("the last five arrive", lambda: poll(reader, seen) or len(seen) >= 5)
    assert [message.offset() for message in seen] == list(range(95, 100))
    reader.seek(TopicPartition(topic, 0, 10))
    again = []
    until("the sought record arrives", lambda: poll(reader, again) or len(again) >= 1)
    assert again[0].offset() == 10
    partition, paused = TopicPartition(topic, 0, 50), []
    reader.seek(partition)
    reader.pause([partition])
    poll(reader, paused, 0.3)
    assert paused == []
    reader.resume([partition])
    until("the partition comes after its pause", lambda: poll(reader, paused) or len(paused) >= 50)
    assert [message.offset() for message in paused] == list(range(50, 100))
    reader.close()


main("python offsets: watermarks, offsets for times, seeking, pausing", body)
