//! Builds uncompressed batches, for coordinators and tests.
//!
//! Owns the encoding of records. Invariants: what it builds passes [`super::validate`]. Does not
//! compress and does not assign offsets.

use bytes::{BufMut, Bytes, BytesMut};
use tidings_model::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP};

use super::header::{BatchHeader, CRC_AT, CRC_FROM};
use super::{HEADER_LEN, LENGTH_OVERHEAD, MAGIC, Record};

/// Headers of a record to build: name and value.
pub type Headers<'a> = &'a [(&'a [u8], Option<&'a [u8]>)];

/// Collects records into one batch.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    header: BatchHeader,
    buffer: BytesMut,
    /// One record's body, before its length is known.
    scratch: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An empty batch without a producer id.
    pub fn new() -> Self {
        let header = BatchHeader {
            base_offset: 0,
            batch_length: 0,
            leader_epoch: -1,
            magic: MAGIC,
            crc: 0,
            attributes: 0,
            last_offset_delta: -1,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            record_count: 0,
        };
        Self { header, buffer: BytesMut::zeroed(HEADER_LEN), scratch: Vec::new() }
    }

    /// A batch without records that stands for the offsets from `base_offset` up to `next_offset`, as a compaction
    /// leaves it: offsets stay continuous, and consumers step over it.
    ///
    /// # Panics
    /// When there is no offset between them, or more than a batch can span.
    pub fn without_records(base_offset: i64, next_offset: i64) -> Bytes {
        let mut header = Self::new().header;
        header.base_offset = base_offset;
        header.batch_length = (HEADER_LEN - LENGTH_OVERHEAD) as i32;
        header.last_offset_delta =
            i32::try_from(next_offset - base_offset - 1).expect("a batch spans 2^31 offsets");
        assert!(header.last_offset_delta >= 0, "a batch spans at least one offset");
        let mut bytes = header.encode();
        let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
        bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        Bytes::copy_from_slice(&bytes)
    }

    /// Marks the batch as written by an idempotent producer.
    pub fn producer(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = producer_id;
        self.header.producer_epoch = producer_epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Makes the batch part of a transaction.
    pub fn transactional(mut self) -> Self {
        self.header.set_transactional();
        self
    }

    /// Makes the batch's records control records.
    pub fn control(mut self) -> Self {
        self.header.set_control();
        self
    }

    /// Adds a record; see [`BatchBuilder::push`].
    pub fn record(
        mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers<'_>,
    ) -> Self {
        self.push(timestamp_ms, key, value, headers);
        self
    }

    /// Adds a record. The first record's timestamp becomes the batch's base timestamp.
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers<'_>,
    ) {
        if self.header.record_count == 0 {
            self.header.base_timestamp = timestamp_ms;
        }
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp_ms);
        let body = &mut self.scratch;
        body.clear();
        body.put_u8(0);
        put_varint(body, timestamp_ms.wrapping_sub(self.header.base_timestamp));
        put_varint(body, i64::from(self.header.record_count));
        put_nullable(body, key);
        put_nullable(body, value);
        put_varint(body, headers.len() as i64);
        for (name, value) in headers {
            put_nullable(body, Some(name));
            put_nullable(body, *value);
        }
        put_varint(&mut self.buffer, body.len() as i64);
        self.buffer.put_slice(body);
        self.header.record_count += 1;
        self.header.last_offset_delta += 1;
    }

    /// How many records were added.
    pub fn len(&self) -> usize {
        self.header.record_count as usize
    }

    /// Whether no record was added.
    pub fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    /// Size of the batch built so far, header included.
    pub fn size_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The batch, with base offset 0.
    ///
    /// # Panics
    /// When no record was added: an empty batch can't be appended.
    pub fn build(mut self) -> Bytes {
        assert!(!self.is_empty(), "a batch needs at least one record");
        self.header.batch_length =
            i32::try_from(self.buffer.len() - LENGTH_OVERHEAD).expect("a batch is smaller than 2 GiB");
        self.buffer[..HEADER_LEN].copy_from_slice(&self.header.encode());
        let crc = crc32c::crc32c(&self.buffer[CRC_FROM..]);
        self.buffer[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        self.buffer.freeze()
    }
}

/// Writes one record as it stands in a batch.
pub(super) fn put_record(
    out: &mut BytesMut,
    scratch: &mut Vec<u8>,
    record: &Record,
    base_timestamp: i64,
    offset_delta: i64,
) {
    scratch.clear();
    scratch.put_u8(0);
    put_varint(scratch, record.timestamp_ms.wrapping_sub(base_timestamp));
    put_varint(scratch, offset_delta);
    put_nullable(scratch, record.key.as_deref());
    put_nullable(scratch, record.value.as_deref());
    put_varint(scratch, record.headers.len() as i64);
    scratch.put_slice(record.headers.as_bytes());
    put_varint(out, scratch.len() as i64);
    out.put_slice(scratch);
}

pub(super) fn put_varint(out: &mut impl BufMut, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

fn put_nullable(out: &mut impl BufMut, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
    }
}
