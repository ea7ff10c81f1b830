//! Transactions: their life in one producer's hands, what administrators ask about them, and requests that are wrong.

use serde_json::{Value, json};

use crate::records::transactional;
use crate::run::{Run, Scenario, Topic};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "EndTxn", name: "a transaction's life", body: life },
    Scenario { api: "EndTxn", name: "aborted", body: aborted },
    Scenario { api: "EndTxn", name: "of a producer that was replaced", body: fenced },
    Scenario { api: "EndTxn", name: "each field changed", body: changed_end },
    Scenario { api: "InitProducerId", name: "of a transactional producer", body: restarts },
    Scenario { api: "TxnOffsetCommit", name: "offsets in a transaction", body: offsets },
    Scenario { api: "Produce", name: "in a transaction", body: produces },
    Scenario { api: "ListTransactions", name: "one that is open", body: list_open },
    Scenario { api: "DescribeProducers", name: "a producer's life", body: producers },
    Scenario { api: "WriteTxnMarkers", name: "a transaction is ended by hand", body: markers },
    Scenario { api: "DescribeTransactions", name: "known and unknown", body: describe },
    Scenario { api: "AddPartitionsToTxn", name: "each field changed", body: changed_partitions },
    Scenario { api: "AddOffsetsToTxn", name: "each field changed", body: changed_offsets },
    Scenario { api: "TxnOffsetCommit", name: "each field changed", body: changed_commit },
    Scenario { api: "WriteTxnMarkers", name: "each field changed", body: changed_markers },
    Scenario { api: "DescribeProducers", name: "each field changed", body: changed_producers },
    Scenario { api: "DescribeTransactions", name: "each field changed", body: changed_description },
    Scenario { api: "ListTransactions", name: "patterns", body: patterns },
    Scenario { api: "ListTransactions", name: "filters that leave nothing", body: list },
];

/// A transactional id with what was given out for it.
struct Producer {
    transactional_id: String,
    id: i64,
    epoch: i64,
}

impl Producer {
    fn started(run: &mut Run<'_>) -> Self {
        let transactional_id = run.name("payments");
        run.find_transaction_coordinator(&transactional_id);
        Self::again(run, &transactional_id)
    }

    /// A producer that goes on where another one of that id has been.
    fn again(run: &mut Run<'_>, transactional_id: &str) -> Self {
        let transactional_id = transactional_id.to_owned();
        let body = json!({"transactionalId": transactional_id, "transactionTimeoutMs": 60_000});
        let (id, epoch) = run.transactional_producer(&body);
        Self { transactional_id, id, epoch }
    }

    fn end(&self, committed: bool) -> Value {
        json!({"transactionalId": self.transactional_id, "producerId": self.id, "producerEpoch": self.epoch, "committed": committed})
    }

    /// Asks for one partition, in the form of every version.
    fn add(&self, topic: &Topic) -> Value {
        let topics = json!([{"name": topic.name, "partitions": [0]}]);
        json!({"v3AndBelowTransactionalId": self.transactional_id, "v3AndBelowProducerId": self.id,
            "v3AndBelowProducerEpoch": self.epoch, "v3AndBelowTopics": topics,
            "transactions": [{"transactionalId": self.transactional_id, "producerId": self.id, "producerEpoch": self.epoch,
                "verifyOnly": false, "topics": topics}]})
    }
}

/// The newest version of Produce whose producer must have added the partition before.
const ADDED_BEFORE: i16 = 11;

/// Records of a producer, for one partition.
fn records(producer: &Producer, topic: &Topic, sequence: i32, values: &[&str]) -> Value {
    let epoch = i16::try_from(producer.epoch).unwrap_or_default();
    let records = transactional(producer.id, epoch, sequence, values);
    json!({"transactionalId": producer.transactional_id, "acks": -1, "timeoutMs": 10_000,
        "topicData": [{"name": topic.name, "topicId": topic.id, "partitionData": [{"index": 0, "records": records}]}]})
}

/// What readers of committed records and readers of all see.
fn contents(run: &mut Run<'_>, topic: &Topic) {
    for (what, isolation_level) in [("all records", 0), ("committed records", 1)] {
        let body = json!({"isolationLevel": isolation_level, "maxWaitMs": 0, "minBytes": 0, "maxBytes": 1 << 20, "topics": [
            {"topic": topic.name, "topicId": topic.id, "partitions": [{"partition": 0, "partitionMaxBytes": 1 << 20}]}]});
        run.ask_other(what, "Fetch", body);
    }
}

