//! A snapshot of a data directory that is in use: all logs as of one instant.
//!
//! The instant is the one at which no durable end moves, of any log. What was acknowledged before it is in the snapshot, and
//! nothing is that came after: a crash at this instant would have left the same. So whatever holds after any crash holds for
//! the snapshot: no committed offset and no outcome of a transaction is ahead of the records it speaks of. Segments get
//! a second name in the snapshot's folder, which takes no room, and which retention, compaction and deletion do not touch.
//! Invariants: no file of a closed segment changes between the instant and the last second name; the folder is a
//! data directory of its own, but for bytes behind the lengths that are answered.
//!
//! Indexes, producers and aborted transactions are not in it: a start makes them anew from the batches.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidings_model::TopicPartition;

use super::{DataDir, META, PARTITION_METADATA, encode_partition_metadata};
use crate::checkpoint;
use crate::disk::{read_file, write_file};
use crate::partition_log::{DurableEnd, PartitionLog};
use crate::segment::file_name;

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Within the snapshot's folder.
    pub path: PathBuf,
    /// The bytes at its beginning that are in the snapshot; the file may go on.
    pub bytes: u64,
}

/// Why a snapshot was not made.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A sync has failed: nobody knows what is on the disk until a restart.
    #[error("writes have stopped: {why}")]
    StorageFailed {
        /// What failed.
        why: Arc<str>,
    },
    /// The file system refused.
    #[error("snapshot {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataDir {
    /// Makes a snapshot in `folder`, which exists, is empty and lies on the same file system. `quiet` is called right before the
    /// instant, and what it gives is dropped right after: for whoever has to stand still with the logs.
    ///
    /// Waits for a pass of the cleaner that is under way; creating and deleting topics waits for some milliseconds,
    /// commits for less.
    pub fn snapshot<Q>(
        &self,
        folder: &Path,
        quiet: impl FnOnce() -> Q,
    ) -> Result<Vec<SnapshotFile>, SnapshotError> {
        loop {
            let exclusive = self.checkpointer.exclusive();
            if let Some(why) = self.storage.health.failure() {
                return Err(SnapshotError::StorageFailed { why: why.clone() });
            }
            let mut logs = self.logs();
            logs.sort_by(|a, b| a.topic_partition().cmp(b.topic_partition()));
            let maintained: Vec<_> = logs.iter().map_while(|log| log.try_maintain()).collect();
            if let Some(busy) = logs.get(maintained.len()) {
                // Who deletes logs waits for this as well, while it keeps us out.
                drop((maintained, exclusive));
                busy.wait_for_maintenance();
                continue;
            }
            let ends = ends_at_one_instant(&logs, quiet);
            return self.give_second_names(folder, &logs, &ends);
        }
    }

    fn give_second_names(
        &self,
        folder: &Path,
        logs: &[Arc<PartitionLog>],
        ends: &[DurableEnd],
    ) -> Result<Vec<SnapshotFile>, SnapshotError> {
        let mut snapshot = Snapshot { data_dir: self, folder, files: Vec::new() };
        for (log, end) in logs.iter().zip(ends) {
            snapshot.add_log(log, *end)?;
        }
        let offsets = |offset: &dyn Fn(usize) -> Option<i64>| {
            let offset = |(at, log): (usize, &Arc<PartitionLog>)| {
                offset(at).map(|offset| (log.topic_partition().clone(), offset))
            };
            logs.iter().enumerate().filter_map(offset).collect::<Vec<_>>()
        };
        let starts = offsets(&|at| Some(logs[at].log_start_offset()).filter(|start| *start > 0));
        snapshot.add_checkpoint(checkpoint::LOG_START_OFFSETS, starts)?;
        snapshot.add_checkpoint(checkpoint::CLEANER_OFFSETS, offsets(&|at| logs[at].first_dirty_offset()))?;
        // Whoever restores the snapshot syncs it.
        snapshot.add_checkpoint(checkpoint::RECOVERY_POINTS, offsets(&|at| Some(ends[at].offset)))?;
        snapshot.add_meta()?;
        Ok(snapshot.files)
    }
}

/// The durable ends of all logs while none of them moves.
fn ends_at_one_instant<Q>(logs: &[Arc<PartitionLog>], quiet: impl FnOnce() -> Q) -> Vec<DurableEnd> {
    let quiet = quiet();
    // Nobody else holds two of them, so the order is of no account.
    let held: Vec<_> = logs.iter().map(|log| log.hold_durable_end()).collect();
    let ends = held.iter().map(|held| held.end()).collect();
    drop(held);
    drop(quiet);
    ends
}

struct Snapshot<'a> {
    data_dir: &'a DataDir,
    folder: &'a Path,
    files: Vec<SnapshotFile>,
}

impl Snapshot<'_> {
    fn add_log(&mut self, log: &PartitionLog, end: DurableEnd) -> Result<(), SnapshotError> {
        let name = PathBuf::from(log.topic_partition().to_string());
        let folder = self.folder.join(&name);
        let disk = &*self.data_dir.storage.disk;
        disk.create_dir_all(&folder).map_err(failed(&folder))?;
        for (segment, bytes) in log.files_below(end) {
            let file = name.join(file_name(segment.base_offset(), "log"));
            let path = self.folder.join(&file);
            disk.link(&segment.log_path(), &path).map_err(failed(&path))?;
            self.files.push(SnapshotFile { path: file, bytes });
        }
        self.add(name.join(PARTITION_METADATA), encode_partition_metadata(log.topic_id()).as_bytes())
    }

    fn add_checkpoint(
        &mut self,
        name: &str,
        offsets: Vec<(TopicPartition, i64)>,
    ) -> Result<(), SnapshotError> {
        let path = self.folder.join(name);
        let disk = &*self.data_dir.storage.disk;
        checkpoint::write(disk, &path, offsets.into_iter()).map_err(failed(&path))?;
        let bytes = read_file(disk, &path).map_err(failed(&path))?.map_or(0, |text| text.len() as u64);
        self.files.push(SnapshotFile { path: name.into(), bytes });
        Ok(())
    }

    fn add_meta(&mut self) -> Result<(), SnapshotError> {
        let path = self.data_dir.storage.root.join(META);
        let meta = read_file(&*self.data_dir.storage.disk, &path).map_err(failed(&path))?;
        self.add(META.into(), &meta.unwrap_or_default())
    }

    fn add(&mut self, file: PathBuf, bytes: &[u8]) -> Result<(), SnapshotError> {
        let path = self.folder.join(&file);
        write_file(&*self.data_dir.storage.disk, &path, bytes).map_err(failed(&path))?;
        self.files.push(SnapshotFile { path: file, bytes: bytes.len() as u64 });
        Ok(())
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io { path, source }
}
