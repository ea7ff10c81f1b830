//! The part of a producer's state that is about transactions.
//!
//! Owns the rules for what may be appended in a transaction and how one ends. Invariants: at most one transaction of a
//! producer is open in a partition; it ends with a marker and with nothing else.

use tidings_model::NO_PRODUCER_EPOCH;

use super::{Producers, SequenceError};
use crate::batch::{BatchHeader, EndTxnMarker, TransactionResult};

/// A transaction that a marker has ended in this partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndedTransaction {
    pub producer_id: i64,
    /// Its first record.
    pub first_offset: i64,
    /// The marker.
    pub marker_offset: i64,
    pub result: TransactionResult,
}

/// A transaction that no marker has ended in this partition yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Whose it is.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// Its first record.
    pub first_offset: i64,
}

/// What is known of one producer (DescribeProducers, KIP-664).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Its id.
    pub producer_id: i64,
    /// The epoch of its newest batch or marker.
    pub producer_epoch: i16,
    /// The sequence of its last record in this epoch; -1 without one.
    pub last_sequence: i32,
    /// The timestamp of its newest batch or marker.
    pub last_timestamp_ms: i64,
    /// Of the coordinator that wrote its newest marker; -1 without one.
    pub coordinator_epoch: i32,
    /// The first record of its open transaction; -1 without one.
    pub txn_start_offset: i64,
}

impl Producers {
    /// Checks a client's batch against the open transaction of its producer, if there is one. `is_verified` says that
    /// the coordinator knows the partition as part of the producer's transaction.
    pub(super) fn check_transaction(
        &self,
        header: &BatchHeader,
        is_verified: bool,
    ) -> Result<(), SequenceError> {
        let producer = self.by_id.get(&header.producer_id);
        let open_epoch =
            producer.filter(|producer| producer.txn_first_offset.is_some()).map(|producer| producer.epoch);
        let BatchHeader { producer_id, producer_epoch, .. } = *header;
        if !header.is_transactional() {
            return match open_epoch {
                Some(_) => Err(SequenceError::NotTransactional { producer_id, producer_epoch }),
                None => Ok(()),
            };
        }
        if is_verified || open_epoch == Some(producer_epoch) {
            return Ok(());
        }
        Err(SequenceError::NotVerified { producer_id, producer_epoch })
    }

    /// Checks a marker. With `is_epoch_bumped` (KIP-890) it must have a newer epoch than what it ends, so that a marker
    /// which is written twice cannot end the next transaction.
    pub fn check_marker(
        &self,
        header: &BatchHeader,
        marker: &EndTxnMarker,
        is_epoch_bumped: bool,
    ) -> Result<(), SequenceError> {
        let Some(producer) = self.by_id.get(&header.producer_id) else { return Ok(()) };
        let BatchHeader { producer_id, producer_epoch: found, .. } = *header;
        let stale = if is_epoch_bumped {
            found <= producer.epoch && found != i16::MAX
        } else {
            found < producer.epoch
        };
        if stale && producer.epoch != NO_PRODUCER_EPOCH {
            return Err(SequenceError::Fenced { producer_id, expected: producer.epoch, found });
        }
        let (expected, found) = (producer.coordinator_epoch, marker.coordinator_epoch);
        if found < expected {
            return Err(SequenceError::CoordinatorFenced { producer_id, expected, found });
        }
        Ok(())
    }

    /// Takes a marker of the log into the state.
    pub(super) fn end_transaction(
        &mut self,
        header: &BatchHeader,
        marker: &EndTxnMarker,
    ) -> Option<EndedTransaction> {
        let producer = self.by_id.get_mut(&header.producer_id)?;
        producer.coordinator_epoch = marker.coordinator_epoch;
        let first_offset = producer.txn_first_offset.take()?;
        self.open_txns.remove(&first_offset);
        let (producer_id, marker_offset) = (header.producer_id, header.last_offset());
        Some(EndedTransaction { producer_id, first_offset, marker_offset, result: marker.result })
    }

    /// Whether the producer has a transaction without a marker, in this epoch.
    pub fn has_open_transaction(&self, producer_id: i64, producer_epoch: i16) -> bool {
        self.by_id
            .get(&producer_id)
            .is_some_and(|producer| producer.txn_first_offset.is_some() && producer.epoch == producer_epoch)
    }

    /// The transactions without a marker, in no order.
    pub fn open_transactions(&self) -> Vec<OpenTransaction> {
        let open = self.by_id.iter().filter_map(|(producer_id, producer)| {
            Some(OpenTransaction {
                producer_id: *producer_id,
                producer_epoch: producer.epoch,
                first_offset: producer.txn_first_offset?,
            })
        });
        open.collect()
    }

    /// Every producer, in no order.
    pub fn active(&self) -> Vec<ActiveProducer> {
        let active = self.by_id.iter().map(|(producer_id, producer)| ActiveProducer {
            producer_id: *producer_id,
            producer_epoch: producer.epoch,
            last_sequence: producer.last_sequence(),
            last_timestamp_ms: producer.last_timestamp,
            coordinator_epoch: producer.coordinator_epoch,
            txn_start_offset: producer.txn_first_offset.unwrap_or(-1),
        });
        active.collect()
    }
}
