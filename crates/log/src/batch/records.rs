//! The records within a batch, decoded one by one from untrusted bytes.
//!
//! Owns the record layout: varints (zig-zag), relative timestamps and offsets, key, value, headers.
//! Invariants: every length is checked against the bytes that remain before it is used, nothing is
//! allocated for a count that the bytes cannot hold, and keys, values and headers are slices of the batch.

use bytes::{Buf, Bytes};

use super::header::{BatchHeader, TimestampType};

/// One record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its offset in the partition.
    pub offset: i64,
    /// Its timestamp in milliseconds, or -1.
    pub timestamp_ms: i64,
    /// Its key; absent is not the same as empty.
    pub key: Option<Bytes>,
    /// Its value; absent is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: RecordHeaders,
}

/// A record's headers in order, as they stand in the batch; names may repeat and need not be UTF-8. They are taken apart
/// when they are asked for: two bytes are a header, so a list of those in a small packed batch could fill the memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordHeaders {
    count: usize,
    /// Whole headers, so many of them.
    bytes: Bytes,
}

impl RecordHeaders {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut cursor = Cursor { bytes: &self.bytes, index: 0 };
        (0..self.count).map(move |_| cursor.header().expect("it was walked before"))
    }

    /// The headers as they stand in the batch, without their number.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why a record could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end within a record, or a length points behind the end.
    #[error("record {index} is cut short: {what} needs {needed} bytes, found {found}")]
    Short {
        /// Which record of the batch, from 0.
        index: i32,
        /// The field.
        what: &'static str,
        /// Bytes it says it has.
        needed: i64,
        /// Bytes there are.
        found: usize,
    },
    /// A varint is longer than its type allows.
    #[error("record {index}: {what} is not a valid varint")]
    Varint {
        /// Which record of the batch, from 0.
        index: i32,
        /// The field.
        what: &'static str,
    },
    /// A length or count is negative where it must not be.
    #[error("record {index}: {what} is negative: {found}")]
    Negative {
        /// Which record of the batch, from 0.
        index: i32,
        /// The field.
        what: &'static str,
        /// Its value.
        found: i64,
    },
    /// The record's fields do not fill its length.
    #[error("record {index}: {left} bytes are left over behind its last header")]
    LeftOver {
        /// Which record of the batch, from 0.
        index: i32,
        /// How many.
        left: usize,
    },
    /// Offset deltas must count up from 0.
    #[error("record {index}: expected offset delta {index}, found {found}")]
    OffsetDelta {
        /// Which record of the batch, from 0.
        index: i32,
        /// What it says.
        found: i64,
    },
    /// Bytes follow the last record.
    #[error("{left} bytes are left over behind the last of {count} records")]
    TrailingBytes {
        /// How many.
        left: usize,
        /// Records of the batch.
        count: i32,
    },
}

/// Iterates the records of one batch; stops after the first error.
#[derive(Debug, Clone)]
pub struct Records {
    payload: Bytes,
    base_offset: i64,
    base_timestamp: i64,
    append_time: Option<i64>,
    count: i32,
    index: i32,
}

impl Records {
    pub(super) fn new(header: &BatchHeader, payload: Bytes) -> Self {
        let append_time =
            (header.timestamp_type() == TimestampType::LogAppendTime).then_some(header.max_timestamp);
        Self {
            payload,
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            append_time,
            count: header.record_count,
            index: 0,
        }
    }

    fn next_record(&mut self) -> Result<Record, RecordError> {
        let mut body = Cursor { bytes: &self.payload, index: self.index };
        let length = body.length("record length")?;
        body.require("record", length)?;
        let start = self.payload.len() - body.bytes.len();
        let bytes = self.payload.slice(start..start + length);
        self.payload.advance(start + length);
        let mut fields = Cursor { bytes: &bytes, index: self.index };
        fields.take("attributes", 1)?;
        let timestamp_delta = fields.varint("timestamp delta", 64)?;
        let offset_delta = fields.varint("offset delta", 32)?;
        let key = fields.nullable("key")?.map(|key| bytes.slice_ref(key));
        let value = fields.nullable("value")?.map(|value| bytes.slice_ref(value));
        let count = fields.header_count()?;
        let headers = RecordHeaders { count, bytes: bytes.slice_ref(fields.bytes) };
        fields.skip_headers(count)?;
        fields.finish()?;
        Ok(Record {
            offset: self.base_offset.saturating_add(offset_delta),
            timestamp_ms: self.append_time.unwrap_or(self.base_timestamp.saturating_add(timestamp_delta)),
            key,
            value,
            headers,
        })
    }
}

