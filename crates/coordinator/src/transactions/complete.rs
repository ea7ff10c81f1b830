//! From a decided outcome to a finished transaction: which markers to write, and the record that says they are.

use std::sync::Arc;

use tidings_model::ErrorCode;

use super::{Transaction, TransactionCoordinator, TransactionPartitions, TransactionState};
use crate::Outcome;

/// The markers that a decided transaction needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Whose transaction.
    pub transactional_id: Arc<str>,
    /// The producer.
    pub producer_id: i64,
    /// The epoch of the markers.
    pub producer_epoch: i16,
    /// Whether it commits; else it aborts.
    pub is_commit: bool,
    /// Whether the markers' epoch is newer than that of everything in the transaction (KIP-890).
    pub is_epoch_bumped: bool,
    /// Where to write them.
    pub partitions: TransactionPartitions,
}

impl TransactionCoordinator {
    /// The markers that the transaction of an id waits for, if its outcome is decided.
    pub fn completion(&self, transactional_id: &str) -> Option<Completion> {
        let (id, transaction) = self.transactions.get_key_value(transactional_id)?;
        transaction.state.is_prepared().then(|| Completion {
            transactional_id: id.clone(),
            producer_id: transaction.producer_id,
            producer_epoch: transaction.producer_epoch,
            is_commit: transaction.state == TransactionState::PrepareCommit,
            is_epoch_bumped: transaction.bumps_epochs(),
            partitions: transaction.partitions.clone(),
        })
    }

    /// The markers of every transaction whose outcome is decided: what a start finds half done.
    pub fn completions(&self) -> Vec<Completion> {
        self.transactions.keys().filter_map(|id| self.completion(id)).collect()
    }

    /// Whether what this producer has open in the partition is part of a transaction that is going on, or gets the
    /// markers of one that is decided.
    pub fn looks_after(&self, producer_id: i64, producer_epoch: i16, topic: &str, partition: i32) -> bool {
        self.transactions.values().any(|transaction| {
            let has_epoch = match transaction.state {
                TransactionState::Ongoing => producer_epoch == transaction.producer_epoch,
                // Records of the epoch that the markers bring belong to the next transaction.
                _ if transaction.bumps_epochs() => producer_epoch < transaction.producer_epoch,
                _ => producer_epoch <= transaction.producer_epoch,
            };
            transaction.producer_id == producer_id
                && !transaction.state.is_idle()
                && has_epoch
                && transaction.has_partition(topic, partition)
        })
    }

    /// All markers of the completion are durable: the transaction is over. Does nothing where that is known already.
    pub fn complete(&mut self, now_ms: i64, completion: &Completion) -> Outcome<ErrorCode> {
        self.assert_replayed();
        let id = completion.transactional_id.clone();
        if self.completion(&id).is_none_or(|current| {
            (current.producer_id, current.producer_epoch)
                != (completion.producer_id, completion.producer_epoch)
        }) {
            return Outcome::now(ErrorCode::InvalidTxnState);
        }
        let current = self.transactions[&id].clone();
        let state = match current.state {
            TransactionState::PrepareCommit => TransactionState::CompleteCommit,
            _ => TransactionState::CompleteAbort,
        };
        let (producer_id, producer_epoch) = match current.next_producer_id {
            -1 => (current.producer_id, current.producer_epoch),
            next => (next, 0),
        };
        let next = Transaction {
            producer_id,
            previous_producer_id: current.producer_id,
            next_producer_id: -1,
            producer_epoch,
            state,
            partitions: TransactionPartitions::new(),
            last_update_ms: now_ms,
            ..current
        };
        self.write(id, &next, ErrorCode::None)
    }
}
