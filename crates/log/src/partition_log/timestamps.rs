//! From timestamps to offsets.
//!
//! Owns the search that ListOffsets needs. Invariants: only durable records are found, and only in batches with the
//! right CRC: whoever asks gets no bytes to check. In a compressed
//! batch the records can't be seen from here; the answer then says so and hands out the batch.

use std::sync::Arc;

use tidings_model::NO_TIMESTAMP;

use super::{FileSlice, PartitionLog, ReadError};
use crate::batch::{Batch, Record, TimestampType};
use crate::segment::{Located, Segment, SegmentError, check_crc};

/// A record found by its timestamp.
#[derive(Debug, Clone)]
pub struct TimestampedOffset {
    /// Its offset; where `compressed` is set, the batch's first.
    pub offset: i64,
    /// Its timestamp; where `compressed` is set, the batch's largest.
    pub timestamp_ms: i64,
    /// The leader epoch of its batch.
    pub leader_epoch: i32,
    /// The batch, where its records are compressed and the exact record is for the caller to find.
    pub compressed: Option<FileSlice>,
}

impl PartitionLog {
    /// The first record whose timestamp is at least `timestamp_ms`.
    pub fn offset_for_timestamp(&self, timestamp_ms: i64) -> Result<Option<TimestampedOffset>, ReadError> {
        let segments = self.segments.read().clone();
        for segment in segments {
            let failed = |error| self.read_error(&segment, segment.base_offset(), error);
            if segment.max_timestamp(&self.storage).map_err(failed)?.0 < timestamp_ms {
                continue;
            }
            let Some(located) = segment.find_timestamp(&self.storage, timestamp_ms).map_err(failed)? else {
                continue;
            };
            let wanted = |record: &Record| record.timestamp_ms >= timestamp_ms;
            let found = self.within(&segment, located, wanted).map_err(failed)?;
            return Ok(found.filter(|found| found.offset < self.high_watermark()));
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
        let Some(located) = segment.find(&self.storage, offset).map_err(failed)? else { return Ok(None) };
        let found = self.within(&segment, located, |record| record.timestamp_ms >= timestamp);
        Ok(found.map_err(failed)?.filter(|found| found.offset < self.high_watermark()))
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
        let (timestamp_ms, leader_epoch) = (header.max_timestamp, header.leader_epoch);
        let whole =
            TimestampedOffset { offset: header.base_offset, timestamp_ms, leader_epoch, compressed: None };
        if header.timestamp_type() == TimestampType::LogAppendTime {
            return Ok(Some(whole));
        }
        let batch = Batch { header, bytes: slice.read()? };
        let Some(records) = batch.records() else {
            return Ok(Some(TimestampedOffset { compressed: Some(slice), ..whole }));
        };
        let found = records.flatten().find(wanted);
        Ok(found.map(|record| TimestampedOffset {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            ..whole
        }))
    }
}
