//! Writing the protocol's types as the pieces of a frame.
//!
//! Owns one growing buffer for everything small and a list of what is spliced into it. Invariants: bytes of
//! [`SPLICE_FROM`] and more are never copied, and external records take no memory at all. Does not write
//! anywhere: the listener writes the chunks.

use bytes::{BufMut, Bytes, BytesMut};
use tidings_model::TopicId;

use crate::{Chunk, EncodeError, Records};

/// Bytes shorter than this are cheaper to copy than to write as a piece of their own.
const SPLICE_FROM: usize = 1024;

/// The longest string Kafka accepts, whatever the length prefix could say.
const MAX_STRING_LEN: usize = i16::MAX as usize;

/// The longest length a prefix of 32 bits can say.
const MAX_LENGTH: usize = i32::MAX as usize;

/// Room for most messages without growing.
const FIRST_CAPACITY: usize = 512;

/// A message being written.
#[derive(Debug)]
pub struct Encoder {
    inline: BytesMut,
    /// What goes between the inline bytes, each with the inline position it goes before.
    spliced: Vec<(usize, Chunk)>,
    spliced_len: usize,
}

/// A place in what was written so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mark {
    inline: usize,
    spliced: usize,
    len: usize,
}

impl Mark {
    /// The bytes written between this place and the later one `end`.
    pub(crate) fn bytes_until(self, end: Mark) -> usize {
        end.len - self.len
    }
}

