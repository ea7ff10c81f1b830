//! Sparse indexes of a segment, in Kafka's formats: offset -> position and timestamp -> offset.
//!
//! Owns the entries of one index, whose newest part is in memory and whose older part is in its file.
//! Invariants: entries ascend; the file holds a prefix of them; memory holds at least what the file lacks.
//! An index is a hint that can be rebuilt from the log: whoever uses an entry checks what it finds there.
//! Does not sync what it flushes: checkpoints do, before the recovery point moves past what the index covers.
//!
//! ```text
//! .index      relative offset u32 of a batch's last record   position u32 of that batch
//! .timeindex  timestamp i64, the largest so far   relative offset u32 of the batch that has it
//! ```

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;

use crate::disk::{Disk, OpenMode, read_exact_at, replace_file, write_all_at, write_file};

/// Entries that gather in memory before they are written to the file in one call.
const FLUSH_ENTRIES: usize = 1024;

/// Entries that stay in memory after that: tail reads find theirs without touching the file.
const KEEP_ENTRIES: usize = 256;

/// One entry of fixed size.
pub(crate) trait IndexEntry: Copy + Debug + PartialEq {
    const SIZE: usize;
    fn encode(&self, out: &mut Vec<u8>);
    fn decode(bytes: &[u8]) -> Self;
    /// Whether `self` may follow `before`.
    fn follows(&self, before: &Self) -> bool;
}

/// The batch whose last record has this offset starts at this position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    pub relative_offset: u32,
    pub position: u32,
}

impl IndexEntry for OffsetEntry {
    const SIZE: usize = 8;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        Self { relative_offset: be_u32(bytes, 0), position: be_u32(bytes, 4) }
    }

    fn follows(&self, before: &Self) -> bool {
        self.relative_offset > before.relative_offset && self.position > before.position
    }
}

/// Up to and including the batch that ends at this offset, no timestamp is larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub timestamp: i64,
    pub relative_offset: u32,
}

impl IndexEntry for TimeEntry {
    const SIZE: usize = 12;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        let high = u64::from(be_u32(bytes, 0));
        Self {
            timestamp: (high << 32 | u64::from(be_u32(bytes, 4))) as i64,
            relative_offset: be_u32(bytes, 8),
        }
    }

    fn follows(&self, before: &Self) -> bool {
        self.timestamp > before.timestamp && self.relative_offset >= before.relative_offset
    }
}

fn be_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// One index. It is told the path of its file on each call, because thousands of partitions would
/// otherwise keep thousands of copies.
#[derive(Debug)]
pub(crate) struct SparseIndex<E> {
    /// Entries in the file.
    in_file: usize,
    /// Whether the file may hold something else, or not exist.
    file_unknown: bool,
    /// Number of the first entry in `tail`.
    tail_from: usize,
    tail: Vec<E>,
    last: Option<E>,
}

impl<E: IndexEntry> SparseIndex<E> {
    /// An index without entries; its file, if any, is emptied by the first flush.
    pub fn empty() -> Self {
        Self { in_file: 0, file_unknown: true, tail_from: 0, tail: Vec::new(), last: None }
    }

