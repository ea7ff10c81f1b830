//! A bound on how many segment files are open.
//!
//! Owns the order in which segments were opened. Invariants: at most `max` of the files it opened are
//! kept, besides those of segments that have left their log; a file that someone still reads, writes or has to sync stays open until they drop it, so that
//! no write-back error is lost with a descriptor.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::segment::Segment;

#[derive(Debug)]
pub(crate) struct OpenFiles {
    max: usize,
    /// Segments with an open file, by age.
    open: Mutex<VecDeque<Weak<Segment>>>,
}

/// A segment's open file, if it has one.
#[derive(Debug, Default)]
pub(crate) struct FileSlot {
    file: Mutex<Option<Arc<dyn DiskFile>>>,
    /// Whether the file stays open as long as its segment is held: its name is about to go.
    pinned: AtomicBool,
    /// Used since the eviction last came by.
    used: AtomicBool,
}

impl OpenFiles {
    pub fn new(max: usize) -> Self {
        Self { max: max.max(1), open: Mutex::default() }
    }

    /// The segment's file, opened if it isn't.
    pub fn get(&self, disk: &dyn Disk, segment: &Arc<Segment>) -> io::Result<Arc<dyn DiskFile>> {
        let slot = segment.file_slot();
        let mut held = slot.file.lock();
        slot.used.store(true, Relaxed);
        if let Some(file) = &*held {
            return Ok(file.clone());
        }
        let file = disk.open(&segment.log_path(), OpenMode::Write)?;
        *held = Some(file.clone());
        drop(held);
        self.remember(segment);
        Ok(file)
    }

    /// Opens the segment's file for as long as anybody holds the segment, or until [`OpenFiles::unpin`]. Beyond the
    /// bound, but few are held, and not for long: by reads under way when the segment left the log.
    pub fn pin(&self, disk: &dyn Disk, segment: &Arc<Segment>) -> io::Result<()> {
        let slot = segment.file_slot();
        let mut held = slot.file.lock();
        if held.is_none() {
            *held = Some(disk.open(&segment.log_path(), OpenMode::Write)?);
        }
        slot.pinned.store(true, Relaxed);
        Ok(())
    }

    /// Takes over a file that does not have its segment's name yet, until [`OpenFiles::unpin`].
    pub fn put_pinned(&self, segment: &Arc<Segment>, file: Arc<dyn DiskFile>) {
        segment.file_slot().pinned.store(true, Relaxed);
        self.put(segment, file);
    }

    /// The file has its segment's name: it may be closed and opened again.
    pub fn unpin(&self, segment: &Arc<Segment>) {
        segment.file_slot().pinned.store(false, Relaxed);
        self.remember(segment);
    }

    /// Takes over a file that was just created.
    pub fn put(&self, segment: &Arc<Segment>, file: Arc<dyn DiskFile>) {
        *segment.file_slot().file.lock() = Some(file);
        self.remember(segment);
    }

    /// Closes the segment's file.
    pub fn close(&self, segment: &Segment) {
        segment.file_slot().file.lock().take();
    }

    /// Second chance: a file that was used since the last visit goes to the back of the queue.
    fn remember(&self, segment: &Arc<Segment>) {
        let mut open = self.open.lock();
        open.push_back(Arc::downgrade(segment));
        let mut chances = open.len();
        while open.len() > self.max {
            let Some(oldest) = open.pop_front().as_ref().and_then(Weak::upgrade) else { continue };
            let slot = oldest.file_slot();
            if chances > 0 && slot.used.swap(false, Relaxed) {
                chances -= 1;
                open.push_back(Arc::downgrade(&oldest));
            } else {
                let mut held = slot.file.lock();
                if !slot.pinned.load(Relaxed) {
                    held.take();
                }
            }
        }
    }
}
