//! What every generated message offers.
//!
//! Owns the traits between the generated code and the hand-written one. Implemented by
//! `cargo xtask codegen` only.

use crate::{ApiKey, DecodeError, Decoder, EncodeError, Encoder};

/// A struct with a byte form that depends on a version.
pub trait Message: Sized + Default {
    /// The message's name in Kafka's definitions.
    const NAME: &'static str;
    /// The oldest version known.
    const MIN_VERSION: i16;
    /// The newest version known, which Kafka may still call unstable: see [`Request::MAX_STABLE_VERSION`].
    const MAX_VERSION: i16;
    /// The first version with compact lengths and tagged fields (KIP-482).
    const FLEXIBLE_FROM: Option<i16>;

    /// Reads the message at `version`. What follows it stays in the decoder: [`Decoder::finish`] refuses it.
    fn decode(d: &mut Decoder, version: i16) -> Result<Self, DecodeError>;

    /// Writes the message at `version`. After an error the encoder's content is of no use.
    fn encode(&self, e: &mut Encoder, version: i16) -> Result<(), EncodeError>;

    /// Whether `version` is one of this message's.
    fn has_version(version: i16) -> bool {
        (Self::MIN_VERSION..=Self::MAX_VERSION).contains(&version)
    }

    /// Refuses to decode a version out of range.
    fn check_decode(version: i16) -> Result<(), DecodeError> {
        if Self::has_version(version) {
            return Ok(());
        }
        let (message, min, max) = (Self::NAME, Self::MIN_VERSION, Self::MAX_VERSION);
        Err(DecodeError::UnsupportedVersion { message, version, min, max })
    }

    /// Refuses to encode a version out of range.
    fn check_encode(version: i16) -> Result<(), EncodeError> {
        if Self::has_version(version) {
            return Ok(());
        }
        let (message, min, max) = (Self::NAME, Self::MIN_VERSION, Self::MAX_VERSION);
        Err(EncodeError::UnsupportedVersion { message, version, min, max })
    }
}

/// A request, and with it its response: both have the same versions.
pub trait Request: Message {
    /// The API's key.
    const API_KEY: ApiKey;
    /// The newest version that Kafka declares stable: the last one to offer to clients.
    const MAX_STABLE_VERSION: i16;
    /// What answers it.
    type Response: Message;
}

/// A record of one of Kafka's internal topics whose type is a number in front of it.
pub trait RecordMessage: Message {
    /// The number: for `__consumer_offsets` and `__transaction_state` that of the key and its value, for
    /// `__cluster_metadata` that of the value.
    const RECORD_TYPE: i16;
}

/// Refuses to lose a field in a version that does not have it, as Kafka's own serialiser does.
pub(crate) fn field_allowed(is_default: bool, field: &'static str, version: i16) -> Result<(), EncodeError> {
    if is_default { Ok(()) } else { Err(EncodeError::FieldNotInVersion { field, version }) }
}

/// Refuses null in a version that has no form for it.
pub(crate) fn null_allowed(allowed: bool, field: &'static str, version: i16) -> Result<(), EncodeError> {
    if allowed { Ok(()) } else { Err(EncodeError::NullNotAllowed { field, version }) }
}
