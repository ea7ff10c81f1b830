//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs.

use serde_json::{Value, json};

use crate::run::{Run, Scenario};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "DescribeConfigs", name: "a topic's configs", body: of_a_topic },
    Scenario { api: "DescribeConfigs", name: "the broker's configs", body: of_the_broker },
    Scenario { api: "DescribeConfigs", name: "resources that are wrong", body: wrong_resources },
    Scenario { api: "DescribeConfigs", name: "each field changed", body: changed_question },
    Scenario { api: "DescribeConfigs", name: "a group's configs", body: of_a_group },
    Scenario { api: "IncrementalAlterConfigs", name: "some of a group's configs", body: alter_group },
    Scenario { api: "AlterConfigs", name: "all of a group's configs", body: replace_group },
    Scenario { api: "AlterConfigs", name: "all of a topic's configs", body: alter },
    Scenario { api: "AlterConfigs", name: "each field changed", body: changed_alteration },
    Scenario { api: "IncrementalAlterConfigs", name: "some of a topic's configs", body: alter_some },
    Scenario { api: "IncrementalAlterConfigs", name: "each field changed", body: changed_step },
];

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GROUP: i8 = 32;

fn question(kind: i8, name: &str, keys: Value) -> Value {
    json!({"resources": [{"resourceType": kind, "resourceName": name, "configurationKeys": keys}], "includeSynonyms": true})
}

fn of_a_topic(run: &mut Run<'_>) {
    let topic = run.topic_with("orders", 1, json!([{"name": "retention.ms", "value": "1000"}]));
    run.ask("two", question(TOPIC, &topic.name, json!(["retention.ms", "cleanup.policy"])));
    run.ask("one that there is not", question(TOPIC, &topic.name, json!(["no.such.config"])));
    run.ask("none", question(TOPIC, &topic.name, json!([])));
    run.ask("all", question(TOPIC, &topic.name, Value::Null));
    let mut body = question(TOPIC, &topic.name, Value::Null);
    body["includeSynonyms"] = false.into();
    run.ask("all without where they come from", body);
}

/// What both know: defaults, types and where a value comes from.
fn of_the_broker(run: &mut Run<'_>) {
    run.ask("by number", question(BROKER, "1", json!(BROKER_CONFIGS)));
    run.ask("one that there is not", question(BROKER, "1", json!(["no.such.config"])));
    // Without a number it is about what all brokers were given while they ran.
    run.ask("of all brokers", question(BROKER, "", Value::Null));
}

/// Whatever a group has been given, it need not exist.
fn of_a_group(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.ask("all", question(GROUP, &group, Value::Null));
    run.ask("one", question(GROUP, &group, json!([SESSION])));
    run.ask("one that there is not", question(GROUP, &group, json!(["no.such.config"])));
    run.ask("without a name", question(GROUP, "", Value::Null));
}

const SESSION: &str = "consumer.session.timeout.ms";
const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";

fn group_configs(run: &mut Run<'_>, group: &str) {
    run.catch_up();
    run.ask_other(
        "what they are now",
        "DescribeConfigs",
        question(GROUP, group, json!([SESSION, HEARTBEAT])),
    );
}

fn group_step(group: &str, operation: i8, config: &str, value: Value) -> Value {
    json!({"resources": [{"resourceType": GROUP, "resourceName": group,
        "configs": [{"name": config, "configOperation": operation, "value": value}]}], "validateOnly": false})
}

fn alter_group(run: &mut Run<'_>) {
    let group = run.name("readers");
    let cases = [
        (0, SESSION, json!("50000")),
        (0, HEARTBEAT, json!("7000")),
        (0, SESSION, json!("44999")),
        (0, SESSION, json!("60000")),
        (0, SESSION, json!("60001")),
        (0, HEARTBEAT, json!("4999")),
        (0, HEARTBEAT, json!("15001")),
        (0, HEARTBEAT, json!("text")),
        (0, HEARTBEAT, Value::Null),
        (2, HEARTBEAT, json!("1")),
        (1, SESSION, Value::Null),
        (1, SESSION, Value::Null),
        (0, "no.such.config", json!("1")),
    ];
    for (operation, config, value) in cases {
        run.ask(&format!("{config} {operation} {value}"), group_step(&group, operation, config, value));
    }
    group_configs(run, &group);
    run.ask("without a name", group_step("", 0, SESSION, json!("50000")));
    let (topic, version) = (run.topic("orders", 1), run.newest("ConsumerGroupHeartbeat"));
    run.find_coordinator(&group);
    let join = json!({"groupId": group, "memberId": "a-member", "memberEpoch": 0, "rebalanceTimeoutMs": 30_000,
        "subscribedTopicNames": [topic.name], "topicPartitions": []});
    run.ask_version("what a member is told", "ConsumerGroupHeartbeat", version, join);
}

