//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs.

use serde_json::{Value, json};

use crate::run::{Run, Scenario};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "DescribeConfigs", name: "a topic's configs", body: of_a_topic },
    Scenario { api: "DescribeConfigs", name: "resources that are wrong", body: wrong_resources },
    Scenario { api: "DescribeConfigs", name: "each field changed", body: changed_question },
    Scenario { api: "AlterConfigs", name: "all of a topic's configs", body: alter },
    Scenario { api: "AlterConfigs", name: "each field changed", body: changed_alteration },
    Scenario { api: "IncrementalAlterConfigs", name: "some of a topic's configs", body: alter_some },
    Scenario { api: "IncrementalAlterConfigs", name: "each field changed", body: changed_step },
];

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

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
    run.ask(
        "the broker's",
        question(BROKER, "1", json!(["num.partitions", "node.id", "auto.create.topics.enable"])),
    );
}

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
    configs_of(run, &topic.name);
}

fn changed_alteration(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let body = alteration(TOPIC, &topic.name, json!([{"name": "retention.ms", "value": "1000"}]));
    // The list of resources is the scenario's above: one that is named twice, Kafka does not answer.
    let first = json!({"resources": []});
    run.ask("nothing", first);
    run.mutate_within(&body, "resources", &["resources.resourceType"]);
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
