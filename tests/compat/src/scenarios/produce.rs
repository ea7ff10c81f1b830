//! Produce: batches good and bad, acks, sequences.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use crate::records::{self, FIRST_TIMESTAMP_MS, batch, idempotent};
use crate::run::{Run, Scenario, Topic};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "Produce", name: "appends", body: appends },
    Scenario { api: "Produce", name: "each field changed", body: changed },
    Scenario { api: "Produce", name: "acks", body: acks },
    Scenario { api: "Produce", name: "batches that are wrong", body: bad_batches },
    Scenario { api: "Produce", name: "batches that only one takes", body: other_batches },
    Scenario { api: "Produce", name: "several partitions, some of them wrong", body: some_wrong },
    Scenario { api: "Produce", name: "sequences of an idempotent producer", body: sequences },
    Scenario { api: "Produce", name: "epochs of an idempotent producer", body: epochs },
    Scenario { api: "Produce", name: "a topic's limits", body: limits },
    Scenario { api: "Produce", name: "a topic that sets the time of its records", body: append_time },
];

/// The first version that names topics by id.
const BY_ID: i16 = 13;

/// A request for one partition.
fn to(topic: &Topic, partition: i32, records: &Value) -> Value {
    json!({"transactionalId": null, "acks": -1, "timeoutMs": 10_000, "topicData": [{"name": topic.name, "topicId": topic.id,
        "partitionData": [{"index": partition, "records": records}]}]})
}

/// What a partition holds now.
fn contents(run: &mut Run<'_>, topic: &Topic, partition: i32) {
    let body = json!({"maxWaitMs": 0, "minBytes": 0, "maxBytes": 1 << 20, "topics": [{"topic": topic.name,
        "topicId": topic.id, "partitions": [{"partition": partition, "fetchOffset": 0, "partitionMaxBytes": 1 << 20}]}]});
    run.ask_other("what is there", "Fetch", body);
}

fn appends(run: &mut Run<'_>) {
    let topic = run.topic("orders", 2);
    run.ask("one record", to(&topic, 0, &batch(&["a"])));
    run.ask("three records", to(&topic, 0, &batch(&["b", "c", "d"])));
    run.ask("another partition", to(&topic, 1, &batch(&["e"])));
    contents(run, &topic, 0);
}

fn changed(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    // With acks=0 there is no answer.
    run.mutate(&to(&topic, 0, &batch(&["a"])), &["acks", "topicData.partitionData.records"]);
    for records in ["", "hex:00", "garbage that is no batch"] {
        run.ask(&format!("records = {records}"), to(&topic, 0, &records.into()));
    }
    // For an answer that does not come, one version waits long enough.
    if run.version == run.newest("Produce") {
        run.ask("no records", to(&topic, 0, &Value::Null));
    }
}

fn acks(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    for acks in [-1, 1, 2, -2, 99, i64::from(i16::MIN)] {
        let mut body = to(&topic, 0, &batch(&["a"]));
        body["acks"] = acks.into();
        run.ask(&format!("acks = {acks}"), body);
    }
    if run.version < 3 {
        return;
    }
    let mut body = to(&topic, 0, &batch(&["unanswered"]));
    body["acks"] = 0.into();
    run.send_only("Produce", run.version, &body);
    run.ask("after one that is not answered", to(&topic, 0, &batch(&["b"])));
    contents(run, &topic, 0);
    body["topicData"][0]["partitionData"][0]["index"] = 99.into();
    run.send_only("Produce", run.version, &body);
    run.ask("after an error that could not be answered", to(&topic, 0, &batch(&["c"])));
    run.ask("on a new connection", to(&topic, 0, &batch(&["d"])));
}

/// Batches with something of the header changed; the CRC is made anew unless it is what is wrong.
fn bad_batches(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let good = records::plain(&["a", "b"]).build();
    let cases: &[(&str, usize, &[u8])] = &[
        ("a length that is too long", 8, &[0, 0, 4, 0]),
        ("a length that is too short", 8, &[0, 0, 0, 9]),
        ("a negative length", 8, &[0xff, 0, 0, 0]),
        ("a leader epoch of its own", 12, &[0, 0, 0, 9]),
        ("magic 0", 16, &[0]),
        ("magic 1", 16, &[1]),
        ("magic 3", 16, &[3]),
        ("an unknown codec", 22, &[7]),
        ("log append time", 22, &[8]),
        ("a transaction without a producer", 22, &[0x10]),
        ("control records", 22, &[0x20]),
        ("a delete horizon", 22, &[0x40]),
        ("unknown attributes", 21, &[0x7f]),
        ("a last offset delta too high", 23, &[0, 0, 0, 9]),
        ("a negative last offset delta", 23, &[0xff, 0xff, 0xff, 0xff]),
        ("a producer id without an epoch", 43, &[0, 0, 0, 0, 0, 0, 0, 9]),
        ("a count too high", 57, &[0, 0, 0, 9]),
        ("a count too low", 57, &[0, 0, 0, 1]),
        ("a count of nothing", 57, &[0, 0, 0, 0]),
        ("a negative count", 57, &[0xff, 0xff, 0xff, 0xff]),
    ];
    for (what, at, bytes) in cases {
        let changed = overwritten(&good, *at, bytes, true);
        run.ask(what, to(&topic, 0, &records::value(&changed)));
    }
    run.ask("a wrong CRC", to(&topic, 0, &records::value(&overwritten(&good, 17, &[1, 2, 3, 4], false))));
    run.ask("two batches", to(&topic, 0, &records::value(&[good.clone(), good.clone()].concat())));
    run.ask("a batch that is cut", to(&topic, 0, &records::value(&good[..good.len() - 1])));
    contents(run, &topic, 0);
}

