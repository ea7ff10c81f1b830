//! What a batch from outside must satisfy before it is appended.
//!
//! Owns the rules and their errors. Invariants: nothing is allocated by a length before that many bytes
//! are known to be there. The rules are those of Kafka's `LogValidator` for format version 2.

use bytes::{Buf, Bytes};
use tidings_model::NO_TIMESTAMP;

use super::check::{Expected, Timestamps, Wrong, check_records};
use super::header::{BatchHeader, CRC_FROM};
use super::records::RecordError;
use super::{Batch, HEADER_LEN, LENGTH_OVERHEAD, MAGIC, UNCOVERED_PREFIX_LEN};

/// Why a batch is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// There is nothing to append.
    #[error("no record batch found")]
    Empty,
    /// The bytes end within a batch.
    #[error("batch {index} is cut short: expected {expected} bytes, found {found}")]
    Short {
        /// Which batch, from 0.
        index: usize,
        /// Bytes it needs.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// The length field is smaller than a header.
    #[error("batch {index}: length {found} is smaller than a header")]
    Length {
        /// Which batch, from 0.
        index: usize,
        /// What it says.
        found: i32,
    },
    /// An older or unknown record format.
    #[error("batch {index}: expected record format (magic) 2, found {found}")]
    UnsupportedMagic {
        /// Which batch, from 0.
        index: usize,
        /// What it says.
        found: u8,
    },
    /// The batch is larger than the topic allows.
    #[error("batch {index} has {found} bytes, more than max.message.bytes = {max_bytes}")]
    TooLarge {
        /// Which batch, from 0.
        index: usize,
        /// Its size.
        found: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The checksum does not match the bytes.
    #[error("batch {index}: bad CRC: expected {expected:#010x}, found {found:#010x}")]
    Crc {
        /// Which batch, from 0.
        index: usize,
        /// In the header.
        expected: u32,
        /// Of the bytes.
        found: u32,
    },
    /// The attribute bits name no known codec.
    #[error("batch {index}: unknown compression codec {found}")]
    Codec {
        /// Which batch, from 0.
        index: usize,
        /// What it says.
        found: u8,
    },
    /// Count and offset delta contradict each other, or there is no record.
    #[error("batch {index}: {record_count} records do not match the last offset delta {last_offset_delta}")]
    Count {
        /// Which batch, from 0.
        index: usize,
        /// Records by the count field.
        record_count: i32,
        /// Last offset delta.
        last_offset_delta: i32,
    },
    /// A producer id without epoch or sequence, or a transaction without producer id.
    #[error(
        "batch {index}: producer id {producer_id}, epoch {producer_epoch} and base sequence {base_sequence} \
         do not belong together"
    )]
    Producer {
        /// Which batch, from 0.
        index: usize,
        /// Producer id.
        producer_id: i64,
        /// Producer epoch.
        producer_epoch: i16,
        /// Base sequence.
        base_sequence: i32,
    },
    /// Only the broker writes control records.
    #[error("batch {index}: clients may not write control records")]
    Control {
        /// Which batch, from 0.
        index: usize,
    },
    /// A timestamp is too far from now.
    #[error("batch {index}: timestamp {found} is outside {earliest}..={latest}")]
    Timestamp {
        /// Which batch, from 0.
        index: usize,
        /// The timestamp.
        found: i64,
        /// Smallest allowed.
        earliest: i64,
        /// Largest allowed.
        latest: i64,
    },
    /// A record of a compacted topic has no key.
    #[error("batch {index}: record {record} has no key, and the topic is compacted")]
    NoKey {
        /// Which batch, from 0.
        index: usize,
        /// Which record of it, from 0.
        record: usize,
    },
    /// The records can't be unpacked.
    #[error("batch {index}: {what}")]
    Packed {
        /// Which batch, from 0.
        index: usize,
        /// What is wrong.
        what: String,
    },
    /// A record is malformed.
    #[error("batch {index}: {source}")]
    Record {
        /// Which batch, from 0.
        index: usize,
        /// What is wrong.
        source: RecordError,
    },
}

/// What [`validate`] holds batches against.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Largest batch in bytes (`max.message.bytes`).
    pub max_batch_bytes: usize,
    /// Smallest timestamp allowed.
    pub earliest_timestamp: i64,
    /// Largest timestamp allowed.
    pub latest_timestamp: i64,
    /// Whether control batches and batches without a sequence may pass: only our own coordinators write them.
    pub control_allowed: bool,
    /// Whether batches without records may pass: they stand for a hole in a log, and nobody sends them.
    pub empty_allowed: bool,
    /// Whether records may be missing: the cleaner leaves such batches, nobody may append them.
    pub compacted_allowed: bool,
    /// Whether each record must have a key: without one a record of a compacted topic could neither be replaced nor kept.
    pub keys_required: bool,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            max_batch_bytes: usize::MAX,
            earliest_timestamp: i64::MIN,
            latest_timestamp: i64::MAX,
            control_allowed: false,
            empty_allowed: false,
            compacted_allowed: false,
            keys_required: false,
        }
    }
}

