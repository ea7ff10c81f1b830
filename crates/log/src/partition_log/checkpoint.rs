//! A log's part of a checkpoint.
//!
//! Owns the files that recovery starts from: indexes of all kinds, producer snapshot, leader epochs. Invariants: the
//! snapshot's offset is the recovery point it is written with; nothing is synced here, and the recovery
//! point moves only after the caller has synced.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::PartitionLog;
use crate::disk::write_file;
use crate::segment::{Segment, file_name};

/// What the caller finishes after the sync.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CheckpointPart {
    /// The recovery point once everything is synced.
    pub offset: i64,
    /// The bytes between the recovery point before and this one.
    bytes: u64,
}

impl PartitionLog {
    /// About how many bytes a recovery would have to check.
    pub(crate) fn uncheckpointed_bytes(&self) -> u64 {
        self.uncheckpointed_bytes.load(Relaxed)
    }

    /// Whether a closed segment reaches above the recovery point.
    pub(crate) fn has_rolled_since_checkpoint(&self) -> bool {
        let active = self.segments.read().last().map(|segment| segment.base_offset());
        active.is_some_and(|base_offset| base_offset > self.recovery_point())
    }

    /// Writes what belongs to the state at the log's present end; none when nothing was appended since
    /// the last checkpoint.
    pub(crate) fn write_checkpoint(&self) -> io::Result<Option<CheckpointPart>> {
        if self.log_end_offset() == self.recovery_point() || self.is_deleted() {
            return Ok(None);
        }
        let (offset, bytes, snapshot, epochs, active) = {
            let writer = self.writer.lock();
            let (offset, bytes) = (self.log_end_offset(), self.uncheckpointed_bytes());
            let segments = self.segments.read();
            let txn_index =
                |segment: &Arc<Segment>| Some((segment.base_offset(), segment.txn_index().summary()?));
            let txn_indexes = segments.iter().filter_map(txn_index).collect();
            let snapshot = writer.producers.encode(&txn_indexes);
            let epochs = writer.epochs.encode();
            let epochs = (writer.saved_epochs.as_ref() != Some(&epochs)).then_some(epochs);
            (offset, bytes, snapshot, epochs, writer.active.clone())
        };
        let disk = &*self.storage.disk;
        write_file(disk, &self.dir.join(file_name(offset, "snapshot")), &snapshot)?;
        if let Some(epochs) = epochs {
            write_file(disk, &self.dir.join(LEADER_EPOCHS), epochs.as_bytes())?;
            self.writer.lock().saved_epochs = Some(epochs);
        }
        active.flush_indexes(&self.storage)?;
        self.flush_txn_indexes()?;
        Ok(Some(CheckpointPart { offset, bytes }))
    }

    /// Moves the recovery point, which is on disk by now, and removes the snapshot of the one before.
    pub(crate) fn finish_checkpoint(&self, part: CheckpointPart) {
        let before = self.recovery_point();
        self.set_recovery_point(part.offset);
        self.uncheckpointed_bytes.fetch_sub(part.bytes, Relaxed);
        // A snapshot that stays is no harm: recovery takes the newest and removes the others.
        let _ = self.storage.disk.remove_file(&self.dir.join(file_name(before, "snapshot")));
    }
}

/// The name of the leader epochs' file.
pub(crate) const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
