//! Fetch: where a partition begins and ends, limits, and requests that are wrong.

use serde_json::{Value, json};

use crate::records::batch;
use crate::run::{Run, Scenario, Topic};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "Fetch", name: "offsets within and without", body: offsets },
    Scenario { api: "Fetch", name: "limits", body: limits },
    Scenario { api: "Fetch", name: "each field changed", body: changed },
    Scenario { api: "Fetch", name: "topics that are wrong", body: wrong_topics },
    Scenario { api: "Fetch", name: "waiting for what is not there", body: waiting },
];

/// A request for one partition from an offset on.
fn from(topic: &Topic, partition: i32, offset: i64) -> Value {
    json!({"maxWaitMs": 0, "minBytes": 1, "maxBytes": 1 << 20, "topics": [{"topic": topic.name, "topicId": topic.id,
        "partitions": [{"partition": partition, "fetchOffset": offset, "partitionMaxBytes": 1 << 20}]}]})
}

/// A topic of two partitions whose first holds three batches.
fn filled(run: &mut Run<'_>) -> Topic {
    let topic = run.topic("orders", 2);
    for values in [&["a", "b"][..], &["c"], &["d", "e", "f"]] {
        let body = json!({"acks": -1, "timeoutMs": 10_000, "topicData": [{"name": topic.name, "topicId": topic.id,
            "partitionData": [{"index": 0, "records": batch(values)}]}]});
        run.ask_other("fill", "Produce", body);
    }
    topic
}

fn offsets(run: &mut Run<'_>) {
    let topic = filled(run);
    for offset in [0, 1, 2, 3, 5, 6, 7, 1000, -1, -2, i64::MAX, i64::MIN] {
        run.ask(&format!("offset {offset}"), from(&topic, 0, offset));
    }
    run.ask("an empty partition", from(&topic, 1, 0));
    run.ask("behind an empty partition", from(&topic, 1, 1));
}

fn limits(run: &mut Run<'_>) {
    let topic = filled(run);
    for bytes in [0, 1, 70, 150, 1 << 20, -1, i32::MAX] {
        let mut body = from(&topic, 0, 0);
        body["topics"][0]["partitions"][0]["partitionMaxBytes"] = bytes.into();
        run.ask(&format!("{bytes} bytes of a partition"), body);
        let mut body = from(&topic, 0, 0);
        body["maxBytes"] = bytes.into();
        run.ask(&format!("{bytes} bytes in all"), body);
    }
    let mut body = from(&topic, 0, 0);
    let partition = body["topics"][0]["partitions"][0].clone();
    let mut empty = partition.clone();
    empty["partition"] = 1.into();
    body["topics"][0]["partitions"] = json!([empty, partition]);
    body["maxBytes"] = 1.into();
    run.ask("one byte for two partitions", body);
}

fn changed(run: &mut Run<'_>) {
    let topic = filled(run);
    run.mutate(&from(&topic, 0, 0), &[]);
}

fn wrong_topics(run: &mut Run<'_>) {
    let topic = filled(run);
    let unknown = Topic { name: run.name("unknown"), id: "0".repeat(31) + "7" };
    run.ask("an unknown topic", from(&unknown, 0, 0));
    run.ask("an unknown partition", from(&topic, 9, 0));
    let both = json!([from(&topic, 0, 0)["topics"][0], from(&unknown, 0, 0)["topics"][0]]);
    let mut body = from(&topic, 0, 0);
    body["topics"] = both;
    run.ask("a topic and an unknown one", body.clone());
    body["topics"] = json!([from(&topic, 0, 0)["topics"][0], from(&topic, 0, 3)["topics"][0]]);
    run.ask("a topic twice", body.clone());
    body["topics"] = json!([]);
    run.ask("nothing", body);
}

fn waiting(run: &mut Run<'_>) {
    let topic = filled(run);
    let mut body = from(&topic, 0, 6);
    body["maxWaitMs"] = 50.into();
    run.ask("nothing comes", body.clone());
    body["maxWaitMs"] = 4_000.into();
    let sent = run.send("something comes", "Fetch", run.version, &body);
    run.on_connection(1);
    let produce = json!({"acks": -1, "timeoutMs": 10_000, "topicData": [{"name": topic.name, "topicId": topic.id,
        "partitionData": [{"index": 0, "records": batch(&["g"])}]}]});
    run.ask_other("while another waits", "Produce", produce);
    run.receive(sent);
    run.on_connection(0);
    let mut body = from(&topic, 0, 0);
    body["minBytes"] = (1 << 20).into();
    run.ask("too little, but no time", body);
}
