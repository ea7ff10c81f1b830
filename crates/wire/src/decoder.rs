//! Reading the protocol's types from a frame of untrusted bytes.
//!
//! Owns the position in the frame and the limits. Invariants:
//! - A length is checked against the bytes that remain before anything is allocated or sliced.
//! - The memory of arrays is charged against a budget of [`MEMORY_PER_BYTE`] bytes per frame byte plus
//!   [`MEMORY_FLOOR`], because a struct can be many times larger than its shortest encoding. Strings take
//!   what they take in the frame; bytes and records are slices of it.
//! - After an error the position is unspecified, and the frame should be given up.
//!
//! Does not know messages; the generated code calls it field by field.

use bytes::Bytes;
use tidings_model::TopicId;

use crate::{DecodeError, Records};

/// Array memory allowed per byte of the frame. Real requests stay below 12 (many one-letter names).
const MEMORY_PER_BYTE: usize = 16;

/// Array memory allowed to any frame, so that small frames of large structs pass.
const MEMORY_FLOOR: usize = 16 * 1024;

/// The longest string Kafka accepts, whatever the length prefix could say.
const MAX_STRING_LEN: usize = i16::MAX as usize;

/// A frame and how far it has been read.
#[derive(Debug, Clone)]
pub struct Decoder {
    frame: Bytes,
    position: usize,
    memory_budget: usize,
}

impl Decoder {
    /// Reads `frame`, which has no length prefix any more.
    pub fn new(frame: Bytes) -> Self {
        let memory_budget = frame.len().saturating_mul(MEMORY_PER_BYTE).saturating_add(MEMORY_FLOOR);
        Self { frame, position: 0, memory_budget }
    }

    /// The bytes read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.frame.len() - self.position
    }

    /// Refuses bytes after the end of the message.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            remaining => Err(DecodeError::TrailingBytes { position: self.position, remaining }),
        }
    }

    /// A byte that is not zero.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.array_of()? != [0])
    }

    /// A signed byte.
    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.array_of()?))
    }

    /// A big-endian `i16`.
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.array_of()?))
    }

    /// A big-endian `u16`.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array_of()?))
    }

    /// A big-endian `i32`.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array_of()?))
    }

    /// A big-endian `u32`.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array_of()?))
    }

    /// A big-endian `i64`.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array_of()?))
    }

    /// A big-endian `f64`.
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        Ok(f64::from_be_bytes(self.array_of()?))
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self) -> Result<TopicId, DecodeError> {
        Ok(TopicId(self.array_of()?))
    }

    /// Seven bits a byte, the lowest first, at most 32 bits.
    pub fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let position = self.position;
        let mut value: u32 = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array_of()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong { position })
    }

    /// A string that must be present.
    pub fn string(&mut self, flexible: bool) -> Result<String, DecodeError> {
        let position = self.position;
        self.nullable_string(flexible)?.ok_or(DecodeError::NullNotAllowed { position, length: -1 })
    }

    /// A string or null.
    pub fn nullable_string(&mut self, flexible: bool) -> Result<Option<String>, DecodeError> {
        let start = self.position;
        let length = if flexible { self.compact_length()? } else { i64::from(self.i16()?) };
        let Some(length) = present(length, start)? else { return Ok(None) };
        let position = self.position;
        self.require(length)?;
        if length > MAX_STRING_LEN {
            return Err(DecodeError::StringTooLong { position, length, max: MAX_STRING_LEN });
        }
        let text = std::str::from_utf8(&self.frame[position..position + length])
            .map_err(|_| DecodeError::InvalidUtf8 { position })?
            .to_owned();
        self.position += length;
        Ok(Some(text))
    }

    /// Bytes that must be present: a slice of the frame.
    pub fn bytes(&mut self, flexible: bool) -> Result<Bytes, DecodeError> {
        let position = self.position;
        self.nullable_bytes(flexible)?.ok_or(DecodeError::NullNotAllowed { position, length: -1 })
    }

    /// Bytes or null: a slice of the frame.
    pub fn nullable_bytes(&mut self, flexible: bool) -> Result<Option<Bytes>, DecodeError> {
        match self.length(flexible)? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    /// Record batches or null: a slice of the frame, never [`Records::External`].
    pub fn records(&mut self, flexible: bool) -> Result<Option<Records>, DecodeError> {
        Ok(self.nullable_bytes(flexible)?.map(Records::Bytes))
    }

    /// An array that must be present: see [`Decoder::nullable_array`].
    pub fn array<T>(
        &mut self,
        flexible: bool,
        version: i16,
        min_size: usize,
        element: fn(&mut Decoder, i16) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let position = self.position;
        self.nullable_array(flexible, version, min_size, element)?
            .ok_or(DecodeError::NullNotAllowed { position, length: -1 })
    }

    /// An array or null. `min_size` is the size of the shortest element in any version, in bytes.
    pub fn nullable_array<T>(
        &mut self,
        flexible: bool,
        version: i16,
        min_size: usize,
        element: fn(&mut Decoder, i16) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.length(flexible)? else { return Ok(None) };
        let (position, remaining) = (self.position, self.remaining());
        if count > remaining / min_size.max(1) {
            return Err(DecodeError::ArrayExceedsFrame { position, count, remaining });
        }
        self.charge(count, size_of::<T>())?;
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(element(self, version)?);
        }
        Ok(Some(elements))
    }

    /// Whether a nullable struct follows.
    pub fn struct_is_present(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? >= 0)
    }

    /// The next `length` bytes: a slice of the frame.
    pub fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        self.require(length)?;
        let start = self.position;
        self.position += length;
        Ok(self.frame.slice(start..self.position))
    }

    /// Refuses a value of `needed` bytes when fewer remain.
    pub(crate) fn require(&self, needed: usize) -> Result<(), DecodeError> {
        let remaining = self.remaining();
        if needed > remaining {
            return Err(DecodeError::Truncated { position: self.position, needed, remaining });
        }
        Ok(())
    }

    /// Takes the memory of `count` elements from the budget.
    pub(crate) fn charge(&mut self, count: usize, element_size: usize) -> Result<(), DecodeError> {
        let needed = count.saturating_mul(element_size);
        if needed > self.memory_budget {
            return Err(DecodeError::MemoryBudget {
                position: self.position,
                needed,
                budget: self.memory_budget,
            });
        }
        self.memory_budget -= needed;
        Ok(())
    }

    /// The length of bytes or an array; `None` for null.
    fn length(&mut self, flexible: bool) -> Result<Option<usize>, DecodeError> {
        let position = self.position;
        let length = if flexible { self.compact_length()? } else { i64::from(self.i32()?) };
        present(length, position)
    }

    /// A compact length is stored plus one, so that null is zero.
    fn compact_length(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from(self.unsigned_varint()?) - 1)
    }

    fn array_of<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some(bytes) = self.frame[self.position..].first_chunk::<N>() else {
            self.require(N)?;
            unreachable!("a chunk is missing only when bytes are");
        };
        self.position += N;
        Ok(*bytes)
    }
}

