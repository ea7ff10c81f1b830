//! Producer snapshots: the state at an offset, in a file named after it.
//!
//! Owns Kafka's `.snapshot` format, version 1, which keeps one batch per producer. What we keep beyond
//! that, the up to four batches before, stands behind the entries, where Kafka's reader does not look
//! but its CRC reaches. Invariants: decoding what encoding wrote gives the same state.
//!
//! ```text
//! version i16 = 1   CRC-32C u32 of all that follows   entry count i32
//! entry: producer id i64   epoch i16   last sequence i32   last offset i64   offset delta i32
//!        timestamp i64   coordinator epoch i32   current transaction's first offset i64
//! behind the entries, ours: mark count i32
//! mark, oldest first: producer id i64   last sequence i32   last offset i64   offset delta i32
//!        timestamp i64
//! behind the marks, ours: count i32 of segments with aborted transactions
//! segment: base offset i64   entries of its .txnindex i32   CRC-32C u32 of these entries
//! ```
//!
//! Kafka's transaction index has neither a checksum nor a sign of how much of it there should be; the last section is
//! what a start holds it against.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut};

use super::{BatchMark, Producer, Producers};
use crate::segment::TxnIndexSummary;

const VERSION: i16 = 1;
const CRC_FROM: usize = 6;
const ENTRY_LEN: usize = 46;
const MARK_LEN: usize = 32;
const TXN_INDEX_LEN: usize = 16;
const NO_OFFSET: i64 = -1;

/// Why a snapshot file can't be used; the state is rebuilt from the log then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("the file is cut short")]
    Short,
    #[error("expected version 1, found {0}")]
    Version(i16),
    #[error("bad CRC: expected {expected:#010x}, found {found:#010x}")]
    Crc { expected: u32, found: u32 },
}

/// What a snapshot file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub producers: Producers,
    /// What the transaction index of each segment held, by base offset; segments without one are left out.
    pub txn_indexes: BTreeMap<i64, TxnIndexSummary>,
}

impl Producers {
    /// The state as a snapshot file's contents, with what the segments' transaction indexes hold.
    pub fn encode(&self, txn_indexes: &BTreeMap<i64, TxnIndexSummary>) -> Vec<u8> {
        let mut out = Vec::with_capacity(14 + self.by_id.len() * ENTRY_LEN);
        out.put_i16(VERSION);
        out.put_u32(0);
        out.put_i32(self.by_id.len() as i32);
        let none = BatchMark { last_sequence: -1, last_offset: NO_OFFSET, offset_delta: 0, timestamp: 0 };
        for (id, producer) in &self.by_id {
            let last = producer.batches.back().unwrap_or(&none);
            out.put_i64(*id);
            out.put_i16(producer.epoch);
            out.put_i32(last.last_sequence);
            out.put_i64(last.last_offset);
            out.put_i32(last.offset_delta);
            out.put_i64(producer.last_timestamp);
            out.put_i32(producer.coordinator_epoch);
            out.put_i64(producer.txn_first_offset.unwrap_or(NO_OFFSET));
        }
        let older = |producer: &Producer| producer.batches.len().saturating_sub(1);
        out.put_i32(self.by_id.values().map(older).sum::<usize>() as i32);
        for (id, producer) in &self.by_id {
            for mark in producer.batches.iter().take(older(producer)) {
                out.put_i64(*id);
                out.put_i32(mark.last_sequence);
                out.put_i64(mark.last_offset);
                out.put_i32(mark.offset_delta);
                out.put_i64(mark.timestamp);
            }
        }
        out.put_i32(txn_indexes.len() as i32);
        for (base_offset, summary) in txn_indexes {
            out.put_i64(*base_offset);
            out.put_u32(summary.count);
            out.put_u32(summary.crc);
        }
        let crc = crc32c::crc32c(&out[CRC_FROM..]);
        out[2..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        out
    }
}

impl Snapshot {
    /// The contents of a snapshot file, ours or Kafka's.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut head = bytes;
        let version = head.try_get_i16().map_err(|_| SnapshotError::Short)?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let expected = head.try_get_u32().map_err(|_| SnapshotError::Short)?;
        let found = crc32c::crc32c(&bytes[CRC_FROM..]);
        if expected != found {
            return Err(SnapshotError::Crc { expected, found });
        }
        let mut rest = &bytes[CRC_FROM..];
        let mut producers = Producers::default();
        for _ in 0..count(&mut rest, ENTRY_LEN)? {
            producers.insert_entry(&mut rest);
        }
        // Kafka's own files end here.
        let marks = if rest.is_empty() { 0 } else { count(&mut rest, MARK_LEN)? };
        for _ in 0..marks {
            let id = rest.get_i64();
            let mark = BatchMark {
                last_sequence: rest.get_i32(),
                last_offset: rest.get_i64(),
                offset_delta: rest.get_i32(),
                timestamp: rest.get_i64(),
            };
            if let Some(producer) = producers.by_id.get_mut(&id) {
                let newest = producer.batches.len().saturating_sub(1);
                producer.batches.insert(newest, mark);
            }
        }
        let count = if rest.is_empty() { 0 } else { count(&mut rest, TXN_INDEX_LEN)? };
        let summary = |rest: &mut &[u8]| TxnIndexSummary { count: rest.get_u32(), crc: rest.get_u32() };
        let txn_indexes = (0..count).map(|_| (rest.get_i64(), summary(&mut rest))).collect();
        Ok(Self { producers, txn_indexes })
    }
}

impl Producers {
    fn insert_entry(&mut self, entry: &mut &[u8]) {
        let id = entry.get_i64();
        let mut producer = Producer::new(entry.get_i16());
        let mut mark = BatchMark {
            last_sequence: entry.get_i32(),
            last_offset: entry.get_i64(),
            offset_delta: entry.get_i32(),
            timestamp: entry.get_i64(),
        };
        producer.last_timestamp = mark.timestamp;
        producer.coordinator_epoch = entry.get_i32();
        let txn_first_offset = entry.get_i64();
        if mark.last_offset != NO_OFFSET {
            mark.offset_delta = mark.offset_delta.max(0);
            producer.batches.push_back(mark);
        }
        if txn_first_offset != NO_OFFSET {
            producer.txn_first_offset = Some(txn_first_offset);
            self.open_txns.insert(txn_first_offset);
        }
        self.by_id.insert(id, producer);
    }
}

/// Reads a count and makes sure that so many items of `item_len` bytes are there.
fn count(rest: &mut &[u8], item_len: usize) -> Result<usize, SnapshotError> {
    let count = rest.try_get_i32().map_err(|_| SnapshotError::Short)?;
    let count = usize::try_from(count).map_err(|_| SnapshotError::Short)?;
    if count.saturating_mul(item_len) > rest.len() {
        return Err(SnapshotError::Short);
    }
    Ok(count)
}
