"""Topics, their settings and partitions, and groups: created, listed, described and deleted by the admin client."""

from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException
from confluent_kafka.admin import ConfigResource, NewPartitions, NewTopic

from support import admin, consumer, main, named, poll, producer, until


def results(futures):
    return {name: future.result(30) for name, future in futures.items()}


def error_of(future):
    try:
        future.result(30)
    except KafkaException as exception:
        return exception.args[0].code()
    return None


def check_topics(client, topic):
    new = NewTopic(topic, num_partitions=3, replication_factor=1, config={"retention.ms": "60000", "cleanup.policy": "compact"})
    results(client.create_topics([new]))
    assert error_of(client.create_topics([new])[topic]) == KafkaError.TOPIC_ALREADY_EXISTS
    bad = NewTopic(named("bad name!"), num_partitions=1, replication_factor=1)
    assert error_of(client.create_topics([bad])[bad.topic]) == KafkaError.TOPIC_EXCEPTION
    tried = NewTopic(named("dry-run"), num_partitions=1, replication_factor=1)
    results(client.create_topics([tried], validate_only=True))

    until("the topic shows", lambda: topic in client.list_topics(timeout=30).topics)
    metadata = client.list_topics(timeout=30)
    assert tried.topic not in metadata.topics
    assert len(metadata.topics[topic].partitions) == 3
    assert len(metadata.brokers) == 1

    results(client.create_partitions([NewPartitions(topic, 5)]))
    assert error_of(client.create_partitions([NewPartitions(topic, 2)])[topic]) == KafkaError.INVALID_PARTITIONS
    until("the new partitions show", lambda: len(client.list_topics(topic, timeout=30).topics[topic].partitions) == 5)

    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    [config] = results(client.describe_configs([resource])).values()
    assert config["retention.ms"].value == "60000", config["retention.ms"]
    assert config["cleanup.policy"].value == "compact"
    assert not config["retention.ms"].is_default
    assert config["segment.bytes"].value == str(1 << 30) and config["segment.bytes"].is_default


def check_groups(client, topic, group):
    sender = producer()
    for number in range(10):
        sender.produce(topic, str(number).encode(), key=b"k")
    assert sender.flush(30) == 0
    member, seen = consumer(group), []
    member.subscribe([topic])
    until("all is seen", lambda: poll(member, seen) or len(seen) >= 10)
    member.commit(asynchronous=False)

    listed = {entry.group_id: entry for entry in client.list_consumer_groups().result(30).valid}
    assert group in listed and listed[group].state == ConsumerGroupState.STABLE
    described = results(client.describe_consumer_groups([group]))[group]
    assert described.state == ConsumerGroupState.STABLE
    assert described.partition_assignor == "range"
    [of_member] = described.members
    assert of_member.client_id == "rdkafka"
    assert len(of_member.assignment.topic_partitions) == 5
    assert error_of(client.delete_consumer_groups([group])[group]) == KafkaError.NON_EMPTY_GROUP

    member.close()
    until("the group is empty", lambda: results(client.describe_consumer_groups([group]))[group].state == ConsumerGroupState.EMPTY)
    results(client.delete_consumer_groups([group]))
    assert group not in {entry.group_id for entry in client.list_consumer_groups().result(30).valid}
    assert error_of(client.delete_consumer_groups([group])[group]) == KafkaError.GROUP_ID_NOT_FOUND


def body():
    client, topic = admin(), named("managed")
    check_topics(client, topic)
    check_groups(client, topic, named("managed-group"))
    results(client.delete_topics([topic]))
    until("the topic is gone", lambda: topic not in client.list_topics(timeout=30).topics)
    assert error_of(client.delete_topics([topic])[topic]) == KafkaError.UNKNOWN_TOPIC_OR_PART


main("python admin: topics, settings, partitions, groups", body)
