//! Writes checkpoints, so that recovery has little to read.
//!
//! Owns the recovery points' file. Invariants: a recovery point is written only after a sync that began
//! after the offset was read, and never once the storage has failed; one checkpoint, creation or deletion
//! runs at a time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::{Mutex, MutexGuard};

use super::Logs;
use crate::checkpoint;
use crate::config::DataDirOptions;
use crate::disk::DiskRoot;
use crate::partition_log::PartitionLog;
use crate::storage::Storage;

/// Which logs a checkpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All but those that have little to recover.
    Large,
    /// All.
    Whole,
}

#[derive(Debug)]
pub(crate) struct Checkpointer {
    pub logs: Logs,
    storage: Arc<Storage>,
    /// Our own descriptor: the committer's errors are not reported to it, nor ours to the committer's.
    root: Box<dyn DiskRoot>,
    exclusive: Mutex<()>,
}

impl Checkpointer {
    pub fn new(storage: Arc<Storage>, root: Box<dyn DiskRoot>) -> Self {
        Self { logs: Logs::default(), storage, root, exclusive: Mutex::new(()) }
    }

    /// Keeps checkpoints, creations and deletions apart.
    pub fn exclusive(&self) -> MutexGuard<'_, ()> {
        self.exclusive.lock()
    }

    /// Makes the whole file system durable.
    pub fn sync(&self) -> io::Result<()> {
        self.root.sync_all()?;
        self.root.ensure_alive()
    }

    /// The thread's body.
    pub fn run(&self) {
        while self.storage.checkpoints.wait() {
            if let Err(why) = self.checkpoint(Extent::Large) {
                // The recovery points stay where they are; recovery reads more.
                tracing::warn!("writing a checkpoint failed: {why}");
            }
        }
    }

    /// Makes everything appended so far durable and moves the recovery points of all logs, or of those where it
    /// pays.
    pub fn checkpoint(&self, extent: Extent) -> Result<(), String> {
        let _only_one = self.exclusive();
        self.storage.checkpoints.appended_bytes.store(0, Relaxed);
        if let Some(why) = self.storage.health.failure() {
            return Err(why.to_string());
        }
        let mut logs: Vec<_> = self.logs.read().values().cloned().collect();
        let passed_over_bytes = match extent {
            Extent::Large => pass_over(&mut logs, &self.storage.options),
            Extent::Whole => 0,
        };
        let mut parts = Vec::new();
        for log in &logs {
            let part =
                log.write_checkpoint().map_err(|error| format!("{}: {error}", log.topic_partition()))?;
            parts.extend(part.map(|part| (log, part)));
        }
        // A segment that a log has closed waits for this sync, also if the log is passed over.
        if parts.is_empty() && passed_over_bytes == 0 {
            return Ok(());
        }
        if let Err(error) = self.sync() {
            return Err(self
                .storage
                .health
                .fail(format!("syncing a checkpoint failed: {error}"))
                .to_string());
        }
        // The committer may have failed on the very bytes that this sync has found clean.
        if let Some(why) = self.storage.health.failure() {
            return Err(why.to_string());
        }
        if parts.is_empty() {
            return Ok(());
        }
        let offsets = parts.iter().map(|(log, part)| (log.topic_partition().clone(), part.offset)).collect();
        self.write_points(offsets).map_err(|error| error.to_string())?;
        parts.iter().for_each(|(log, part)| log.finish_checkpoint(*part));
        Ok(())
    }

    /// Writes the recovery points as they are, of the logs that exist.
    pub fn write_recovery_points(&self) -> io::Result<()> {
        self.write_points(Vec::new())
    }

    /// Writes all recovery points; those in `moved`, which ascend by nothing in particular, as given.
    fn write_points(&self, moved: Vec<(tidings_model::TopicPartition, i64)>) -> io::Result<()> {
        let mut points: std::collections::HashMap<_, _> = {
            let logs = self.logs.read();
            logs.iter()
                .map(|(topic_partition, log)| (topic_partition.clone(), log.recovery_point()))
                .collect()
        };
        points.extend(moved);
        let path = self.storage.root.join(checkpoint::RECOVERY_POINTS);
        checkpoint::write(&*self.storage.disk, &path, points.into_iter())
    }
}

/// Takes the logs out that have little to recover, the smallest first; answers how many bytes that is. A log costs
/// four files in a checkpoint, whatever was appended to it: with a thousand of them that was more than the commits.
/// One that has closed a segment is not passed over: the cleaner stays below the recovery point.
fn pass_over(logs: &mut Vec<Arc<PartitionLog>>, options: &DataDirOptions) -> u64 {
    let mut sized: Vec<_> = logs.drain(..).map(|log| (log.uncheckpointed_bytes(), log)).collect();
    sized.sort_unstable_by_key(|(bytes, _)| *bytes);
    let mut passed_over_bytes = 0;
    for (bytes, log) in sized {
        let small = bytes < options.checkpoint_log_bytes && !log.has_rolled_since_checkpoint();
        if small && passed_over_bytes + bytes <= options.passed_over_bytes {
            passed_over_bytes += bytes;
        } else {
            logs.push(log);
        }
    }
    passed_over_bytes
}
