//! The files beside the logs, which can be made again from them.
//!
//! Owns their checks: indexes entry by entry against the batches of their segment, transaction indexes against the
//! snapshot that says what they hold, snapshots and leader epochs as a whole. Invariants: a fault here never counts as lost data; memory is bounded whatever a file's length.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, OpenMode, read_exact_at, read_file};
use crate::index::{IndexEntry, OffsetEntry, TimeEntry};
use crate::leader_epochs::LeaderEpochs;
use crate::partition_log::LEADER_EPOCHS;
use crate::producers::Snapshot;
use crate::segment::{Located, Segment, TxnIndex, file_name, parse_file_name};

/// A file that is missing or damaged and is made again from the log, by the next start or when it is needed; or one that
/// should not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideFault {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub what: String,
}

impl SideFault {
    pub(super) fn new(file: PathBuf, what: impl Into<String>) -> Self {
        Self { file, what: what.into() }
    }
}

/// Index entries read in one call.
const BLOCK_ENTRIES: usize = 512;

/// One index file, read along with the batches of its segment.
pub(super) struct IndexReader<E> {
    path: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
    count: usize,
    next: usize,
    /// Entries from `block_from` on.
    block: Vec<E>,
    block_from: usize,
    before: Option<E>,
    fault: Option<SideFault>,
}

impl<E: IndexEntry> IndexReader<E> {
    pub fn open(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        let mut reader = Self {
            path: path.to_owned(),
            file: None,
            count: 0,
            next: 0,
            block: Vec::new(),
            block_from: 0,
            before: None,
            fault: None,
        };
        match disk.open(path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => reader.fail("is missing".to_owned()),
            opened => {
                let file = opened?;
                let len = file.len()?;
                reader.count = usize::try_from(len / E::SIZE as u64).unwrap_or(usize::MAX);
                if len % E::SIZE as u64 != 0 {
                    reader.fail(format!("{len} bytes are no whole number of entries"));
                }
                reader.file = Some(file);
            }
        }
        Ok(reader)
    }

    fn fail(&mut self, what: String) {
        let path = &self.path;
        self.fault.get_or_insert_with(|| SideFault::new(path.clone(), what));
    }

    /// The entry that has not been compared yet; none at the end or behind a fault.
    fn peek(&mut self) -> io::Result<Option<E>> {
        if self.fault.is_some() || self.next >= self.count {
            return Ok(None);
        }
        if self.next >= self.block_from + self.block.len() {
            let Some(file) = &self.file else { return Ok(None) };
            let mut bytes = vec![0; BLOCK_ENTRIES.min(self.count - self.next) * E::SIZE];
            read_exact_at(&**file, &mut bytes, (self.next * E::SIZE) as u64)?;
            self.block = bytes.chunks_exact(E::SIZE).map(E::decode).collect();
            self.block_from = self.next;
        }
        let entry = self.block[self.next - self.block_from];
        if self.before.is_some_and(|before| !entry.follows(&before)) {
            self.fail(format!("entry {} does not follow the one before it", self.next));
            return Ok(None);
        }
        Ok(Some(entry))
    }

    fn advance(&mut self, entry: E) {
        self.before = Some(entry);
        self.next += 1;
    }

    fn mismatch(&mut self) {
        self.fail(format!("entry {} names no batch", self.next));
    }

    /// What was found, after the last batch; an entry that is left over names no batch.
    pub fn finish(mut self) -> io::Result<Option<SideFault>> {
        if self.peek()?.is_some() {
            self.mismatch();
        }
        Ok(self.fault)
    }
}

impl IndexReader<OffsetEntry> {
    pub fn compare(&mut self, base_offset: i64, batch: &Located) -> io::Result<()> {
        while let Some(entry) = self.peek()? {
            if u64::from(entry.position) > batch.position {
                break;
            }
            let exact = u64::from(entry.position) == batch.position
                && i64::from(entry.relative_offset) == batch.header.last_offset() - base_offset;
            if !exact {
                self.mismatch();
                break;
            }
            self.advance(entry);
        }
        Ok(())
    }
}

