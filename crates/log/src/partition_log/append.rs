//! Appending: validate, assign offsets, write once, publish.
//!
//! Owns the rules of an append. Invariants: what fails leaves the log as it was; the payload is not
//! copied unless the broker sets the timestamps; offsets are assigned in the order of the file. Does not
//! wait for durability: the ticket does. Only what a failed write has left is removed durably at once.

mod error;
mod prepare;

pub use error::AppendError;
use prepare::prepare;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{Ordering::Relaxed, Ordering::Release};

use bytes::Bytes;

use super::{Condition, PartitionLog, Writer};
use crate::batch::{BatchHeader, EndTxnMarker, TimestampType, UNCOVERED_PREFIX_LEN};
use crate::commit::CommitTicket;
use crate::config::{Durability, LogConfig};
use crate::disk::{DiskFile, OpenMode, write_all_at};
use crate::producers::Duplicate;
use crate::segment::{Segment, SegmentEnd, SegmentError};

/// Who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A producer; its batches are not trusted.
    Client,
    /// A producer, and the transaction coordinator has just confirmed that the partition is part of its transaction.
    Transaction,
    /// The broker itself, which may write control records.
    Coordinator,
}

/// What an append's producers are checked for.
pub(super) enum ProducerCheck {
    Batches,
    /// One batch, made from this marker.
    Marker {
        marker: EndTxnMarker,
        is_epoch_bumped: bool,
    },
}

/// What has become of the batches of an append.
enum Written {
    Now { file: Arc<dyn DiskFile>, base_offset: i64 },
    Before(Duplicate),
}

/// How to append.
#[derive(Debug, Clone, Copy)]
pub struct AppendOptions {
    /// Who appends.
    pub origin: Origin,
    /// Stored with each batch.
    pub leader_epoch: i32,
    /// The time, for timestamp limits and `LogAppendTime`.
    pub now_ms: i64,
}

/// A successful append; it counts once `commit` is ready.
#[derive(Debug)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// The timestamp the broker gave, where the topic wants that.
    pub log_append_time_ms: Option<i64>,
    /// The log's first readable offset.
    pub log_start_offset: i64,
    /// Ready when the records are durable and below the high watermark.
    pub commit: CommitTicket,
    /// Whether the records were there already and these are the offsets they had got.
    pub duplicate: bool,
}

impl PartitionLog {
    /// Appends one or more whole batches. On return they are in the page cache, in order, but not yet
    /// durable and not yet visible to consumers: wait for the ticket. Waits for a sync only after a write has failed.
    pub fn append(self: &Arc<Self>, records: Bytes, options: AppendOptions) -> Result<Appended, AppendError> {
        self.append_and(records, options, false)
    }

    /// The same for one of several appends that are waited for together, such as those of one request: so
    /// that a committer which has nothing else to do does not sync the first one alone. The commit begins
    /// with the next plain append, with [`CommitTicket::begin`], or when the ticket is waited for or
    /// dropped.
    pub fn append_with_more(
        self: &Arc<Self>,
        records: Bytes,
        options: AppendOptions,
    ) -> Result<Appended, AppendError> {
        self.append_and(records, options, true)
    }

    fn append_and(
        self: &Arc<Self>,
        records: Bytes,
        options: AppendOptions,
        more: bool,
    ) -> Result<Appended, AppendError> {
        self.append_checked(records, options, more, ProducerCheck::Batches)
    }

