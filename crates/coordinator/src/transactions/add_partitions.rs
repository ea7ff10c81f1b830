//! AddPartitionsToTxn and AddOffsetsToTxn, and what Produce and TxnOffsetCommit ask before they write (KIP-890).

use tidings_model::ErrorCode;

use super::{Transaction, TransactionCoordinator, TransactionPartitions, TransactionState};
use crate::Outcome;

/// Partitions that a producer writes to in its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddPartitionsRequest {
    /// Whose transaction.
    pub transactional_id: String,
    /// The producer's id.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// What it writes to.
    pub partitions: TransactionPartitions,
    /// What the client speaks: 2 where partitions are added by what is written to them, else 0.
    pub client_version: i16,
}

impl TransactionCoordinator {
    /// Adds partitions to the transaction; the first ones begin it.
    pub fn add_partitions(&mut self, now_ms: i64, request: &AddPartitionsRequest) -> Outcome<ErrorCode> {
        self.assert_replayed();
        let (id, current) = match self.writable(request) {
            Ok(found) => found,
            Err(error) => return Outcome::now(error),
        };
        let is_ongoing = current.state == TransactionState::Ongoing;
        if is_ongoing && contains(current, &request.partitions) {
            return Outcome::now(ErrorCode::None);
        }
        let (id, mut next) = (id.clone(), current.clone());
        for (topic, partitions) in &request.partitions {
            next.partitions.entry(topic.clone()).or_default().extend(partitions);
        }
        next.state = TransactionState::Ongoing;
        next.previous_producer_id = current.producer_id;
        next.next_producer_id = -1;
        next.start_ms = if is_ongoing { current.start_ms } else { now_ms };
        next.last_update_ms = now_ms;
        next.client_version = request.client_version;
        self.write(id, &next, ErrorCode::None)
    }

    /// Whether one partition is in the transaction, without changing anything.
    pub fn verify_partition(
        &self,
        request: &AddPartitionsRequest,
        topic: &str,
        partition: i32,
    ) -> Result<(), ErrorCode> {
        let (_, current) = self.writable(request)?;
        if current.has_partition(topic, partition) { Ok(()) } else { Err(ErrorCode::TransactionAbortable) }
    }

    fn writable(
        &self,
        request: &AddPartitionsRequest,
    ) -> Result<(&std::sync::Arc<str>, &Transaction), ErrorCode> {
        let (id, current) = self.owned(&request.transactional_id, request.producer_id)?;
        if current.producer_epoch != request.producer_epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        if current.state.is_prepared() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        Ok((id, current))
    }
}

fn contains(current: &Transaction, partitions: &TransactionPartitions) -> bool {
    partitions.iter().all(|(topic, partitions)| {
        partitions.iter().all(|partition| current.has_partition(topic, *partition))
    })
}
