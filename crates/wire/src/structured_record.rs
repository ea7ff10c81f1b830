//! Records of Kafka's internal topics: a message behind a few numbers that say which message it is.
//!
//! Owns the three framings Kafka uses (drawn in docs/formats/structured-records.md):
//! - versioned: `i16` version, then the message. Values of `__consumer_offsets` and `__transaction_state`, and
//!   what members of a group tell each other.
//! - coordinator key: `i16` record type, then the message at version 0.
//! - metadata record: unsigned varints for frame version (1), record type and version, then the message. Values
//!   of `__cluster_metadata`.
//!
//! Does not know what a record means, nor which version to write: its owner chooses.

use bytes::Bytes;

use crate::{DecodeError, Decoder, EncodeError, Encoder, Message, RecordMessage};

/// The only frame version of metadata records so far.
const METADATA_FRAME_VERSION: u32 = 1;

/// Writes a message behind its version.
pub fn encode_versioned<M: Message>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut e = Encoder::new();
    e.i16(version);
    message.encode(&mut e, version)?;
    e.into_bytes()
}

/// Reads a stored message behind its version, which must be a known one; nothing may follow.
pub fn decode_versioned<M: Message>(bytes: Bytes) -> Result<M, DecodeError> {
    let mut d = Decoder::stored(bytes);
    let version = d.i16()?;
    let message = M::decode(&mut d, version)?;
    d.finish()?;
    Ok(message)
}

/// Reads a subscription or an assignment as Kafka's clients do: a version newer than known is read as the newest
/// known one, and what follows is ignored.
pub fn decode_consumer_protocol<M: Message>(bytes: Bytes) -> Result<M, DecodeError> {
    let mut d = Decoder::new(bytes);
    let version = d.i16()?.min(M::MAX_VERSION);
    M::decode(&mut d, version)
}

/// Writes the key of a coordinator's record.
pub fn encode_coordinator_key<M: RecordMessage>(key: &M) -> Result<Bytes, EncodeError> {
    let mut e = Encoder::new();
    e.i16(M::RECORD_TYPE);
    key.encode(&mut e, 0)?;
    e.into_bytes()
}

/// The type of a coordinator's record by its key; fails on a key that is too short.
pub fn coordinator_key_type(key: &Bytes) -> Result<i16, DecodeError> {
    Decoder::stored(key.clone()).i16()
}

/// Reads the key of a coordinator's record, which must be of type `M`.
pub fn decode_coordinator_key<M: RecordMessage>(key: Bytes) -> Result<M, DecodeError> {
    let mut d = Decoder::stored(key);
    let found = d.i16()?;
    if found != M::RECORD_TYPE {
        return Err(DecodeError::RecordType { message: M::NAME, expected: M::RECORD_TYPE, found });
    }
    let message = M::decode(&mut d, 0)?;
    d.finish()?;
    Ok(message)
}

/// Writes the value of a metadata record.
pub fn encode_metadata_record<M: RecordMessage>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut e = Encoder::new();
    e.unsigned_varint(METADATA_FRAME_VERSION);
    e.unsigned_varint(u32::from(M::RECORD_TYPE.unsigned_abs()));
    e.unsigned_varint(u32::from(version.unsigned_abs()));
    message.encode(&mut e, version)?;
    e.into_bytes()
}

/// What precedes a metadata record: which message follows, and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataRecordHeader {
    /// The [`RecordMessage::RECORD_TYPE`] of the message.
    pub record_type: i16,
    /// The version of the message.
    pub version: i16,
}

impl MetadataRecordHeader {
    /// Reads the header; the message follows in the decoder.
    pub fn decode(d: &mut Decoder) -> Result<Self, DecodeError> {
        let frame_version = small(d.unsigned_varint()?);
        if u32::from(frame_version.unsigned_abs()) != METADATA_FRAME_VERSION {
            let (message, min, max) = ("MetadataRecordFrame", 1, 1);
            return Err(DecodeError::UnsupportedVersion { message, version: frame_version, min, max });
        }
        Ok(Self { record_type: small(d.unsigned_varint()?), version: small(d.unsigned_varint()?) })
    }
}

/// Numbers beyond `i16` are all equally unknown.
fn small(value: u32) -> i16 {
    i16::try_from(value).unwrap_or(i16::MAX)
}
