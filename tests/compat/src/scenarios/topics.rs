//! CreateTopics, CreatePartitions, DeleteTopics: a topic's life, and requests that are wrong.

use serde_json::{Value, json};

use crate::run::{Run, Scenario};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "CreateTopics", name: "a topic's life", body: life },
    Scenario { api: "CreateTopics", name: "each field changed", body: changed_creation },
    Scenario { api: "CreateTopics", name: "topics that are wrong", body: wrong_creations },
    Scenario { api: "CreateTopics", name: "configs that are wrong", body: wrong_configs },
    Scenario { api: "CreatePartitions", name: "more, fewer and wrong partitions", body: grow },
    Scenario { api: "CreatePartitions", name: "each field changed", body: changed_growth },
    Scenario { api: "DeleteTopics", name: "known and unknown topics", body: delete },
    Scenario { api: "DeleteTopics", name: "each field changed", body: changed_deletion },
];

/// The first version that may leave the number of partitions and replicas to the broker.
const DEFAULTS: i16 = 4;
/// The first version of DeleteTopics that names topics by id.
const BY_ID: i16 = 6;

fn creation(topics: Value, validate_only: bool) -> Value {
    json!({"topics": topics, "timeoutMs": 10_000, "validateOnly": validate_only})
}

fn topic(name: &str) -> Value {
    json!({"name": name, "numPartitions": 1, "replicationFactor": 1})
}

fn life(run: &mut Run<'_>) {
    let name = run.name("orders");
    run.ask("only checked", creation(json!([topic(&name)]), true));
    run.ask("created", creation(json!([topic(&name)]), false));
    run.settle(&name, 1);
    run.ask("created again", creation(json!([topic(&name)]), false));
    run.ask("created again, only checked", creation(json!([topic(&name)]), true));
    let metadata = json!({"topics": [{"name": name}], "allowAutoTopicCreation": false});
    run.ask_other("it is there", "Metadata", metadata.clone());
    let growth = json!({"topics": [{"name": name, "count": 3, "assignments": null}], "timeoutMs": 10_000});
    run.ask_other("it grows", "CreatePartitions", growth);
    run.settle(&name, 3);
    run.ask_other("it has grown", "Metadata", metadata.clone());
    let deletion = json!({"topics": [{"name": name}], "timeoutMs": 10_000});
    run.ask_other("deleted", "DeleteTopics", deletion.clone());
    run.ask_until("it is gone", "Metadata", &metadata, |answer| answer["topics"][0]["errorCode"] == 3);
    run.ask_other("deleted again", "DeleteTopics", deletion);
    run.ask("created anew", creation(json!([topic(&name)]), false));
}

/// Only checked, so that a number of partitions that is accepted costs nothing.
fn changed_creation(run: &mut Run<'_>) {
    let body = creation(
        json!([{"name": run.name("orders"), "numPartitions": 1, "replicationFactor": 1,
            "configs": [{"name": "retention.ms", "value": "1000"}]}]),
        true,
    );
    // Kafka lays out 2147483647 partitions before it looks whether it should.
    run.mutate(&body, &["validateOnly", "topics.numPartitions", "timeoutMs"]);
    for count in [-3, -2, -1, 0, 1, 99] {
        let mut changed = body.clone();
        changed["topics"][0]["numPartitions"] = count.into();
        run.ask(&format!("{count} partitions"), changed);
    }
}

