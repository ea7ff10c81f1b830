//! Removes what a data directory need not keep: a thread that works when it is told the time.
//!
//! Owns retention, compaction's rounds, the removal of records on demand, and the files that wait for their removal. Invariants:
//! a log's new start is durable before anything below it goes, so that after a crash no hole and no record
//! below the start shows; files are removed while nobody else changes the log's; one round at a time. Does
//! not decide which segments are old (the log does) and has no clock.

mod bell;
mod clean;
mod delete_records;
mod starts;

pub use bell::Chores;
pub(crate) use bell::KeeperBell;
pub use delete_records::DeleteRecordsError;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Checkpointer, Extent};
use crate::partition_log::PartitionLog;
use crate::segment::Segment;
use crate::storage::Storage;
pub(crate) use clean::CleanerOffsets;
use starts::Starts;

/// What one round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeepReport {
    /// Segments that left their logs.
    pub removed_segments: usize,
    /// Their size, without indexes.
    pub removed_bytes: u64,
    /// Passes of the cleaner over a log.
    pub cleaned_passes: usize,
    /// Bytes of the segments that it looked through.
    pub cleaned_read_bytes: u64,
    /// Bytes of the segments that it made of them.
    pub cleaned_written_bytes: u64,
}

#[derive(Debug)]
pub(crate) struct Keeper {
    storage: Arc<Storage>,
    checkpointer: Arc<Checkpointer>,
    pub(super) starts: Starts,
    pub(super) cleaner_offsets: CleanerOffsets,
    pub(super) bell: KeeperBell,
    /// Held for a round.
    round: Mutex<()>,
    doomed: Mutex<Vec<DoomedFile>>,
}

/// A file that no log has any more.
#[derive(Debug)]
struct DoomedFile {
    path: PathBuf,
    due_ms: i64,
}

/// Ends the names of files that wait for their removal, as in Kafka.
pub(crate) const DELETED_EXTENSION: &str = "deleted";

impl Keeper {
    pub fn new(storage: Arc<Storage>, checkpointer: Arc<Checkpointer>) -> Self {
        Self {
            starts: Starts::new(storage.clone(), checkpointer.clone()),
            cleaner_offsets: CleanerOffsets::new(storage.clone(), checkpointer.clone()),
            bell: KeeperBell::default(),
            round: Mutex::default(),
            doomed: Mutex::default(),
            storage,
            checkpointer,
        }
    }

    /// The thread's body.
    pub fn run(&self) {
        while let Some((now_ms, chores)) = self.bell.wait() {
            let report = self.keep(now_ms, chores);
            if report.removed_segments > 0 {
                let (segments, bytes) = (report.removed_segments, report.removed_bytes);
                tracing::info!(segments, bytes, "removed old segments");
            }
            if report.cleaned_passes > 0 {
                let KeepReport { cleaned_passes: passes, .. } = report;
                let (read_bytes, written_bytes) = (report.cleaned_read_bytes, report.cleaned_written_bytes);
                tracing::info!(passes, read_bytes, written_bytes, "compacted logs");
            }
        }
    }

    /// One round. What fails is said in the log and tried again in the next one.
    pub fn keep(&self, now_ms: i64, chores: Chores) -> KeepReport {
        let _one_at_a_time = self.round.lock();
        let mut report = KeepReport::default();
        self.remove_due_files(now_ms);
        if chores.retention && self.storage.health.failure().is_none() {
            self.retain(now_ms, &mut report);
        }
        if chores.cleaning && self.storage.health.failure().is_none() {
            self.clean(now_ms, &mut report);
        }
        report
    }

    fn logs(&self) -> Vec<Arc<PartitionLog>> {
        self.checkpointer.logs.read().values().cloned().collect()
    }

