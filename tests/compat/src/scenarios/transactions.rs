//! Transactions: their life in one producer's hands, what administrators ask about them, and requests that are wrong.

use serde_json::{Value, json};

use crate::records::transactional;
use crate::run::{Run, Scenario, Topic};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "EndTxn", name: "a transaction's life", body: life },
    Scenario { api: "EndTxn", name: "each field changed", body: changed_end },
    Scenario { api: "AddPartitionsToTxn", name: "each field changed", body: changed_partitions },
    Scenario { api: "AddOffsetsToTxn", name: "each field changed", body: changed_offsets },
    Scenario { api: "TxnOffsetCommit", name: "each field changed", body: changed_commit },
    Scenario { api: "WriteTxnMarkers", name: "each field changed", body: changed_markers },
    Scenario { api: "DescribeProducers", name: "each field changed", body: changed_producers },
    Scenario { api: "DescribeTransactions", name: "each field changed", body: changed_description },
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
        let body = json!({"transactionalId": transactional_id, "transactionTimeoutMs": 60_000});
        let answer = run.ask_until("start", "InitProducerId", &body, |answer| answer["errorCode"] == 0);
        let number = |name: &str| answer[name].as_i64().unwrap_or(-1);
        Self { transactional_id, id: number("producerId"), epoch: number("producerEpoch") }
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

fn life(run: &mut Run<'_>) {
    let topic = run.topic("orders", 1);
    let producer = Producer::started(run);
    run.ask("nothing to end", producer.end(true));
    run.ask_version("a partition joins", "AddPartitionsToTxn", 3, producer.add(&topic));
    let epoch = i16::try_from(producer.epoch).unwrap_or_default();
    let records = transactional(producer.id, epoch, 0, &["a", "b"]);
    let body = json!({"transactionalId": producer.transactional_id, "acks": -1, "timeoutMs": 10_000,
        "topicData": [{"name": topic.name, "topicId": topic.id, "partitionData": [{"index": 0, "records": records}]}]});
    run.ask_version("records", "Produce", 11, body);
    let state = json!({"transactionalIds": [producer.transactional_id]});
    run.ask_other("while it is open", "DescribeTransactions", state.clone());
    run.ask("committed", producer.end(true));
    run.ask_until("when it is over", "DescribeTransactions", &state, |answer| {
        answer["transactionStates"][0]["transactionState"] != "PrepareCommit"
    });
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
