//! Record batches, format version 2 (KIP-98): the unit that is appended, stored and fetched.
//!
//! Owns the header's layout, the validation of untrusted batches, the iteration of records and a
//! builder. Invariants: a batch that passed [`validate`] can be parsed again without errors, and bytes
//! are never copied by parsing. Compressed records are stored as they came.

mod builder;
mod check;
mod codec;
mod header;
mod marker;
mod rebuild;
mod records;
mod stamp;
mod validate;

pub use builder::{BatchBuilder, Headers};
pub use codec::{CodecError, MAX_UNPACKED_BYTES, compress, decompress};
pub use header::{BatchHeader, Compression, TimestampType};
pub use marker::{EndTxnMarker, TransactionResult};
pub use records::{Record, RecordError, RecordHeaders, Records};
pub use validate::{BatchError, BatchLimits, Batches, validate};

pub(crate) use header::{CRC_FROM, increment_sequence};
pub(crate) use marker::MAX_MARKER_BYTES;
pub(crate) use rebuild::{rebuild, rebuild_empty, recompress};
pub(crate) use stamp::{stamp, unstamp};

use bytes::Bytes;

/// Size of a batch's header: everything before its first record.
pub const HEADER_LEN: usize = 61;

/// Bytes of a batch that its length field does not count: base offset and the length itself.
pub const LENGTH_OVERHEAD: usize = 12;

/// The head of a batch that its CRC and the fields behind it do not cover: base offset, length, leader
/// epoch. Only this much changes when offsets are assigned.
pub const UNCOVERED_PREFIX_LEN: usize = 16;

/// The only record format this log stores.
pub const MAGIC: u8 = 2;

/// Why a batch's records can't be had.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The attribute bits name no known codec.
    #[error("unknown compression codec {found}")]
    Codec {
        /// What they say.
        found: u8,
    },
    /// The codec can't make sense of the bytes.
    #[error(transparent)]
    Unpack(#[from] CodecError),
}

/// One whole batch: its parsed header and its bytes, header included.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The parsed header.
    pub header: BatchHeader,
    /// The whole batch as on the wire and on disk.
    pub bytes: Bytes,
}

impl Batch {
    /// The batch's records, or none where they are compressed: decompress [`Batch::payload`] and pass
    /// the outcome to [`Batch::records_in`].
    pub fn records(&self) -> Option<Records> {
        (self.header.compression() == Ok(Compression::None)).then(|| self.records_in(self.payload()))
    }

    /// The records in `payload`, the decompressed form of this batch's payload.
    pub fn records_in(&self, payload: Bytes) -> Records {
        Records::new(&self.header, payload)
    }

    /// The batch's records, unpacked where they are compressed.
    pub fn unpacked_records(&self) -> Result<Records, UnpackError> {
        let codec = self.header.compression().map_err(|found| UnpackError::Codec { found })?;
        Ok(self.records_in(decompress(codec, self.payload())?))
    }

    /// Everything behind the header, compressed as the attributes say.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(HEADER_LEN..)
    }
}

#[cfg(test)]
mod tests;