/// Asks about a transaction until it is over.
fn over(run: &mut Run<'_>, producer: &Producer) {
    let state = json!({"transactionalIds": [producer.transactional_id]});
    run.ask_until("when it is over", "DescribeTransactions", &state, |answer| {
        let state = answer["transactionStates"][0]["transactionState"].as_str();
        state.is_some_and(|state| !state.starts_with("Prepare"))
    });
}

fn life(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let producer = Producer::started(run);
    run.ask("nothing to end", producer.end(true));
    run.ask_version("a partition joins", "AddPartitionsToTxn", 3, producer.add(&topic));
    run.ask_version("records", "Produce", ADDED_BEFORE, records(&producer, &topic, 0, &["a", "b"]));
    let state = json!({"transactionalIds": [producer.transactional_id]});
    run.ask_other("while it is open", "DescribeTransactions", state);
    contents(run, &topic);
    run.ask("committed", producer.end(true));
    over(run, &producer);
    contents(run, &topic);
    run.ask("committed again", producer.end(true));
    run.ask("aborted after that", producer.end(false));
}

fn aborted(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let producer = Producer::started(run);
    run.ask_version("a partition joins", "AddPartitionsToTxn", 3, producer.add(&topic));
    run.ask_version("records", "Produce", ADDED_BEFORE, records(&producer, &topic, 0, &["a", "b"]));
    run.ask("aborted", producer.end(false));
    over(run, &producer);
    contents(run, &topic);
    run.ask("aborted again", producer.end(false));
    run.ask("committed after that", producer.end(true));
}

fn fenced(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let old = Producer::started(run);
    run.ask_version("a partition joins", "AddPartitionsToTxn", 3, old.add(&topic));
    let new = Producer::again(run, &old.transactional_id);
    over(run, &old);
    run.ask("by the old one", old.end(true));
    run.ask_other("a partition joins the old one", "AddPartitionsToTxn", old.add(&topic));
    run.ask_version("records of the old one", "Produce", ADDED_BEFORE, records(&old, &topic, 0, &["a"]));
    run.ask_version("a partition joins the new one", "AddPartitionsToTxn", 3, new.add(&topic));
    run.ask_version("records of the new one", "Produce", ADDED_BEFORE, records(&new, &topic, 0, &["b"]));
    run.ask("by the new one", new.end(true));
    over(run, &new);
    contents(run, &topic);
}

/// Only of versions whose producers may tell what they were.
const TELLS_EPOCH: i16 = 3;

fn restarts(run: &mut Run<'_>) {
    let id = run.name("payments");
    run.find_transaction_coordinator(&id);
    let question = |timeout_ms: i32, producer: i64, epoch: i64| json!({"transactionalId": id, "transactionTimeoutMs": timeout_ms, "producerId": producer, "producerEpoch": epoch});
    let mut empty = question(60_000, -1, -1);
    empty["transactionalId"] = "".into();
    run.ask("an empty transactional id", empty);
    for timeout_ms in [-1, 0, 900_000, 900_001] {
        run.ask(&format!("a timeout of {timeout_ms} ms"), question(timeout_ms, -1, -1));
    }
    let first = run.ask("the first time", question(60_000, -1, -1));
    let second = run.ask("the second time", question(60_000, -1, -1));
    let number = |answer: &Value, name: &str| answer[name].as_i64().unwrap_or(-1);
    if run.version >= TELLS_EPOCH {
        let (producer, epoch) = (number(&second, "producerId"), number(&second, "producerEpoch"));
        run.ask("as it was", question(60_000, producer, epoch));
        run.ask("as it was, again", question(60_000, producer, epoch));
        run.ask(
            "as it was before",
            question(60_000, number(&first, "producerId"), number(&first, "producerEpoch")),
        );
        run.ask("as another", question(60_000, producer + 4711, epoch));
        run.ask("with an epoch of the future", question(60_000, producer, epoch + 99));
        run.ask("an epoch without an id", question(60_000, -1, epoch));
        run.ask("an id without an epoch", question(60_000, producer, -1));
    }
}

