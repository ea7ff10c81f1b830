//! What a log may give up: whole segments, oldest first.
//!
//! Owns the rules of `retention.ms` and `retention.bytes`, which are Kafka's: a segment is old when its
//! largest timestamp is, or when the log without it is still large enough. Invariants: nothing at or above
//! the high watermark or the recovery point goes; the log always keeps a segment; `log_start_offset` only
//! rises. Does not touch files, and does not make the new start durable: the keeper does, before it calls.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

use parking_lot::MutexGuard;

use super::{AppendError, PartitionLog, ReadError};
use crate::segment::Segment;

/// What a look at a log's oldest segments gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Removable {
    /// Where the log will begin.
    pub end_offset: i64,
    /// Whether the active segment is old as well; it must be closed first.
    pub all: bool,
}

impl PartitionLog {
    /// Which segments are old, by the settings in force or because they end below the log's start.
    pub(crate) fn removable(&self, now_ms: i64) -> Result<Removable, ReadError> {
        let config = self.config();
        let segments = self.segments.read().clone();
        let log_start_offset = self.log_start_offset();
        let bound = self.high_watermark().min(self.recovery_point());
        let mut left_bytes: u64 = segments.iter().map(|segment| segment.end().position).sum();
        let mut removable = Removable { end_offset: log_start_offset, all: false };
        for (index, segment) in segments.iter().enumerate() {
            let next = segments.get(index + 1);
            let size_bytes = segment.end().position;
            let below_start = next.is_some_and(|next| next.base_offset() <= log_start_offset);
            let old = config.cleanup.delete
                && (is_surplus(left_bytes, size_bytes, config.retention_bytes)
                    || self.is_expired(segment, next.is_some(), config.retention_ms, now_ms)?);
            if !below_start && !old {
                break;
            }
            left_bytes -= size_bytes;
            match next {
                Some(next) if next.base_offset() > bound => break,
                Some(next) => removable.end_offset = removable.end_offset.max(next.base_offset()),
                None => removable.all = size_bytes > 0 && self.high_watermark() == self.log_end_offset(),
            }
        }
        Ok(removable)
    }

    fn is_expired(
        &self,
        segment: &Arc<Segment>,
        closed: bool,
        retention_ms: i64,
        now_ms: i64,
    ) -> Result<bool, ReadError> {
        if retention_ms < 0 {
            return Ok(false);
        }
        if segment.end().position == 0 {
            // A closed one was emptied by the cleaner; the active one is where the log goes on.
            return Ok(closed);
        }
        let failed = |error| self.read_error(segment, segment.base_offset(), error);
        let largest = segment.largest_timestamp(&self.storage).map_err(failed)?;
        Ok(now_ms.saturating_sub(largest) > retention_ms)
    }

    /// Closes the active segment, so that it can go like any other; nothing is lost by that.
    pub(crate) fn roll_now(self: &Arc<Self>) -> Result<(), AppendError> {
        let mut writer = self.writer.lock();
        self.make_ready(&mut writer)?;
        let end = writer.active.end();
        if end.position > 0 { self.roll(&mut writer, end.offset) } else { Ok(()) }
    }

    /// Raises the first readable offset to one that is durable as such.
    pub(crate) fn raise_log_start(&self, offset: i64) {
        assert!(offset <= self.high_watermark(), "{}: a start above the end", self.topic_partition);
        // Two may come at once; the larger one wins whatever their order.
        self.log_start_offset.fetch_max(offset, Release);
    }

    /// Keeps others from changing the files of closed segments; none when somebody does, or when the log
    /// was deleted and its files may be another's.
    pub(crate) fn try_maintain(&self) -> Option<MutexGuard<'_, ()>> {
        self.maintenance.try_lock().filter(|_| !self.is_deleted())
    }

    /// Takes the first segment out of the log if it ends at or below its start. Reads that have it go on with it; the
    /// caller removes the files. One at a time: each has its file open until it is dropped.
    pub(crate) fn detach_below_start(&self) -> io::Result<Option<Arc<Segment>>> {
        let first = match &self.segments.read()[..] {
            [first, next, ..] if next.base_offset() <= self.log_start_offset() => first.clone(),
            _ => return Ok(None),
        };
        first.retire(&self.storage)?;
        // Rolls only add behind, and nobody else removes while we maintain the log.
        self.segments.write().remove(0);
        Ok(Some(first))
    }
}

fn is_surplus(left_bytes: u64, size_bytes: u64, retention_bytes: i64) -> bool {
    u64::try_from(retention_bytes).is_ok_and(|retained| left_bytes.saturating_sub(retained) >= size_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DataDirOptions, LogConfig};
    use crate::data_dir::Chores;
    use crate::testing::logs::{NOW_MS, append_durably, batch, create, partition, try_open};
    use crate::testing::{Operation, SimDisk};

    #[test]
    fn a_segment_is_surplus_when_the_rest_is_still_large_enough() {
        let check = |left, size, retained, expect| {
            assert_eq!(is_surplus(left, size, retained), expect, "{left} {size} {retained}");
        };
        check(300, 100, 200, true);
        check(300, 100, 201, false);
        check(100, 100, 0, true);
        check(100, 100, -1, false);
        check(100, 100, i64::MAX, false);
    }
    /// All of them were opened before the first was removed; where no descriptor was left for one, the others were never
    /// closed again.
    #[test]
    fn segments_are_removed_one_by_one() {
        const MAX_OPEN_FILES: usize = 4;
        const EMFILE: i32 = 24;
        for fails in [false, true] {
            let disk = SimDisk::new();
            let options = DataDirOptions { max_open_files: MAX_OPEN_FILES, ..DataDirOptions::default() };
            let data_dir = try_open(&disk, options).expect("recover");
            let orders = create(&data_dir, LogConfig::default());
            for _ in 0..50 {
                append_durably(&orders, batch(NOW_MS));
                orders.roll_now().expect("roll");
            }
            data_dir.checkpoint().expect("checkpoint");
            if fails {
                disk.fail(Operation::Open, ".log", 20, 1, EMFILE);
            }
            disk.take_most_open_files_count();
            let deleted = data_dir.delete_records(&[(partition(), None)], NOW_MS).remove(0);
            assert_eq!(deleted.expect("delete"), 50);
            assert_eq!(orders.segment_count() > 1, fails);
            assert!(disk.open_files_count() <= MAX_OPEN_FILES, "{} files", disk.open_files_count());
            data_dir.keep(NOW_MS, Chores { retention: true, ..Chores::default() });
            assert_eq!(orders.segment_count(), 1);
            let most = disk.take_most_open_files_count();
            assert!(most <= MAX_OPEN_FILES + 2, "{most} files");
        }
    }
}
