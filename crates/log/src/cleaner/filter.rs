//! What stays of a batch.
//!
//! Owns Kafka's rules for records, batches and delete horizons (KIP-534). Invariants: a record stays at its
//! offset with its timestamp; a batch keeps its base and last offset, its producer, epoch and sequence; the
//! last batch of a producer and the last one of a group stay, without records if need be.

use bytes::Bytes;

use super::LastBatches;
use super::key_map::KeyMap;
use super::transactions::CleanedTransactions;
use crate::batch::{Batch, Record, UnpackError, rebuild, rebuild_empty};

/// The state of one cleaning while it goes through the segments in order.
pub(super) struct Filter {
    pub keys: KeyMap,
    /// Where the part ends whose keys are known; records behind it stay.
    pub mapped_end_offset: i64,
    pub txns: CleanedTransactions,
    pub last_batches: LastBatches,
    /// Where the present group of segments ends.
    pub group_end_offset: i64,
    pub now_ms: i64,
    pub delete_retention_ms: i64,
}

/// Why a batch's records can't be filtered.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error(transparent)]
    Record(#[from] crate::batch::RecordError),
}

impl Filter {
    /// What stays of the batch; none when nothing does. To be called for each batch, in order.
    pub fn filter(&mut self, batch: &Batch) -> Result<Option<Bytes>, FilterError> {
        let header = &batch.header;
        let horizon = header.has_delete_horizon().then_some(header.base_timestamp);
        let may_go = self.txns.on_batch(batch).discards;
        let is_due = horizon.is_some_and(|horizon| horizon <= self.now_ms);
        let discards = if header.is_control() { may_go && is_due } else { may_go };
        let stays = self.stays_empty(batch);
        if discards || header.record_count == 0 {
            return Ok(stays.then(|| rebuild_empty(header)));
        }
        let retains = |record: &Record| header.is_control() || self.is_retained(record, horizon);
        // Counted first and encoded in a second pass, for there may be more of them than the memory holds.
        let records = batch.unpacked_records()?;
        let mut retained_count = 0;
        let mut has_tombstones = false;
        for record in records.clone() {
            let record = record?;
            if retains(&record) {
                has_tombstones |= record.value.is_none();
                retained_count += 1;
            }
        }
        if retained_count == 0 {
            return Ok(stays.then(|| rebuild_empty(header)));
        }
        let waits = horizon.is_none() && if header.is_control() { may_go } else { has_tombstones };
        if !waits && retained_count == header.record_count {
            return Ok(Some(batch.bytes.clone()));
        }
        let delete_horizon_ms =
            if waits { Some(self.now_ms.saturating_add(self.delete_retention_ms)) } else { horizon };
        Ok(Some(rebuild(header, records.flatten().filter(retains), delete_horizon_ms)))
    }

    /// Whether the batch must not go altogether: a producer's last sequence, or the epoch that fences it, can be
    /// rebuilt from it; or the group's end offset.
    fn stays_empty(&self, batch: &Batch) -> bool {
        let header = &batch.header;
        let is_last = || self.last_batches.get(&header.producer_id).is_some_and(|last| last.is(header));
        header.has_producer_id() && is_last() || header.next_offset() == self.group_end_offset
    }

    fn is_retained(&self, record: &Record, horizon: Option<i64>) -> bool {
        if record.offset >= self.mapped_end_offset {
            return true;
        }
        // Compacted topics refuse records without a key; one that is there came before the topic was compacted.
        let Some(key) = &record.key else { return false };
        let is_last = self.keys.last_offset(key).is_none_or(|last| record.offset >= last);
        is_last && (record.value.is_some() || horizon.is_none_or(|horizon| self.now_ms < horizon))
    }
}
