"""Topics, their settings and partitions, and groups: created, listed, described and deleted by the admin client, as far
as this client can."""

from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidPartitionsError

from support import admin, consumer, equal, fill, main, named, read, wait_for_partitions

NO_ERROR, UNKNOWN_TOPIC, INVALID_TOPIC, TOPIC_EXISTS = 0, 3, 17, 36


async def setting(client, topic, name):
    [answer] = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    [resource] = answer.resources
    [found] = [config for config in resource[4] if config[0] == name]
    return found[1]


async def check_topics(client, topic):
    wanted = NewTopic(topic, 3, 1, topic_configs={"retention.ms": "60000", "cleanup.policy": "delete"})

    async def create(new, **settings):
        answer = await client.create_topics([new], **settings)
        return answer.topic_errors[0][1]

    equal("creating", await create(wanted), NO_ERROR)
    equal("creating again", await create(wanted), TOPIC_EXISTS)
    equal("a bad name", await create(NewTopic(named("bad name!"), 1, 1)), INVALID_TOPIC)
    tried = named("dry-run")
    equal("only trying", await create(NewTopic(tried, 1, 1), validate_only=True), NO_ERROR)
    await wait_for_partitions(client, topic, 3)
    listed = await client.list_topics()
    equal("the topics listed", (topic in listed, tried in listed), (True, False))
    equal("the brokers", len((await client.describe_cluster())["brokers"]), 1)

    await client.create_partitions({topic: NewPartitions(5)})
    try:
        await client.create_partitions({topic: NewPartitions(2)})
        raise AssertionError("there can be fewer partitions")
    except InvalidPartitionsError:
        pass
    await wait_for_partitions(client, topic, 5)
    equal("the setting", await setting(client, topic, "retention.ms"), "60000")
    await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "120000"})])
    equal("the altered setting", await setting(client, topic, "retention.ms"), "120000")


async def check_groups(client, topic, group):
    await fill(topic, 5, 0, 10)
    async with consumer(topic, group=group) as member:
        await read(member, 10)
        await member.commit()
        equal("the group listed", (group, "consumer") in [found[:2] for found in await client.list_consumer_groups()], True)
        [answer] = await client.describe_consumer_groups([group])
        [(error, name, state, protocol_type, protocol, members, *_)] = answer.groups
        equal("the group described", (error, name, state, protocol_type, protocol), (0, group, "Stable", "consumer", "roundrobin"))
        equal("the members", len(members), 1)
    committed = await client.list_consumer_group_offsets(group)
    equal("the committed offsets", {partition: found.offset for partition, found in committed.items()},
          {TopicPartition(topic, partition): 2 for partition in range(5)})


async def body():
    async with admin() as client:
        topic = named("managed")
        await check_topics(client, topic)
        await check_groups(client, topic, named("managed-group"))
        answer = await client.delete_topics([topic])
        equal("deleting", list(answer.topic_error_codes), [(topic, NO_ERROR)])
        answer = await client.delete_topics([topic])
        equal("deleting again", list(answer.topic_error_codes), [(topic, UNKNOWN_TOPIC)])


main("aiokafka admin: topics, settings, partitions, groups", body)
