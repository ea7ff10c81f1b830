//! The 61 bytes in front of a batch's records.
//!
//! Owns the field offsets and the meaning of the attribute bits. Invariants: parsing never fails on the
//! contents, only on too few bytes, so that validation decides in one place what is acceptable. Does not
//! check the CRC.
//!
//! ```text
//!  0 base offset i64        8 length i32 (of all that follows)   12 leader epoch i32   16 magic i8
//! 17 CRC-32C u32 (of all that follows)   21 attributes i16       23 last offset delta i32
//! 27 base timestamp i64    35 max timestamp i64                  43 producer id i64
//! 51 producer epoch i16    53 base sequence i32                  57 record count i32   61 records
//! ```

use tidings_model::NO_PRODUCER_ID;

use super::{HEADER_LEN, LENGTH_OVERHEAD};

const COMPRESSION_MASK: i16 = 0x07;
const TIMESTAMP_TYPE_BIT: i16 = 0x08;
const TRANSACTIONAL_BIT: i16 = 0x10;
const CONTROL_BIT: i16 = 0x20;
const DELETE_HORIZON_BIT: i16 = 0x40;

/// Where the CRC field starts.
pub(crate) const CRC_AT: usize = 17;
/// The first byte that the CRC covers: the attributes.
pub(crate) const CRC_FROM: usize = 21;
/// Where the max timestamp starts.
pub(crate) const MAX_TIMESTAMP_AT: usize = 35;

/// How a batch's records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy, in the xerial framing.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Who set a batch's timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimestampType {
    /// The producer, record by record.
    #[default]
    CreateTime,
    /// The broker, once for the batch: its max timestamp.
    LogAppendTime,
}

