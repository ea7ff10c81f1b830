"""Transactions over partitions: committed, aborted and open ones, a fenced producer, and offsets that move with what was
made of them."""

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from support import Deliveries, admin, consumer, create_topic, main, named, poll, producer, until

PARTITIONS = 3


def transactional(transactional_id):
    sender = producer(transactional_id=transactional_id)
    sender.init_transactions(60)
    return sender


def send_everywhere(sender, topic, value):
    for partition in range(PARTITIONS):
        sender.produce(topic, value.encode(), partition=partition)
    assert sender.flush(60) == 0


def end_of(partition, level):
    client = admin()
    return client.list_offsets({partition: OffsetSpec.latest()}, isolation_level=level)[partition].result(30).offset


def values(topic, partition, level):
    """What a reader sees of the partition, to the end that it may see."""
    reader = consumer(named("readers"), isolation_level=level, enable_partition_eof=False)
    end = end_of(TopicPartition(topic, partition), IsolationLevel[level.upper()])
    reader.assign([TopicPartition(topic, partition, 0)])
    records = []

    def at_the_end():
        poll(reader, records)
        [position] = reader.position([TopicPartition(topic, partition)])
        # Its position moves with records only, so markers at the end are left.
        return position.offset >= end - 1 or (records and records[-1].offset() >= end - 2)

    until("the reader is at the end", at_the_end)
    poll(reader, records, 0.5)
    reader.close()
    return [message.value().decode() for message in records]


def check_commit_and_abort():
    topic = named("ledger")
    create_topic(topic, PARTITIONS)
    sender, partition = transactional(named("ledger-writer")), TopicPartition(topic, 0)
    for number in range(20):
        sender.begin_transaction()
        send_everywhere(sender, topic, str(number))
        sender.abort_transaction(60) if number % 4 == 2 else sender.commit_transaction(60)
    sender.begin_transaction()
    send_everywhere(sender, topic, "open")
    # Each of the 20 transactions put a record and a marker into the partition, and the open one a record.
    assert end_of(partition, IsolationLevel.READ_COMMITTED) == 40
    assert end_of(partition, IsolationLevel.READ_UNCOMMITTED) == 41
    assert values(topic, 0, "read_committed") == [str(number) for number in range(20) if number % 4 != 2]
    assert values(topic, 0, "read_uncommitted") == [*map(str, range(20)), "open"]
    sender.abort_transaction(60)
    until("nothing is open", lambda: end_of(partition, IsolationLevel.READ_COMMITTED) == 42)


def check_fencing():
    topic, transactional_id = named("fenced"), named("twins")
    create_topic(topic, PARTITIONS)
    zombie = transactional(transactional_id)
    zombie.begin_transaction()
    send_everywhere(zombie, topic, "zombie")
    heir = transactional(transactional_id)
    try:
        zombie.commit_transaction(60)
        raise AssertionError("the fenced producer could commit")
    except KafkaException as refused:
        assert refused.args[0].fatal(), refused
    heir.begin_transaction()
    send_everywhere(heir, topic, "heir")
    heir.commit_transaction(60)
    for partition in range(PARTITIONS):
        assert values(topic, partition, "read_committed") == ["heir"]


def check_transforming():
    """Every record of one topic is doubled into the other exactly once, although every third transaction is aborted."""
    source, target, group, count = named("numbers"), named("doubles"), named("doublers"), 150
    create_topic(source, PARTITIONS)
    create_topic(target, PARTITIONS)
    filler, sent = producer(), Deliveries()
    for number in range(count):
        filler.produce(source, str(number).encode(), partition=number % PARTITIONS, on_delivery=sent)
    assert filler.flush(60) == 0 and len(sent.records) == count
    reader, sender = consumer(group, isolation_level="read_committed"), transactional(named("doubler"))
    reader.subscribe([source])
    done, attempt = 0, 0
    while done < count:
        records = []
        until("records have come", lambda: poll(reader, records) or len(records) >= min(10, count - done))
        sender.begin_transaction()
        for record in records:
            sender.produce(target, str(2 * int(record.value())).encode(), partition=record.partition())
        sender.send_offsets_to_transaction(reader.position(reader.assignment()), reader.consumer_group_metadata(), 60)
        if attempt % 3 == 2:
            sender.abort_transaction(60)
            for committed in reader.committed(reader.assignment(), timeout=30):
                reader.seek(TopicPartition(source, committed.partition, max(committed.offset, 0)))
        else:
            sender.commit_transaction(60)
            done += len(records)
        attempt += 1
    assert done == count
    for committed in reader.committed([TopicPartition(source, partition) for partition in range(PARTITIONS)], timeout=30):
        assert committed.offset == count // PARTITIONS, committed
    reader.close()
    for partition in range(PARTITIONS):
        expected = [str(2 * number) for number in range(partition, count, PARTITIONS)]
        assert values(target, partition, "read_committed") == expected


def body():
    check_commit_and_abort()
    check_fencing()
    check_transforming()


main("python transactions: commit, abort, fencing, consume-transform-produce", body)
