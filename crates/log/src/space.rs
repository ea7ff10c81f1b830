//! How much room the file system has left, and whether that is enough to go on growing.
//!
//! Owns the low-space state, and whether the file system takes anything at all. Invariants: below `min_free_bytes` what
//! clients want to write is refused, and nothing else is: the broker's own records (committed offsets, deletions) may use
//! what is left, so that space can be made. The state changes back only when there is clearly more, so that it does not
//! flap. Nothing is deleted to make room.
//!
//! Does not ask for every append: once in [`CHECK_EVERY_BYTES`] appended, and whenever somebody calls for it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::disk::{Disk, DiskRoot, DiskSpace};

/// Appended bytes between two looks: by about this much a disk fills unseen.
pub(crate) const CHECK_EVERY_BYTES: u64 = 4 << 20;

/// Writes go on when there is a quarter more than the least.
const RESUME_PERCENT: u64 = 125;

/// The default: this part of the file system, at most [`DEFAULT_MOST_BYTES`].
const DEFAULT_PERCENT: u64 = 5;
const DEFAULT_MOST_BYTES: u64 = 1 << 30;

/// Too little room to grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LowSpace {
    /// Bytes that are free.
    pub available_bytes: u64,
    /// Bytes that must stay free.
    pub min_free_bytes: u64,
}

#[derive(Debug)]
pub(crate) struct SpaceWatch {
    /// As set; none for the default.
    min_free_bytes: Option<u64>,
    least: AtomicU64,
    available: AtomicU64,
    low: AtomicBool,
    read_only: AtomicBool,
}

impl SpaceWatch {
    pub fn new(min_free_bytes: Option<u64>) -> Self {
        let (least, available) = (AtomicU64::new(0), AtomicU64::new(u64::MAX));
        let (low, read_only) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { min_free_bytes, least, available, low, read_only }
    }

    /// The state found last; one load while all is well.
    pub fn low(&self) -> Option<LowSpace> {
        self.low.load(Relaxed).then(|| LowSpace {
            available_bytes: self.available.load(Relaxed),
            min_free_bytes: self.least.load(Relaxed),
        })
    }

    /// Whether nothing could be written at the last look, or the last write.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Relaxed)
    }

    /// Free bytes as found last.
    pub fn available_bytes(&self) -> u64 {
        self.available.load(Relaxed)
    }

    /// Bytes that must stay free, as of the last look.
    pub fn min_free_bytes(&self) -> u64 {
        self.least.load(Relaxed)
    }

    /// Looks now. A file system that does not tell leaves the state as it was.
    ///
    /// `alive` is on the same file system. It is asked only where a write has found it dead: on one that is idle and well, each
    /// question would be work for its journal.
    pub fn check(&self, disk: &dyn Disk, root: &Path, alive: &dyn DiskRoot) -> Option<LowSpace> {
        match disk.space(root) {
            Ok(space) => {
                self.note_room(space, root);
                let is_dead = self.is_read_only() && alive.ensure_alive().is_err();
                self.note_read_only(space.is_read_only || is_dead, root);
            }
            Err(error) => tracing::debug!("asking for the free space of {} failed: {error}", root.display()),
        }
        self.low()
    }

    /// Finds out whether a write has failed because nothing can be written any more.
    pub fn note_failed_write(&self, root: &Path, alive: &dyn DiskRoot) {
        if alive.ensure_alive().is_err() {
            self.note_read_only(true, root);
        }
    }

    fn note_read_only(&self, is_read_only: bool, root: &Path) {
        if self.read_only.swap(is_read_only, Relaxed) == is_read_only {
            return;
        }
        let root = root.display();
        if is_read_only {
            tracing::error!(
                "{root}: the file system takes no writes any more, reads go on: look for errors of the disk in the system's \
                 log, stop, repair the file system, start"
            );
        } else {
            tracing::info!("{root}: the file system takes writes again");
        }
    }

    fn note_room(&self, space: DiskSpace, root: &Path) {
        let DiskSpace { available_bytes, total_bytes, .. } = space;
        let default = || (total_bytes / 100 * DEFAULT_PERCENT).min(DEFAULT_MOST_BYTES);
        let least = self.min_free_bytes.unwrap_or_else(default);
        self.least.store(least, Relaxed);
        self.available.store(available_bytes, Relaxed);
        let enough = if self.low.load(Relaxed) { least.saturating_mul(RESUME_PERCENT) / 100 } else { least };
        let low = available_bytes < enough;
        if self.low.swap(low, Relaxed) == low {
            return;
        }
        let root = root.display();
        if low {
            let resume = least.saturating_mul(RESUME_PERCENT) / 100;
            tracing::error!(
                available_bytes,
                "{root}: less than log.min.free.bytes = {least} bytes are free; produces are refused until {resume} are, \
                 reads and deletions go on: free space on the disk, delete topics or records, or lower the retention of \
                 topics; nothing is deleted to make room"
            );
        } else {
            tracing::info!(available_bytes, "{root}: there is space again, produces go on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_resumes_only_when_there_is_clearly_more() {
        let watch = SpaceWatch::new(Some(1000));
        let check = |available_bytes, expect: bool| {
            let space = DiskSpace { available_bytes, total_bytes: 1 << 20, is_read_only: false };
            watch.note_room(space, Path::new("/data"));
            assert_eq!(watch.low().is_some(), expect, "{available_bytes} bytes");
        };
        check(1000, false);
        check(999, true);
        check(1000, true);
        check(1249, true);
        check(1250, false);
        check(1000, false);
    }

    #[test]
    fn the_default_is_a_part_of_the_disk_up_to_a_gigabyte() {
        let check = |total_bytes, expect| {
            let watch = SpaceWatch::new(None);
            let space = DiskSpace { available_bytes: 0, total_bytes, is_read_only: false };
            watch.note_room(space, Path::new("/data"));
            assert_eq!(watch.low().map(|low| low.min_free_bytes), expect, "{total_bytes} bytes");
        };
        check(100 << 20, Some((100 << 20) / 100 * 5));
        check(1 << 40, Some(1 << 30));
        // A file system without a size has no least.
        check(0, None);
    }
}
