//! ListOffsets and OffsetForLeaderEpoch: offsets by time, by name and by epoch.

use serde_json::{Value, json};

use crate::records::{self, FIRST_TIMESTAMP_MS, batch};
use crate::run::{Run, Scenario, Topic};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "ListOffsets", name: "special timestamps", body: special },
    Scenario { api: "ListOffsets", name: "times", body: times },
    Scenario { api: "ListOffsets", name: "each field changed", body: changed },
    Scenario { api: "ListOffsets", name: "several partitions, some of them wrong", body: some_wrong },
    Scenario { api: "OffsetForLeaderEpoch", name: "epochs", body: epochs },
    Scenario { api: "OffsetForLeaderEpoch", name: "each field changed", body: changed_epochs },
];

fn at(topic: &Topic, partition: i32, timestamp: i64) -> Value {
    json!({"replicaId": -1, "isolationLevel": 0, "timeoutMs": 10_000, "topics": [{"name": topic.name, "partitions": [
        {"partitionIndex": partition, "currentLeaderEpoch": -1, "timestamp": timestamp}]}]})
}

/// A topic of two partitions; the first holds records whose times do not ascend.
fn filled(run: &mut Run<'_>) -> Topic {
    let topic = run.topic("orders", 2);
    let late = records::value(&records::plain_at(FIRST_TIMESTAMP_MS + 60_000, &["late"]).build());
    for records in [batch(&["a", "b", "c"]), late, batch(&["d"])] {
        let body = json!({"acks": -1, "timeoutMs": 10_000, "topicData": [{"name": topic.name, "topicId": topic.id,
            "partitionData": [{"index": 0, "records": records}]}]});
        run.ask_other("fill", "Produce", body);
    }
    topic
}

fn special(run: &mut Run<'_>) {
    let topic = filled(run);
    for timestamp in (-7..=0).rev() {
        run.ask(&format!("timestamp {timestamp}"), at(&topic, 0, timestamp));
        run.ask(&format!("timestamp {timestamp} of an empty partition"), at(&topic, 1, timestamp));
        let mut body = at(&topic, 0, timestamp);
        body["isolationLevel"] = 1.into();
        run.ask(&format!("timestamp {timestamp}, committed only"), body);
    }
}

fn times(run: &mut Run<'_>) {
    let topic = filled(run);
    let after = [-1, 0, 1, 999, 1000, 1001, 2000, 2001, 60_000, 60_001, 1_000_000];
    for later in after {
        run.ask(&format!("{later} ms after the first"), at(&topic, 0, FIRST_TIMESTAMP_MS + later));
    }
    run.ask("the end of time", at(&topic, 0, i64::MAX));
}

fn changed(run: &mut Run<'_>) {
    let topic = filled(run);
    run.mutate(&at(&topic, 0, -1), &[]);
    run.mutate(&at(&topic, 0, FIRST_TIMESTAMP_MS), &["timeoutMs", "topics.name"]);
}

fn some_wrong(run: &mut Run<'_>) {
    let topic = filled(run);
    let partition = |index: i32| json!({"partitionIndex": index, "timestamp": -1});
    let body = json!({"replicaId": -1, "timeoutMs": 10_000, "topics": [
        {"name": topic.name, "partitions": [partition(0), partition(1), partition(9), partition(-1)]},
        {"name": run.name("unknown"), "partitions": [partition(0)]}]});
    run.ask("known and unknown", body);
    let twice = json!({"replicaId": -1, "timeoutMs": 10_000, "topics": [{"name": topic.name, "partitions": [partition(0), partition(0)]}]});
    run.ask("a partition twice", twice);
}

fn epoch(topic: &Topic, current: i32, wanted: i32) -> Value {
    json!({"replicaId": -1, "topics": [{"topic": topic.name, "partitions": [
        {"partition": 0, "currentLeaderEpoch": current, "leaderEpoch": wanted}]}]})
}

fn epochs(run: &mut Run<'_>) {
    let topic = filled(run);
    for wanted in [-1, 0, 1, 99] {
        run.ask(&format!("epoch {wanted}"), epoch(&topic, -1, wanted));
    }
    for current in [0, 1] {
        run.ask(&format!("current epoch {current}"), epoch(&topic, current, 0));
    }
}

fn changed_epochs(run: &mut Run<'_>) {
    let topic = filled(run);
    run.mutate(&epoch(&topic, -1, 0), &[]);
}
