//! How the data of events becomes bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Why data cannot be encoded or decoded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct CodecError {
    reason: String,
}

impl CodecError {
    /// An error with the codec's own words.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// Encodes and decodes the data of events of one type.
///
/// ```
/// use tidings::event::{Codec, CodecError};
///
/// /// Text as it is.
/// struct Text;
///
/// impl Codec<String> for Text {
///     fn content_type(&self) -> &str {
///         "text/plain; charset=utf-8"
///     }
///
///     fn encode(&self, data: &String) -> Result<Vec<u8>, CodecError> {
///         Ok(data.clone().into_bytes())
///     }
///
///     fn decode(&self, bytes: &[u8]) -> Result<String, CodecError> {
///         String::from_utf8(bytes.to_vec()).map_err(|error| CodecError::new(error.to_string()))
///     }
/// }
/// # assert_eq!(Text.decode(&Text.encode(&"a".to_owned())?)?, "a");
/// # Ok::<(), CodecError>(())
/// ```
pub trait Codec<T>: Send + Sync {
    /// The media type of what it writes.
    fn content_type(&self) -> &str;

    /// The bytes of data.
    fn encode(&self, data: &T) -> Result<Vec<u8>, CodecError>;

    /// The data of bytes that anybody may have written.
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError>;
}

/// JSON, of everything that `serde` knows.
///
/// ```
/// use tidings::event::{Codec, Json};
///
/// let bytes = Json.encode(&vec![1_u32, 2])?;
/// assert_eq!(bytes, b"[1,2]");
/// let numbers: Vec<u32> = Json.decode(&bytes)?;
/// assert_eq!(numbers, [1, 2]);
/// # Ok::<(), tidings::event::CodecError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn content_type(&self) -> &str {
        "application/json"
    }

    fn encode(&self, data: &T) -> Result<Vec<u8>, CodecError> {
        serde_json::to_vec(data).map_err(|error| CodecError::new(error.to_string()))
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        serde_json::from_slice(bytes).map_err(|error| CodecError::new(error.to_string()))
    }
}