fn replace_group(run: &mut Run<'_>) {
    let group = run.name("readers");
    let config = |name: &str, value: &str| json!({"name": name, "value": value});
    let cases = [
        ("two", json!([config(SESSION, "50000"), config(HEARTBEAT, "7000")])),
        ("one", json!([config(HEARTBEAT, "8000")])),
        ("a wrong one", json!([config(HEARTBEAT, "1")])),
    ];
    for (what, configs) in cases {
        run.ask(what, alteration(GROUP, &group, configs));
        group_configs(run, &group);
    }
    run.ask("none", alteration(GROUP, &group, json!([])));
    group_configs(run, &group);
}

const BROKER_CONFIGS: &[&str] = &[
    "auto.create.topics.enable",
    "compression.type",
    "connections.max.idle.ms",
    "default.replication.factor",
    "delete.topic.enable",
    "fetch.max.bytes",
    "group.consumer.heartbeat.interval.ms",
    "group.consumer.max.heartbeat.interval.ms",
    "group.consumer.max.session.timeout.ms",
    "group.consumer.max.size",
    "group.consumer.migration.policy",
    "group.consumer.min.heartbeat.interval.ms",
    "group.consumer.min.session.timeout.ms",
    "group.consumer.session.timeout.ms",
    "group.max.session.timeout.ms",
    "group.max.size",
    "group.min.session.timeout.ms",
    "log.cleaner.backoff.ms",
    "log.cleaner.delete.retention.ms",
    "log.cleaner.max.compaction.lag.ms",
    "log.cleaner.min.cleanable.ratio",
    "log.cleaner.min.compaction.lag.ms",
    "log.cleanup.policy",
    "log.flush.interval.messages",
    "log.flush.interval.ms",
    "log.index.interval.bytes",
    "log.index.size.max.bytes",
    "log.message.timestamp.after.max.ms",
    "log.message.timestamp.before.max.ms",
    "log.message.timestamp.type",
    "log.preallocate",
    "log.retention.bytes",
    "log.retention.check.interval.ms",
    "log.retention.hours",
    "log.retention.minutes",
    "log.retention.ms",
    "log.roll.hours",
    "log.roll.jitter.hours",
    "log.roll.jitter.ms",
    "log.roll.ms",
    "log.segment.bytes",
    "log.segment.delete.delay.ms",
    "max.connections",
    "max.incremental.fetch.session.cache.slots",
    "message.max.bytes",
    "min.insync.replicas",
    "num.partitions",
    "offset.metadata.max.bytes",
    "offsets.retention.check.interval.ms",
    "offsets.retention.minutes",
    "offsets.topic.segment.bytes",
    "producer.id.expiration.ms",
    "socket.request.max.bytes",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms",
    "transaction.max.timeout.ms",
    "transaction.remove.expired.transaction.cleanup.interval.ms",
    "transaction.state.log.segment.bytes",
    "transactional.id.expiration.ms",
    "unclean.leader.election.enable",
];

fn wrong_resources(run: &mut Run<'_>) {
    let unknown = run.name("unknown");
    run.ask("an unknown topic", question(TOPIC, &unknown, Value::Null));
    run.ask("a topic without a name", question(TOPIC, "", Value::Null));
    run.ask("an impossible topic", question(TOPIC, "a/b", Value::Null));
    run.ask("another broker", question(BROKER, "9", Value::Null));
    run.ask("a broker that is no number", question(BROKER, "one", Value::Null));
    run.ask("a kind of resource that there is not", question(99, "a", Value::Null));
    run.ask("a kind of resource that is not known", question(0, "a", Value::Null));
    let topic = run.topic("orders", 1);
    let one = question(TOPIC, &topic.name, json!(["retention.ms"]))["resources"][0].clone();
    let other = question(TOPIC, &unknown, json!(["retention.ms"]))["resources"][0].clone();
    run.ask("known and unknown", json!({"resources": [one, other]}));
    run.ask("one twice", json!({"resources": [one, one]}));
    run.ask("nothing", json!({"resources": []}));
}

fn changed_question(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let body = question(TOPIC, &topic.name, json!(["retention.ms"]));
    // Numbers of kinds that only clusters have are asked for above; all configs of a topic as well.
    run.mutate(&body, &["resources.resourceType", "resources.configurationKeys"]);
}

fn alteration(kind: i8, name: &str, configs: Value) -> Value {
    json!({"resources": [{"resourceType": kind, "resourceName": name, "configs": configs}], "validateOnly": false})
}

/// What a topic's configs are now.
fn configs_of(run: &mut Run<'_>, topic: &str) {
    run.catch_up();
    run.ask_other(
        "what they are now",
        "DescribeConfigs",
        question(TOPIC, topic, json!(["retention.ms", "cleanup.policy", "max.message.bytes"])),
    );
}