/// A batch's header, parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; the producer's value means nothing before the append.
    pub base_offset: i64,
    /// Bytes behind the length field.
    pub batch_length: i32,
    /// Leader epoch under which the batch was appended.
    pub leader_epoch: i32,
    /// Format version.
    pub magic: u8,
    /// CRC-32C of everything from the attributes on.
    pub crc: u32,
    /// Compression, timestamp type, transactional and control bits.
    pub attributes: i16,
    /// Offset of the last record, relative to the first.
    pub last_offset_delta: i32,
    /// Timestamp the records' deltas refer to, in milliseconds.
    pub base_timestamp: i64,
    /// Largest timestamp of the records, in milliseconds.
    pub max_timestamp: i64,
    /// Producer id, or -1.
    pub producer_id: i64,
    /// Producer epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// How many records follow.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`; none when there are fewer than [`HEADER_LEN`] bytes.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        Some(Self {
            base_offset: i64::from_be_bytes(field(head, 0)),
            batch_length: i32::from_be_bytes(field(head, 8)),
            leader_epoch: i32::from_be_bytes(field(head, 12)),
            magic: head[16],
            crc: u32::from_be_bytes(field(head, CRC_AT)),
            attributes: i16::from_be_bytes(field(head, CRC_FROM)),
            last_offset_delta: i32::from_be_bytes(field(head, 23)),
            base_timestamp: i64::from_be_bytes(field(head, 27)),
            max_timestamp: i64::from_be_bytes(field(head, MAX_TIMESTAMP_AT)),
            producer_id: i64::from_be_bytes(field(head, 43)),
            producer_epoch: i16::from_be_bytes(field(head, 51)),
            base_sequence: i32::from_be_bytes(field(head, 53)),
            record_count: i32::from_be_bytes(field(head, 57)),
        })
    }

    /// Writes the header as it stands in a file.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut head = [0; HEADER_LEN];
        head[..8].copy_from_slice(&self.base_offset.to_be_bytes());
        head[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        head[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        head[16] = self.magic;
        head[17..21].copy_from_slice(&self.crc.to_be_bytes());
        head[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        head[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        head[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        head[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        head[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        head[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        head[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        head[57..].copy_from_slice(&self.record_count.to_be_bytes());
        head
    }

    /// Size of the whole batch; zero where the length field is negative.
    pub fn size_bytes(&self) -> usize {
        usize::try_from(self.batch_length).map_or(0, |length| length + LENGTH_OVERHEAD)
    }

    /// Offset of the last record, inclusive.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Offset behind the last record.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Sequence of the last record, or -1 without a sequence. Sequences wrap around to 0.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            -1
        } else {
            increment_sequence(self.base_sequence, self.last_offset_delta)
        }
    }

    /// The codec, or the attribute bits that name none.
    pub fn compression(&self) -> Result<Compression, u8> {
        match self.attributes & COMPRESSION_MASK {
            0 => Ok(Compression::None),
            1 => Ok(Compression::Gzip),
            2 => Ok(Compression::Snappy),
            3 => Ok(Compression::Lz4),
            4 => Ok(Compression::Zstd),
            other => Err(other as u8),
        }
    }

    /// Who set the timestamps.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & TIMESTAMP_TYPE_BIT == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether an idempotent producer wrote the batch.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id != NO_PRODUCER_ID
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch holds control records, such as a transaction's end.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    /// Whether the base timestamp is a compaction's delete horizon (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & DELETE_HORIZON_BIT != 0
    }

    pub(crate) fn set_transactional(&mut self) {
        self.attributes |= TRANSACTIONAL_BIT;
    }

    pub(crate) fn set_control(&mut self) {
        self.attributes |= CONTROL_BIT;
    }

    pub(crate) fn set_compression(&mut self, codec: Compression) {
        let bits = match codec {
            Compression::None => 0,
            Compression::Gzip => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd => 4,
        };
        self.attributes = self.attributes & !COMPRESSION_MASK | bits;
    }

    /// With a horizon, that is what the base timestamp becomes.
    pub(crate) fn set_delete_horizon(&mut self, horizon_ms: Option<i64>) {
        self.attributes &= !DELETE_HORIZON_BIT;
        if let Some(horizon_ms) = horizon_ms {
            self.attributes |= DELETE_HORIZON_BIT;
            self.base_timestamp = horizon_ms;
        }
    }

    pub(crate) fn set_log_append_time(&mut self, now_ms: i64) {
        self.attributes |= TIMESTAMP_TYPE_BIT;
        self.max_timestamp = now_ms;
    }

    pub(crate) fn set_create_time(&mut self) {
        self.attributes &= !TIMESTAMP_TYPE_BIT;
    }
}

/// The sequence `delta` records later; it wraps around to 0 behind `i32::MAX`.
pub(crate) fn increment_sequence(sequence: i32, delta: i32) -> i32 {
    ((i64::from(sequence) + i64::from(delta)) & i64::from(i32::MAX)) as i32
}

fn field<const N: usize>(head: &[u8; HEADER_LEN], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding_and_parsing_agree() {
        let header = BatchHeader {
            base_offset: 4711,
            batch_length: 90,
            leader_epoch: 3,
            magic: 2,
            crc: 0xDEAD_BEEF,
            attributes: 0x10 | 4,
            last_offset_delta: 6,
            base_timestamp: -1,
            max_timestamp: 1_700_000_000_000,
            producer_id: 99,
            producer_epoch: 7,
            base_sequence: i32::MAX - 2,
            record_count: 7,
        };
        let parsed = BatchHeader::parse(&header.encode()).expect("61 bytes");
        assert_eq!(parsed, header);
        assert_eq!(parsed.size_bytes(), 102);
        assert_eq!(parsed.last_offset(), 4717);
        assert_eq!(parsed.last_sequence(), 3);
        assert_eq!(parsed.compression(), Ok(Compression::Zstd));
        assert!(parsed.is_transactional() && !parsed.is_control());
        assert_eq!(BatchHeader::parse(&header.encode()[..60]), None);
    }
}
