//! Tagged fields (KIP-482): optional values at the end of a struct, each with a tag and a size.
//!
//! Owns their order and framing. Invariant: tags ascend strictly, in what is read and in what is written, with
//! unknown fields between the known ones, so that an unknown field survives decoding and encoding.

use bytes::Bytes;

use crate::encoder::{Mark, length};
use crate::{DecodeError, Decoder, EncodeError, Encoder};

impl Decoder {
    /// Reads the tagged fields of a struct that knows none.
    pub fn unknown_tagged_fields(&mut self) -> Result<Vec<(u32, Bytes)>, DecodeError> {
        self.tagged_fields(&mut |_, _| Ok(false))
    }

    /// Reads the tagged fields of a struct. `known` reads the value of a tag it knows and answers true;
    /// otherwise it leaves the decoder alone and answers false. Returns the unknown ones.
    pub fn tagged_fields(
        &mut self,
        known: &mut dyn FnMut(u32, &mut Decoder) -> Result<bool, DecodeError>,
    ) -> Result<Vec<(u32, Bytes)>, DecodeError> {
        let count = self.unsigned_varint()?;
        let mut unknown = Vec::new();
        let mut last_tag = None;
        for _ in 0..count {
            let tag_position = self.position();
            let tag = self.unsigned_varint()?;
            if let Some(previous) = last_tag.filter(|previous| *previous >= tag) {
                return Err(DecodeError::TagOrder { position: tag_position, tag, previous });
            }
            last_tag = Some(tag);
            let expected = self.unsigned_varint()? as usize;
            let position = self.position();
            self.require(expected)?;
            if known(tag, self)? {
                let found = self.position() - position;
                if found != expected {
                    return Err(DecodeError::TagSize { position, tag, expected, found });
                }
            } else {
                self.charge(1, size_of::<(u32, Bytes)>())?;
                unknown.push((tag, self.take(expected)?));
            }
        }
        Ok(unknown)
    }
}

/// The tagged fields of one struct while they are written; made by [`Encoder::begin_tags`].
#[derive(Debug)]
pub struct TagWriter<'a> {
    unknown: &'a [(u32, Bytes)],
    count: u32,
    count_mark: Mark,
    value_mark: Mark,
    last_tag: Option<u32>,
}

impl TagWriter<'_> {
    fn follow(&mut self, tag: u32) -> Result<(), EncodeError> {
        if self.last_tag.is_some_and(|last| last >= tag) {
            return Err(EncodeError::TagOrder { tag });
        }
        self.last_tag = Some(tag);
        self.count += 1;
        Ok(())
    }
}

impl Encoder {
    /// Writes the tagged fields of a struct that knows none.
    pub fn unknown_tagged_fields(&mut self, unknown: &[(u32, Bytes)]) -> Result<(), EncodeError> {
        let tags = self.begin_tags(unknown);
        self.end_tags(tags)
    }

    /// Starts the tagged fields of a struct; its known ones follow in the order of their tags.
    pub fn begin_tags<'a>(&mut self, unknown: &'a [(u32, Bytes)]) -> TagWriter<'a> {
        TagWriter { unknown, count: 0, count_mark: self.mark(), value_mark: Mark::default(), last_tag: None }
    }

    /// Starts the known field `tag`: its value follows, then [`Encoder::end_tag`].
    pub fn begin_tag(&mut self, tags: &mut TagWriter, tag: u32) -> Result<(), EncodeError> {
        self.unknown_below(tags, Some(tag))?;
        tags.follow(tag)?;
        self.unsigned_varint(tag);
        tags.value_mark = self.mark();
        Ok(())
    }

    /// Ends the known field begun last.
    pub fn end_tag(&mut self, tags: &mut TagWriter) -> Result<(), EncodeError> {
        let size = tags.value_mark.bytes_until(self.mark());
        self.insert_unsigned_varint(tags.value_mark, size)
    }

    /// Ends the tagged fields of a struct.
    pub fn end_tags(&mut self, mut tags: TagWriter) -> Result<(), EncodeError> {
        self.unknown_below(&mut tags, None)?;
        self.insert_unsigned_varint(tags.count_mark, tags.count as usize)
    }

    /// Refuses unknown tagged fields in a version that cannot carry them.
    pub fn no_tags(&self, unknown: &[(u32, Bytes)], version: i16) -> Result<(), EncodeError> {
        if unknown.is_empty() {
            return Ok(());
        }
        Err(EncodeError::FieldNotInVersion { field: "unknown_tagged_fields", version })
    }

    fn unknown_below(&mut self, tags: &mut TagWriter, end_tag: Option<u32>) -> Result<(), EncodeError> {
        while let Some(((tag, value), rest)) = tags.unknown.split_first() {
            if end_tag.is_some_and(|end| *tag >= end) {
                break;
            }
            tags.unknown = rest;
            tags.follow(*tag)?;
            self.unsigned_varint(*tag);
            self.unsigned_varint(length(value.len())?);
            self.put(value);
        }
        Ok(())
    }
}
