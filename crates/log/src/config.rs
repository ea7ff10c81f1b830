//! What can be set: per data directory and per topic.
//!
//! Owns the defaults, which are Kafka's. Invariants: values are plain data that were checked where they
//! were parsed. Does not parse.

use crate::batch::{Compression, TimestampType};

/// When an append counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// After a sync: it survives a power cut.
    #[default]
    Power,
    /// Once the operating system has it, as in Kafka: it survives the process only.
    Process,
}

/// When an appender that is alone commits on its own thread; see [`crate::CommitTicket::commit_here`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CommitHere {
    /// When the committer has slept for as long as a sync takes, and a sync takes at most a millisecond.
    #[default]
    WhenIdle,
    /// Also right after another commit, and however slow the disk is: for tests.
    Always,
}

/// Settings of a whole data directory.
#[derive(Debug, Clone)]
pub struct DataDirOptions {
    /// When appends count as durable.
    pub durability: Durability,
    /// Written into a new directory; an existing one keeps its own. None makes one up.
    pub cluster_id: Option<String>,
    /// Written into a new directory, and what an existing one must have.
    pub node_id: i32,
    /// Bytes appended between two checkpoints: what a recovery has to read at most, roughly.
    pub checkpoint_bytes: u64,
    /// A checkpoint passes over a log with fewer bytes since its last one: its files would cost more than
    /// reading these bytes in a recovery.
    pub checkpoint_log_bytes: u64,
    /// How many bytes logs that are passed over may have together: a recovery reads them as well.
    pub passed_over_bytes: u64,
    /// How many segment files stay open at most, within half of what the process may open; others are
    /// opened when they are read or written.
    pub max_open_files: usize,
    /// `log.min.free.bytes`: below it clients' appends are refused; none is a part of the file system.
    pub min_free_bytes: Option<u64>,
    /// From this many dirty files on, one `syncfs` replaces an `fdatasync` each.
    pub syncfs_from_files: usize,
    /// `log.cleaner.dedupe.buffer.size`: what the keys of one pass of the cleaner may take. More keys take
    /// more passes.
    pub cleaner_key_map_bytes: usize,
    /// When an appender that asks for it commits on its own thread.
    pub commit_here: CommitHere,
}

impl Default for DataDirOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Power,
            cluster_id: None,
            node_id: 0,
            checkpoint_bytes: 64 << 20,
            checkpoint_log_bytes: 256 << 10,
            passed_over_bytes: 128 << 20,
            max_open_files: 8192,
            min_free_bytes: None,
            syncfs_from_files: 2,
            cleaner_key_map_bytes: 32 << 20,
            commit_here: CommitHere::WhenIdle,
        }
    }
}

/// `cleanup.policy`: what may be removed from a log. By default nothing is, so that a log which nobody has
/// configured keeps what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CleanupPolicy {
    /// Old segments, by `retention.ms` and `retention.bytes`.
    pub delete: bool,
    /// Records that a later one of the same key replaces.
    pub compact: bool,
}

impl CleanupPolicy {
    /// `delete`.
    pub const DELETE: Self = Self { delete: true, compact: false };
    /// `compact`.
    pub const COMPACT: Self = Self { delete: false, compact: true };
}

/// Settings of one topic's logs, under Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogConfig {
    /// `cleanup.policy`.
    pub cleanup: CleanupPolicy,
    /// `retention.ms`: how old a segment's newest record may get; negative for no limit.
    pub retention_ms: i64,
    /// `retention.bytes`: how large the log may grow; negative for no limit.
    pub retention_bytes: i64,
    /// `file.delete.delay.ms`: how long the files of removed segments stay.
    pub file_delete_delay_ms: i64,
    /// `delete.retention.ms`: how long the cleaner keeps tombstones and transaction markers.
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`: how long a record stays uncompacted at least.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: how long a record stays uncompacted at most.
    pub max_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`: how much of the log must be dirty before it is cleaned, from 0 to 1.
    pub min_cleanable_dirty_ratio: f64,
    /// `segment.bytes`: a segment is closed before it grows beyond this.
    pub segment_bytes: u32,
    /// `segment.ms`: a segment is closed when its records span more.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: by how much less, at random, so that not all logs roll at once.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`: a segment is closed when an index would grow beyond this.
    pub segment_index_bytes: u32,
    /// `index.interval.bytes`: log bytes between two index entries.
    pub index_interval_bytes: u32,
    /// `max.message.bytes`: largest batch.
    pub max_message_bytes: u32,
    /// `compression.type`: the codec that records are stored in; none for the producer's.
    pub compression: Option<Compression>,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a timestamp may lie back.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far a timestamp may lie ahead.
    pub timestamp_after_max_ms: i64,
    /// `flush.messages`: with [`Durability::Process`], records after which the log is synced.
    pub flush_messages: i64,
    /// `flush.ms`: with [`Durability::Process`], how long records may wait for that.
    pub flush_ms: i64,
}

impl LogConfig {
    /// How long a segment is appended to at most: a compacted log's must be closed early enough for the
    /// cleaner to keep `max.compaction.lag.ms`.
    pub(crate) fn max_segment_ms(&self) -> i64 {
        if self.cleanup.compact { self.segment_ms.min(self.max_compaction_lag_ms) } else { self.segment_ms }
    }
}

const DAY_MS: i64 = 24 * 3600 * 1000;

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            cleanup: CleanupPolicy::default(),
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            file_delete_delay_ms: 60_000,
            delete_retention_ms: DAY_MS,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            min_cleanable_dirty_ratio: 0.5,
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            max_message_bytes: 1_048_588,
            compression: None,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
        }
    }
}
