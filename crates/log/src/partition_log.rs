//! One partition's log: its segments, its offsets, and who waits for it.
//!
//! Owns the order of appends and the four offsets. Invariants:
//! `log_start_offset <= last_stable_offset <= high_watermark <= log_end_offset`; readers below the high
//! watermark never see a byte change. Appends hold the writer lock, reads never do. Does not sync: the
//! committer does, and tells how far.

mod append;
mod checkpoint;
mod compaction;
mod fetch_waiter;
mod flush;
mod old_batches;
mod read;
mod retention;
mod snapshot;
mod timestamps;
mod transactions;

pub use append::{AppendError, AppendOptions, Appended, Origin};
pub use fetch_waiter::FetchWaiter;
pub use read::{Fetched, FileSlice, ReadError, UpTo};
pub use timestamps::TimestampedOffset;

pub(crate) use checkpoint::LEADER_EPOCHS;
pub(crate) use snapshot::DurableEnd;
pub(crate) use transactions::aborted;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Acquire, Ordering::Release};

use parking_lot::{Mutex, RwLock};
use tidings_model::{TopicId, TopicPartition};

use crate::batch::BatchHeader;
use crate::config::LogConfig;
use crate::leader_epochs::LeaderEpochs;
use crate::producers::{Awaited, Producers};
use crate::segment::{Segment, SegmentEnd, SegmentId};
use crate::storage::Storage;
use fetch_waiter::FetchWaiters;
use flush::Unflushed;
use transactions::UnstableOffsets;

/// A partition's log. All methods may be called from any thread; none waits for a sync, but an append whose write fails.
#[derive(Debug)]
pub struct PartitionLog {
    topic_partition: TopicPartition,
    topic_id: TopicId,
    dir: Arc<Path>,
    storage: Arc<Storage>,
    config: RwLock<Arc<LogConfig>>,
    writer: Mutex<Writer>,
    /// By base offset; the last one is appended to.
    segments: RwLock<Vec<Arc<Segment>>>,
    marks: Mutex<Marks>,
    log_start_offset: AtomicI64,
    unstable: UnstableOffsets,
    high_watermark: AtomicI64,
    log_end_offset: AtomicI64,
    /// What the newest checkpoint covers.
    recovery_point: AtomicI64,
    /// Where the part begins that the cleaner has not seen, or [`NEVER_CLEANED`].
    first_dirty_offset: AtomicI64,
    /// Damage was found where the cleaner read.
    uncleanable: AtomicBool,
    /// Held by whoever changes files of closed segments. Not held by appends and reads.
    maintenance: Mutex<()>,
    /// About how many bytes lie above it.
    uncheckpointed_bytes: AtomicU64,
    deleted: AtomicBool,
    waiters: FetchWaiters,
}

/// What appends change, under their lock.
#[derive(Debug)]
struct Writer {
    active: Arc<Segment>,
    producers: Producers,
    awaited: Awaited,
    epochs: LeaderEpochs,
    /// The epochs as this process has written them to their file.
    saved_epochs: Option<String>,
    condition: Condition,
    /// Always empty with [`crate::Durability::Power`].
    unflushed: Unflushed,
}

impl Writer {
    /// Notes batches that were refused and may come again.
    fn await_batches(&mut self, headers: &[BatchHeader]) {
        self.awaited.note(headers, &self.producers);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Ready,
    /// Recovered but not written to since: the active segment's indexes are not loaded.
    Unprepared,
    /// A failed write left bytes behind this position that could not be cut back durably yet.
    Ragged {
        position: u64,
    },
    Closed,
    Deleted,
}

/// Batch boundaries whose position is known without a search.
#[derive(Debug)]
struct Marks {
    high_watermark: Mark,
    /// Where recent reads ended, and so where the next ones probably begin.
    recent: VecDeque<Mark>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    offset: i64,
    segment: SegmentId,
    position: u64,
}

/// What [`PartitionLog::new`] takes over from recovery or creation.
pub(crate) struct Recovered {
    pub topic_partition: TopicPartition,
    pub topic_id: TopicId,
    pub dir: Arc<Path>,
    /// At least one.
    pub segments: Vec<Arc<Segment>>,
    pub log_start_offset: i64,
    pub producers: Producers,
    pub epochs: LeaderEpochs,
    /// Below it everything is covered by a checkpoint.
    pub recovery_point: i64,
    /// Where the cleaner goes on, if the log was ever compacted.
    pub first_dirty_offset: Option<i64>,
}

const NEVER_CLEANED: i64 = -1;

impl PartitionLog {
    /// A log whose whole contents are durable.
    pub(crate) fn new(storage: Arc<Storage>, recovered: Recovered, config: LogConfig) -> Self {
        let active = recovered.segments.last().expect("a log has a segment").clone();
        let SegmentEnd { offset: end_offset, position } = active.end();
        let high_watermark = Mark { offset: end_offset, segment: active.id(), position };
        let unstable = UnstableOffsets::new(recovered.producers.first_unstable_offset());
        let unchecked = if recovered.recovery_point < end_offset { position } else { 0 };
        let (producers, epochs) = (recovered.producers, recovered.epochs);
        let (condition, unflushed) = (Condition::Unprepared, Unflushed::default());
        let awaited = Awaited::default();
        let writer = Writer { active, producers, awaited, epochs, saved_epochs: None, condition, unflushed };
        Self {
            topic_partition: recovered.topic_partition,
            topic_id: recovered.topic_id,
            dir: recovered.dir,
            storage,
            config: RwLock::new(Arc::new(config)),
            writer: Mutex::new(writer),
            segments: RwLock::new(recovered.segments),
            marks: Mutex::new(Marks { high_watermark, recent: VecDeque::new() }),
            log_start_offset: AtomicI64::new(recovered.log_start_offset),
            unstable,
            high_watermark: AtomicI64::new(end_offset),
            log_end_offset: AtomicI64::new(end_offset),
            recovery_point: AtomicI64::new(recovered.recovery_point),
            first_dirty_offset: AtomicI64::new(recovered.first_dirty_offset.unwrap_or(NEVER_CLEANED)),
            uncleanable: AtomicBool::new(false),
            maintenance: Mutex::new(()),
            uncheckpointed_bytes: AtomicU64::new(unchecked),
            deleted: AtomicBool::new(false),
            waiters: FetchWaiters::default(),
        }
    }