    pub(super) fn append_checked(
        self: &Arc<Self>,
        records: Bytes,
        options: AppendOptions,
        more: bool,
        check: ProducerCheck,
    ) -> Result<Appended, AppendError> {
        let config = self.config();
        let (records, mut headers) = prepare(records, &config, &options).map_err(|source| {
            AppendError::Invalid { topic_partition: self.topic_partition.clone(), source }
        })?;
        let stamped = config.timestamp_type == TimestampType::LogAppendTime;
        if records.len() > config.segment_bytes as usize {
            let (found, segment_bytes) = (records.len(), config.segment_bytes);
            let topic_partition = self.topic_partition.clone();
            return Err(AppendError::LargerThanSegment { topic_partition, found, segment_bytes });
        }
        let mut writer = self.writer.lock();
        let written = self.check_and_write(&mut writer, &config, &records, &mut headers, &options, check);
        if let Err(AppendError::Storage { .. } | AppendError::LowSpace { .. }) = written {
            writer.await_batches(&headers);
        }
        let (file, base_offset) = match written? {
            Written::Now { file, base_offset } => (file, base_offset),
            Written::Before(duplicate) => return self.answer_duplicate(&writer, duplicate, stamped),
        };
        let last_offset = self.publish(&mut writer, &headers, &records, &config);
        let commit = match self.storage.options.durability {
            Durability::Power => self.submit(&writer.active, file, more),
            Durability::Process => self.flush_if_many(&mut writer, &config, base_offset, options.now_ms),
        };
        self.uncheckpointed_bytes.fetch_add(records.len() as u64, Relaxed);
        drop(writer);
        self.storage.note_appended(records.len() as u64);
        let log_append_time_ms = stamped.then_some(options.now_ms);
        let log_start_offset = self.log_start_offset();
        let duplicate = false;
        Ok(Appended { base_offset, last_offset, log_append_time_ms, log_start_offset, commit, duplicate })
    }

    /// Writes the batches, unless they are there already. They count once they are published.
    fn check_and_write(
        self: &Arc<Self>,
        writer: &mut Writer,
        config: &LogConfig,
        records: &Bytes,
        headers: &mut [BatchHeader],
        options: &AppendOptions,
        check: ProducerCheck,
    ) -> Result<Written, AppendError> {
        self.make_ready(writer)?;
        let duplicate = match check {
            ProducerCheck::Batches => writer.producers.check(headers, options.origin, &writer.awaited),
            ProducerCheck::Marker { marker, is_epoch_bumped } => {
                writer.producers.check_marker(&headers[0], &marker, is_epoch_bumped).map(|()| None)
            }
        };
        let topic_partition = || self.topic_partition.clone();
        match duplicate {
            Err(source) => return Err(AppendError::Sequence { topic_partition: topic_partition(), source }),
            Ok(Some(duplicate)) => return Ok(Written::Before(duplicate)),
            Ok(None) => {}
        }
        // Behind the check for duplicates: what is there already needs no space.
        if options.origin != Origin::Coordinator
            && let Some(low) = self.storage.space.low()
        {
            return Err(AppendError::LowSpace { topic_partition: topic_partition(), low });
        }
        self.roll_if_due(writer, config, headers, records.len(), options.now_ms)?;
        let (file, base_offset) = self.write(writer, records, headers, options.leader_epoch)?;
        Ok(Written::Now { file, base_offset })
    }