    /// Takes over the entries of an existing file. An unreadable tail shorter than an entry, or a file
    /// whose last entry is not a possible successor of the one before, counts as damage: none.
    pub fn load(disk: &dyn Disk, path: &Path) -> io::Result<Option<Self>> {
        let file = match disk.open(path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let count = len / E::SIZE;
        let mut bytes = vec![0; count.min(2) * E::SIZE];
        read_exact_at(&*file, &mut bytes, ((count - count.min(2)) * E::SIZE) as u64)?;
        let last: Vec<E> = bytes.chunks_exact(E::SIZE).map(E::decode).collect();
        let ascending = last.windows(2).all(|pair| pair[1].follows(&pair[0]));
        if len % E::SIZE != 0 || !ascending {
            return Ok(None);
        }
        let last = last.last().copied();
        Ok(Some(Self { in_file: count, file_unknown: false, tail_from: count, tail: Vec::new(), last }))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.tail_from + self.tail.len()
    }

    /// The newest entry.
    pub fn last(&self) -> Option<E> {
        self.last
    }

    /// Adds an entry unless it would break the order.
    pub fn push(&mut self, entry: E) {
        if self.last.is_none_or(|last| entry.follows(&last)) {
            self.tail.push(entry);
            self.last = Some(entry);
        }
    }

    /// Whether enough entries have gathered for a write to pay.
    pub fn wants_flush(&self) -> bool {
        self.len() - self.in_file >= FLUSH_ENTRIES
    }

    /// Writes what the file lacks. An error leaves the index as it was: the entries stay in memory.
    pub fn flush(&mut self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        let pending = &self.tail[self.in_file - self.tail_from..];
        if pending.is_empty() && !self.file_unknown {
            return Ok(());
        }
        let bytes = encoded(pending);
        if self.file_unknown {
            write_file(disk, path, &bytes)?;
            self.file_unknown = false;
        } else {
            let file = disk.open(path, OpenMode::Write)?;
            write_all_at(&*file, &mut [IoSlice::new(&bytes)], (self.in_file * E::SIZE) as u64)?;
        }
        self.flushed();
        Ok(())
    }

    /// Puts the entries in the place of a file that may hold something else: after a crash the old ones are there or
    /// the new ones, and the new ones once this has returned.
    pub fn replace_file(&mut self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        if !self.file_unknown {
            return self.flush(disk, path);
        }
        replace_file(disk, path, &encoded(&self.tail))?;
        self.file_unknown = false;
        self.flushed();
        Ok(())
    }

    /// The file has all entries: memory keeps those that are likely to be asked for.
    fn flushed(&mut self) {
        self.in_file = self.len();
        let surplus = self.tail.len().saturating_sub(KEEP_ENTRIES);
        self.tail.drain(..surplus);
        self.tail.shrink_to(FLUSH_ENTRIES);
        self.tail_from += surplus;
    }

    /// Gives the memory of a closed segment's entries back; they are all in the file.
    pub fn release(&mut self) {
        if self.in_file == self.len() {
            self.tail_from = self.in_file;
            self.tail = Vec::new();
        }
    }

    /// The last entry for which `wanted` holds, where it holds for a prefix of the entries.
    pub fn last_where(
        &self,
        disk: &dyn Disk,
        path: &Path,
        wanted: impl Fn(&E) -> bool,
    ) -> io::Result<Option<E>> {
        if self.last.is_none_or(|last| wanted(&last)) {
            return Ok(self.last);
        }
        let in_tail = self.tail.partition_point(&wanted);
        if in_tail > 0 {
            return Ok(Some(self.tail[in_tail - 1]));
        }
        if self.tail_from == 0 {
            return Ok(None);
        }
        self.last_in_file(disk, path, wanted)
    }

    fn last_in_file(
        &self,
        disk: &dyn Disk,
        path: &Path,
        wanted: impl Fn(&E) -> bool,
    ) -> io::Result<Option<E>> {
        let file = disk.open(path, OpenMode::Read)?;
        let mut buffer = vec![0; BLOCK_ENTRIES * E::SIZE];
        let (mut from, mut to) = (0, self.tail_from);
        // Halve until a block is left, then read that in one call.
        while to - from > BLOCK_ENTRIES {
            let middle = from + (to - from) / 2;
            read_exact_at(&*file, &mut buffer[..E::SIZE], (middle * E::SIZE) as u64)?;
            if wanted(&E::decode(&buffer[..E::SIZE])) { from = middle } else { to = middle }
        }
        let block = &mut buffer[..(to - from) * E::SIZE];
        read_exact_at(&*file, block, (from * E::SIZE) as u64)?;
        let entries: Vec<E> = block.chunks_exact(E::SIZE).map(E::decode).collect();
        Ok(entries.iter().take_while(|entry| wanted(entry)).last().copied())
    }

    /// Drops every entry for which `wanted` does not hold, where it holds for a prefix of the entries;
    /// in memory and, by the next flush, in the file. False, with nothing dropped, where it holds for others: the
    /// index is damaged.
    pub fn truncate(
        &mut self,
        disk: &dyn Disk,
        path: &Path,
        wanted: impl Fn(&E) -> bool,
    ) -> io::Result<bool> {
        let file = match self.in_file {
            0 => None,
            _ => Some(disk.open(path, OpenMode::Write)?),
        };
        let mut entries: Vec<E> = Vec::with_capacity(self.len());
        if let Some(file) = &file {
            let mut bytes = vec![0; self.tail_from * E::SIZE];
            read_exact_at(&**file, &mut bytes, 0)?;
            entries.extend(bytes.chunks_exact(E::SIZE).map(E::decode));
        }
        entries.extend_from_slice(&self.tail);
        if !entries.is_sorted_by_key(|entry| !wanted(entry)) {
            return Ok(false);
        }
        entries.truncate(entries.partition_point(wanted));
        self.last = entries.last().copied();
        if let Some(file) = file {
            self.in_file = self.in_file.min(entries.len());
            file.set_len((self.in_file * E::SIZE) as u64)?;
        }
        self.tail_from = self.in_file;
        self.tail = entries.split_off(self.in_file);
        Ok(true)
    }
}

fn encoded<E: IndexEntry>(entries: &[E]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * E::SIZE);
    entries.iter().for_each(|entry| entry.encode(&mut bytes));
    bytes
}

/// Entries that a lookup reads in one call.
const BLOCK_ENTRIES: usize = 64;