    /// Which partition this is.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    /// The topic's id, as stored in `partition.metadata`; zero where that file is missing.
    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// The first readable offset.
    pub fn log_start_offset(&self) -> i64 {
        self.log_start_offset.load(Acquire)
    }

    /// Where `read_committed` ends: the first transaction without a durable marker, at most the high watermark.
    pub fn last_stable_offset(&self) -> i64 {
        let high_watermark = self.high_watermark();
        self.unstable.first().min(high_watermark).max(self.log_start_offset())
    }

    /// Where consumers' reads end: everything below is durable.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.load(Acquire)
    }

    /// The next offset to be assigned.
    pub fn log_end_offset(&self) -> i64 {
        self.log_end_offset.load(Acquire)
    }

    /// The settings in force.
    pub fn config(&self) -> Arc<LogConfig> {
        self.config.read().clone()
    }

    /// Replaces the settings; the next append goes by them.
    pub fn set_config(&self, config: LogConfig) {
        *self.config.write() = Arc::new(config);
    }

    /// Size of all segments, without their indexes.
    pub fn size_bytes(&self) -> u64 {
        self.segments.read().iter().map(|segment| segment.end().position).sum()
    }

    /// Number of segments.
    pub fn segment_count(&self) -> usize {
        self.segments.read().len()
    }

    /// The newest leader epoch that wrote a batch.
    pub fn latest_leader_epoch(&self) -> Option<i32> {
        self.writer.lock().epochs.latest()
    }

    /// The largest leader epoch not above `epoch`, and the offset where it ends (KIP-101); none for one that is
    /// not known yet.
    pub fn end_of_leader_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let writer = self.writer.lock();
        writer.epochs.end_of(epoch, self.log_end_offset())
    }

    /// Forgets idempotent producers whose last batch is older (`producer.id.expiration.ms`).
    pub fn expire_producers(&self, before_ms: i64) {
        self.writer.lock().producers.expire(before_ms);
    }

    /// Registers `waiter` to be woken once: when the high watermark has moved as far as it expects, or the log is deleted. Look
    /// at the high watermark after this call and before waiting, not only before the call.
    pub fn add_fetch_waiter(&self, waiter: Arc<FetchWaiter>) {
        self.waiters.add(waiter);
        if self.is_deleted() {
            self.waiters.wake_all();
        }
    }

    /// Whether the log was deleted; reads and appends then fail.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Acquire)
    }

    pub(crate) fn dir(&self) -> &Arc<Path> {
        &self.dir
    }

    pub(crate) fn recovery_point(&self) -> i64 {
        self.recovery_point.load(Acquire)
    }

    pub(crate) fn set_recovery_point(&self, offset: i64) {
        self.recovery_point.store(offset, Release);
    }

    /// Everything in `segment` up to `end` is durable, and so is every earlier segment.
    pub(crate) fn committed(&self, segment: &Segment, end: SegmentEnd) {
        let mut marks = self.marks.lock();
        if end.offset <= marks.high_watermark.offset {
            return;
        }
        assert!(end.offset <= self.log_end_offset(), "{}: durable beyond its end", self.topic_partition);
        let (offset, position) = (end.offset, end.position);
        let before =
            std::mem::replace(&mut marks.high_watermark, Mark { offset, segment: segment.id(), position });
        self.high_watermark.store(offset, Release);
        drop(marks);
        self.unstable.high_watermark_moved(offset);
        match before.segment == segment.id() {
            true => self.waiters.tell(position - before.position),
            // A new segment comes seldom: whoever waits may look.
            false => self.waiters.wake_all(),
        }
    }

    /// Refuses all further appends; reads go on.
    pub(crate) fn close(&self) {
        let mut writer = self.writer.lock();
        if writer.condition != Condition::Deleted {
            writer.condition = Condition::Closed;
        }
    }

    /// Refuses everything from now on and wakes who waits.
    pub(crate) fn mark_deleted(&self) {
        self.writer.lock().condition = Condition::Deleted;
        self.deleted.store(true, Release);
        // Whoever changes files ends now, and finds the mark the next time: the names may soon be another's.
        drop(self.maintenance.lock());
        for segment in self.segments.read().iter() {
            self.storage.open_files.close(segment);
        }
        self.waiters.wake_all();
    }

    /// The segment that holds `offset`: the last one that begins at or before it.
    fn segment_of(&self, offset: i64) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let behind = segments.partition_point(|segment| segment.base_offset() <= offset);
        behind.checked_sub(1).map(|index| segments[index].clone())
    }

    /// The segment behind this one.
    pub(crate) fn segment_behind(&self, segment: &Segment) -> Option<Arc<Segment>> {
        let segments = self.segments.read();
        let behind = segments.partition_point(|other| other.base_offset() <= segment.base_offset());
        segments.get(behind).cloned()
    }
}
