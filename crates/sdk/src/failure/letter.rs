//! A letter: one record of a dead letter topic, with what is known about it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Serialize, Serializer};
use thiserror::Error;

use super::context::parse_letter;
use super::{FailureContext, Queue, Resolution};
use crate::record::{Headers, ReceivedRecord};

/// The place of a letter in its dead letter topic, written `partition-offset`.
///
/// ```
/// use tidings::failure::{LetterId, LetterIdError};
///
/// let id: LetterId = "0-42".parse().unwrap();
/// assert_eq!(id, LetterId { partition: 0, offset: 42 });
/// assert_eq!(id.to_string(), "0-42");
/// let error: LetterIdError = "42".parse::<LetterId>().unwrap_err();
/// assert_eq!(error.found, "42");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// Partition of the dead letter topic.
    pub partition: i32,
    /// Offset there.
    pub offset: i64,
}

/// A letter id that is not `partition-offset`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("letter id {found:?} is not of the form partition-offset, such as 0-42")]
pub struct LetterIdError {
    /// What was found.
    pub found: String,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.partition, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = LetterIdError;

    fn from_str(text: &str) -> Result<Self, LetterIdError> {
        let parse = || {
            let (partition, offset) = text.split_once('-')?;
            let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let both_numbers = is_number(partition) && is_number(offset);
            let id = Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? };
            both_numbers.then_some(id)
        };
        parse().ok_or_else(|| LetterIdError { found: text.chars().take(64).collect() })
    }
}

impl Serialize for LetterId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A parked record: the original, why it failed, and what became of it.
///
/// As JSON (`serde::Serialize`): `id`, `status` (`parked`, `redriven`, `discarded`), `parked_at_ms`, `source`, the
/// fields of the [`FailureContext`] or `null`, `resolution` or `null`, `line` or `null`, `key`, `value` and `headers` (a list of
/// `name` and `value`). Bytes that are UTF-8 are text, others an object `{"hex": "…"}`.
///
/// ```
/// use tidings::failure::{Letter, Line};
///
/// fn describe(letter: &Letter) -> String {
///     let error = letter.context.as_ref().map_or("another tool's", |context| &context.error);
///     match letter.line {
///         Some(Line { behind: Some(first), .. }) => format!("{} waits for {first}", letter.id),
///         Some(Line { waiting, .. }) => format!("{}: {error}; {waiting} wait behind it", letter.id),
///         None => format!("{}: {error}", letter.id),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its place in the dead letter topic.
    pub id: LetterId,
    /// The topic whose inbox holds it.
    pub source: Arc<str>,
    /// When it was parked, milliseconds since the epoch.
    pub parked_at_ms: Option<i64>,
    /// The original key.
    pub key: Option<Vec<u8>>,
    /// The original value.
    pub value: Option<Vec<u8>>,
    /// The original headers.
    pub headers: Headers,
    /// Why and where it failed; `None` if another tool wrote the letter.
    pub context: Option<FailureContext>,
    /// What became of it; `None` while it is parked.
    pub resolution: Option<Resolution>,
    /// Its place among the parked records of its key; `None` where its group does not preserve their order, and when it
    /// waits no more.
    pub line: Option<Line>,
}

/// A letter's place among the parked records of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The letter that comes first, unless it is this one.
    pub behind: Option<LetterId>,
    /// How many wait behind the first one.
    pub waiting: u64,
}

impl Letter {
    pub(super) fn from_record(
        source: &Arc<str>,
        record: ReceivedRecord,
        resolution: Option<Resolution>,
    ) -> Self {
        let (headers, context) = parse_letter(&record.headers);
        Self {
            id: LetterId { partition: record.partition, offset: record.offset },
            source: Arc::clone(source),
            parked_at_ms: record.timestamp_ms,
            key: record.key,
            value: record.value,
            headers,
            context,
            resolution,
            line: None,
        }
    }
}

impl Serialize for Letter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut letter = serializer.serialize_struct("Letter", 10)?;
        letter.serialize_field("id", &self.id)?;
        letter.serialize_field(
            "status",
            self.resolution.as_ref().map_or("parked", |found| found.kind.name()),
        )?;
        letter.serialize_field("parked_at_ms", &self.parked_at_ms)?;
        letter.serialize_field("source", &*self.source)?;
        letter.serialize_field("context", &self.context)?;
        letter.serialize_field("resolution", &self.resolution)?;
        letter.serialize_field("line", &self.line)?;
        letter.serialize_field("key", &self.key.as_deref().map(Bytes))?;
        letter.serialize_field("value", &self.value.as_deref().map(Bytes))?;
        letter.serialize_field("headers", &HeaderList(&self.headers))?;
        letter.end()
    }
}

/// As JSON: `group`, `partition`, `key` (as in a letter), `first`, `standing`, `waiting`.
impl Serialize for Queue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut queue = serializer.serialize_struct("Queue", 6)?;
        queue.serialize_field("group", &self.group)?;
        queue.serialize_field("partition", &self.partition)?;
        queue.serialize_field("key", &Bytes(&self.key))?;
        queue.serialize_field("first", &self.first)?;
        queue.serialize_field("standing", &self.standing)?;
        queue.serialize_field("waiting", &self.waiting)?;
        queue.end()
    }
}

/// Bytes as text if they are UTF-8, else as `{"hex": "…"}`.
struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(self.0) {
            return serializer.serialize_str(text);
        }
        let hex: String = self.0.iter().flat_map(|byte| [byte >> 4, byte & 0xf]).map(hex_digit).collect();
        let mut object = serializer.serialize_struct("Bytes", 1)?;
        object.serialize_field("hex", &hex)?;
        object.end()
    }
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(nibble.into(), 16).unwrap_or('0')
}

struct HeaderList<'a>(&'a Headers);

impl Serialize for HeaderList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Header<'a> {
            name: Bytes<'a>,
            value: Option<Bytes<'a>>,
        }
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for (name, value) in self.0 {
            list.serialize_element(&Header { name: Bytes(name), value: value.map(Bytes) })?;
        }
        list.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_two_plain_numbers() {
        for bad in ["", "-", "1", "1-", "-1", "1--2", "1-2-3", "+1-2", "a-b", "99999999999-1", " 1-2"] {
            assert!(bad.parse::<LetterId>().is_err(), "{bad:?}");
        }
        assert_eq!("3-9".parse(), Ok(LetterId { partition: 3, offset: 9 }));
    }

    #[test]
    fn json_shows_text_as_text_and_other_bytes_as_hex() {
        let mut headers = Headers::new();
        headers.push("trace", [0xff, 0x01]);
        headers.push_null("empty");
        let letter = Letter {
            id: LetterId { partition: 0, offset: 1 },
            source: "orders".into(),
            parked_at_ms: Some(5),
            key: Some(b"k".to_vec()),
            value: Some(vec![0xc3]),
            headers,
            context: None,
            resolution: None,
            line: None,
        };
        let json = serde_json::to_value(&letter).unwrap();
        let expect = serde_json::json!({
            "id": "0-1", "status": "parked", "parked_at_ms": 5, "source": "orders", "context": null,
            "resolution": null, "line": null, "key": "k", "value": {"hex": "c3"},
            "headers": [{"name": "trace", "value": {"hex": "ff01"}}, {"name": "empty", "value": null}],
        });
        assert_eq!(json, expect);
    }
}
