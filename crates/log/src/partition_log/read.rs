//! Reading: from an offset to a slice of a segment file.
//!
//! Owns the limits of a read and the memory of where reads ended. Invariants: a slice holds whole batches
//! and ends at or below its limit; its bytes never change. Sequential reads find their place without a
//! search. Does not copy: the caller reads the slice or hands its descriptor to the kernel.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tidings_model::{ErrorCode, TopicPartition};

use super::old_batches::fitting;
use super::{Mark, PartitionLog};
use crate::disk::{DiskFile, read_exact_at};
use crate::segment::{BadBatch, HeaderScan, Segment, SegmentEnd, SegmentError};

/// How many ends of recent reads are remembered per partition: about one per consumer group.
const RECENT_MARKS: usize = 8;

/// Where a read ends at the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpTo {
    /// At the high watermark: everything durable.
    HighWatermark,
    /// At the last stable offset: no open transaction.
    LastStable,
    /// At the log's end, durable or not: for the broker's own replay.
    LogEnd,
}

/// What a read found.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Whole batches; the first one holds the offset asked for. Empty when there are none yet.
    pub slice: FileSlice,
    /// The slice ends at or before this offset.
    pub end_offset: i64,
    /// Where consumers' reads end.
    pub high_watermark: i64,
    /// Where `read_committed` reads end.
    pub last_stable_offset: i64,
    /// The first readable offset.
    pub log_start_offset: i64,
}

/// Bytes of a segment file.
#[derive(Debug, Clone)]
pub struct FileSlice {
    /// The file, open as long as the slice lives, also when it is deleted meanwhile.
    pub file: Option<Arc<dyn DiskFile>>,
    /// Where the bytes begin.
    pub position: u64,
    /// How many there are.
    pub len: usize,
}

impl FileSlice {
    /// A slice without bytes.
    pub const EMPTY: Self = Self { file: None, position: 0, len: 0 };

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads the bytes into memory.
    pub fn read(&self) -> io::Result<Bytes> {
        let mut buffer = BytesMut::zeroed(self.len);
        self.read_into(&mut buffer)?;
        Ok(buffer.freeze())
    }

    /// Reads the bytes into `buffer`, which has the slice's length.
    pub fn read_into(&self, buffer: &mut [u8]) -> io::Result<()> {
        match &self.file {
            Some(file) => read_exact_at(&**file, buffer, self.position),
            None => Ok(()),
        }
    }

    /// The descriptor, for `sendfile`; none when empty or simulated.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref()?.as_fd()
    }
}

/// Why a read found nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is below the log's start or above its end.
    #[error("{topic_partition}: offset {offset} is outside {log_start_offset}..={end_offset}")]
    OffsetOutOfRange {
        /// The partition.
        topic_partition: TopicPartition,
        /// The offset asked for.
        offset: i64,
        /// The first readable offset.
        log_start_offset: i64,
        /// The log's end.
        end_offset: i64,
    },
    /// The disk failed.
    #[error("{topic_partition}: reading {file} failed: {source}")]
    Io {
        /// The partition.
        topic_partition: TopicPartition,
        /// The file.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
    /// The file does not hold what was appended.
    #[error("{topic_partition}: {file} is damaged where offset {offset} was sought: {what}")]
    Damaged {
        /// The partition.
        topic_partition: TopicPartition,
        /// The file.
        file: String,
        /// The offset asked for.
        offset: i64,
        /// Byte position, expected and found.
        what: String,
    },
    /// The partition was deleted.
    #[error("{topic_partition} was deleted")]
    Deleted {
        /// The partition.
        topic_partition: TopicPartition,
    },
}

impl ReadError {
    /// Kafka's code for a consumer.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Self::Io { .. } | Self::Damaged { .. } => ErrorCode::KafkaStorageError,
            Self::Deleted { .. } => ErrorCode::UnknownTopicOrPartition,
        }
    }
}