impl Iterator for Records {
    type Item = Result<Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            return None;
        }
        let record = self.next_record();
        self.index = if record.is_ok() { self.index + 1 } else { self.count };
        Some(record)
    }
}

/// A zig-zag varint of at most `bits` bits out of the bytes that `next` gives; none where it is longer.
pub(super) fn varint<E>(bits: u32, mut next: impl FnMut() -> Result<u8, E>) -> Result<Option<i64>, E> {
    let mut value = 0u64;
    let mut shift = 0;
    while shift < bits {
        let byte = next()?;
        let piece = u64::from(byte & 0x7f);
        let room = bits - shift;
        if room < 7 && piece >> room != 0 {
            return Ok(None);
        }
        value |= piece << shift;
        if byte & 0x80 == 0 {
            return Ok(Some((value >> 1) as i64 ^ -((value & 1) as i64)));
        }
        shift += 7;
    }
    Ok(None)
}

/// A bounded reader over one record's bytes.
struct Cursor<'a> {
    bytes: &'a [u8],
    index: i32,
}

impl<'a> Cursor<'a> {
    fn require(&self, what: &'static str, needed: usize) -> Result<(), RecordError> {
        let found = self.bytes.len();
        if needed > found {
            return Err(RecordError::Short { index: self.index, what, needed: needed as i64, found });
        }
        Ok(())
    }

    fn take(&mut self, what: &'static str, count: usize) -> Result<&'a [u8], RecordError> {
        self.require(what, count)?;
        let (taken, rest) = self.bytes.split_at(count);
        self.bytes = rest;
        Ok(taken)
    }

    fn varint(&mut self, what: &'static str, bits: u32) -> Result<i64, RecordError> {
        let index = self.index;
        varint(bits, || Ok(self.take(what, 1)?[0]))?.ok_or(RecordError::Varint { index, what })
    }

    fn length(&mut self, what: &'static str) -> Result<usize, RecordError> {
        let found = self.varint(what, 32)?;
        usize::try_from(found).map_err(|_| RecordError::Negative { index: self.index, what, found })
    }

    /// Bytes behind a length, where -1 stands for none.
    fn nullable(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, RecordError> {
        match self.varint(what, 32)? {
            -1 => Ok(None),
            found if found < 0 => Err(RecordError::Negative { index: self.index, what, found }),
            length => self.take(what, length as usize).map(Some),
        }
    }

    /// The number of headers, which two bytes each must be there for.
    fn header_count(&mut self) -> Result<usize, RecordError> {
        let count = self.length("header count")?;
        self.require("headers", count.saturating_mul(2))?;
        Ok(count)
    }

    fn header(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), RecordError> {
        let length = self.length("header name")?;
        Ok((self.take("header name", length)?, self.nullable("header value")?))
    }

    fn skip_headers(&mut self, count: usize) -> Result<(), RecordError> {
        (0..count).try_for_each(|_| self.header().map(drop))
    }

    fn finish(&self) -> Result<(), RecordError> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(RecordError::LeftOver { index: self.index, left }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_bounded() {
        let check = |bytes: &[u8], bits: u32, expect: Option<i64>| {
            let mut cursor = Cursor { bytes, index: 0 };
            assert_eq!(cursor.varint("x", bits).ok(), expect, "{bytes:x?} in {bits} bits");
        };
        check(&[0], 32, Some(0));
        check(&[1], 32, Some(-1));
        check(&[2], 32, Some(1));
        check(&[0xff, 0xff, 0xff, 0xff, 0x0f], 32, Some(i64::from(i32::MIN)));
        check(&[0xfe, 0xff, 0xff, 0xff, 0x0f], 32, Some(i64::from(i32::MAX)));
        check(&[0xff, 0xff, 0xff, 0xff, 0x1f], 32, None);
        check(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01], 32, None);
        check(&[0xff; 9], 64, None);
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], 64, Some(i64::MIN));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], 64, None);
        check(&[0x80], 64, None);
        check(&[], 32, None);
    }
}
