//! Ids as the SQLite store keeps them: a UUID in 16 bytes, anything else as its text.
//!
//! Every index repeats the id, and nearly all ids are UUIDs: 16 bytes for 36 makes the indexes, and what each commit
//! writes of them, nearly half as large. Invariant: the text comes back as it was, so only the canonical spelling
//! (lower case, hyphens) is kept as bytes. SQLite orders texts before blobs, and so does [`StoredId`].

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use uuid::Uuid;

use crate::text::Text;

/// An id in its stored form; ordered as SQLite orders it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoredId<'a> {
    /// Any text.
    Text(Text<'a>),
    /// A UUID that was spelled canonically.
    Uuid([u8; 16]),
}

impl<'a> StoredId<'a> {
    /// The stored form of `id`.
    pub fn new(id: &'a str) -> Self {
        match canonical(id.as_bytes()) {
            Some(uuid) => Self::Uuid(uuid),
            None => Self::Text(id.into()),
        }
    }

    /// The id as it was given.
    pub fn into_text(self) -> Text<'a> {
        match self {
            Self::Text(text) => text,
            Self::Uuid(uuid) => Uuid::from_bytes(uuid).hyphenated().to_string().into(),
        }
    }

    /// The same id, owning its bytes.
    pub fn into_owned(self) -> StoredId<'static> {
        match self {
            Self::Text(text) => StoredId::Text(text.into_owned()),
            Self::Uuid(uuid) => StoredId::Uuid(uuid),
        }
    }

    /// The stored form in a column.
    pub fn read(value: ValueRef<'a>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Blob(bytes) => {
                let uuid = bytes.try_into();
                uuid.map(Self::Uuid)
                    .map_err(|_| FromSqlError::InvalidBlobSize { expected_size: 16, blob_size: bytes.len() })
            }
            value => value.as_str().map(|text| Self::Text(text.into())),
        }
    }
}

impl ToSql for StoredId<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>, rusqlite::Error> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Uuid(uuid) => ValueRef::Blob(uuid),
        }))
    }
}

impl FromSql for StoredId<'static> {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        StoredId::read(value).map(StoredId::into_owned)
    }
}

/// The bytes of `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` in lower case.
fn canonical(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    let mut uuid = [0; 16];
    let mut digits = 0;
    for (at, byte) in text.iter().enumerate() {
        let digit = match byte {
            b'-' if matches!(at, 8 | 13 | 18 | 23) => continue,
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        if matches!(at, 8 | 13 | 18 | 23) {
            return None;
        }
        uuid[digits / 2] = uuid[digits / 2] << 4 | digit;
        digits += 1;
    }
    Some(uuid)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keeps_canonical_uuids_as_bytes() {
        let is_uuid = |id: &str| {
            assert_eq!(StoredId::new(id).into_text(), id);
            matches!(StoredId::new(id), StoredId::Uuid(_))
        };
        assert!(is_uuid("0195d3a1-0000-7000-8000-0123456789ab"));
        assert!(!is_uuid("0195D3A1-0000-7000-8000-0123456789ab"));
        assert!(!is_uuid("0195d3a10000-7000-8000-0123456789ab-"));
        assert!(!is_uuid("0195d3a1a0000-7000-8000-0123456789a"));
        assert!(!is_uuid("0195d3a1-0000-7000-8000-0123456789ag"));
        assert!(!is_uuid("x"));
    }

    proptest! {
        #[test]
        fn comes_back_as_it_was(id in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f-]{36}|.{0,40}") {
            prop_assert_eq!(StoredId::new(&id).into_text(), id.as_str());
        }
    }
}