fn wrong_creations(run: &mut Run<'_>) {
    let (good, twice, assigned) = (run.name("good"), run.name("twice"), run.name("assigned"));
    run.ask("one twice, one once", creation(json!([topic(&twice), topic(&good), topic(&twice)]), false));
    run.ask("nothing", creation(json!([]), false));
    let named = ["", ".", "..", "a/b", "with space", "ü", &"x".repeat(249), &"x".repeat(250)];
    for name in named {
        run.ask(&format!("the name {name:.20}"), creation(json!([topic(name)]), true));
    }
    run.ask("the name of an internal topic", creation(json!([topic("__consumer_offsets")]), true));
    run.ask("the name of the metadata's log", creation(json!([topic("__cluster_metadata")]), true));
    run.settle(&good, 1);
    let dotted = run.name("a.b");
    run.ask("a name with a dot", creation(json!([topic(&dotted)]), false));
    run.settle(&dotted, 1);
    run.ask("a name that collides", creation(json!([topic(&dotted.replace("a.b", "a_b"))]), false));
    let with = |assignments: Value, count: i32, factor: i32| {
        creation(
            json!([{"name": assigned, "numPartitions": count, "replicationFactor": factor, "assignments": assignments}]),
            true,
        )
    };
    let place = |partition: i32, brokers: &[i32]| json!({"partitionIndex": partition, "brokerIds": brokers});
    run.ask("assigned", with(json!([place(0, &[1]), place(1, &[1])]), -1, -1));
    run.ask("assigned and counted", with(json!([place(0, &[1])]), 1, -1));
    run.ask("assigned and replicated", with(json!([place(0, &[1])]), -1, 1));
    run.ask("assigned to an unknown broker", with(json!([place(0, &[9])]), -1, -1));
    run.ask("assigned twice to one broker", with(json!([place(0, &[1, 1])]), -1, -1));
    run.ask("assigned to nobody", with(json!([place(0, &[])]), -1, -1));
    run.ask("assigned with a hole", with(json!([place(0, &[1]), place(2, &[1])]), -1, -1));
    run.ask("assigned from 1 on", with(json!([place(1, &[1])]), -1, -1));
    run.ask("a partition assigned twice", with(json!([place(0, &[1]), place(0, &[1])]), -1, -1));
    if run.version >= DEFAULTS {
        run.ask("left to the broker", with(json!([]), -1, -1));
    }
}

fn wrong_configs(run: &mut Run<'_>) {
    let configs = [
        ("no.such.config", "1"),
        ("retention.ms", "text"),
        ("retention.ms", "-2"),
        ("retention.ms", ""),
        ("retention.bytes", "-5"),
        ("cleanup.policy", "compact,delete"),
        ("cleanup.policy", "shred"),
        ("cleanup.policy", ""),
        ("compression.type", "zstd"),
        ("compression.type", "brotli"),
        ("segment.bytes", "1"),
        ("segment.ms", "0"),
        ("max.message.bytes", "-1"),
        ("min.insync.replicas", "0"),
        ("min.insync.replicas", "2"),
        ("message.timestamp.type", "Never"),
        ("preallocate", "maybe"),
        ("min.cleanable.dirty.ratio", "2"),
        ("min.compaction.lag.ms", "-1"),
        ("remote.storage.enable", "true"),
        ("unclean.leader.election.enable", "true"),
        ("message.format.version", "2.0"),
        ("flush.messages", "1"),
        ("file.delete.delay.ms", "0"),
        ("index.interval.bytes", "-1"),
        ("message.timestamp.before.max.ms", "-1"),
    ];
    let name = run.name("orders");
    for (config, value) in configs {
        let topic = json!({"name": name, "numPartitions": 1, "replicationFactor": 1,
            "configs": [{"name": config, "value": value}]});
        run.ask(&format!("{config} = {value}"), creation(json!([topic]), true));
    }
    let nothing = json!({"name": name, "numPartitions": 1, "replicationFactor": 1, "configs": [{"name": "retention.ms", "value": null}]});
    run.ask("a config that is null", creation(json!([nothing]), true));
    let twice = json!({"name": name, "numPartitions": 1, "replicationFactor": 1,
        "configs": [{"name": "retention.ms", "value": "1"}, {"name": "retention.ms", "value": "2"}]});
    run.ask("a config twice", creation(json!([twice]), true));
    let lags = json!({"name": name, "numPartitions": 1, "replicationFactor": 1,
        "configs": [{"name": "min.compaction.lag.ms", "value": "100"}, {"name": "max.compaction.lag.ms", "value": "50"}]});
    run.ask("configs that do not fit together", creation(json!([lags]), true));
}

