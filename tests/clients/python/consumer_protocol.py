"""The consumer protocol of KIP-848: the broker assigns, to topics by name and by pattern."""

from confluent_kafka import ConsumerGroupState, ConsumerGroupType

from support import admin, consumer, create_topic, main, named, poll, producer, until

PARTITIONS = 4


def member(group, **settings):
    return consumer(group, group_protocol="consumer", **settings)


def fill(topic, start, end):
    sender = producer()
    for number in range(start, end):
        sender.produce(topic, str(number).encode(), partition=number % PARTITIONS)
    assert sender.flush(60) == 0


def hold(each, seen, *members):
    def check():
        for one in members:
            poll(one, seen, 0.05)
        return all(len(one.assignment()) == each for one in members)

    until(f"every member holds {each}", check)


def see(count, seen, *members):
    def check():
        for one in members:
            poll(one, seen, 0.02)
        return len(seen) >= count

    until(f"{count} are seen", check)


def describe(group):
    client = admin()
    return client.describe_consumer_groups([group])[group].result(30)


def check_sharing(assignor):
    topic, group, seen = named(f"shared-{assignor}"), named(f"share-{assignor}"), []
    create_topic(topic, PARTITIONS)
    first, second = [member(group, group_remote_assignor=assignor) for _ in range(2)]
    first.subscribe([topic])
    hold(PARTITIONS, seen, first)
    second.subscribe([topic])
    hold(PARTITIONS // 2, seen, first, second)
    fill(topic, 0, 400)
    see(400, seen, first, second)
    described = describe(group)
    assert described.type == ConsumerGroupType.CONSUMER, described.type
    assert described.state == ConsumerGroupState.STABLE, described.state
    assert described.partition_assignor == assignor, described.partition_assignor
    assert len(described.members) == 2
    first.commit(asynchronous=False)
    second.commit(asynchronous=False)
    second.close()
    hold(PARTITIONS, seen, first)
    fill(topic, 400, 500)
    see(500, seen, first)
    first.close()
    assert sorted(int(message.value()) for message in seen) == list(range(500))
    print(f"{assignor}: shared evenly")


def check_static():
    topic, group = named("static"), named("static-group")
    create_topic(topic, PARTITIONS)
    stays, restarts = [member(group, group_instance_id=name) for name in "ab"]
    for one in stays, restarts:
        one.subscribe([topic])
    hold(PARTITIONS // 2, [], stays, restarts)
    held = sorted(partition.partition for partition in restarts.assignment())
    restarts.close()
    restarted = member(group, group_instance_id="b")
    restarted.subscribe([topic])
    hold(PARTITIONS // 2, [], stays, restarted)
    assert sorted(partition.partition for partition in restarted.assignment()) == held
    stays.close()
    restarted.close()


def check_pattern():
    prefix = named("pattern")
    create_topic(f"{prefix}-one", 1)
    create_topic(f"other-{prefix}", 1)
    reader = member(named("pattern-group"), topic_metadata_refresh_interval_ms=500)
    reader.subscribe([f"^{prefix}-.*"])
    hold(1, [], reader)
    create_topic(f"{prefix}-two", 2)
    hold(3, [], reader)
    assert {partition.topic for partition in reader.assignment()} == {f"{prefix}-one", f"{prefix}-two"}
    reader.close()


def body():
    check_sharing("uniform")
    check_static()
    check_pattern()


main("python consumer protocol: sharing, static members, patterns", body)
