//! Fetch sessions (KIP-227): requests and answers that name only what has changed.

use serde_json::{Value, json};

use crate::records::batch;
use crate::run::{Run, Scenario, Topic};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "Fetch", name: "a session's life", body: life },
    Scenario { api: "Fetch", name: "sessions and epochs that are wrong", body: wrong },
    Scenario { api: "Fetch", name: "errors in a session", body: errors },
];

/// The first version that has sessions.
const SESSIONS: i16 = 7;
/// The first version that names topics by id.
const BY_ID: i16 = 13;

const NONE: i64 = 0;
const INITIAL: i32 = 0;
const FINAL: i32 = -1;

/// A request of a session for these partitions, each from an offset on.
fn fetch(session: i64, epoch: i32, wanted: &[(&Topic, i32, i64)]) -> Value {
    let partition = |(_, partition, offset): &(&Topic, i32, i64)| json!({"partition": partition, "fetchOffset": offset, "partitionMaxBytes": 1 << 20});
    let topics: Vec<Value> = wanted
        .chunk_by(|one, next| one.0.name == next.0.name)
        .map(|of_topic| {
            let partitions: Vec<Value> = of_topic.iter().map(partition).collect();
            json!({"topic": of_topic[0].0.name, "topicId": of_topic[0].0.id, "partitions": partitions})
        })
        .collect();
    json!({"maxWaitMs": 0, "minBytes": 0, "maxBytes": 1 << 20, "sessionId": session, "sessionEpoch": epoch, "topics": topics})
}

fn forgetting(mut request: Value, topic: &Topic, partition: i32) -> Value {
    request["forgottenTopicsData"] =
        json!([{"topic": topic.name, "topicId": topic.id, "partitions": [partition]}]);
    request
}

fn session_of(answer: &Value) -> i64 {
    answer["sessionId"].as_i64().unwrap_or(NONE)
}

fn fill(run: &mut Run<'_>, topic: &Topic, partition: i32) {
    let body = json!({"acks": -1, "timeoutMs": 10_000, "topicData": [{"name": topic.name, "topicId": topic.id,
        "partitionData": [{"index": partition, "records": batch(&["a"])}]}]});
    run.ask_other("fill", "Produce", body);
}

fn life(run: &mut Run<'_>) {
    if run.version < SESSIONS {
        return;
    }
    let (topic, other) = (run.topic("orders", 2), run.topic("other", 1));
    fill(run, &topic, 0);
    let begun = run.ask("it begins", fetch(NONE, INITIAL, &[(&topic, 0, 0), (&topic, 1, 0)]));
    let session = session_of(&begun);
    run.ask("the same again", fetch(session, 1, &[]));
    run.ask("further on", fetch(session, 2, &[(&topic, 0, 1)]));
    run.ask("nothing new", fetch(session, 3, &[]));
    fill(run, &topic, 1);
    run.ask("records have come", fetch(session, 4, &[]));
    run.ask("and are told until they are read", fetch(session, 5, &[(&topic, 1, 1)]));
    run.ask("another topic", fetch(session, 6, &[(&other, 0, 0)]));
    fill(run, &topic, 0);
    fill(run, &other, 0);
    run.ask("without the first", forgetting(fetch(session, 7, &[]), &topic, 0));
    run.ask("with the first again", fetch(session, 8, &[(&topic, 0, 0)]));
    run.ask("forgotten and wanted at once", forgetting(fetch(session, 9, &[(&topic, 0, 0)]), &topic, 0));
    run.ask("it ends", fetch(session, FINAL, &[]));
    run.ask("it has ended", fetch(session, 10, &[]));
}

fn wrong(run: &mut Run<'_>) {
    if run.version < SESSIONS {
        return;
    }
    let topic = run.topic("orders", 1);
    run.ask("a session that there is not", fetch(4711, 1, &[(&topic, 0, 0)]));
    run.ask("no session, yet an epoch", fetch(NONE, 1, &[(&topic, 0, 0)]));
    run.ask("a session that is to begin, with a number", fetch(4711, INITIAL, &[(&topic, 0, 0)]));
    run.ask("a session of nothing", fetch(NONE, INITIAL, &[]));
    let session = session_of(&run.ask("it begins", fetch(NONE, INITIAL, &[(&topic, 0, 0)])));
    for epoch in [2, 3, i32::MAX, -2, i32::MIN] {
        run.ask(&format!("epoch {epoch}"), fetch(session, epoch, &[]));
    }
    run.ask("the epoch that is next", fetch(session, 1, &[]));
    run.ask("the same epoch again", fetch(session, 1, &[]));
    run.ask("nothing is left of it", forgetting(fetch(session, 2, &[]), &topic, 0));
    run.ask("after nothing was left", fetch(session, 3, &[(&topic, 0, 0)]));
    let session = session_of(&run.ask("another", fetch(NONE, INITIAL, &[(&topic, 0, 0)])));
    let by_the_other = if run.version < BY_ID { BY_ID } else { BY_ID - 1 };
    run.ask_version("topics named the other way", "Fetch", by_the_other, fetch(session, 1, &[]));
    run.ask("and as before", fetch(session, 1, &[]));
    run.ask("begun anew", fetch(session, INITIAL, &[(&topic, 0, 0)]));
    run.ask("the old one", fetch(session, 2, &[]));
}

fn errors(run: &mut Run<'_>) {
    if run.version < SESSIONS {
        return;
    }
    let topic = run.topic("orders", 1);
    let unknown = Topic { name: run.name("unknown"), id: "0".repeat(31) + "7" };
    let wanted = [(&topic, 0, 0), (&topic, 9, 0), (&unknown, 0, 0)];
    let session = session_of(&run.ask("known and unknown", fetch(NONE, INITIAL, &wanted)));
    run.ask("the same again", fetch(session, 1, &[]));
    run.ask("beyond the end", fetch(session, 2, &[(&topic, 0, 99)]));
    run.ask("still beyond it", fetch(session, 3, &[]));
    run.ask("back at the beginning", fetch(session, 4, &[(&topic, 0, 0)]));
}
