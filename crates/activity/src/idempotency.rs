//! The header `Idempotency-Key`, and the ids that follow from it.
//!
//! A caller that does not know whether its request was taken sends it again under the same key. Owns what a key may be
//! and how ids of activities without one are derived from it. Invariant: the same key, bytes, place in the body and tenant
//! give the same id, in every run of every version of this program, so that the store knows a repeated activity whatever
//! else was forgotten; other bytes give another one. What was answered to a key is `answers`'.
//!
//! The header is that of draft-ietf-httpapi-idempotency-key-header, a string of a structured field (`"…"`); the same
//! characters without quotes are taken, too, and are the same key.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue};
use tidings_http::Problem;
use uuid::Uuid;

use crate::limits::MAX_IDEMPOTENCY_KEY_CHARS;

/// The header's name.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The namespace of the ids: never to be changed.
const NAMESPACE: Uuid = Uuid::from_u128(0x5d1c_7a3e_92b4_4f6d_8e05_c3b8_71fa_2960);

/// What a caller names a request by, its repetitions included.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Arc<str>);

/// Where an activity stands in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An element of an array, counted from 0; a body of one object is the first.
    Element(usize),
    /// A line of a stream, counted from 1.
    Line(u64),
}

impl IdempotencyKey {
    /// The key of a request, if it has one; else 400 if that is none.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Problem::bad_request("the header Idempotency-Key is given more than once"));
        }
        Self::parse(value).map(Some).ok_or_else(|| {
            Problem::bad_request(format!(
                "the header Idempotency-Key takes 1 to {MAX_IDEMPOTENCY_KEY_CHARS} visible ASCII characters, in double \
                 quotes or without, and neither '\"' nor '\\' among them"
            ))
        })
    }

    fn parse(value: &HeaderValue) -> Option<Self> {
        let text = value.as_bytes();
        let text = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
        let visible = text.iter().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(byte));
        let fits = (1..=MAX_IDEMPOTENCY_KEY_CHARS).contains(&text.len());
        let text = std::str::from_utf8(text).ok()?;
        (visible && fits).then(|| Self(text.into()))
    }

    /// The key without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the activities of one body, or of one line of a stream, are called that bring no id.
#[derive(Debug, Clone, Copy)]
pub enum NewIds {
    /// Without a key: by UUIDv7.
    Fresh,
    /// By what follows from this, a UUIDv5 over key and content.
    Following(Uuid),
}

impl NewIds {
    /// Those of `content` under `key`.
    ///
    /// The content counts: under a key that was used for something else, and was forgotten since, new activities are new
    /// ones; with the ids of the old ones they would be lost without a word.
    pub fn of(key: Option<&IdempotencyKey>, content: &[u8]) -> Self {
        let Some(key) = key else { return Self::Fresh };
        // No key has a zero in it.
        let name = [key.0.as_bytes(), &[0], content].concat();
        Self::Following(Uuid::new_v5(&NAMESPACE, &name))
    }

    /// The id of the activity of `tenant` at `place`.
    pub fn id(self, tenant: &str, place: Place) -> String {
        let Self::Following(content) = self else { return Uuid::now_v7().to_string() };
        let (form, number) = match place {
            Place::Element(index) => (b'e', index as u64),
            Place::Line(number) => (b'l', number),
        };
        let mut name = Vec::with_capacity(1 + 8 + tenant.len());
        name.push(form);
        name.extend_from_slice(&number.to_be_bytes());
        name.extend_from_slice(tenant.as_bytes());
        Uuid::new_v5(&content, &name).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(values: &[&[u8]]) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
        }
        let found = IdempotencyKey::of(&headers).map_err(|problem| problem.status.as_u16())?;
        Ok(found.map(|key| key.as_str().to_owned()))
    }

    #[test]
    fn takes_strings_of_structured_fields_and_bare_ones() {
        assert_eq!(key(&[]), Ok(None));
        for value in [&b"\"8e03978e-40d5\""[..], b"8e03978e-40d5"] {
            assert_eq!(key(&[value]), Ok(Some("8e03978e-40d5".to_owned())));
        }
        let longest = "k".repeat(MAX_IDEMPOTENCY_KEY_CHARS);
        assert_eq!(key(&[longest.as_bytes()]), Ok(Some(longest.clone())));
        let too_long = longest + "k";
        for refused in [
            &b""[..],
            b"\"\"",
            b"\"",
            b"a b",
            b"a\"b",
            b"\"a",
            b"a\\b",
            b"\xc3\xa9",
            b"a\tb",
            too_long.as_bytes(),
        ] {
            assert_eq!(key(&[refused]), Err(400), "{refused:?}");
        }
        assert_eq!(key(&[b"a", b"a"]), Err(400));
    }

    #[test]
    fn ids_are_the_same_for_ever_and_differ_by_key_content_place_and_tenant() {
        let id = |key: &str, content: &str, tenant: &str, place| {
            NewIds::of(Some(&IdempotencyKey(key.into())), content.as_bytes()).id(tenant, place)
        };
        // Written down: a change would double what is sent again across an update.
        assert_eq!(id("k", "c", "t", Place::Element(0)), "7c31fdb9-c18a-5e72-bb30-0f1ddcf36448");
        assert_eq!(id("k", "c", "t", Place::Line(1)), "a4254c41-49fb-543d-9405-e7fc2c252bfe");
        let mut ids = vec![
            id("k", "c", "t", Place::Element(0)),
            id("k", "c", "t", Place::Element(1)),
            id("k", "c", "t", Place::Line(0)),
            id("k", "c", "tk", Place::Element(0)),
            id("k", "d", "t", Place::Element(0)),
            id("kc", "", "t", Place::Element(0)),
            NewIds::Fresh.id("t", Place::Element(0)),
            NewIds::Fresh.id("t", Place::Element(0)),
        ];
        let count = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }
}
