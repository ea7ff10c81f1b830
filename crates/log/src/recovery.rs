//! From files to logs: what a start does with a data directory.
//!
//! Owns the judgement of what the last end left behind. Invariants: below the recovery point nothing is
//! read but what finding the end takes; above it every batch is checked, written again and synced before
//! anyone sees it; only bytes that form no whole batch at the end are cut; any other damage is an error.

pub(crate) mod judge;
mod partition;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidings_model::TopicPartition;

use crate::checkpoint;
use crate::partition_log::PartitionLog;
use crate::storage::Storage;
pub(crate) use partition::CUT_EXTENSION;
use partition::{Checkpoints, PartitionOutcome, recover_partition};

/// Why a data directory can't be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A log is damaged where a torn write can't be the reason.
    #[error(
        "{topic_partition}: {} is damaged at byte {position}, offset {offset}: {what}; {lost_bytes} bytes are lost",
        file.display()
    )]
    Damaged {
        /// The partition.
        topic_partition: TopicPartition,
        /// The file.
        file: PathBuf,
        /// Where the damage begins.
        position: u64,
        /// The first offset that is lost.
        offset: i64,
        /// Bytes that form no valid batch.
        lost_bytes: u64,
        /// Expected and found.
        what: String,
    },
    /// The disk failed.
    #[error("recovering {} failed: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

impl RecoverError {
    /// How to go on.
    pub fn hint(&self) -> String {
        match self {
            Self::Damaged { topic_partition, file, offset, .. } => {
                let root = file.parent().and_then(Path::parent).unwrap_or(Path::new(".")).display();
                let repair = format!("tidings log repair --data-dir {root} {topic_partition}");
                format!(
                    "`tidings log check --data-dir {root} {topic_partition}` shows all that is damaged; restore the \
                     partition's folder from a copy, or give up what is lost: `{repair} --drop-damaged` keeps the valid \
                     batches behind it, `{repair} --truncate-at {offset}` ends the log there; both show what they would \
                     do, keep the bytes they take out, and act with --yes"
                )
            }
            Self::Io { .. } => "check the disk and the directory's permissions".to_owned(),
        }
    }
}

/// Bytes that were cut off a log's end: they were never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The file.
    pub file: PathBuf,
    /// Where it ends now.
    pub position: u64,
    /// The log's end now.
    pub offset: i64,
    /// How many bytes went.
    pub bytes: u64,
    /// Where they are kept, if whole batches were among them.
    pub kept: Option<PathBuf>,
}

/// A log whose first segments are gone without a record of it. Nobody knows whether its start was raised: on a disk without a free
/// byte segments may go before that is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateStart {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// Where the log begins by its record.
    pub recorded: i64,
    /// Where it begins now.
    pub offset: i64,
}

/// What a recovery did.
#[derive(Debug, Default)]
pub struct RecoveryReport {
    /// Whether the last end was clean.
    pub clean: bool,
    /// Logs loaded.
    pub logs_count: usize,
    /// Bytes above the recovery points, which were checked and written again.
    pub checked_bytes: u64,
    /// Torn tails.
    pub cuts: Vec<Cut>,
    /// Logs that begin later than they should.
    pub late_starts: Vec<LateStart>,
    /// Files that were rebuilt because they were missing or damaged.
    pub rebuilt: Vec<PathBuf>,
    /// How long it took.
    pub elapsed: Duration,
    /// Whether anything has to be synced before it is shown.
    pub(crate) changed: bool,
    /// Whether a checkpoint file names logs or offsets that don't exist, or is damaged.
    pub(crate) stale_checkpoints: bool,
}

/// Loads every partition's folder under the root, on all cores.
pub(crate) fn recover_logs(
    storage: &Arc<Storage>,
) -> Result<(HashMap<TopicPartition, Arc<PartitionLog>>, RecoveryReport), RecoverError> {
    let start = Instant::now();
    let mut report = RecoveryReport::default();
    let io_error = |path: PathBuf| move |source| RecoverError::Io { path, source };
    let disk = &*storage.disk;
    let read_checkpoint = |name: &str| {
        let path = storage.root.join(name);
        checkpoint::read(disk, &path).map_err(io_error(path))
    };
    let points = read_checkpoint(checkpoint::RECOVERY_POINTS)?;
    let starts = read_checkpoint(checkpoint::LOG_START_OFFSETS)?;
    let cleaned = read_checkpoint(checkpoint::CLEANER_OFFSETS)?;
    if points.is_none() {
        report.rebuilt.push(storage.root.join(checkpoint::RECOVERY_POINTS));
        report.stale_checkpoints = true;
    }
    if starts.is_none() {
        report.rebuilt.push(storage.root.join(checkpoint::LOG_START_OFFSETS));
        report.stale_checkpoints = true;
    }
    if cleaned.is_none() {
        report.rebuilt.push(storage.root.join(checkpoint::CLEANER_OFFSETS));
        report.stale_checkpoints = true;
    }
    let points = points.unwrap_or_default();
    let mut found = Vec::new();
    for entry in disk.read_dir(&storage.root).map_err(io_error(storage.root.clone()))? {
        let path = storage.root.join(&entry.name);
        if entry.is_dir && entry.name.ends_with("-delete") {
            disk.remove_dir_all(&path).map_err(io_error(path))?;
        } else if entry.is_dir
            && let Ok(topic_partition) = entry.name.parse::<TopicPartition>()
        {
            found.push(topic_partition);
        }
    }
    let mut named = points
        .keys()
        .chain(starts.iter().flat_map(HashMap::keys))
        .chain(cleaned.iter().flat_map(HashMap::keys));
    report.stale_checkpoints |= named.any(|topic_partition| !found.contains(topic_partition));
    let outcomes = in_parallel(&found, |topic_partition: &TopicPartition| {
        let checkpoints = Checkpoints {
            recovery_point: points.get(topic_partition).copied(),
            log_start_offset: checkpoint::recorded_start(topic_partition, starts.as_ref()),
            // Where the file says nothing, any log may have been compacted.
            first_dirty_offset: match &cleaned {
                Some(cleaned) => cleaned.get(topic_partition).copied(),
                None => Some(0),
            },
            holes_end: checkpoint::holes_end(topic_partition, &points, cleaned.as_ref()),
        };
        recover_partition(storage, topic_partition, checkpoints)
    })?;
    let mut logs = HashMap::with_capacity(found.len());
    for outcome in outcomes {
        let PartitionOutcome { log, checked_bytes, cuts, late_start, rebuilt, changed, stale_checkpoints } =
            outcome;
        report.checked_bytes += checked_bytes;
        report.late_starts.extend(late_start);
        report.cuts.extend(cuts);
        report.rebuilt.extend(rebuilt);
        report.changed |= changed;
        report.stale_checkpoints |= stale_checkpoints;
        logs.insert(log.topic_partition().clone(), Arc::new(log));
    }
    report.logs_count = logs.len();
    report.elapsed = start.elapsed();
    Ok((logs, report))
}

fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, RecoverError> + Sync,
) -> Result<Vec<R>, RecoverError> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(items.len().div_ceil(PARTITIONS_PER_THREAD)) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Relaxed)) {
                    let result = work(item);
                    results.lock().push(result);
                }
            });
        }
    });
    results.into_inner().into_iter().collect()
}

/// Fewer do not make up for starting a thread.
const PARTITIONS_PER_THREAD: usize = 8;