impl PartitionLog {
    /// Finds whole batches from `fetch_offset` on, at most `max_bytes` unless `at_least_one` wants the
    /// first batch whatever its size. The first batch may begin before the offset; consumers skip that.
    pub fn read(
        &self,
        fetch_offset: i64,
        max_bytes: usize,
        up_to: UpTo,
        at_least_one: bool,
    ) -> Result<Fetched, ReadError> {
        let high_watermark = self.high_watermark();
        let last_stable_offset = self.last_stable_offset().min(high_watermark);
        let log_start_offset = self.log_start_offset();
        let (slice, end_offset) = self.read_slice(fetch_offset, max_bytes, up_to, at_least_one)?;
        Ok(Fetched { slice, end_offset, high_watermark, last_stable_offset, log_start_offset })
    }

    fn read_slice(
        &self,
        offset: i64,
        max_bytes: usize,
        up_to: UpTo,
        at_least_one: bool,
    ) -> Result<(FileSlice, i64), ReadError> {
        let limit = self.limit(up_to)?;
        let nothing = (FileSlice::EMPTY, offset);
        if !self.has(offset, limit)? {
            return Ok(nothing);
        }
        let Some((segment, position)) = self.locate_below(offset, limit)? else {
            return Ok(nothing);
        };
        let failed = |error| self.read_error(&segment, offset, error);
        let end = if segment.id() == limit.segment { limit } else { end_of(&segment) };
        let file = self
            .storage
            .open_files
            .get(&*self.storage.disk, &segment)
            .map_err(|error| failed(SegmentError::Io(error)))?;
        let stop = if end.position.saturating_sub(position) <= max_bytes as u64 {
            end
        } else {
            self.whole_batches(&segment, &*file, position, max_bytes, at_least_one).map_err(failed)?
        };
        if stop.position <= position {
            return Ok(nothing);
        }
        let stop = match segment.is_old(position) {
            true => {
                self.check_first(&*file, position, end.position, offset).map_err(failed)?;
                fitting(&segment, &self.storage, &*file, position, stop).map_err(failed)?
            }
            false => stop,
        };
        // An end of a batch within the limit: the first batch may be larger than what is readable only
        // when the limit lies inside it, and limits are boundaries.
        self.remember(stop);
        let slice = FileSlice { file: Some(file), position, len: (stop.position - position) as usize };
        Ok((slice, stop.offset))
    }

    /// Only a compacted log may have nothing at an offset: in others a header before the batch has lied.
    fn check_first(
        &self,
        file: &dyn DiskFile,
        position: u64,
        end: u64,
        offset: i64,
    ) -> Result<(), SegmentError> {
        let first = HeaderScan::new(file, position, end).next_header()?;
        match first.map(|located| located.header.base_offset) {
            Some(found) if found > offset && !self.may_have_holes() => {
                Err(BadBatch { position, what: format!("expected offset {offset}, found {found}") }.into())
            }
            _ => Ok(()),
        }
    }

    fn may_have_holes(&self) -> bool {
        self.first_dirty_offset().is_some() || self.config().cleanup.compact
    }

    /// Whether there is something to read at `offset` below the limit.
    fn has(&self, offset: i64, limit: Mark) -> Result<bool, ReadError> {
        if self.is_deleted() {
            return Err(ReadError::Deleted { topic_partition: self.topic_partition.clone() });
        }
        let (log_start_offset, end_offset) = (self.log_start_offset(), self.log_end_offset());
        if offset < log_start_offset || offset > end_offset {
            let topic_partition = self.topic_partition.clone();
            return Err(ReadError::OffsetOutOfRange {
                topic_partition,
                offset,
                log_start_offset,
                end_offset,
            });
        }
        Ok(offset < limit.offset)
    }

    fn limit(&self, up_to: UpTo) -> Result<Mark, ReadError> {
        let high_watermark = self.marks.lock().high_watermark;
        match up_to {
            UpTo::HighWatermark => Ok(high_watermark),
            UpTo::LastStable => {
                let offset = self.last_stable_offset();
                if offset >= high_watermark.offset {
                    return Ok(high_watermark);
                }
                let (segment, position) = self.locate(offset)?;
                Ok(Mark { offset, segment: segment.id(), position })
            }
            UpTo::LogEnd => {
                let active = self.segments.read().last().expect("a log has a segment").clone();
                Ok(end_of(&active))
            }
        }
    }

