//! From timestamps to offsets.
//!
//! Owns the search that ListOffsets needs. Invariants: only durable records are found, and only in batches with the
//! right CRC: whoever asks gets no bytes to check.

use std::sync::Arc;

use tidings_model::NO_TIMESTAMP;

use super::{FileSlice, PartitionLog, ReadError};
use crate::batch::{Batch, Record};
use crate::segment::{Located, Segment, SegmentError, check_crc};

/// A record found by its timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampedOffset {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp_ms: i64,
    /// The leader epoch of its batch.
    pub leader_epoch: i32,
}

impl PartitionLog {
    /// The first record from the log's start on whose timestamp is at least `timestamp_ms`.
    pub fn offset_for_timestamp(&self, timestamp_ms: i64) -> Result<Option<TimestampedOffset>, ReadError> {
        let segments = self.segments.read().clone();
        let start = self.log_start_offset();
        for segment in segments {
            let failed = |error| self.read_error(&segment, segment.base_offset(), error);
            if segment.max_timestamp(&self.storage).map_err(failed)?.0 < timestamp_ms {
                continue;
            }
            let wanted = |record: &Record| record.timestamp_ms >= timestamp_ms && record.offset >= start;
            let mut located = segment.find_timestamp(&self.storage, timestamp_ms, start).map_err(failed)?;
            while let Some(batch) = located {
                if let Some(found) = self.within(&segment, batch, wanted).map_err(failed)? {
                    return Ok(Some(found).filter(|found| found.offset < self.high_watermark()));
                }
                // Its record was below the start, or the cleaner has left nothing of the batch but its header.
                located = segment
                    .find_timestamp(&self.storage, timestamp_ms, batch.header.next_offset())
                    .map_err(failed)?;
            }
        }
        Ok(None)
    }

    /// The first record with the largest timestamp.
    pub fn max_timestamp(&self) -> Result<Option<TimestampedOffset>, ReadError> {
        let segments = self.segments.read().clone();
        let readable = self.log_start_offset()..self.high_watermark();
        let mut largest: Option<(i64, i64, Arc<Segment>)> = None;
        for segment in segments {
            let failed = |error| self.read_error(&segment, segment.base_offset(), error);
            let found = segment.max_timestamp_within(&self.storage, &readable).map_err(failed)?;
            if found.0 > largest.as_ref().map_or(NO_TIMESTAMP, |(largest, ..)| *largest) {
                largest = Some((found.0, found.1, segment));
            }
        }
        let Some((timestamp, offset, segment)) = largest else { return Ok(None) };
        let failed = |error| self.read_error(&segment, offset, error);
        let Some(located) = segment.find(&self.storage, offset).map_err(failed)? else { return Ok(None) };
        let wanted = |record: &Record| record.timestamp_ms >= timestamp && readable.contains(&record.offset);
        self.within(&segment, located, wanted).map_err(failed)
    }

    /// The first wanted record of a batch.
    fn within(
        &self,
        segment: &Arc<Segment>,
        located: Located,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<Option<TimestampedOffset>, SegmentError> {
        let Located { position, header } = located;
        let file = self.storage.open_files.get(&*self.storage.disk, segment)?;
        check_crc(&*file, &located)?;
        let slice = FileSlice { file: Some(file), position, len: header.size_bytes() };
        let leader_epoch = header.leader_epoch;
        let batch = Batch { header, bytes: slice.read()? };
        let records = match batch.unpacked_records() {
            Ok(records) => records,
            Err(error) => {
                // Only its producer knows what it wrote; the batch as a whole is still a right answer, if a coarse one.
                tracing::debug!("{}: cannot look into a batch: {error}", self.topic_partition);
                let (offset, timestamp_ms) = (header.base_offset, header.max_timestamp);
                let whole = TimestampedOffset { offset, timestamp_ms, leader_epoch };
                return Ok(Some(whole).filter(|whole| whole.offset >= self.log_start_offset()));
            }
        };
        let found = records.flatten().find(wanted);
        Ok(found.map(|Record { offset, timestamp_ms, .. }| TimestampedOffset {
            offset,
            timestamp_ms,
            leader_epoch,
        }))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::LogConfig;
    use crate::partition_log::PartitionLog;
    use crate::testing::SimDisk;
    use crate::testing::logs::{NOW_MS, append, append_durably, batch, create, open, partition};

    fn newest(orders: &PartitionLog) -> Option<i64> {
        orders.max_timestamp().expect("read").map(|found| found.offset)
    }

    /// While the newest record was being made durable, nothing was said of the newest of those that were.
    #[test]
    fn the_newest_durable_record_is_found_while_a_newer_one_is_committed() {
        for (durable, expected) in
            [(vec![1, 2], Some(1)), (vec![2, 1, 2], Some(0)), (vec![3, 1, 2, 1], Some(2))]
        {
            let disk = SimDisk::new();
            let data_dir = open(&disk);
            let orders = create(&data_dir, LogConfig { index_interval_bytes: 1, ..LogConfig::default() });
            for timestamp in &durable {
                append_durably(&orders, batch(NOW_MS + timestamp));
            }
            // The first record counts only where the others have no later one.
            let start = i64::from(durable[0] == 3);
            data_dir.delete_records(&[(partition(), Some(start))], NOW_MS).remove(0).expect("delete");
            assert_eq!(newest(&orders), expected, "{durable:?}");
            disk.hold_syncs();
            let appended = append(&orders, batch(NOW_MS + 9));
            let meanwhile = newest(&orders);
            disk.release_syncs(false);
            appended.commit.wait_blocking().expect("commit");
            assert_eq!(meanwhile, expected, "{durable:?}");
            assert_eq!(newest(&orders), Some(durable.len() as i64), "{durable:?}");
        }
    }

    #[test]
    fn nothing_is_newest_before_anything_is_durable() {
        let disk = SimDisk::new();
        let data_dir = open(&disk);
        let orders = create(&data_dir, LogConfig::default());
        disk.hold_syncs();
        let appended = append(&orders, batch(NOW_MS));
        let meanwhile = newest(&orders);
        disk.release_syncs(false);
        appended.commit.wait_blocking().expect("commit");
        assert_eq!(meanwhile, None);
        assert_eq!(newest(&orders), Some(0));
    }
}
