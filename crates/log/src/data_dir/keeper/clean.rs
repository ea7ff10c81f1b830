//! Compaction's rounds: which logs are cleaned, in which order, and what is remembered of it.
//!
//! Owns Kafka's `cleaner-offset-checkpoint`. Invariants: the dirtiest log comes first, logs whose records have
//! waited too long before all others; a log is in the file before its first segment is replaced, so that a
//! start knows where offsets may have holes; a log that is damaged is left alone until a restart.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{KeepReport, Keeper};
use crate::checkpoint;
use crate::cleaner::{CleanError, Cleaning, Dirtiness, clean};
use crate::data_dir::Checkpointer;
use crate::partition_log::PartitionLog;
use crate::storage::Storage;

/// The file that says where each log's dirty part begins.
#[derive(Debug)]
pub(crate) struct CleanerOffsets {
    storage: Arc<Storage>,
    checkpointer: Arc<Checkpointer>,
    writing: Mutex<()>,
}

impl CleanerOffsets {
    pub fn new(storage: Arc<Storage>, checkpointer: Arc<Checkpointer>) -> Self {
        Self { storage, checkpointer, writing: Mutex::new(()) }
    }

    /// Writes the offsets of the logs that exist and were cleaned.
    pub fn write(&self) -> io::Result<()> {
        let _writing = self.writing.lock();
        let offsets: Vec<_> = {
            let logs = self.checkpointer.logs.read();
            let offset = |log: &Arc<PartitionLog>| {
                log.first_dirty_offset().map(|offset| (log.topic_partition().clone(), offset))
            };
            logs.values().filter_map(offset).collect()
        };
        let path = self.storage.root.join(checkpoint::CLEANER_OFFSETS);
        checkpoint::write(&*self.storage.disk, &path, offsets.into_iter())
    }
}

impl Keeper {
    /// Cleans every log that is dirty enough.
    pub(super) fn clean(&self, now_ms: i64, report: &mut KeepReport) {
        let mut dirty: Vec<(Arc<PartitionLog>, Dirtiness)> = Vec::new();
        for log in self.logs() {
            match Dirtiness::of(&log, &self.storage, now_ms) {
                Ok(dirtiness) => dirty.extend(dirtiness.map(|dirtiness| (log, dirtiness))),
                Err(error) => tracing::warn!("{}: looking for dirt failed: {error}", log.topic_partition()),
            }
        }
        dirty.sort_by(|(_, a), (_, b)| b.overdue.cmp(&a.overdue).then_with(|| b.ratio.total_cmp(&a.ratio)));
        for (log, dirtiness) in dirty {
            if self.bell.is_closed() || self.storage.health.failure().is_some() {
                return;
            }
            // Old segments need not wait until everything is clean.
            if let Some(now_ms) = self.bell.take_retention() {
                self.retain(now_ms, report);
            }
            self.clean_log(&log, dirtiness, now_ms, report);
        }
    }

    fn clean_log(
        &self,
        log: &Arc<PartitionLog>,
        mut dirtiness: Dirtiness,
        now_ms: i64,
        report: &mut KeepReport,
    ) {
        if log.is_uncleanable() {
            return;
        }
        let Some(_maintained) = log.try_maintain() else { return };
        let end_offset = dirtiness.end_offset;
        // Each pass takes as many keys as the map holds.
        while dirtiness.first_offset < end_offset {
            match self.clean_once(log, &dirtiness, now_ms) {
                Ok(cleaning) => {
                    report.cleaned_passes += 1;
                    report.cleaned_read_bytes += cleaning.read_bytes;
                    report.cleaned_written_bytes += cleaning.written_bytes;
                    dirtiness.first_offset = cleaning.end_offset;
                }
                Err(CleanError::Stopped) => return,
                Err(error) => {
                    if let CleanError::Damaged { .. } = error {
                        log.set_uncleanable();
                    }
                    tracing::error!("{}: cleaning failed: {error}", log.topic_partition());
                    return;
                }
            }
        }
    }

    fn clean_once(
        &self,
        log: &Arc<PartitionLog>,
        dirtiness: &Dirtiness,
        now_ms: i64,
    ) -> Result<Cleaning, CleanError> {
        let failed = |source| CleanError::Io { file: checkpoint::CLEANER_OFFSETS.to_owned(), source };
        if log.first_dirty_offset().is_none() {
            log.set_first_dirty_offset(dirtiness.first_offset);
            self.cleaner_offsets.write().map_err(failed)?;
        }
        let cleaning = clean(log, &self.storage, dirtiness, now_ms, &|| self.bell.is_closed())?;
        log.set_first_dirty_offset(cleaning.end_offset);
        // What a crash forgets is cleaned once more, which changes nothing.
        self.cleaner_offsets.write().map_err(failed)?;
        Ok(cleaning)
    }
}