fn growth(name: &str, count: i32, assignments: Value) -> Value {
    json!({"topics": [{"name": name, "count": count, "assignments": assignments}], "timeoutMs": 10_000, "validateOnly": true})
}

fn grow(run: &mut Run<'_>) {
    let topic = run.topic("orders", 2);
    for count in [-1, 0, 1, 2, 3] {
        run.ask(&format!("{count} in all"), growth(&topic.name, count, Value::Null));
    }
    let unknown = run.name("unknown");
    run.ask("of an unknown topic", growth(&unknown, 3, Value::Null));
    run.ask("of an internal topic", growth("__consumer_offsets", 3, Value::Null));
    let place = |brokers: &[i32]| json!({"brokerIds": brokers});
    run.ask("assigned", growth(&topic.name, 4, json!([place(&[1]), place(&[1])])));
    run.ask("too few assigned", growth(&topic.name, 4, json!([place(&[1])])));
    run.ask("too many assigned", growth(&topic.name, 3, json!([place(&[1]), place(&[1])])));
    run.ask("none assigned", growth(&topic.name, 3, json!([])));
    run.ask("assigned to an unknown broker", growth(&topic.name, 3, json!([place(&[9])])));
    run.ask("assigned twice to one broker", growth(&topic.name, 3, json!([place(&[1, 1])])));
    run.ask("assigned to nobody", growth(&topic.name, 3, json!([place(&[])])));
    let mut twice = growth(&topic.name, 3, Value::Null);
    twice["topics"] = json!([twice["topics"][0], growth(&topic.name, 4, Value::Null)["topics"][0]]);
    run.ask("a topic twice", twice);
    let mut done = growth(&topic.name, 3, Value::Null);
    done["validateOnly"] = false.into();
    run.ask("done", done.clone());
    run.settle(&topic.name, 3);
    run.ask("done again", done);
}

fn changed_growth(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    // Kafka lays out as many partitions as it is told before it looks whether it should.
    run.mutate(&growth(&topic.name, 2, Value::Null), &["validateOnly", "timeoutMs", "topics.count"]);
}

fn delete(run: &mut Run<'_>) {
    let (first, second, third) = (run.topic("first", 1), run.topic("second", 1), run.topic("third", 1));
    let names = |names: &[&str]| {
        let states: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"topicNames": names, "topics": states, "timeoutMs": 10_000})
    };
    let unknown = run.name("unknown");
    run.ask("known and unknown", names(&[&first.name, &unknown, ""]));
    run.ask("the same again", names(&[&first.name]));
    run.ask("one twice", names(&[&second.name, &second.name]));
    run.ask("nothing", names(&[]));
    if run.version >= BY_ID {
        let state =
            |name: Value, id: &str| json!({"topics": [{"name": name, "topicId": id}], "timeoutMs": 10_000});
        run.ask("by an unknown id", state(Value::Null, &("0".repeat(31) + "1")));
        run.ask("by no id", state(Value::Null, &"0".repeat(32)));
        run.ask("by name and id", state(third.name.as_str().into(), &third.id));
        run.ask("by id", state(Value::Null, &third.id));
        let metadata = json!({"topics": [{"name": third.name}], "allowAutoTopicCreation": false});
        run.ask_until("it is gone", "Metadata", &metadata, |answer| answer["topics"][0]["errorCode"] == 3);
        run.ask("by id again", state(Value::Null, &third.id));
    }
}

fn changed_deletion(run: &mut Run<'_>) {
    let unknown = run.name("unknown");
    let body = json!({"topicNames": [unknown], "topics": [{"name": unknown}], "timeoutMs": 10_000});
    run.mutate(&body, &["timeoutMs"]);
}
