//! One segment: a file of batches from a base offset on, and its two indexes.
//!
//! Owns the file's name, its end, and the index entries. Invariants: the end is behind the last whole
//! batch and moves after the bytes are written; an index entry is believed only after the batch it points
//! to was seen to be that batch; indexes that are missing or damaged are rebuilt when they are needed.
//! Does not write batches (the partition log does, under its lock) and does not sync.

mod lookup;
mod scan;

use lookup::Indexes;
pub(crate) use scan::{BadBatch, HeaderScan, check_crc};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::batch::BatchHeader;
use crate::index::{IndexEntry, OffsetEntry, TimeEntry};
use crate::open_files::FileSlot;
use crate::storage::Storage;

/// Where a segment ends: the next offset, and the position behind the last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SegmentEnd {
    pub offset: i64,
    pub position: u64,
}

/// A batch's place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Located {
    pub position: u64,
    pub header: BatchHeader,
}

#[derive(Debug)]
pub(crate) struct Segment {
    dir: Arc<Path>,
    base_offset: i64,
    file: FileSlot,
    state: Mutex<State>,
    /// The last commit round that had to sync this segment; see [`crate::commit`].
    pub dirty_round: AtomicU64,
    /// Whether the directory has not been synced since the file was created.
    new_name: AtomicBool,
    /// Where the bytes end that an earlier process has written; what became of them on the disk is not known.
    old_end: AtomicU64,
}

#[derive(Debug)]
struct State {
    end: SegmentEnd,
    /// None until needed: most segments of most partitions are never read.
    indexes: Option<Indexes>,
    since_entry_bytes: u64,
    first_timestamp: Option<i64>,
}

/// Why a segment could not be searched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SegmentError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Bad(#[from] BadBatch),
}

impl Segment {
    /// A segment whose file exists and ends at `end`.
    pub fn existing(dir: Arc<Path>, base_offset: i64, end: SegmentEnd) -> Self {
        Self::with_indexes(dir, base_offset, end, None)
    }

    /// A segment whose file was just created.
    pub fn created(dir: Arc<Path>, base_offset: i64) -> Self {
        let end = SegmentEnd { offset: base_offset, position: 0 };
        let segment = Self::with_indexes(dir, base_offset, end, Some(Indexes::empty(base_offset)));
        segment.new_name.store(true, Relaxed);
        segment
    }

    fn with_indexes(dir: Arc<Path>, base_offset: i64, end: SegmentEnd, indexes: Option<Indexes>) -> Self {
        let old_end = if indexes.is_some() { 0 } else { end.position };
        let state = State { end, indexes, since_entry_bytes: 0, first_timestamp: None };
        Self {
            dir,
            base_offset,
            file: FileSlot::default(),
            state: Mutex::new(state),
            dirty_round: AtomicU64::new(0),
            new_name: AtomicBool::new(false),
            old_end: AtomicU64::new(old_end),
        }
    }

    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.join(file_name(self.base_offset, "log"))
    }

    fn index_path(&self) -> PathBuf {
        self.dir.join(file_name(self.base_offset, "index"))
    }

    fn time_index_path(&self) -> PathBuf {
        self.dir.join(file_name(self.base_offset, "timeindex"))
    }

    /// The files that may exist beside the log file.
    pub fn paths(&self) -> [PathBuf; 3] {
        [self.log_path(), self.index_path(), self.time_index_path()]
    }

    pub fn file_slot(&self) -> &FileSlot {
        &self.file
    }

    pub fn end(&self) -> SegmentEnd {
        self.state.lock().end
    }

    /// Whether the directory must be synced for the file to be found after a crash; asked once.
    pub fn take_new_name(&self) -> bool {
        self.new_name.load(Relaxed) && self.new_name.swap(false, Relaxed)
    }

    /// Whether an earlier process has written what lies at `position`.
    pub fn is_old(&self, position: u64) -> bool {
        position < self.old_end.load(Relaxed)
    }

    fn relative(&self, offset: i64) -> u32 {
        u32::try_from(offset - self.base_offset).unwrap_or(u32::MAX)
    }

    /// Whether a batch that ends at `last_offset` can't be indexed relative to the base offset.
    pub fn out_of_reach(&self, last_offset: i64) -> bool {
        last_offset - self.base_offset > i64::from(i32::MAX)
    }

    /// Whether an index has no room for another entry within `max_bytes`.
    pub fn index_full(&self, max_bytes: u32) -> bool {
        let max_bytes = max_bytes as usize;
        self.state.lock().indexes.as_ref().is_some_and(|indexes| {
            (indexes.offsets.len() + 1) * OffsetEntry::SIZE > max_bytes
                || (indexes.times.len() + 1) * TimeEntry::SIZE > max_bytes
        })
    }

    /// The timestamp of the first batch appended, if it has one and is known.
    pub fn first_timestamp(&self) -> Option<i64> {
        self.state.lock().first_timestamp
    }

    /// Takes a batch into the indexes and moves the end behind it; its bytes are in the file.
    pub fn appended(&self, storage: &Storage, header: &BatchHeader, interval_bytes: u32) {
        let mut state = self.state.lock();
        let position = state.end.position;
        let since_entry_bytes = state.since_entry_bytes;
        if let Some(indexes) = &mut state.indexes {
            self.index(indexes, header, position, since_entry_bytes > u64::from(interval_bytes));
            self.flush_full(indexes, storage);
        }
        if since_entry_bytes > u64::from(interval_bytes) {
            state.since_entry_bytes = 0;
        }
        state.since_entry_bytes += header.size_bytes() as u64;
        if position == 0 {
            state.first_timestamp = (header.max_timestamp >= 0).then_some(header.max_timestamp);
        }
        state.end.position += header.size_bytes() as u64;
        state.end.offset = header.next_offset();
    }

    /// Writes all index entries to their files.
    pub fn flush_indexes(&self, storage: &Storage) -> io::Result<()> {
        let mut state = self.state.lock();
        let Some(indexes) = &mut state.indexes else { return Ok(()) };
        indexes.offsets.flush(&*storage.disk, &self.index_path())?;
        indexes.times.flush(&*storage.disk, &self.time_index_path())
    }

    /// Ends the indexes as Kafka does when a segment is rolled, and writes them. An error is no loss:
    /// what is missing in the files is rebuilt.
    pub fn close_indexes(&self, storage: &Storage) -> io::Result<()> {
        let mut state = self.state.lock();
        let Some(indexes) = &mut state.indexes else { return Ok(()) };
        self.index_time(indexes);
        indexes.offsets.flush(&*storage.disk, &self.index_path())?;
        indexes.times.flush(&*storage.disk, &self.time_index_path())?;
        indexes.offsets.release();
        indexes.times.release();
        Ok(())
    }
}

/// Kafka's file names: the base offset in 20 digits.
pub(crate) fn file_name(base_offset: i64, extension: &str) -> String {
    format!("{base_offset:020}.{extension}")
}

/// The offset in a file name of this extension.
pub(crate) fn parse_file_name(name: &str, extension: &str) -> Option<i64> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    let canonical = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    canonical.then(|| digits.parse().ok()).flatten()
}