    /// Where the batch with `offset` begins, or the first one behind it, below the limit. In a compacted log that
    /// may be in a later segment: Kafka's cleaner leaves holes at their ends, too. In others it is damage.
    fn locate_below(&self, offset: i64, limit: Mark) -> Result<Option<(Arc<Segment>, u64)>, ReadError> {
        let (mut segment, mut position) = self.locate(offset)?;
        while segment.id() != limit.segment && position >= segment.end().position {
            if !self.may_have_holes() {
                let what = "no batch of this segment reaches to the offset".to_owned();
                let bad = BadBatch { position, what };
                return Err(self.read_error(&segment, offset, SegmentError::Bad(bad)));
            }
            match self.segment_behind(&segment) {
                Some(next) if next.base_offset() < limit.offset => (segment, position) = (next, 0),
                _ => return Ok(None),
            }
        }
        Ok(Some((segment, position)))
    }

    /// Where the batch with `offset` begins, or the first one behind it in its segment.
    fn locate(&self, offset: i64) -> Result<(Arc<Segment>, u64), ReadError> {
        let segment = self.segment_of(offset).ok_or_else(|| ReadError::OffsetOutOfRange {
            topic_partition: self.topic_partition.clone(),
            offset,
            log_start_offset: self.log_start_offset(),
            end_offset: self.log_end_offset(),
        })?;
        if offset == segment.base_offset() {
            return Ok((segment, 0));
        }
        let recent = |mark: &&Mark| mark.offset == offset && mark.segment == segment.id();
        if let Some(mark) = self.marks.lock().recent.iter().find(recent) {
            return Ok((segment, mark.position));
        }
        match segment.find(&self.storage, offset) {
            Ok(Some(located)) => Ok((segment, located.position)),
            Ok(None) => {
                let position = segment.end().position;
                Ok((segment, position))
            }
            Err(error) => Err(self.read_error(&segment, offset, error)),
        }
    }

    /// The end of the last whole batch within `max_bytes` from `position` on, or of the first batch
    /// where at least one is wanted. There is more than `max_bytes` to read.
    fn whole_batches(
        &self,
        segment: &Arc<Segment>,
        file: &dyn DiskFile,
        position: u64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Mark, SegmentError> {
        let most = position + max_bytes as u64;
        let from = segment.boundary(&self.storage, most)?.max(position);
        let mut scan = HeaderScan::new(file, from, segment.end().position);
        let mut stop = Mark { offset: i64::MIN, segment: segment.id(), position: from };
        // The index has an entry every few kilobytes, so few headers are looked at.
        while let Some(located) = scan.next_header()? {
            stop.offset = located.header.base_offset;
            let first = located.position == position;
            if scan.position() > most && !(first && at_least_one) {
                break;
            }
            stop.position = scan.position();
            stop.offset = located.header.next_offset();
            if stop.position >= most {
                break;
            }
        }
        Ok(stop)
    }

    fn remember(&self, mark: Mark) {
        let recent = &mut self.marks.lock().recent;
        if recent.contains(&mark) {
            return;
        }
        if recent.len() == RECENT_MARKS {
            recent.pop_front();
        }
        recent.push_back(mark);
    }

    pub(super) fn read_error(&self, segment: &Segment, offset: i64, error: SegmentError) -> ReadError {
        let topic_partition = self.topic_partition.clone();
        let file = segment.log_path().display().to_string();
        match error {
            SegmentError::Io(source) => ReadError::Io { topic_partition, file, source },
            SegmentError::Bad(bad) => {
                ReadError::Damaged { topic_partition, file, offset, what: bad.to_string() }
            }
        }
    }
}

fn end_of(segment: &Segment) -> Mark {
    let SegmentEnd { offset, position } = segment.end();
    Mark { offset, segment: segment.id(), position }
}