fn other_batches(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let good = records::plain(&["a", "b"]).build();
    let moved = overwritten(&good, 0, &[0, 0, 0, 0, 0, 0, 0, 9], false);
    run.ask("a base offset of its own", to(&topic, 0, &records::value(&moved)));
    run.ask("bytes after the batch", to(&topic, 0, &records::value(&[&good[..], &[0; 7]].concat())));
}

/// A batch with other bytes from `at` on.
fn overwritten(batch: &Bytes, at: usize, bytes: &[u8], with_crc: bool) -> Bytes {
    let mut changed = BytesMut::from(&batch[..]);
    changed[at..at + bytes.len()].copy_from_slice(bytes);
    if with_crc {
        let crc = crc32c::crc32c(&changed[21..]);
        changed[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    changed.freeze()
}

fn some_wrong(run: &mut Run<'_>) {
    let topic = run.topic("orders", 3);
    let (good, bad) = (
        batch(&["a"]),
        records::value(b"no batch at all, but long enough to be one if it were well formed ...."),
    );
    let unknown = if run.version < BY_ID { run.name("unknown") } else { "unknown".to_owned() };
    let body = json!({"acks": -1, "timeoutMs": 10_000, "topicData": [
        {"name": topic.name, "topicId": topic.id, "partitionData": [
            {"index": 0, "records": good}, {"index": 1, "records": bad}, {"index": 2, "records": good}, {"index": 7, "records": good}]},
        {"name": unknown, "topicId": "0".repeat(31) + "7", "partitionData": [{"index": 0, "records": good}]}]});
    run.ask("good and bad", body);
    let twice = json!({"acks": -1, "timeoutMs": 10_000, "topicData": [
        {"name": topic.name, "topicId": topic.id, "partitionData": [{"index": 0, "records": good}, {"index": 1, "records": good}]},
        {"name": topic.name, "topicId": topic.id, "partitionData": [{"index": 2, "records": good}]}]});
    run.ask("a topic twice", twice);
}

fn sequences(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let id = run.producer_id();
    let steps = [
        ("the first", 0, 0),
        ("the second", 0, 2),
        ("the first again", 0, 0),
        ("the second again", 0, 2),
        ("one that skips", 0, 9),
        ("one that overlaps", 0, 3),
        ("a negative sequence", 0, -1),
        ("a negative epoch", -1, 4),
        ("the third", 0, 4),
    ];
    for (what, epoch, sequence) in steps {
        run.ask(what, to(&topic, 0, &idempotent(id, epoch, sequence, &["a", "b"])));
    }
    for sequence in (6..16).step_by(2) {
        run.ask("many more", to(&topic, 0, &idempotent(id, 0, sequence, &["a", "b"])));
    }
    run.ask("one that is long past", to(&topic, 0, &idempotent(id, 0, 0, &["a", "b"])));
    run.ask("another length of the last", to(&topic, 0, &idempotent(id, 0, 14, &["a"])));
    contents(run, &topic, 0);
}

fn epochs(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let id = run.producer_id();
    let steps = [
        ("an unknown producer that does not begin at 0", 3, 5),
        ("the first of epoch 5", 5, 0),
        ("an older epoch", 4, 1),
        ("a newer epoch that does not begin at 0", 6, 1),
        ("a newer epoch", 6, 0),
        ("the epoch before", 5, 1),
        ("a much newer epoch", 99, 0),
    ];
    for (what, epoch, sequence) in steps {
        run.ask(what, to(&topic, 0, &idempotent(id, epoch, sequence, &["a"])));
    }
    let two = [idempotent(id, 99, 1, &["a"]), idempotent(id, 99, 2, &["b"])];
    let both: String =
        two.iter().map(|batch| batch.as_str().expect("text").trim_start_matches("hex:")).collect();
    run.ask("two batches of a producer at once", to(&topic, 0, &format!("hex:{both}").into()));
    contents(run, &topic, 0);
}

fn limits(run: &mut Run<'_>) {
    let small = run.topic_with("small", 1, json!([{"name": "max.message.bytes", "value": "100"}]));
    run.ask("within the limit", to(&small, 0, &batch(&["a"])));
    run.ask("beyond the limit", to(&small, 0, &batch(&[&"a".repeat(100)])));
    let compacted = run.topic_with("compacted", 1, json!([{"name": "cleanup.policy", "value": "compact"}]));
    run.ask("no key where one is needed", to(&compacted, 0, &batch(&["a"])));
    let old = json!([{"name": "message.timestamp.before.max.ms", "value": "60000"}]);
    let recent = run.topic_with("recent", 1, old);
    run.ask("records that are too old", to(&recent, 0, &batch(&["a"])));
    let future = records::value(&records::plain_at(FIRST_TIMESTAMP_MS * 2, &["a"]).build());
    run.ask("records of the future", to(&recent, 0, &future));
    [small, compacted, recent].iter().for_each(|topic| contents(run, topic, 0));
}

fn append_time(run: &mut Run<'_>) {
    let topic =
        run.topic_with("stamped", 1, json!([{"name": "message.timestamp.type", "value": "LogAppendTime"}]));
    run.ask("records with a time of their own", to(&topic, 0, &batch(&["a", "b"])));
    contents(run, &topic, 0);
}