impl IndexReader<TimeEntry> {
    pub fn compare(&mut self, base_offset: i64, batch: &Located) -> io::Result<()> {
        let last = batch.header.last_offset() - base_offset;
        while let Some(entry) = self.peek()? {
            if i64::from(entry.relative_offset) > last {
                break;
            }
            let exact =
                i64::from(entry.relative_offset) == last && entry.timestamp == batch.header.max_timestamp;
            if !exact {
                self.mismatch();
                break;
            }
            self.advance(entry);
        }
        Ok(())
    }
}

/// Both indexes of a segment.
pub(super) struct IndexReaders {
    base_offset: i64,
    offsets: IndexReader<OffsetEntry>,
    times: IndexReader<TimeEntry>,
}

impl IndexReaders {
    pub fn open(disk: &dyn Disk, segment: &Segment) -> io::Result<Self> {
        let [_, index, time_index, _] = segment.paths();
        let (offsets, times) = (IndexReader::open(disk, &index)?, IndexReader::open(disk, &time_index)?);
        Ok(Self { base_offset: segment.base_offset(), offsets, times })
    }

    pub fn compare(&mut self, batch: &Located) -> io::Result<()> {
        self.offsets.compare(self.base_offset, batch)?;
        self.times.compare(self.base_offset, batch)
    }

    pub fn finish(self) -> io::Result<Vec<SideFault>> {
        Ok([self.offsets.finish()?, self.times.finish()?].into_iter().flatten().collect())
    }
}

/// Snapshots, leader epochs and the topic's id in a partition's folder.
pub(super) fn check_folder(
    disk: &dyn Disk,
    folder: &Path,
    names: &[String],
    needs_snapshot: Option<i64>,
) -> io::Result<Vec<SideFault>> {
    let mut faults = Vec::new();
    for name in names.iter().filter(|name| parse_file_name(name, "snapshot").is_some()) {
        let path = folder.join(name);
        let bytes = read_file(disk, &path)?.unwrap_or_default();
        if let Err(error) = Snapshot::decode(&bytes) {
            faults.push(SideFault::new(path, error.to_string()));
        }
    }
    faults
        .extend(orphans(names).map(|name| SideFault::new(folder.join(name), "is an index without its log")));
    if let Some(recovery_point) = needs_snapshot {
        let name = file_name(recovery_point, "snapshot");
        if !names.contains(&name) {
            faults.push(SideFault::new(folder.join(name), "is missing".to_owned()));
        }
    }
    let path = folder.join(LEADER_EPOCHS);
    if let Some(bytes) = read_file(disk, &path)?
        && std::str::from_utf8(&bytes).ok().and_then(LeaderEpochs::decode).is_none()
    {
        faults.push(SideFault::new(path, "is damaged".to_owned()));
    }
    Ok(faults)
}

/// Index files whose segment has no log file. A crash between the removals of a segment's files may leave some, too.
fn orphans(names: &[String]) -> impl Iterator<Item = &String> {
    let base = |name: &String| {
        ["index", "timeindex", "txnindex"].iter().find_map(|extension| parse_file_name(name, extension))
    };
    let has_log = |base_offset| names.contains(&file_name(base_offset, "log"));
    names.iter().filter(move |name| base(name).is_some_and(|base_offset| !has_log(base_offset)))
}

/// Transaction indexes, against the snapshot at the recovery point, as a start holds them. Without that snapshot a start
/// makes all of them anew.
pub(super) fn check_txn_indexes(
    disk: &dyn Disk,
    folder: &Path,
    recovery_point: i64,
    is_there: impl Fn(i64) -> bool,
) -> io::Result<Vec<SideFault>> {
    let mut faults = Vec::new();
    let snapshot = read_file(disk, &folder.join(file_name(recovery_point, "snapshot")))?;
    let Some(Ok(snapshot)) = snapshot.map(|bytes| Snapshot::decode(&bytes)) else { return Ok(faults) };
    for (base_offset, summary) in snapshot.txn_indexes {
        let path = folder.join(file_name(base_offset, "txnindex"));
        if is_there(base_offset) && !TxnIndex::is_as_expected(disk, &path, summary)? {
            let what = format!("does not hold the {} entries of the producer snapshot", summary.count);
            faults.push(SideFault::new(path, what));
        }
    }
    Ok(faults)
}