fn offsets(run: &mut Run<'_>) {
    let (topic, group) = (run.topic("orders", 1), run.name("readers"));
    run.find_coordinator(&group);
    let producer = Producer::started(run);
    let commit = |offset: i64, epoch: i64| {
        json!({"transactionalId": producer.transactional_id, "groupId": group, "producerId": producer.id,
            "producerEpoch": epoch, "topics": [{"name": topic.name, "partitions": [
                {"partitionIndex": 0, "committedOffset": offset, "committedMetadata": "note"}]}]})
    };
    let committed = |run: &mut Run<'_>, what: &str, stable: bool| {
        let topics = json!([{"name": topic.name, "topicId": topic.id, "partitionIndexes": [0]}]);
        run.ask_other(
            what,
            "OffsetFetch",
            json!({"requireStable": stable, "groups": [
            {"groupId": group, "memberId": null, "memberEpoch": -1, "topics": topics}]}),
        );
    };
    let add = json!({"transactionalId": producer.transactional_id, "producerId": producer.id,
        "producerEpoch": producer.epoch, "groupId": group});
    run.ask_version("the group joins", "AddOffsetsToTxn", 3, add);
    run.ask("offsets", commit(5, producer.epoch));
    run.ask("an epoch of the future", commit(6, producer.epoch + 9));
    run.ask("an old epoch", commit(6, producer.epoch - 1));
    committed(run, "while it is open", false);
    committed(run, "what is stable while it is open", true);
    run.ask_version("committed", "EndTxn", 3, producer.end(true));
    over(run, &producer);
    run.ask_until(
        "what is committed",
        "OffsetFetch",
        &json!({"requireStable": true, "groups": [{"groupId": group, "memberId": null, "memberEpoch": -1,
            "topics": [{"name": topic.name, "topicId": topic.id, "partitionIndexes": [0]}]}]}),
        |answer| answer["groups"][0]["topics"][0]["partitions"][0]["errorCode"] == 0,
    );
}

fn produces(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let producer = Producer::started(run);
    // From version 12 on the partition joins by itself.
    if run.version <= ADDED_BEFORE {
        run.ask("before the partition has joined", records(&producer, &topic, 0, &["a"]));
        run.ask_version("a partition joins", "AddPartitionsToTxn", 3, producer.add(&topic));
    }
    run.ask("records", records(&producer, &topic, 0, &["a"]));
    run.ask("the same again", records(&producer, &topic, 0, &["a"]));
    run.ask("more", records(&producer, &topic, 1, &["b"]));
    let mut anonymous = records(&producer, &topic, 2, &["c"]);
    anonymous["transactionalId"] = Value::Null;
    run.ask("without a transactional id", anonymous);
    let mut other = records(&producer, &topic, 2, &["c"]);
    other["transactionalId"] = "another".into();
    run.ask("with another transactional id", other);
    contents(run, &topic);
}

fn list_open(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let producer = Producer::started(run);
    let (version, id) = (run.version, producer.transactional_id.clone());
    let ask = |run: &mut Run<'_>, what: &str, body: Value| {
        run.ask_for_one(what, "ListTransactions", version, body, "transactionStates", &id);
    };
    ask(run, "before it begins", json!({}));
    if version >= 1 {
        ask(run, "of those that last long, before it begins", json!({"durationFilter": 1_000_000}));
    }
    run.ask_version("a partition joins", "AddPartitionsToTxn", 3, producer.add(&topic));
    ask(run, "of all", json!({}));
    ask(run, "of those that are open", json!({"stateFilters": ["Ongoing", "Nowhere"]}));
    ask(run, "not of those that are empty", json!({"stateFilters": ["Empty"]}));
    ask(run, "of its producer's", json!({"producerIdFilters": [producer.id]}));
    ask(run, "not of another's", json!({"producerIdFilters": [producer.id + 4711]}));
    if version >= 1 {
        ask(run, "not of those that last long", json!({"durationFilter": 1_000_000}));
        ask(run, "of those that have begun", json!({"durationFilter": -1}));
    }
}

/// The first version that filters by a pattern.
const PATTERNS: i16 = 2;

fn patterns(run: &mut Run<'_>) {
    if run.version < PATTERNS {
        return;
    }
    let producer = Producer::started(run);
    let id = producer.transactional_id.as_str();
    for pattern in [id, &id[1..], "pay.*", "^pay.*$", ".*v2", "", "(", "*", "[a-z0-9-]+", r"\Qpay\E.*"] {
        let what =
            format!("the pattern {}", pattern.replace(id, "of its id").replace(&id[1..], "of its end"));
        let body = json!({"transactionalIdPattern": pattern});
        run.ask_for_one(&what, "ListTransactions", PATTERNS, body, "transactionStates", id);
    }
}

