//! A data directory that no broker has open: looking at everything in it, and mending it.
//!
//! Owns the opening for that, without recovery. Invariants: a check changes nothing, whatever it finds; a repair
//! needs the lock, and takes no byte out of a log without keeping it in a file beside it. Does not decide
//! what to give up: the operator does, through a [`Remedy`].

mod check;
mod dump;
mod repair;
mod side_files;
mod walk;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidings_model::{TopicId, TopicPartition};

pub use check::{Damage, PartitionCheck, TornTail};
pub use dump::{SegmentItem, read_segment};
pub use repair::{Piece, Remedy, RepairError, RepairPlan, RepairStep};
pub use side_files::SideFault;

use crate::checkpoint;
use crate::data_dir::{META, OpenError, check_version, partition_metadata_id, take_lock};
use crate::disk::{Disk, DiskLock, read_file};

/// Whether others may have the directory open meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nobody else: what is found stays as it is, and may be repaired.
    Locked,
    /// Anybody, also a running broker: nothing is written, and the ends of logs may move while they are read.
    ReadOnly,
}

/// A data directory without a broker.
#[derive(Debug)]
pub struct OfflineDataDir {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    recovery_points: HashMap<TopicPartition, i64>,
    /// Of logs that begin above 0; none where the file is damaged.
    log_start_offsets: Option<HashMap<TopicPartition, i64>>,
    /// Where the cleaner goes on in the logs that it has cleaned; none where the file is damaged.
    cleaner_offsets: Option<HashMap<TopicPartition, i64>>,
    faults: Vec<SideFault>,
    lock: Option<Box<dyn DiskLock>>,
}

impl OfflineDataDir {
    /// Opens an existing data directory and reads its checkpoints.
    pub fn open(disk: Arc<dyn Disk>, path: impl Into<PathBuf>, access: Access) -> Result<Self, OpenError> {
        let root = path.into();
        let failed = |source: io::Error| OpenError::Io { path: root.clone(), source };
        let meta = read_file(&*disk, &root.join(META)).map_err(failed)?;
        let meta = meta.ok_or_else(|| OpenError::Missing { path: root.clone() })?;
        check_version(&String::from_utf8_lossy(&meta), &root)?;
        let lock = match access {
            Access::ReadOnly => None,
            Access::Locked => {
                let lock = take_lock(&*disk, &root).map_err(failed)?;
                Some(lock.map_err(|holder| OpenError::Locked { path: root.clone(), holder })?)
            }
        };
        let mut faults = Vec::new();
        let mut offsets = |name: &str| -> Result<Option<HashMap<TopicPartition, i64>>, OpenError> {
            let path = root.join(name);
            let read = checkpoint::read(&*disk, &path).map_err(failed)?;
            if read.is_none() {
                faults.push(SideFault::new(path, "is damaged".to_owned()));
            }
            Ok(read)
        };
        let recovery_points = offsets(checkpoint::RECOVERY_POINTS)?.unwrap_or_default();
        let log_start_offsets = offsets(checkpoint::LOG_START_OFFSETS)?;
        let cleaner_offsets = offsets(checkpoint::CLEANER_OFFSETS)?;
        offsets(checkpoint::HIGH_WATERMARKS)?;
        Ok(Self { disk, root, recovery_points, log_start_offsets, cleaner_offsets, faults, lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// What is wrong with the files beside the partitions' folders; a start mends it by itself.
    pub fn faults(&self) -> &[SideFault] {
        &self.faults
    }

    /// Every partition that has a folder, by name.
    pub fn partitions(&self) -> io::Result<Vec<TopicPartition>> {
        let entries = self.disk.read_dir(&self.root)?;
        let folders = entries.iter().filter(|entry| entry.is_dir && !entry.name.ends_with("-delete"));
        let mut found: Vec<TopicPartition> = folders.filter_map(|entry| entry.name.parse().ok()).collect();
        found.sort();
        Ok(found)
    }

    /// The id of the topic that a partition's folder belongs to; zero where that is not told.
    pub fn topic_id(&self, topic_partition: &TopicPartition) -> io::Result<TopicId> {
        partition_metadata_id(&*self.disk, &self.folder(topic_partition))
    }

    /// Where a log begins by what is written down; none where that is damaged.
    fn recorded_start(&self, topic_partition: &TopicPartition) -> Option<i64> {
        checkpoint::recorded_start(topic_partition, self.log_start_offsets.as_ref())
    }

    /// The same by what is written down now: a broker that runs meanwhile does so before it removes a segment.
    fn recorded_start_now(&self, topic_partition: &TopicPartition) -> io::Result<Option<i64>> {
        let starts = checkpoint::read(&*self.disk, &self.root.join(checkpoint::LOG_START_OFFSETS))?;
        Ok(checkpoint::recorded_start(topic_partition, starts.as_ref()))
    }

    /// Where holes end that compaction may have left in a log's offsets.
    fn holes_end(&self, topic_partition: &TopicPartition) -> i64 {
        checkpoint::holes_end(topic_partition, &self.recovery_points, self.cleaner_offsets.as_ref())
    }

    fn folder(&self, topic_partition: &TopicPartition) -> PathBuf {
        self.root.join(topic_partition.to_string())
    }
}

#[cfg(test)]
mod tests;
