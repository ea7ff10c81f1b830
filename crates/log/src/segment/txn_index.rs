//! The transactions that were aborted in a segment (`.txnindex`, KIP-98).
//!
//! Owns the entries of one segment: those in the file, of which only number and checksums are kept in memory, and those
//! that are still to be written. Invariants: entries ascend by their marker's offset; an entry is there before the last
//! stable offset passes its marker. Kafka's format has no checksum: a start holds the file against what the producer
//! snapshot says about it, and makes the entries anew from the log where the two differ; each read holds it against the
//! checksums in memory, because an entry that was damaged meanwhile would show aborted records. Does not sync.
//!
//! ```text
//! entry  version i16 = 0   producer id i64   first offset i64   last offset (the marker) i64
//!        last stable offset when the marker was written i64
//! ```

use std::io::{self, IoSlice};
use std::path::Path;

use bytes::{Buf, BufMut};
use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, OpenMode, read_exact_at, write_all_at};

/// A transaction whose records `read_committed` consumers skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose it was.
    pub producer_id: i64,
    /// Its first record.
    pub first_offset: i64,
    /// Its marker.
    pub last_offset: i64,
    /// Where `read_committed` ended once the marker was written.
    pub last_stable_offset: i64,
}

/// What a segment's entries are held against after a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TxnIndexSummary {
    pub count: u32,
    /// Of the entries' bytes.
    pub crc: u32,
}

#[derive(Debug, Default)]
pub(crate) struct TxnIndex {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Entries in the file.
    written: u32,
    /// A checksum for each [`BLOCK_ENTRIES`] of them.
    blocks: Vec<u32>,
    pending: Vec<AbortedTransaction>,
    /// Of all entries.
    crc: u32,
}

const VERSION: i16 = 0;
const ENTRY_LEN: usize = 34;

/// Entries that gather in memory before they are written.
const FLUSH_ENTRIES: usize = 256;

/// Entries read, and checked, at a time.
const BLOCK_ENTRIES: usize = 1024;

