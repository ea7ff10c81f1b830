"""Transactions over partitions: committed, aborted and open ones, a fenced producer, and offsets that move with what was
made of them."""

from kafka import OffsetAndMetadata, TopicPartition
from kafka.admin import OffsetSpec, TransactionState
from kafka.errors import InvalidProducerEpochError, ProducerFencedError
from kafka.protocol.consumer.offsets import IsolationLevel

from support import admin, consumer, create_topic, equal, fill, main, named, poll, producer, until

PARTITIONS = 3


def transactional(transactional_id):
    sender = producer(transactional_id=transactional_id)
    sender.init_transactions()
    return sender


def send_everywhere(sender, topic, value):
    sent = [sender.send(topic, value.encode(), partition=partition) for partition in range(PARTITIONS)]
    for future in sent:
        future.get(60)


def values(partition, level):
    """What a reader without a group sees of the partition, to the end that it may see."""
    reader = consumer(isolation_level=level)
    reader.assign([partition])
    reader.seek_to_beginning(partition)
    end, records = reader.end_offsets([partition])[partition], []
    until("the reader is at the end", lambda: poll(reader, records) or reader.position(partition) == end)
    reader.close()
    return [record.value.decode() for record in records], end


def check_commit_and_abort():
    topic = named("ledger")
    create_topic(topic, PARTITIONS)
    sender, partition = transactional(named("ledger-writer")), TopicPartition(topic, 0)
    for number in range(20):
        sender.begin_transaction()
        send_everywhere(sender, topic, str(number))
        sender.abort_transaction() if number % 4 == 3 else sender.commit_transaction()
    sender.begin_transaction()
    send_everywhere(sender, topic, "open")
    # Each of the 20 transactions put a record and a marker into the partition, and the open one a record.
    equal("what is committed", values(partition, "read_committed"), ([str(number) for number in range(20) if number % 4 != 3], 40))
    equal("what is there", values(partition, "read_uncommitted"), ([*map(str, range(20)), "open"], 41))
    client = admin()
    [described] = client.describe_transactions([sender.config["transactional_id"]]).values()
    equal("the state", described.state, TransactionState.ONGOING)
    sender.abort_transaction()

    def stable_end():
        found = client.list_partition_offsets({partition: OffsetSpec.LATEST}, isolation_level=IsolationLevel.READ_COMMITTED)
        return found[partition].offset

    until("nothing is open", lambda: stable_end() == 42)
    client.close()
    sender.close()


def check_fencing():
    topic, transactional_id = named("fenced"), named("twins")
    create_topic(topic, PARTITIONS)
    zombie = transactional(transactional_id)
    zombie.begin_transaction()
    send_everywhere(zombie, topic, "zombie")
    heir = transactional(transactional_id)
    try:
        # One record only: the client refuses further ones in its own words once it has heard of the first.
        zombie.send(topic, b"late", partition=0).get(60)
        raise AssertionError("the fenced producer could send")
    except (ProducerFencedError, InvalidProducerEpochError):
        pass
    heir.begin_transaction()
    send_everywhere(heir, topic, "heir")
    heir.commit_transaction()
    heir.close()
    for partition in range(PARTITIONS):
        equal("what is committed", values(TopicPartition(topic, partition), "read_committed")[0], ["heir"])


def check_transforming():
    """Every record of one topic is doubled into the other exactly once, although every third transaction is aborted."""
    source, target, group, count = named("numbers"), named("doubles"), named("doublers"), 150
    create_topic(source, PARTITIONS)
    create_topic(target, PARTITIONS)
    fill(source, PARTITIONS, 0, count)
    reader = consumer(group, isolation_level="read_committed", max_poll_records=10)
    reader.subscribe([source])
    sender, done, attempt = transactional(named("doubler")), 0, 0
    while done < count:
        records = []
        until("records have come", lambda: poll(reader, records) or records)
        sender.begin_transaction()
        offsets = {}
        for record in records:
            sender.send(target, str(2 * int(record.value)).encode(), partition=record.partition)
            offsets[TopicPartition(source, record.partition)] = OffsetAndMetadata(record.offset + 1, "", -1)
        sender.send_offsets_to_transaction(offsets, reader.group_metadata())
        if attempt % 3 == 2:
            sender.abort_transaction()
            for partition in reader.assignment():
                reader.seek(partition, reader.committed(partition) or 0)
        else:
            sender.commit_transaction()
            done += len(records)
        attempt += 1
    equal("the number of records", done, count)
    for partition in range(PARTITIONS):
        expected = [str(2 * number) for number in range(partition, count, PARTITIONS)]
        equal("the doubles", values(TopicPartition(target, partition), "read_committed")[0], expected)
        equal("the committed offset", reader.committed(TopicPartition(source, partition)), count // PARTITIONS)
    reader.close()
    sender.close()


def body():
    check_commit_and_abort()
    check_fencing()
    check_transforming()


main("kafka-python transactions: commit, abort, fencing, consume-transform-produce", body)