    fn retain(&self, now_ms: i64, report: &mut KeepReport) {
        let logs = self.logs();
        let mut rolled = false;
        for log in &logs {
            rolled |= self.close_if_old(log, now_ms);
        }
        if rolled && let Err(why) = self.checkpointer.checkpoint(Extent::Whole) {
            // What is not below a recovery point stays until the next round.
            tracing::warn!("writing a checkpoint before old segments go failed: {why}");
        }
        let mut raised = Vec::new();
        for log in logs {
            match log.removable(now_ms) {
                Ok(removable) => raised.push((log, removable.end_offset)),
                Err(error) => tracing::warn!("looking for old segments failed: {error}"),
            }
            if self.bell.is_closed() {
                return;
            }
        }
        let moves: Vec<_> = raised
            .iter()
            .filter(|(log, start)| *start > log.log_start_offset())
            .map(|(log, start)| (log.clone(), *start))
            .collect();
        let in_order = match self.starts.raise(&moves) {
            Ok(()) => false,
            Err(error) => {
                // On a full disk the new starts find no room, but removing makes some. Segments that go one by
                // one, each removal durable before the next, leave no hole either.
                tracing::warn!("writing {} failed: {error}", crate::checkpoint::LOG_START_OFFSETS);
                self.starts.raise_unrecorded(&moves);
                true
            }
        };
        for (log, _) in &raised {
            if let Err(error) = self.remove_below_start(log, now_ms, in_order, report) {
                tracing::warn!("{}: removing old segments failed: {error}", log.topic_partition());
            }
        }
        // There may be room for it now. Until then a check, and a start after a kill, miss the segments that went.
        self.starts.catch_up();
    }

    fn close_if_old(&self, log: &Arc<PartitionLog>, now_ms: i64) -> bool {
        if !log.removable(now_ms).is_ok_and(|removable| removable.all) {
            return false;
        }
        match log.roll_now() {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!("closing an old segment failed: {error}");
                false
            }
        }
    }

    /// Removes the segments that lie below the log's start. A log whose files somebody else is changing keeps
    /// them until the next round.
    fn remove_below_start(
        &self,
        log: &Arc<PartitionLog>,
        now_ms: i64,
        in_order: bool,
        report: &mut KeepReport,
    ) -> io::Result<()> {
        let Some(_maintained) = log.try_maintain() else { return Ok(()) };
        let due_ms = now_ms.saturating_add(log.config().file_delete_delay_ms);
        while let Some(segment) = log.detach_below_start()? {
            report.removed_segments += 1;
            report.removed_bytes += segment.end().position;
            self.set_aside(&segment, now_ms, due_ms)?;
            if in_order {
                self.storage.disk.sync_dir(segment.dir())?;
            }
        }
        Ok(())
    }

    /// Takes a segment's files out of the way, and removes them when they are due. The indexes go first:
    /// without them a log is whole, without its log they are nothing.
    pub(super) fn set_aside(&self, segment: &Segment, now_ms: i64, due_ms: i64) -> io::Result<()> {
        let disk = &*self.storage.disk;
        let mut paths = segment.paths();
        paths.reverse();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let aside = path.with_file_name(format!("{name}.{DELETED_EXTENSION}"));
            let renamed = if due_ms <= now_ms { disk.remove_file(&path) } else { disk.rename(&path, &aside) };
            match renamed {
                Ok(()) if due_ms > now_ms => self.doomed.lock().push(DoomedFile { path: aside, due_ms }),
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn remove_due_files(&self, now_ms: i64) {
        let mut doomed = self.doomed.lock();
        doomed.retain(|file| {
            if file.due_ms > now_ms {
                return true;
            }
            // Its log may be gone altogether. What can't be removed now, the next start removes.
            let _ = self.storage.disk.remove_file(&file.path);
            false
        });
    }
}

impl Keeper {
    /// Removes segments of logs whose start was raised on demand.
    pub(super) fn remove_deleted_records(&self, logs: &[Arc<PartitionLog>], now_ms: i64) {
        let mut report = KeepReport::default();
        for log in logs {
            if let Err(error) = self.remove_below_start(log, now_ms, false, &mut report) {
                tracing::warn!("{}: removing deleted segments failed: {error}", log.topic_partition());
            }
        }
    }

    /// How many files wait for their removal.
    pub fn doomed_count(&self) -> usize {
        self.doomed.lock().len()
    }
}