fn present(length: i64, position: usize) -> Result<Option<usize>, DecodeError> {
    if length == -1 {
        return Ok(None);
    }
    usize::try_from(length).map(Some).map_err(|_| DecodeError::NullNotAllowed { position, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_varint(bytes: &'static [u8], expect: Option<u32>) {
        assert_eq!(Decoder::new(Bytes::from_static(bytes)).unsigned_varint().ok(), expect, "{bytes:?}");
    }

    #[test]
    fn varints_end_within_32_bits() {
        check_varint(&[0], Some(0));
        check_varint(&[0x7f], Some(127));
        check_varint(&[0x80, 1], Some(128));
        check_varint(&[0xff, 0xff, 0xff, 0xff, 0x0f], Some(u32::MAX));
        check_varint(&[0xff, 0xff, 0xff, 0xff, 0x1f], None);
        check_varint(&[0xff, 0xff, 0xff, 0xff, 0x8f, 0], None);
        check_varint(&[0x80], None);
        check_varint(&[], None);
    }

    #[test]
    fn array_counts_are_checked_before_memory_is_taken() {
        let mut d = Decoder::new(Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 1, 2, 3, 4]));
        let error = d.array(false, 0, 4, |d, _| d.i32()).unwrap_err();
        let count = i32::MAX as usize;
        assert_eq!(error, DecodeError::ArrayExceedsFrame { position: 4, count, remaining: 4 });
    }

    #[test]
    fn memory_beyond_the_budget_is_refused() {
        let mut frame = vec![0u8; 100_004];
        frame[..4].copy_from_slice(&100_000i32.to_be_bytes());
        let mut d = Decoder::new(Bytes::from(frame));
        let error = d.array(false, 0, 1, |d, _| Ok([i64::from(d.i8()?); 8])).unwrap_err();
        assert!(matches!(error, DecodeError::MemoryBudget { needed: 6_400_000, .. }), "{error}");
    }

    #[test]
    fn lengths_below_null_are_refused() {
        let error = Decoder::new(Bytes::from_static(&[0xff, 0xfe])).nullable_string(false).unwrap_err();
        assert_eq!(error, DecodeError::NullNotAllowed { position: 0, length: -2 });
        let error = Decoder::new(Bytes::from_static(&[0])).string(true).unwrap_err();
        assert_eq!(error, DecodeError::NullNotAllowed { position: 0, length: -1 });
    }
}
