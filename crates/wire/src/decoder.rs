//! Reading the protocol's types from a frame of untrusted bytes.
//!
//! Owns the position in the frame and the limits. Invariants:
//! - A length is checked against the bytes that remain before anything is allocated or sliced.
//! - The memory of arrays is charged against a budget of [`MEMORY_PER_BYTE`] bytes per frame byte plus
//!   [`MEMORY_FLOOR`], because a struct can be many times larger than its shortest encoding. Strings take
//!   what they take in the frame, and what they grow by is charged; bytes and records are slices of it.
//! - Text that is not UTF-8 is repaired where a peer sent it, as Java's clients and servers do, and an error where we
//!   wrote it ourselves.
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
    repairs_text: bool,
}

impl Decoder {
    /// Reads `frame`, which a peer sent and which has no length prefix any more. What is not UTF-8 in its strings
    /// becomes U+FFFD, as in Kafka: clients name themselves and their groups in whatever their terminal speaks.
    pub fn new(frame: Bytes) -> Self {
        let memory_budget = frame.len().saturating_mul(MEMORY_PER_BYTE).saturating_add(MEMORY_FLOOR);
        Self { frame, position: 0, memory_budget, repairs_text: true }
    }

    /// Reads a message that was stored, in which all text is UTF-8: to repair it would give the state of one name to
    /// another.
    pub fn stored(message: Bytes) -> Self {
        Self { repairs_text: false, ..Self::new(message) }
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
        let text = match std::str::from_utf8(&self.frame[position..position + length]) {
            Ok(text) => text.to_owned(),
            Err(_) if self.repairs_text => self.repaired(length)?,
            Err(_) => return Err(DecodeError::InvalidUtf8 { position }),
        };
        self.position += length;
        Ok(Some(text))
    }

    /// The next `length` bytes as text, with U+FFFD for what is not UTF-8. It takes up to three times the bytes, and
    /// must be short enough still to be sent back or stored.
    fn repaired(&mut self, length: usize) -> Result<String, DecodeError> {
        let position = self.position;
        let replacement = |invalid: &[u8]| if invalid.is_empty() { "" } else { "\u{fffd}" };
        let bytes = self.frame.slice(position..position + length);
        let chunks = || bytes.utf8_chunks();
        let repaired_length: usize =
            chunks().map(|chunk| chunk.valid().len() + replacement(chunk.invalid()).len()).sum();
        if repaired_length > MAX_STRING_LEN {
            return Err(DecodeError::StringTooLong {
                position,
                length: repaired_length,
                max: MAX_STRING_LEN,
            });
        }
        self.charge(repaired_length.saturating_sub(length), 1)?;
        let mut text = String::with_capacity(repaired_length);
        for chunk in chunks() {
            text.push_str(chunk.valid());
            text.push_str(replacement(chunk.invalid()));
        }
        Ok(text)
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

    fn check_text(bytes: &[u8], expect: &str) {
        let frame = Bytes::from([&[bytes.len() as u8 + 1][..], bytes].concat());
        let text = Decoder::new(frame.clone()).string(true);
        assert_eq!(text.as_deref(), Ok(expect));
        let stored = Decoder::stored(frame).string(true);
        if expect.contains('\u{fffd}') {
            assert_eq!(stored, Err(DecodeError::InvalidUtf8 { position: 1 }));
        } else {
            assert_eq!(stored, text);
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_repaired_unless_it_was_stored() {
        check_text(b"", "");
        check_text("café".as_bytes(), "café");
        check_text(b"caf\xe9", "caf\u{fffd}");
        check_text(b"gr\xe9e", "gr\u{fffd}e");
        check_text(b"\xff\xfe", "\u{fffd}\u{fffd}");
        // A sequence that is cut short is one mistake, and so is each byte that begins none.
        check_text(b"\xe7\x8c", "\u{fffd}");
        check_text(b"a\x80\x80b", "a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn repaired_text_is_short_enough_to_be_written_again() {
        let decode = |count: usize| {
            let frame = [&(count as u16).to_be_bytes()[..], &vec![0xff; count]].concat();
            Decoder::new(Bytes::from(frame)).string(false)
        };
        let longest = MAX_STRING_LEN / 3;
        assert_eq!(decode(longest), Ok("\u{fffd}".repeat(longest)));
        let length = 3 * (longest + 1);
        let error = DecodeError::StringTooLong { position: 2, length, max: MAX_STRING_LEN };
        assert_eq!(decode(longest + 1), Err(error));
    }

    #[test]
    fn lengths_below_null_are_refused() {
        let error = Decoder::new(Bytes::from_static(&[0xff, 0xfe])).nullable_string(false).unwrap_err();
        assert_eq!(error, DecodeError::NullNotAllowed { position: 0, length: -2 });
        let error = Decoder::new(Bytes::from_static(&[0])).string(true).unwrap_err();
        assert_eq!(error, DecodeError::NullNotAllowed { position: 0, length: -1 });
    }
}