fn alter(run: &mut Run<'_>) {
    let topic = run.topic_with("orders", 1, json!([{"name": "retention.ms", "value": "1000"}]));
    let config = |name: &str, value: Value| json!({"name": name, "value": value});
    let cases = [
        ("another", json!([config("cleanup.policy", json!("compact"))])),
        ("two", json!([config("retention.ms", json!("5")), config("max.message.bytes", json!("7"))])),
        ("one twice", json!([config("retention.ms", json!("5")), config("retention.ms", json!("6"))])),
        ("null", json!([config("retention.ms", Value::Null)])),
        ("a wrong value", json!([config("retention.ms", json!("text"))])),
        ("one that there is not", json!([config("no.such.config", json!("1"))])),
        ("none", json!([])),
    ];
    for (what, configs) in cases {
        run.ask(what, alteration(TOPIC, &topic.name, configs));
        configs_of(run, &topic.name);
    }
    let unknown = run.name("unknown");
    run.ask("of an unknown topic", alteration(TOPIC, &unknown, json!([])));
    let good =
        alteration(TOPIC, &topic.name, json!([config("retention.ms", json!("9"))]))["resources"][0].clone();
    let bad = alteration(TOPIC, &unknown, json!([]))["resources"][0].clone();
    run.ask("of a known and an unknown topic", json!({"resources": [good, bad]}));
    // For an answer that does not come, one version waits long enough.
    if run.version == run.newest("AlterConfigs") {
        run.ask("of a topic twice", json!({"resources": [good, good]}));
        run.ask("of a topic twice and another", json!({"resources": [good, bad, good]}));
    }
    configs_of(run, &topic.name);
}

fn changed_alteration(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let body = alteration(TOPIC, &topic.name, json!([{"name": "retention.ms", "value": "1000"}]));
    run.mutate_within(&body, "resources", &["resources.resourceType"]);
    run.ask("nothing", json!({"resources": []}));
}

fn step(name: &str, operation: i8, config: &str, value: Value) -> Value {
    json!({"resources": [{"resourceType": TOPIC, "resourceName": name,
        "configs": [{"name": config, "configOperation": operation, "value": value}]}], "validateOnly": false})
}

fn alter_some(run: &mut Run<'_>) {
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    const APPEND: i8 = 2;
    const SUBTRACT: i8 = 3;
    let topic = run.topic_with("orders", 1, json!([{"name": "retention.ms", "value": "1000"}]));
    let cases = [
        ("set", SET, "max.message.bytes", json!("100")),
        ("set to nothing", SET, "max.message.bytes", Value::Null),
        ("delete", DELETE, "retention.ms", Value::Null),
        ("delete with a value", DELETE, "retention.ms", json!("5")),
        ("append to a list", APPEND, "cleanup.policy", json!("compact")),
        ("append the same", APPEND, "cleanup.policy", json!("compact")),
        ("take from a list", SUBTRACT, "cleanup.policy", json!("delete")),
        ("take what is not there", SUBTRACT, "cleanup.policy", json!("delete")),
        ("take all of a list", SUBTRACT, "cleanup.policy", json!("compact")),
        ("append to an empty list", APPEND, "cleanup.policy", json!("compact")),
        ("set a list with spaces and repetitions", SET, "cleanup.policy", json!("compact, delete,compact")),
        ("set a switch in capitals", SET, "preallocate", json!("TRUE")),
        ("set a number with a sign", SET, "min.compaction.lag.ms", json!("+100")),
        ("set a number with an exponent", SET, "min.cleanable.dirty.ratio", json!("1e-1")),
        ("set what does not fit to that", SET, "max.compaction.lag.ms", json!("50")),
        ("append to what is no list", APPEND, "retention.ms", json!("5")),
        ("append nothing", APPEND, "cleanup.policy", Value::Null),
        ("an operation that there is not", 9, "retention.ms", json!("5")),
        ("a wrong value", SET, "retention.ms", json!("text")),
        ("one that there is not", SET, "no.such.config", json!("1")),
        ("delete one that there is not", DELETE, "no.such.config", Value::Null),
    ];
    for (what, operation, config, value) in cases {
        run.ask(what, step(&topic.name, operation, config, value));
        configs_of(run, &topic.name);
    }
    let mut twice = step(&topic.name, SET, "retention.ms", json!("5"));
    let config = twice["resources"][0]["configs"][0].clone();
    twice["resources"][0]["configs"] = json!([config, config]);
    run.ask("one twice", twice);
    let mut good_and_bad = step(&topic.name, SET, "retention.ms", json!("77"));
    good_and_bad["resources"][0]["configs"] = json!([{"name": "retention.ms", "configOperation": SET, "value": "77"},
        {"name": "no.such.config", "configOperation": SET, "value": "1"}]);
    run.ask("good and bad", good_and_bad);
    let mut only_checked = step(&topic.name, SET, "retention.ms", json!("78"));
    only_checked["validateOnly"] = true.into();
    run.ask("only checked", only_checked);
    configs_of(run, &topic.name);
}

fn changed_step(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let body = step(&topic.name, 0, "retention.ms", json!("1000"));
    run.mutate(&body, &["resources.resourceType"]);
}