/// Checks every batch in `records` and returns the headers in order: at least one. Their largest timestamp is the records'
/// own, whatever stood in the batch: old clients leave it -1, and time lookups, retention and the memory of producers go by it.
pub fn validate(records: &Bytes, limits: &BatchLimits) -> Result<Vec<BatchHeader>, BatchError> {
    let mut headers = Vec::with_capacity(1);
    let mut rest = &records[..];
    while !rest.is_empty() {
        let index = headers.len();
        let mut header = frame(rest, index)?;
        let (batch, behind) = rest.split_at(header.size_bytes());
        header.max_timestamp = check(&header, batch, index, limits)?;
        headers.push(header);
        rest = behind;
    }
    if headers.is_empty() { Err(BatchError::Empty) } else { Ok(headers) }
}

/// Splits `Bytes` into whole batches without checking more than their framing; for bytes that were
/// validated when they were appended. A batch cut short at the end is an error item.
#[derive(Debug, Clone)]
pub struct Batches {
    rest: Bytes,
    index: usize,
}

impl Batches {
    /// Iterates the batches in `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes, index: 0 }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match frame(&self.rest, self.index) {
            Ok(header) => {
                self.index += 1;
                Some(Ok(Batch { header, bytes: self.rest.split_to(header.size_bytes()) }))
            }
            Err(error) => {
                self.rest.advance(self.rest.len());
                Some(Err(error))
            }
        }
    }
}

/// Finds the end of the batch at the start of `bytes`. The magic byte comes first, because it stands at
/// the same place in every format and the rest of an older one would be misread.
fn frame(bytes: &[u8], index: usize) -> Result<BatchHeader, BatchError> {
    let found = bytes.len();
    if let Some(&magic) = bytes.get(UNCOVERED_PREFIX_LEN)
        && magic != MAGIC
    {
        return Err(BatchError::UnsupportedMagic { index, found: magic });
    }
    let header = BatchHeader::parse(bytes).ok_or(BatchError::Short { index, expected: HEADER_LEN, found })?;
    if header.batch_length < (HEADER_LEN - LENGTH_OVERHEAD) as i32 {
        return Err(BatchError::Length { index, found: header.batch_length });
    }
    if header.size_bytes() > found {
        return Err(BatchError::Short { index, expected: header.size_bytes(), found });
    }
    Ok(header)
}

/// Answers the largest timestamp.
fn check(header: &BatchHeader, batch: &[u8], index: usize, limits: &BatchLimits) -> Result<i64, BatchError> {
    if batch.len() > limits.max_batch_bytes {
        return Err(BatchError::TooLarge { index, found: batch.len(), max_bytes: limits.max_batch_bytes });
    }
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    if crc != header.crc {
        return Err(BatchError::Crc { index, expected: header.crc, found: crc });
    }
    let compression = header.compression().map_err(|found| BatchError::Codec { index, found })?;
    let BatchHeader { record_count, last_offset_delta, .. } = *header;
    let missing = i64::from(last_offset_delta) + 1 - i64::from(record_count);
    let compacted = limits.compacted_allowed && record_count >= 0 && missing > 0;
    let hole = limits.empty_allowed && record_count == 0 && last_offset_delta >= 0;
    if !compacted && !hole && (record_count < 1 || missing != 0) {
        return Err(BatchError::Count { index, record_count, last_offset_delta });
    }
    check_producer(header, index, limits)?;
    if header.is_control() && !limits.control_allowed {
        return Err(BatchError::Control { index });
    }
    let expected = Expected { compacted, keys: limits.keys_required };
    let found =
        check_records(header, compression, &batch[HEADER_LEN..], expected).map_err(|wrong| match wrong {
            Wrong::Record(source) => BatchError::Record { index, source },
            Wrong::NoKey { record } => BatchError::NoKey { index, record },
            Wrong::Packed(error) => BatchError::Packed { index, what: error.to_string() },
        })?;
    check_timestamps(found, index, limits)?;
    Ok(if record_count > 0 { found.largest } else { header.max_timestamp })
}

fn check_producer(header: &BatchHeader, index: usize, limits: &BatchLimits) -> Result<(), BatchError> {
    let BatchHeader { producer_id, producer_epoch, base_sequence, .. } = *header;
    // A coordinator's batch, a marker or the offsets of a transaction, has a producer but no sequence: it is not one
    // of the producer's own batches.
    let valid = if header.has_producer_id() {
        producer_id >= 0 && producer_epoch >= 0 && (base_sequence >= 0 || limits.control_allowed)
    } else {
        // Epoch and sequence mean nothing then: KafkaJS leaves them 0 where others write -1.
        !header.is_transactional()
    };
    if valid {
        return Ok(());
    }
    Err(BatchError::Producer { index, producer_id, producer_epoch, base_sequence })
}

fn check_timestamps(found: Timestamps, index: usize, limits: &BatchLimits) -> Result<(), BatchError> {
    let BatchLimits { earliest_timestamp: earliest, latest_timestamp: latest, .. } = *limits;
    for found in [found.smallest, found.largest] {
        if found != NO_TIMESTAMP && !(earliest..=latest).contains(&found) {
            return Err(BatchError::Timestamp { index, found, earliest, latest });
        }
    }
    Ok(())
}
