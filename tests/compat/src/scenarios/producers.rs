//! InitProducerId.

use serde_json::{Value, json};

use crate::run::{Run, Scenario};

/// The scenarios.
pub const ALL: &[Scenario] = &[
    Scenario { api: "InitProducerId", name: "without a transaction", body: idempotent },
    Scenario { api: "InitProducerId", name: "each field changed", body: changed },
];

fn question(id: i64, epoch: i64) -> Value {
    json!({"transactionalId": null, "transactionTimeoutMs": 60_000, "producerId": id, "producerEpoch": epoch})
}

fn idempotent(run: &mut Run<'_>) {
    run.ask("a new id", question(-1, -1));
    run.ask("another", question(-1, -1));
    run.ask("an epoch without an id", question(-1, 3));
    run.ask("an id without an epoch", question(4711, -1));
    run.ask("an id and an epoch", question(4711, 3));
}

fn changed(run: &mut Run<'_>) {
    run.mutate(&question(-1, -1), &["transactionalId"]);
}
