//! One segment: a file of batches from a base offset on, its two indexes, and the transactions aborted in it.
//!
//! Owns the file's name, its end, and the index entries. Invariants: the end is behind the last whole
//! batch and moves after the bytes are written; an index entry is believed only after the batch it points
//! to was seen to be that batch; indexes that are missing or damaged are rebuilt when they are needed.
//! Does not write batches (the partition log does, under its lock) and does not sync.

mod lookup;
mod scan;
mod txn_index;

use lookup::Indexes;
pub(crate) use scan::{BadBatch, HeaderScan, check_crc};
pub use txn_index::AbortedTransaction;
pub(crate) use txn_index::{TxnIndex, TxnIndexSummary};

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

/// Unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentId(u64);

impl SegmentId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Relaxed))
    }
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
    /// Tells it from another segment of the same base offset: the one that the cleaner puts in its place.
    id: SegmentId,
    file: FileSlot,
    state: Mutex<State>,
    txn_index: TxnIndex,
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
    /// Whether the segment is no longer part of the log: its names may be another's or nobody's, so the
    /// index files are neither read nor written any more.
    retired: bool,
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

    /// A segment to be written in the place of others, of which `first` is the first.
    pub fn cleaned(first: &Self) -> Self {
        Self::created(first.dir.clone(), first.base_offset)
    }

    fn with_indexes(dir: Arc<Path>, base_offset: i64, end: SegmentEnd, indexes: Option<Indexes>) -> Self {
        let old_end = if indexes.is_some() { 0 } else { end.position };
        let state = State { end, indexes, since_entry_bytes: 0, first_timestamp: None, retired: false };
        Self {
            dir,
            base_offset,
            id: SegmentId::next(),
            file: FileSlot::default(),
            state: Mutex::new(state),
            txn_index: TxnIndex::default(),
            dirty_round: AtomicU64::new(0),
            new_name: AtomicBool::new(false),
            old_end: AtomicU64::new(old_end),
        }
    }

    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// Prepares for the removal of the files: whoever still holds the segment goes on reading the file as it
    /// was, which stays open for that long, and finds batches without the index files.
    pub fn retire(self: &Arc<Self>, storage: &Storage) -> io::Result<()> {
        storage.open_files.pin(&*storage.disk, self)?;
        let aborted = self.all_aborted(storage).inspect_err(|_| storage.open_files.unpin(self))?;
        let mut state = self.state.lock();
        self.txn_index.replace(TxnIndex::of(aborted));
        state.retired = true;
        state.indexes = None;
        Ok(())
    }

    /// Takes back what [`Segment::retire`] did: the files stay, and the segment in its log.
    pub fn stay(self: &Arc<Self>, storage: &Storage) {
        self.state.lock().retired = false;
        storage.open_files.unpin(self);
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

    pub fn txn_index_path(&self) -> PathBuf {
        self.dir.join(file_name(self.base_offset, "txnindex"))
    }

    /// The log file and the files that may exist beside it.
    pub fn paths(&self) -> [PathBuf; 4] {
        [self.log_path(), self.index_path(), self.time_index_path(), self.txn_index_path()]
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
        state.take_in(self, header, interval_bytes);
        if let Some(indexes) = &mut state.indexes {
            self.flush_full(indexes, storage);
        }
    }

    /// Takes a batch into the indexes of a cleaned segment, which no log has yet.
    pub fn index_cleaned(&self, header: &BatchHeader, interval_bytes: u32) {
        self.state.lock().take_in(self, header, interval_bytes);
    }

    /// Ends a cleaned segment: it reaches to `end`, whatever its last batch's offset, and has the markers of these
    /// aborted transactions.
    pub fn finish_cleaned(&self, end: SegmentEnd, aborted: Vec<AbortedTransaction>) {
        self.txn_index.replace(TxnIndex::of(aborted));
        let mut state = self.state.lock();
        state.end = end;
        if let Some(indexes) = &mut state.indexes {
            self.index_time(indexes);
        }
        self.new_name.store(false, Relaxed);
    }

    /// Writes the indexes and makes them durable.
    pub fn flush_and_sync_indexes(&self, storage: &Storage) -> io::Result<()> {
        if let Some(indexes) = &mut self.state.lock().indexes {
            // Durable before there is an offset index: no recovery looks again at what lies below the recovery point.
            indexes.times.replace_file(&*storage.disk, &self.time_index_path())?;
        }
        self.flush_indexes(storage)?;
        self.flush_txn_index(storage)?;
        let [_, paths @ ..] = self.paths();
        let paths = paths.iter().take(if self.txn_index.summary().is_some() { 3 } else { 2 });
        for path in paths {
            storage.disk.open(path, crate::disk::OpenMode::Write)?.sync_data()?;
        }
        storage.disk.sync_dir(&self.dir)?;
        let mut state = self.state.lock();
        if let Some(indexes) = &mut state.indexes {
            indexes.offsets.release();
            indexes.times.release();
        }
        Ok(())
    }

    /// The segment's entries of aborted transactions.
    pub fn txn_index(&self) -> &TxnIndex {
        &self.txn_index
    }

    /// Notes that a marker in this segment aborts a transaction.
    pub fn push_aborted(&self, storage: &Storage, aborted: AbortedTransaction) {
        self.txn_index.push(aborted, &*storage.disk, &self.txn_index_path());
    }

    /// Adds the transactions aborted in this segment that touch a range; tells whether later segments may have more.
    pub fn collect_aborted(
        &self,
        storage: &Storage,
        range: (i64, i64),
        found: &mut Vec<AbortedTransaction>,
    ) -> io::Result<bool> {
        // Nearly every segment has none, and so needs no path.
        if self.txn_index.summary().is_none() {
            return Ok(true);
        }
        self.txn_index.collect(&*storage.disk, &self.txn_index_path(), range, found)
    }

    /// All transactions aborted in this segment.
    pub fn all_aborted(&self, storage: &Storage) -> io::Result<Vec<AbortedTransaction>> {
        let mut aborted = Vec::new();
        self.collect_aborted(storage, (i64::MIN, i64::MAX), &mut aborted)?;
        Ok(aborted)
    }

    /// Writes the transaction index to its file.
    pub fn flush_txn_index(&self, storage: &Storage) -> io::Result<()> {
        let state = self.state.lock();
        if self.txn_index.summary().is_none() || state.retired {
            return Ok(());
        }
        self.txn_index.flush(&*storage.disk, &self.txn_index_path())
    }

    /// Writes all index entries to their files.
    pub fn flush_indexes(&self, storage: &Storage) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.retired {
            return Ok(());
        }
        match &mut state.indexes {
            Some(indexes) => self.flush_both(indexes, storage),
            None => Ok(()),
        }
    }

    /// Ends the indexes as Kafka does when a segment is rolled, and writes them. An error is no loss:
    /// what is missing in the files is rebuilt.
    pub fn close_indexes(&self, storage: &Storage) -> io::Result<()> {
        let mut state = self.state.lock();
        let Some(indexes) = &mut state.indexes else { return Ok(()) };
        self.index_time(indexes);
        self.flush_both(indexes, storage)?;
        indexes.offsets.release();
        indexes.times.release();
        Ok(())
    }
}

impl State {
    /// Takes a batch behind the end.
    fn take_in(&mut self, segment: &Segment, header: &BatchHeader, interval_bytes: u32) {
        let position = self.end.position;
        let due = self.since_entry_bytes > u64::from(interval_bytes);
        if let Some(indexes) = &mut self.indexes {
            segment.index(indexes, header, position, due);
        }
        if due {
            self.since_entry_bytes = 0;
        }
        self.since_entry_bytes += header.size_bytes() as u64;
        if position == 0 {
            self.first_timestamp = (header.max_timestamp >= 0).then_some(header.max_timestamp);
        }
        self.end.position += header.size_bytes() as u64;
        self.end.offset = header.next_offset();
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