fn producers(run: &mut Run<'_>) {
    let topic = run.topic("orders", 2);
    let producer = Producer::started(run);
    let body = json!({"topics": [{"name": topic.name, "partitionIndexes": [0, 1, 9]}]});
    run.ask("none", body.clone());
    run.ask_version("a partition joins", "AddPartitionsToTxn", 3, producer.add(&topic));
    run.ask_version("records", "Produce", ADDED_BEFORE, records(&producer, &topic, 0, &["a", "b"]));
    run.ask("in a transaction", body.clone());
    run.ask_version("committed", "EndTxn", 3, producer.end(true));
    over(run, &producer);
    run.ask("after it", body);
}

fn markers(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let producer = Producer::started(run);
    run.ask_version("a partition joins", "AddPartitionsToTxn", 3, producer.add(&topic));
    run.ask_version("records", "Produce", ADDED_BEFORE, records(&producer, &topic, 0, &["a"]));
    let body = |epoch: i64| {
        json!({"markers": [{"producerId": producer.id, "producerEpoch": epoch, "transactionResult": false,
            "topics": [{"name": topic.name, "partitionIndexes": [0, 9]}], "coordinatorEpoch": 0}]})
    };
    run.ask("of an old epoch", body(producer.epoch - 1));
    run.ask("as it should be", body(producer.epoch));
    run.ask("once more", body(producer.epoch));
    contents(run, &topic);
    run.ask("none", json!({"markers": []}));
}

fn describe(run: &mut Run<'_>) {
    let (one, two) = (Producer::started(run), run.name("unknown"));
    run.ask("known and unknown", json!({"transactionalIds": [one.transactional_id, two, ""]}));
    run.ask("one twice", json!({"transactionalIds": [one.transactional_id, one.transactional_id]}));
    run.ask("none", json!({"transactionalIds": []}));
}

fn changed_end(run: &mut Run<'_>) {
    let producer = Producer::started(run);
    run.mutate(&producer.end(true), &[]);
}

fn changed_partitions(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let producer = Producer::started(run);
    run.mutate(&producer.add(&topic), &[]);
}

fn changed_offsets(run: &mut Run<'_>) {
    let group = run.name("readers");
    run.find_coordinator(&group);
    let producer = Producer::started(run);
    let body = json!({"transactionalId": producer.transactional_id, "producerId": producer.id,
        "producerEpoch": producer.epoch, "groupId": group});
    run.mutate(&body, &[]);
}

fn changed_commit(run: &mut Run<'_>) {
    let (topic, group) = (run.topic("orders", 1), run.name("readers"));
    run.find_coordinator(&group);
    let producer = Producer::started(run);
    let body = json!({"transactionalId": producer.transactional_id, "groupId": group, "producerId": producer.id,
        "producerEpoch": producer.epoch, "topics": [{"name": topic.name, "partitions": [
            {"partitionIndex": 0, "committedOffset": 5, "committedMetadata": "note"}]}]});
    run.mutate(&body, &[]);
}

fn changed_markers(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let id = run.producer_id();
    let body = json!({"markers": [{"producerId": id, "producerEpoch": 0, "transactionResult": true,
        "topics": [{"name": topic.name, "partitionIndexes": [0]}], "coordinatorEpoch": 0}]});
    run.mutate(&body, &["markers.transactionVersion"]);
}

fn changed_producers(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    run.mutate(&json!({"topics": [{"name": topic.name, "partitionIndexes": [0]}]}), &[]);
}

fn changed_description(run: &mut Run<'_>) {
    let producer = Producer::started(run);
    run.mutate(&json!({"transactionalIds": [producer.transactional_id]}), &[]);
}

fn list(run: &mut Run<'_>) {
    run.find_transaction_coordinator("payments");
    run.ask("a state that there is not", json!({"stateFilters": ["Nowhere"]}));
    run.ask("a producer that there is not", json!({"producerIdFilters": [4_711_000]}));
    run.ask("a state in small letters", json!({"stateFilters": ["ongoing"]}));
}