impl TxnIndex {
    /// An index with the entries that the file begins with; none when they are not those of `expected`. What the file
    /// has behind them is cut off.
    pub fn adopt(disk: &dyn Disk, path: &Path, expected: TxnIndexSummary) -> io::Result<Option<Self>> {
        let file = match disk.open(path, OpenMode::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let Some(blocks) = checksums(&*file, expected)? else { return Ok(None) };
        let len = u64::from(expected.count) * ENTRY_LEN as u64;
        if file.len()? > len {
            file.set_len(len)?;
        }
        let state = State { written: expected.count, blocks, pending: Vec::new(), crc: expected.crc };
        Ok(Some(Self { state: Mutex::new(state) }))
    }

    /// Whether [`TxnIndex::adopt`] would take the file. Changes nothing.
    pub fn is_as_expected(disk: &dyn Disk, path: &Path, expected: TxnIndexSummary) -> io::Result<bool> {
        match disk.open(path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            opened => Ok(checksums(&*opened?, expected)?.is_some()),
        }
    }

    /// An index with these entries, which are still to be written.
    pub fn of(entries: Vec<AbortedTransaction>) -> Self {
        let crc = entries.iter().fold(0, |crc, entry| crc32c::crc32c_append(crc, &encode(entry)));
        Self { state: Mutex::new(State { written: 0, blocks: Vec::new(), pending: entries, crc }) }
    }

    /// Takes over another index's entries.
    pub fn replace(&self, other: Self) {
        *self.state.lock() = other.state.into_inner();
    }

    /// Adds an entry; its marker is behind those of all others.
    pub fn push(&self, entry: AbortedTransaction, disk: &dyn Disk, path: &Path) {
        let mut state = self.state.lock();
        state.crc = crc32c::crc32c_append(state.crc, &encode(&entry));
        state.pending.push(entry);
        if state.pending.len() >= FLUSH_ENTRIES {
            // A failure costs memory, not correctness: the entries stay and are written later.
            let _ = state.flush(disk, path);
        }
    }

    /// Writes all entries to the file.
    pub fn flush(&self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        self.state.lock().flush(disk, path)
    }

    /// What to hold the file against; none where no transaction was aborted.
    pub fn summary(&self) -> Option<TxnIndexSummary> {
        let state = self.state.lock();
        let count = state.written + state.pending.len() as u32;
        (count > 0).then_some(TxnIndexSummary { count, crc: state.crc })
    }

    /// Adds the transactions to `found` that touch an offset between `from` and `to`, which is excluded. Tells whether
    /// later segments may have more.
    pub fn collect(
        &self,
        disk: &dyn Disk,
        path: &Path,
        (from, to): (i64, i64),
        found: &mut Vec<AbortedTransaction>,
    ) -> io::Result<bool> {
        let state = self.state.lock();
        let mut take = |entry: &AbortedTransaction| {
            if entry.last_offset >= from && entry.first_offset < to {
                found.push(*entry);
            }
            // What is aborted later began at or behind this offset.
            entry.last_stable_offset < to
        };
        if state.written > 0 {
            let file = disk.open(path, OpenMode::Read)?;
            let len = state.written as usize * ENTRY_LEN;
            let mut block = vec![0; (BLOCK_ENTRIES * ENTRY_LEN).min(len)];
            for (at, expected) in (0..len).step_by(BLOCK_ENTRIES * ENTRY_LEN).zip(&state.blocks) {
                let bytes = &mut block[..(BLOCK_ENTRIES * ENTRY_LEN).min(len - at)];
                read_exact_at(&*file, bytes, at as u64)?;
                let found = crc32c::crc32c(bytes);
                if found != *expected {
                    let what = format!(
                        "{} is damaged (expected CRC {expected:#010x} from byte {at} on, found {found:#010x}); a restart \
                         makes it anew",
                        path.display()
                    );
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
                for entry in bytes.chunks_exact(ENTRY_LEN) {
                    if !take(&decode(entry)?) {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(state.pending.iter().all(take))
    }
}

impl State {
    fn flush(&mut self, disk: &dyn Disk, path: &Path) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // A file that is there before the first entry is a left-over.
        let mode = if self.written == 0 { OpenMode::Truncate } else { OpenMode::Write };
        let file = disk.open(path, mode)?;
        let bytes: Vec<u8> = self.pending.iter().flat_map(encode).collect();
        write_all_at(&*file, &mut [IoSlice::new(&bytes)], u64::from(self.written) * ENTRY_LEN as u64)?;
        for entry in bytes.chunks_exact(ENTRY_LEN) {
            if (self.written as usize).is_multiple_of(BLOCK_ENTRIES) {
                self.blocks.push(0);
            }
            let block = self.blocks.last_mut().expect("begun with its first entry");
            *block = crc32c::crc32c_append(*block, entry);
            self.written += 1;
        }
        self.pending.clear();
        Ok(())
    }
}

/// The checksums of the blocks of entries that the file begins with; none when they are not those of `expected`.
fn checksums(file: &dyn DiskFile, expected: TxnIndexSummary) -> io::Result<Option<Vec<u32>>> {
    let len = u64::from(expected.count) * ENTRY_LEN as u64;
    if file.len()? < len {
        return Ok(None);
    }
    let mut crc = 0;
    let mut blocks = Vec::new();
    let mut block = vec![0; BLOCK_ENTRIES * ENTRY_LEN];
    let mut at = 0;
    while at < len {
        let bytes = &mut block[..(BLOCK_ENTRIES * ENTRY_LEN).min((len - at) as usize)];
        read_exact_at(file, bytes, at)?;
        crc = crc32c::crc32c_append(crc, bytes);
        blocks.push(crc32c::crc32c(bytes));
        at += bytes.len() as u64;
    }
    Ok((crc == expected.crc).then_some(blocks))
}

fn encode(entry: &AbortedTransaction) -> [u8; ENTRY_LEN] {
    let mut bytes = [0; ENTRY_LEN];
    let mut out = &mut bytes[..];
    out.put_i16(VERSION);
    out.put_i64(entry.producer_id);
    out.put_i64(entry.first_offset);
    out.put_i64(entry.last_offset);
    out.put_i64(entry.last_stable_offset);
    bytes
}

fn decode(mut entry: &[u8]) -> io::Result<AbortedTransaction> {
    let version = entry.get_i16();
    if version != VERSION {
        let what = format!("transaction index: expected version {VERSION}, found {version}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(AbortedTransaction {
        producer_id: entry.get_i64(),
        first_offset: entry.get_i64(),
        last_offset: entry.get_i64(),
        last_stable_offset: entry.get_i64(),
    })
}
