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
        let mut largest: Option<(i64, i64, Arc<Segment>)> = None;
        for segment in segments {
            let failed = |error| self.read_error(&segment, segment.base_offset(), error);
            let (timestamp, offset) = segment.max_timestamp(&self.storage).map_err(failed)?;
            if timestamp > largest.as_ref().map_or(NO_TIMESTAMP, |(largest, ..)| *largest) {
                largest = Some((timestamp, offset, segment));
            }
        }
        let Some((timestamp, offset, segment)) = largest else { return Ok(None) };
        let failed = |error| self.read_error(&segment, offset, error);
        if offset < self.log_start_offset() {
            // The record was deleted; a later one has the largest timestamp of those that are left.
            let largest = self.largest_from(&segment, self.log_start_offset()).map_err(failed)?;
            return largest.map_or(Ok(None), |timestamp| self.offset_for_timestamp(timestamp));
        }
        let Some(located) = segment.find(&self.storage, offset).map_err(failed)? else { return Ok(None) };
        let start = self.log_start_offset();
        let wanted = |record: &Record| record.timestamp_ms >= timestamp && record.offset >= start;
        let found = self.within(&segment, located, wanted);
        Ok(found.map_err(failed)?.filter(|found| found.offset < self.high_watermark()))
    }

    /// The largest timestamp of the batches that reach `start` or lie behind it.
    fn largest_from(&self, segment: &Arc<Segment>, start: i64) -> Result<Option<i64>, SegmentError> {
        let mut largest = segment.max_timestamp_from(&self.storage, start)?;
        let mut next = self.segment_behind(segment);
        while let Some(segment) = next {
            largest = largest.max(segment.max_timestamp(&self.storage)?.0);
            next = self.segment_behind(&segment);
        }
        Ok((largest != NO_TIMESTAMP).then_some(largest))
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
