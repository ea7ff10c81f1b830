//! What a cleaning knows of transactions while it passes through the log in order.
//!
//! Owns Kafka's two rules: records of an aborted transaction go at once; a marker may go once nothing of its
//! transaction is left before it (and then stays for `delete.retention.ms`, which is the filter's business).
//! Which transactions were aborted it is told.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::batch::{Batch, EndTxnMarker, TransactionResult};
use crate::segment::AbortedTransaction;

/// What may become of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OnBatch {
    /// Of records: they go. Of a marker: nothing of its transaction is left.
    pub discards: bool,
}

#[derive(Debug)]
pub(super) struct CleanedTransactions {
    /// By first offset, those that are not reached yet.
    ahead: VecDeque<AbortedTransaction>,
    aborting: HashMap<i64, Aborting>,
    /// Producers with records that stay since their last marker.
    committing: HashSet<i64>,
}

#[derive(Debug)]
struct Aborting {
    has_batches: bool,
}

impl CleanedTransactions {
    pub fn new(mut aborted: Vec<AbortedTransaction>) -> Self {
        aborted.sort_by_key(|txn| txn.first_offset);
        Self { ahead: aborted.into(), aborting: HashMap::new(), committing: HashSet::new() }
    }

    /// To be called for each batch, in order.
    pub fn on_batch(&mut self, batch: &Batch) -> OnBatch {
        let header = &batch.header;
        while let Some(txn) = self.ahead.front().copied()
            && txn.first_offset <= header.last_offset()
        {
            self.ahead.pop_front();
            self.aborting.insert(txn.producer_id, Aborting { has_batches: false });
        }
        let discards = if header.is_control() {
            match EndTxnMarker::parse(&batch.bytes).map(|marker| marker.result) {
                Some(TransactionResult::Abort) => {
                    self.aborting.remove(&header.producer_id).is_none_or(|txn| !txn.has_batches)
                }
                Some(TransactionResult::Commit) => !self.committing.remove(&header.producer_id),
                None => false,
            }
        } else if !header.is_transactional() {
            false
        } else if let Some(txn) = self.aborting.get_mut(&header.producer_id) {
            txn.has_batches = true;
            true
        } else {
            self.committing.insert(header.producer_id);
            false
        };
        OnBatch { discards }
    }
}
