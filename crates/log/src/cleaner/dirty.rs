//! Whether a log is worth a cleaning, and how far it may go.
//!
//! Owns Kafka's rules: `min.cleanable.dirty.ratio`, `min.compaction.lag.ms` and `max.compaction.lag.ms`.
//! Changes nothing.

use std::sync::Arc;

use tidings_model::NO_TIMESTAMP;

use super::CleanError;
use crate::partition_log::PartitionLog;
use crate::segment::Segment;
use crate::storage::Storage;

/// What a cleaning would have before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Dirtiness {
    /// Where the part begins that was not cleaned yet.
    pub first_offset: i64,
    /// Where the part ends that may be cleaned: a segment's end.
    pub end_offset: i64,
    /// Bytes of the segments in between, of all that a cleaning would look at.
    pub ratio: f64,
    /// Whether a record has waited longer than it may.
    pub overdue: bool,
}

impl Dirtiness {
    /// How dirty a compacted log is; none when there is nothing to clean, or the log is not compacted.
    pub fn of(log: &Arc<PartitionLog>, storage: &Storage, now_ms: i64) -> Result<Option<Self>, CleanError> {
        let config = log.config();
        if !config.cleanup.compact {
            return Ok(None);
        }
        let start = log.log_start_offset();
        let mut first_offset = log.first_dirty_offset().unwrap_or(start);
        if !(start..=log.log_end_offset()).contains(&first_offset) {
            first_offset = start;
        }
        let bound = log.last_stable_offset().min(log.recovery_point());
        let mut dirtiness = Self { first_offset, end_offset: first_offset, ratio: 0.0, overdue: false };
        let (mut clean_bytes, mut dirty_bytes) = (0, 0);
        for segment in log.segments_below(bound) {
            let end_offset = log.end_of_segment(&segment);
            if end_offset > bound {
                break;
            }
            let size_bytes = segment.end().position;
            if end_offset <= first_offset {
                clean_bytes += size_bytes;
                continue;
            }
            let timestamps = Timestamps { segment: &segment, storage, now_ms };
            if timestamps.is_younger_than(config.min_compaction_lag_ms)? {
                break;
            }
            dirtiness.overdue |= timestamps.is_older_than(config.max_compaction_lag_ms)?;
            dirty_bytes += size_bytes;
            dirtiness.end_offset = end_offset;
        }
        if dirty_bytes == 0 {
            return Ok(None);
        }
        dirtiness.ratio = dirty_bytes as f64 / (clean_bytes + dirty_bytes) as f64;
        let worth = dirtiness.overdue || dirtiness.ratio > config.min_cleanable_dirty_ratio;
        Ok(Some(dirtiness).filter(|_| worth))
    }
}

struct Timestamps<'a> {
    segment: &'a Arc<Segment>,
    storage: &'a Storage,
    now_ms: i64,
}

impl Timestamps<'_> {
    fn is_younger_than(&self, lag_ms: i64) -> Result<bool, CleanError> {
        if lag_ms <= 0 {
            return Ok(false);
        }
        let largest = self.segment.largest_timestamp(self.storage);
        let largest = largest.map_err(|error| CleanError::of(self.segment, error))?;
        Ok(largest > self.now_ms.saturating_sub(lag_ms))
    }

    fn is_older_than(&self, lag_ms: i64) -> Result<bool, CleanError> {
        if lag_ms == i64::MAX {
            return Ok(false);
        }
        let first = self.segment.first_batch_timestamp(self.storage);
        let first = first.map_err(|error| CleanError::of(self.segment, error))?;
        Ok(first != NO_TIMESTAMP && first < self.now_ms.saturating_sub(lag_ms))
    }
}
