//! The control record that ends a transaction in a partition (KIP-98).
//!
//! Owns its layout. Invariants: a batch that is not such a marker, or one of a version that is not known, is
//! told apart and never guessed at. Does not know transactions.
//!
//! ```text
//! key    version i16 = 0   type i16: 0 abort, 1 commit
//! value  version i16 = 0   coordinator epoch i32
//! ```

use bytes::{BufMut, Bytes};

use super::{Batch, BatchBuilder, BatchHeader};

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionResult {
    /// Its records count.
    Commit,
    /// Its records are skipped by `read_committed` consumers.
    Abort,
}

/// The end of a producer's transaction in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTxnMarker {
    /// How it ended.
    pub result: TransactionResult,
    /// Of the transaction coordinator that wrote it.
    pub coordinator_epoch: i32,
}

const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

/// No marker is larger; whoever reads one from a file needs no more than this.
pub(crate) const MAX_MARKER_BYTES: usize = 256;

impl EndTxnMarker {
    /// The batch with the marker.
    pub fn batch(self, producer_id: i64, producer_epoch: i16, now_ms: i64) -> Bytes {
        let (mut key, mut value) = (Vec::with_capacity(4), Vec::with_capacity(6));
        key.put_i16(VERSION);
        key.put_i16(if self.result == TransactionResult::Commit { COMMIT } else { ABORT });
        value.put_i16(VERSION);
        value.put_i32(self.coordinator_epoch);
        let builder = BatchBuilder::new().producer(producer_id, producer_epoch, -1).transactional().control();
        builder.record(now_ms, Some(&key), Some(&value), &[]).build()
    }

    /// The marker in a whole batch, if it is one.
    pub fn parse(batch: &Bytes) -> Option<Self> {
        let header = BatchHeader::parse(batch).filter(|header| header.is_control())?;
        let record = Batch { header, bytes: batch.clone() }.records()?.next()?.ok()?;
        let (key, value) = (record.key?, record.value?);
        if key.len() < 4 || value.len() < 6 {
            return None;
        }
        // Later versions only add what stands behind; the first one that was ever written is 0.
        let version = i16::from_be_bytes([key[0], key[1]]);
        let result = match i16::from_be_bytes([key[2], key[3]]) {
            _ if version < VERSION => return None,
            ABORT => TransactionResult::Abort,
            COMMIT => TransactionResult::Commit,
            _ => return None,
        };
        let coordinator_epoch = i32::from_be_bytes([value[2], value[3], value[4], value[5]]);
        Some(Self { result, coordinator_epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{BatchLimits, validate};

    #[test]
    fn a_marker_is_read_back_and_nothing_else_is_one() {
        for result in [TransactionResult::Commit, TransactionResult::Abort] {
            let marker = EndTxnMarker { result, coordinator_epoch: 7 };
            let batch = marker.batch(4711, 3, 1_000);
            assert!(batch.len() <= MAX_MARKER_BYTES);
            assert_eq!(EndTxnMarker::parse(&batch), Some(marker));
            let limits = BatchLimits { control_allowed: true, ..BatchLimits::default() };
            assert_eq!(validate(&batch, &limits).expect("our own batch").len(), 1);
            assert!(validate(&batch, &BatchLimits::default()).is_err(), "clients must not write markers");
        }
        let data = BatchBuilder::new().producer(1, 0, 0).record(0, Some(b"\0\0\0\x01"), Some(b"123456"), &[]);
        assert_eq!(EndTxnMarker::parse(&data.build()), None);
        let other = BatchBuilder::new().producer(1, 0, -1).transactional().control();
        let other = other.record(0, Some(b"\0\0\0\x02"), Some(b"\0\0\0\0\0\0"), &[]);
        assert_eq!(EndTxnMarker::parse(&other.build()), None);
    }
}