/// Checks a length against the 32 bits of its prefix.
pub(crate) fn length(length: usize) -> Result<u32, EncodeError> {
    match u32::try_from(length) {
        Ok(short) if length < MAX_LENGTH => Ok(short),
        _ => Err(EncodeError::TooLong { length, max: MAX_LENGTH - 1 }),
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An empty encoder.
    pub fn new() -> Self {
        Self { inline: BytesMut::with_capacity(FIRST_CAPACITY), spliced: Vec::new(), spliced_len: 0 }
    }

    /// The bytes written so far, spliced ones included.
    pub fn len(&self) -> usize {
        self.inline.len() + self.spliced_len
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces in writing order.
    pub fn finish(self) -> Vec<Chunk> {
        let inline = self.inline.freeze();
        let mut chunks = Vec::with_capacity(2 * self.spliced.len() + 1);
        let mut start = 0;
        for (position, chunk) in self.spliced {
            if position > start {
                chunks.push(Chunk::Bytes(inline.slice(start..position)));
                start = position;
            }
            chunks.push(chunk);
        }
        if start < inline.len() {
            chunks.push(Chunk::Bytes(inline.slice(start..)));
        }
        chunks
    }

    /// Everything as one piece of memory; copies what was spliced, and refuses external records.
    pub fn into_bytes(self) -> Result<Bytes, EncodeError> {
        if self.spliced.is_empty() {
            return Ok(self.inline.freeze());
        }
        let mut whole = BytesMut::with_capacity(self.len());
        for chunk in self.finish() {
            match chunk {
                Chunk::Bytes(bytes) => whole.put_slice(&bytes),
                Chunk::External { len, .. } => return Err(EncodeError::ExternalRecords { len }),
            }
        }
        Ok(whole.freeze())
    }

    /// One byte.
    pub fn bool(&mut self, value: bool) {
        self.inline.put_u8(u8::from(value));
    }

    /// A signed byte.
    pub fn i8(&mut self, value: i8) {
        self.inline.put_i8(value);
    }

    /// A big-endian `i16`.
    pub fn i16(&mut self, value: i16) {
        self.inline.put_i16(value);
    }

    /// A big-endian `u16`.
    pub fn u16(&mut self, value: u16) {
        self.inline.put_u16(value);
    }

    /// A big-endian `i32`.
    pub fn i32(&mut self, value: i32) {
        self.inline.put_i32(value);
    }

    /// A big-endian `u32`.
    pub fn u32(&mut self, value: u32) {
        self.inline.put_u32(value);
    }

    /// A big-endian `i64`.
    pub fn i64(&mut self, value: i64) {
        self.inline.put_i64(value);
    }

    /// A big-endian `f64`.
    pub fn f64(&mut self, value: f64) {
        self.inline.put_f64(value);
    }

    /// Sixteen bytes.
    pub fn uuid(&mut self, value: TopicId) {
        self.inline.put_slice(&value.0);
    }

    /// Seven bits a byte, the lowest first.
    pub fn unsigned_varint(&mut self, value: u32) {
        let (bytes, len) = varint(value);
        self.inline.put_slice(&bytes[..len]);
    }

    /// A string.
    pub fn string(&mut self, flexible: bool, value: &str) -> Result<(), EncodeError> {
        let length = value.len();
        let Some(short) = i16::try_from(length).ok() else {
            return Err(EncodeError::TooLong { length, max: MAX_STRING_LEN });
        };
        if flexible {
            self.unsigned_varint(u32::from(short.unsigned_abs()) + 1);
        } else {
            self.i16(short);
        }
        self.inline.put_slice(value.as_bytes());
        Ok(())
    }

    /// A null string.
    pub fn null_string(&mut self, flexible: bool) {
        if flexible { self.unsigned_varint(0) } else { self.i16(-1) }
    }

    /// Bytes.
    pub fn bytes(&mut self, flexible: bool, value: &Bytes) -> Result<(), EncodeError> {
        self.length(flexible, value.len())?;
        self.put(value);
        Ok(())
    }

    /// Null bytes, records or array.
    pub fn null(&mut self, flexible: bool) {
        if flexible { self.unsigned_varint(0) } else { self.i32(-1) }
    }

    /// Record batches.
    pub fn records(&mut self, flexible: bool, value: &Records) -> Result<(), EncodeError> {
        self.length(flexible, value.len())?;
        match value {
            Records::Bytes(bytes) => self.put(bytes),
            Records::External { token, len } => self.splice(Chunk::External { token: *token, len: *len }),
        }
        Ok(())
    }

    /// An array.
    pub fn array<T>(
        &mut self,
        flexible: bool,
        version: i16,
        elements: &[T],
        element: fn(&T, &mut Encoder, i16) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.length(flexible, elements.len())?;
        for value in elements {
            element(value, self, version)?;
        }
        Ok(())
    }

    /// Whether a nullable struct follows.
    pub fn struct_presence(&mut self, present: bool) {
        self.i8(if present { 1 } else { -1 });
    }

    /// Bytes as they are, without a length: copied when short, spliced when long.
    pub fn put(&mut self, value: &Bytes) {
        if value.len() < SPLICE_FROM {
            self.inline.put_slice(value);
        } else {
            self.splice(Chunk::Bytes(value.clone()));
        }
    }

    /// Where the next byte goes.
    pub(crate) fn mark(&self) -> Mark {
        Mark { inline: self.inline.len(), spliced: self.spliced.len(), len: self.len() }
    }

    /// Puts a varint before everything written since `mark`. The protocol wants the size of a tagged field
    /// before its value; tagged fields are rare and short, so moving them beats measuring every message.
    pub(crate) fn insert_unsigned_varint(&mut self, mark: Mark, value: usize) -> Result<(), EncodeError> {
        let (bytes, len) = varint(length(value)?);
        let end = self.inline.len();
        self.inline.resize(end + len, 0);
        self.inline.copy_within(mark.inline..end, mark.inline + len);
        self.inline[mark.inline..mark.inline + len].copy_from_slice(&bytes[..len]);
        for (position, _) in &mut self.spliced[mark.spliced..] {
            *position += len;
        }
        Ok(())
    }

    /// Starts a frame: four bytes that [`Encoder::end_frame`] fills in.
    pub(crate) fn begin_frame(&mut self) {
        self.i32(0);
    }

    /// Says how long the frame is, in its first four bytes.
    pub(crate) fn end_frame(&mut self) -> Result<(), EncodeError> {
        let size = length(self.len() - 4)?;
        self.inline[..4].copy_from_slice(&size.to_be_bytes());
        Ok(())
    }

    fn length(&mut self, flexible: bool, value: usize) -> Result<(), EncodeError> {
        let short = length(value)?;
        if flexible {
            self.unsigned_varint(short + 1);
        } else {
            self.u32(short);
        }
        Ok(())
    }

    fn splice(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.spliced_len += chunk.len();
            self.spliced.push((self.inline.len(), chunk));
        }
    }
}

fn varint(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0u8; 5];
    let mut len = 0;
    while value >= 0x80 {
        bytes[len] = (value & 0x7f) as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    bytes[len] = value as u8;
    (bytes, len + 1)
}