    /// Takes room behind the log's end, so that appends of so many bytes succeed on a full disk. The room is given
    /// back by whatever cuts the log: reserve anew before each append that counts on it.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<(), AppendError> {
        let mut writer = self.writer.lock();
        self.make_ready(&mut writer)?;
        let (storage, position) = (&self.storage, writer.active.end().position);
        let reserved = storage.open_files.get(&*storage.disk, &writer.active);
        reserved
            .and_then(|file| file.reserve(position, bytes))
            .map_err(|source| self.storage_error("reserving room in", &writer.active, source))
    }

    /// Has the storage find out, too, whether the whole file system has failed.
    fn storage_error(&self, what: &str, segment: &Segment, source: io::Error) -> AppendError {
        self.storage.note_failed_write();
        AppendError::Storage {
            topic_partition: self.topic_partition.clone(),
            what: format!("{what} {}", segment.log_path().display()),
            offset: self.log_end_offset(),
            source,
        }
    }

    /// Lets the append go on, or says why not.
    pub(super) fn make_ready(self: &Arc<Self>, writer: &mut Writer) -> Result<(), AppendError> {
        let topic_partition = || self.topic_partition.clone();
        if let Some(why) = self.storage.health.failure() {
            return Err(AppendError::StorageFailed { topic_partition: topic_partition(), why: why.clone() });
        }
        match writer.condition {
            Condition::Ready => return Ok(()),
            Condition::Closed => return Err(AppendError::Closed { topic_partition: topic_partition() }),
            Condition::Deleted => return Err(AppendError::Deleted { topic_partition: topic_partition() }),
            Condition::Ragged { position } => self.cut_back(writer, position)?,
            Condition::Unprepared => writer.active.prepare(&self.storage).map_err(|error| match error {
                SegmentError::Io(source) => self.storage_error("opening", &writer.active, source),
                SegmentError::Bad(bad) => AppendError::Damaged {
                    topic_partition: topic_partition(),
                    what: format!("{}: {bad}", writer.active.log_path().display()),
                },
            })?,
        }
        writer.condition = Condition::Ready;
        Ok(())
    }

    /// Removes what a failed write left, durably. Until that has succeeded nothing is written in its place and no segment
    /// follows: after a crash the rest would show again, below a recovery point that was checkpointed meanwhile, as the
    /// end of a closed segment, or mixed with what came after it.
    fn cut_back(&self, writer: &mut Writer, position: u64) -> Result<(), AppendError> {
        writer.condition = Condition::Ragged { position };
        let storage = &self.storage;
        let failed = |source| self.storage_error("cutting back", &writer.active, source);
        let file = storage.open_files.get(&*storage.disk, &writer.active).map_err(failed)?;
        // On a full disk most failed writes have written nothing.
        if file.len().map_err(failed)? != position {
            file.set_len(position).map_err(failed)?;
            if let Err(error) = file.sync_data() {
                let path = writer.active.log_path();
                let why = format!("syncing {} after a failed write failed: {error}", path.display());
                let why = storage.health.fail(why);
                return Err(AppendError::StorageFailed {
                    topic_partition: self.topic_partition.clone(),
                    why,
                });
            }
        }
        writer.condition = Condition::Ready;
        Ok(())
    }

    fn answer_duplicate(
        self: &Arc<Self>,
        writer: &Writer,
        duplicate: Duplicate,
        stamped: bool,
    ) -> Result<Appended, AppendError> {
        let commit = if duplicate.last_offset < self.high_watermark() {
            CommitTicket::ready()
        } else {
            let storage = &self.storage;
            let file = storage.open_files.get(&*storage.disk, &writer.active);
            let file = file.map_err(|source| self.storage_error("opening", &writer.active, source))?;
            // With `Process` as well: a high watermark that lags there waits for a flush.
            self.submit(&writer.active, file, false)
        };
        Ok(Appended {
            base_offset: duplicate.base_offset,
            last_offset: duplicate.last_offset,
            log_append_time_ms: stamped.then_some(duplicate.timestamp),
            log_start_offset: self.log_start_offset(),
            commit,
            duplicate: true,
        })
    }

    /// Begins a new segment where Kafka would: by size, by the span of timestamps, or when an index is
    /// full.
    fn roll_if_due(
        self: &Arc<Self>,
        writer: &mut Writer,
        config: &LogConfig,
        headers: &[BatchHeader],
        len: usize,
        now_ms: i64,
    ) -> Result<(), AppendError> {
        let active = &writer.active;
        let SegmentEnd { offset, position } = active.end();
        if position == 0 {
            return Ok(());
        }
        let count: i64 = headers.iter().map(|header| i64::from(header.record_count)).sum();
        let newest = headers.iter().map(|header| header.max_timestamp).max().unwrap_or(now_ms);
        let most_ms = config.max_segment_ms() - self.jitter_ms(config, active);
        let spans = |first| newest.saturating_sub(first) > most_ms;
        let due = position + len as u64 > u64::from(config.segment_bytes)
            || active.first_timestamp().is_some_and(spans)
            || active.index_full(config.segment_index_bytes)
            || active.out_of_reach(offset + count);
        if due { self.roll(writer, offset) } else { Ok(()) }
    }

    /// By how much less than `segment.ms` this segment may span: as good as random, and the same each time.
    fn jitter_ms(&self, config: &LogConfig, active: &Segment) -> i64 {
        let most_ms = config.segment_jitter_ms.min(config.segment_ms);
        if most_ms <= 0 {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        (&self.topic_partition, active.base_offset()).hash(&mut hasher);
        (hasher.finish() >> 1) as i64 % most_ms
    }

    pub(super) fn roll(self: &Arc<Self>, writer: &mut Writer, base_offset: i64) -> Result<(), AppendError> {
        let storage = &self.storage;
        if let Err(error) = writer.active.close_indexes(storage) {
            // They stay in memory, and are rebuilt after a restart.
            tracing::warn!("{}: writing indexes failed: {error}", self.topic_partition);
        }
        let segment = Arc::new(Segment::created(self.dir.clone(), base_offset));
        let file = storage
            .disk
            .open(&segment.log_path(), OpenMode::Truncate)
            .map_err(|source| self.storage_error("creating", &segment, source))?;
        storage.open_files.put(&segment, file);
        self.segments.write().push(segment.clone());
        writer.active = segment;
        // The next checkpoint makes the closed segment durable where the committer doesn't.
        storage.checkpoints.ring();
        Ok(())
    }

    /// Writes the batches at the end of the active segment with new prefixes; on failure cuts back.
    fn write(
        self: &Arc<Self>,
        writer: &mut Writer,
        records: &Bytes,
        headers: &mut [BatchHeader],
        leader_epoch: i32,
    ) -> Result<(Arc<dyn DiskFile>, i64), AppendError> {
        let SegmentEnd { offset: base_offset, position } = writer.active.end();
        let mut next_offset = base_offset;
        let mut prefixes = Vec::with_capacity(headers.len());
        for header in headers.iter_mut() {
            header.base_offset = next_offset;
            header.leader_epoch = leader_epoch;
            next_offset = header.next_offset();
            prefixes.push(header.encode());
        }
        let mut slices = Vec::with_capacity(headers.len() * 2);
        let mut at = 0;
        for (prefix, header) in prefixes.iter().zip(headers.iter()) {
            slices.push(IoSlice::new(&prefix[..UNCOVERED_PREFIX_LEN]));
            slices.push(IoSlice::new(&records[at + UNCOVERED_PREFIX_LEN..at + header.size_bytes()]));
            at += header.size_bytes();
        }
        let storage = &self.storage;
        let file = storage
            .open_files
            .get(&*storage.disk, &writer.active)
            .map_err(|source| self.storage_error("opening", &writer.active, source))?;
        if let Err(source) = write_all_at(&*file, &mut slices, position) {
            let error = self.storage_error("writing", &writer.active, source);
            return Err(self.cut_back(writer, position).err().unwrap_or(error));
        }
        Ok((file, base_offset))
    }

    /// Lets readers of the log's end and the committer see the batches; returns the last offset.
    fn publish(
        &self,
        writer: &mut Writer,
        headers: &[BatchHeader],
        records: &Bytes,
        config: &LogConfig,
    ) -> i64 {
        let last = headers.last().expect("validated: at least one batch");
        // Before the end moves: no reader may pass the beginning of a transaction.
        self.apply_producers(writer, headers, records);
        // The end comes first: the committer may move the high watermark right after.
        self.log_end_offset.store(last.next_offset(), Release);
        for header in headers {
            writer.active.appended(&self.storage, header, config.index_interval_bytes);
            writer.epochs.assign(header.leader_epoch, header.base_offset);
        }
        last.last_offset()
    }

    /// Hands a segment to the committer.
    pub(super) fn submit(
        self: &Arc<Self>,
        segment: &Arc<Segment>,
        file: Arc<dyn DiskFile>,
        more: bool,
    ) -> CommitTicket {
        self.storage.committer.submit(self, &self.storage, segment, file, more)
    }
}
