"""Topics, their settings and partitions, and groups: created, listed, described and deleted by the admin client."""

from kafka import OffsetAndMetadata, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import (GroupIdNotFoundError, InvalidPartitionsError, InvalidTopicError, NonEmptyGroupError,
                          TopicAlreadyExistsError, UnknownTopicOrPartitionError)

from support import admin, consumer, equal, fails, fill, main, named, read, until


def setting(client, topic, name):
    described = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    return described["topic"][topic][name]["value"]


def check_topics(client, topic):
    wanted = {topic: {"num_partitions": 3, "replication_factor": 1, "configs": {"retention.ms": "60000", "cleanup.policy": "delete"}}}
    client.create_topics(wanted, wait_for_metadata=True)
    fails(TopicAlreadyExistsError, client.create_topics, wanted)
    fails(InvalidTopicError, client.create_topics, [named("bad name!")])
    tried = named("dry-run")
    client.create_topics([tried], validate_only=True)
    listed = client.list_topics()
    equal("the topics listed", (topic in listed, tried in listed), (True, False))
    [described] = client.describe_topics([topic])
    equal("the partitions", len(described["partitions"]), 3)
    equal("the brokers", len(client.describe_cluster()["brokers"]), 1)

    client.create_partitions({topic: 5})
    fails(InvalidPartitionsError, client.create_partitions, {topic: 2})
    equal("the setting", setting(client, topic, "retention.ms"), "60000")
    client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "120000"})])
    until("the setting is altered", lambda: setting(client, topic, "retention.ms") == "120000")
    equal("the other setting", setting(client, topic, "cleanup.policy"), "delete")


def check_groups(client, topic, group):
    fill(topic, 5, 0, 10)
    member = consumer(group)
    member.subscribe([topic])
    read(member, 10)
    member.commit()
    equal("the group listed", [found["protocol_type"] for found in client.list_groups() if found["group_id"] == group], ["consumer"])
    described = client.describe_groups([group])[group]
    equal("the state and the assignor", (described["group_state"], described["protocol_data"]), ("Stable", "range"))
    equal("the members", len(described["members"]), 1)
    equal("deleting a group with members", client.delete_groups([group]), {group: NonEmptyGroupError.__name__})
    member.close()

    committed = client.list_group_offsets([group])[group]
    equal("the committed offsets", {partition.partition: found.offset for partition, found in committed.items()}, dict.fromkeys(range(5), 2))
    client.alter_group_offsets(group, {TopicPartition(topic, 0): OffsetAndMetadata(1, "altered", -1)})
    client.delete_group_offsets(group, [TopicPartition(topic, 1)])
    committed = client.list_group_offsets([group])[group]
    equal("the altered offset", committed[TopicPartition(topic, 0)].offset, 1)
    equal("the deleted offset", TopicPartition(topic, 1) in committed, False)
    equal("deleting the group", client.delete_groups([group]), {group: "OK"})
    equal("deleting it again", client.delete_groups([group]), {group: GroupIdNotFoundError.__name__})


def body():
    client, topic = admin(), named("managed")
    check_topics(client, topic)
    check_groups(client, topic, named("managed-group"))
    client.delete_topics([topic])
    until("the topic is gone", lambda: topic not in client.list_topics())
    fails(UnknownTopicOrPartitionError, client.delete_topics, [topic])


main("kafka-python admin: topics, settings, partitions, groups", body)
