//! Request and response headers.
//!
//! Owns which header version goes with which API and version, and the two exceptions: the client id keeps its
//! two-byte length in every version, and ApiVersions answers with the oldest header in every version, because a
//! client that does not know what the server speaks must be able to read it (KIP-511).

use bytes::Bytes;

use crate::{ApiKey, DecodeError, Decoder, EncodeError, Encoder};

/// What precedes the body of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestHeader {
    /// Which request follows.
    pub api_key: ApiKey,
    /// Its version, not yet checked against what is known.
    pub api_version: i16,
    /// Chosen by the client; the response repeats it.
    pub correlation_id: i32,
    /// The client's name for itself.
    pub client_id: Option<String>,
    /// Tagged fields of the header; only in flexible versions.
    pub unknown_tagged_fields: Vec<(u32, Bytes)>,
}

/// What precedes the body of a response.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResponseHeader {
    /// The request's.
    pub correlation_id: i32,
    /// Tagged fields of the header; only in flexible versions.
    pub unknown_tagged_fields: Vec<(u32, Bytes)>,
}

impl ApiKey {
    /// Whether requests of this API and version have a flexible body, also for versions not known.
    pub fn is_flexible(self, version: i16) -> bool {
        self.flexible_from().is_some_and(|first| version >= first)
    }

    /// The version of the request header: 1, or 2 with tagged fields.
    pub fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// The version of the response header: 0, or 1 with tagged fields.
    pub fn response_header_version(self, version: i16) -> i16 {
        if self != Self::ApiVersions && self.is_flexible(version) { 1 } else { 0 }
    }
}

impl RequestHeader {
    /// Reads the header; the body follows in the decoder. An unknown API key is an error, because the rest cannot
    /// be read without knowing the API; an unknown version is not.
    pub fn decode(d: &mut Decoder) -> Result<Self, DecodeError> {
        let api_key = d.i16()?;
        let api_key = ApiKey::from_code(api_key).ok_or(DecodeError::UnknownApiKey { api_key })?;
        let api_version = d.i16()?;
        let correlation_id = d.i32()?;
        let client_id = d.nullable_string(false)?;
        let flexible = api_key.request_header_version(api_version) >= 2;
        let unknown_tagged_fields = if flexible { d.unknown_tagged_fields()? } else { Vec::new() };
        Ok(Self { api_key, api_version, correlation_id, client_id, unknown_tagged_fields })
    }

    /// Writes the header.
    pub fn encode(&self, e: &mut Encoder) -> Result<(), EncodeError> {
        e.i16(self.api_key.code());
        e.i16(self.api_version);
        e.i32(self.correlation_id);
        match &self.client_id {
            Some(client_id) => e.string(false, client_id)?,
            None => e.null_string(false),
        }
        if self.api_key.request_header_version(self.api_version) >= 2 {
            e.unknown_tagged_fields(&self.unknown_tagged_fields)
        } else {
            e.no_tags(&self.unknown_tagged_fields, self.api_version)
        }
    }
}

impl ResponseHeader {
    /// Reads the header of a response to a request of this API and version.
    pub fn decode(d: &mut Decoder, api_key: ApiKey, version: i16) -> Result<Self, DecodeError> {
        let correlation_id = d.i32()?;
        let flexible = api_key.response_header_version(version) >= 1;
        let unknown_tagged_fields = if flexible { d.unknown_tagged_fields()? } else { Vec::new() };
        Ok(Self { correlation_id, unknown_tagged_fields })
    }

    /// Writes the header of a response to a request of this API and version.
    pub fn encode(&self, e: &mut Encoder, api_key: ApiKey, version: i16) -> Result<(), EncodeError> {
        e.i32(self.correlation_id);
        if api_key.response_header_version(version) >= 1 {
            e.unknown_tagged_fields(&self.unknown_tagged_fields)
        } else {
            e.no_tags(&self.unknown_tagged_fields, version)
        }
    }
}
