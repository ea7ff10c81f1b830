//! Cursors: a place in a query's results, in the order of arrival, or in the list of erasures, as text that a client keeps and
//! brings back.
//!
//! ```text
//! base64url( version: u8 = 1 | occurred_at: i64 BE, microseconds | id: UTF-8 … | tag: 8 bytes )
//! base64url( version: u8 = 2 | arrival: i64 BE | tag: 8 bytes )
//! base64url( version: u8 = 3 | requested_at: i64 BE, microseconds | id: UTF-8 … | tag: 8 bytes )
//! ```
//!
//! The tag is SipHash-2-4 under a key that the store keeps, over the rest and the filter. Invariant: a cursor that was
//! not made by this store for this very filter is refused, so that a client can neither forge a place nor page on
//! through other filters by mistake. A cursor grants nothing: the filter, tenant included, comes with the request.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;
use siphasher::sip128::Hasher128;

use crate::erasure::ErasurePosition;
use crate::limits::MAX_ID_CHARS;
use crate::query::{Filter, Position};
use crate::store::Arrival;
use crate::timestamp::Timestamp;

const VERSION: u8 = 1;
const ARRIVAL_VERSION: u8 = 2;
const ERASURE_VERSION: u8 = 3;
const TAG_BYTES: usize = 8;
const FIXED_BYTES: usize = 1 + 8 + TAG_BYTES;
/// The longest cursor there is: an id of four-byte characters.
const MAX_CURSOR_CHARS: usize = (FIXED_BYTES + 4 * MAX_ID_CHARS).div_ceil(3) * 4;

/// The key under which cursors are tagged.
#[derive(Clone, PartialEq, Eq)]
pub struct CursorKey([u8; 16]);

/// Why a text is no cursor for a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a cursor of this query: take next_cursor from an answer, and keep the other parameters the same"
)]
pub struct CursorError;

/// Why a text is no token of a live tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a token of this live tail: take the id of an event, and keep the other parameters the same")]
pub struct TokenError;

impl CursorKey {
    /// A key from random bytes.
    pub fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The cursor that stands for `position` in the results of `filter`.
    pub fn encode(&self, filter: &Filter, position: &Position) -> String {
        self.encode_place(VERSION, filter, position.occurred_at, &position.id)
    }

    /// The position that `cursor` stands for.
    pub fn decode(&self, filter: &Filter, cursor: &str) -> Result<Position, CursorError> {
        let (occurred_at, id) = self.decode_place(VERSION, filter, cursor).ok_or(CursorError)?;
        Ok(Position { occurred_at, id })
    }

    /// The cursor that stands for `position` in the list of a tenant's erasures.
    pub fn encode_erasure(&self, tenant: &str, position: &ErasurePosition) -> String {
        let filter = Filter::of_tenant(tenant);
        self.encode_place(ERASURE_VERSION, &filter, position.requested_at, &position.id)
    }

    /// The position in the list of a tenant's erasures that `cursor` stands for.
    pub fn decode_erasure(&self, tenant: &str, cursor: &str) -> Result<ErasurePosition, CursorError> {
        let place = self.decode_place(ERASURE_VERSION, &Filter::of_tenant(tenant), cursor);
        let (requested_at, id) = place.ok_or(CursorError)?;
        Ok(ErasurePosition { requested_at, id })
    }

    /// The token that stands for `arrival` in the live tail of `filter`.
    pub fn encode_arrival(&self, filter: &Filter, arrival: Arrival) -> String {
        let mut bytes = Vec::with_capacity(FIXED_BYTES);
        bytes.push(ARRIVAL_VERSION);
        bytes.extend_from_slice(&arrival.0.to_be_bytes());
        let tag = self.tag(&bytes, filter);
        bytes.extend_from_slice(&tag);
        to_base64url(&bytes)
    }

    /// The arrival that `token` stands for.
    pub fn decode_arrival(&self, filter: &Filter, token: &str) -> Result<Arrival, TokenError> {
        if token.len() > MAX_CURSOR_CHARS {
            return Err(TokenError);
        }
        let bytes = from_base64url(token).ok_or(TokenError)?;
        let (rest, tag) = bytes.split_last_chunk::<TAG_BYTES>().ok_or(TokenError)?;
        let [ARRIVAL_VERSION, arrival @ ..] = rest else { return Err(TokenError) };
        if self.tag(rest, filter) != *tag {
            return Err(TokenError);
        }
        arrival.try_into().map(|arrival| Arrival(i64::from_be_bytes(arrival))).map_err(|_| TokenError)
    }

    /// What an erased actor is known by when something of it comes again, without being named.
    pub(crate) fn actor_digest(&self, tenant: &str, actor: &str) -> [u8; 16] {
        self.digest(b"actor", &[tenant, actor])
    }

    /// What one erased activity is known by when it comes again.
    pub(crate) fn activity_digest(&self, tenant: &str, actor: &str, id: &str) -> [u8; 16] {
        self.digest(b"activity", &[tenant, actor, id])
    }

    fn digest(&self, of: &[u8], names: &[&str]) -> [u8; 16] {
        let mut hasher = siphasher::sip128::SipHasher24::new_with_key(&self.0);
        hasher.write(of);
        let (last, others) = names.split_last().unwrap_or((&"", &[]));
        for name in others {
            hasher.write_u64(name.len() as u64);
            hasher.write(name.as_bytes());
        }
        hasher.write(last.as_bytes());
        hasher.finish128().as_bytes()
    }

    fn encode_place(&self, version: u8, filter: &Filter, time: Timestamp, id: &str) -> String {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + id.len());
        bytes.push(version);
        bytes.extend_from_slice(&time.as_micros().to_be_bytes());
        bytes.extend_from_slice(id.as_bytes());
        let tag = self.tag(&bytes, filter);
        bytes.extend_from_slice(&tag);
        to_base64url(&bytes)
    }

    fn decode_place(&self, version: u8, filter: &Filter, cursor: &str) -> Option<(Timestamp, String)> {
        if cursor.len() > MAX_CURSOR_CHARS {
            return None;
        }
        let bytes = from_base64url(cursor)?;
        let (rest, tag) = bytes.split_last_chunk::<TAG_BYTES>()?;
        if self.tag(rest, filter) != *tag {
            return None;
        }
        let (_, rest) = rest.split_first().filter(|(found, _)| **found == version)?;
        let (micros, id) = rest.split_first_chunk::<8>()?;
        let time = Timestamp::from_micros(i64::from_be_bytes(*micros))?;
        Some((time, std::str::from_utf8(id).ok()?.to_owned()))
    }

    fn tag(&self, bytes: &[u8], filter: &Filter) -> [u8; TAG_BYTES] {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write_u64(bytes.len() as u64);
        hasher.write(bytes);
        filter.hash_into(&mut hasher);
        hasher.finish().to_be_bytes()
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

fn to_base64url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word =
            group.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            text.push(ALPHABET[(word >> (18 - 6 * digit)) as usize & 63] as char);
        }
    }
    text
}

/// The bytes, if `text` is the one spelling of them.
fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.as_bytes().chunks(4) {
        let mut word = 0u32;
        for digit in group {
            let value = ALPHABET.iter().position(|letter| letter == digit)?;
            word = word << 6 | value as u32;
        }
        word <<= 6 * (4 - group.len());
        let count = group.len().checked_sub(1).filter(|count| *count > 0)?;
        bytes.extend_from_slice(&word.to_be_bytes()[1..=count]);
    }
    // Bits beyond the last byte would make a second spelling.
    (to_base64url(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::query::ActionFilter;

    fn key() -> CursorKey {
        CursorKey::new(*b"0123456789abcdef")
    }

    fn position(id: &str) -> Position {
        Position { occurred_at: Timestamp::from_micros(1_357_035_420_000_000).unwrap(), id: id.to_owned() }
    }

    #[test]
    fn is_good_for_its_own_query_only() {
        let filter = Filter::of_tenant("UA");
        let cursor = key().encode(&filter, &position("x"));
        assert_eq!(key().decode(&filter, &cursor), Ok(position("x")));
        let others = [
            Filter::of_tenant("AA"),
            Filter { actor: Some(String::new()), ..filter.clone() },
            Filter { action: Some(ActionFilter::Prefix("a".to_owned())), ..filter.clone() },
            Filter { action: Some(ActionFilter::Exactly("a".to_owned())), ..filter.clone() },
            Filter { target: Some("a".to_owned()), ..filter.clone() },
            Filter { text: Some("a".to_owned()), ..filter.clone() },
            Filter { from: Some(Timestamp::MIN), ..filter.clone() },
            Filter { to: Some(Timestamp::MIN), ..filter.clone() },
        ];
        for (index, other) in others.iter().enumerate() {
            assert_eq!(key().decode(other, &cursor), Err(CursorError), "{other:?}");
            let cursor = key().encode(other, &position("x"));
            let accepting = others.iter().filter(|other| key().decode(other, &cursor).is_ok()).count();
            assert_eq!(accepting, 1, "{index}");
        }
        assert!(CursorKey::new([0; 16]).decode(&filter, &cursor).is_err());
    }

    #[test]
    fn refuses_every_changed_character() {
        let filter = Filter::of_tenant("UA");
        let cursor = key().encode(&filter, &position("0195-abc"));
        for at in 0..cursor.len() {
            for letter in ALPHABET {
                let mut changed = cursor.clone().into_bytes();
                changed[at] = *letter;
                let changed = String::from_utf8(changed).unwrap();
                assert_eq!(key().decode(&filter, &changed).is_ok(), changed == cursor);
            }
            assert!(key().decode(&filter, &cursor[..at]).is_err());
        }
        for bad in ["", "=", "AAAA", "é", "A A", &"A".repeat(100_000)] {
            assert!(key().decode(&filter, bad).is_err(), "{bad:.20}");
        }
    }

    #[test]
    fn tokens_of_the_live_tail_are_no_cursors_and_cannot_be_made_up() {
        let filter = Filter::of_tenant("UA");
        for arrival in [Arrival(0), Arrival(4711), Arrival(i64::MAX)] {
            let token = key().encode_arrival(&filter, arrival);
            assert_eq!(key().decode_arrival(&filter, &token), Ok(arrival));
            assert_eq!(key().decode_arrival(&Filter::of_tenant("AA"), &token), Err(TokenError));
            assert_eq!(key().decode(&filter, &token), Err(CursorError));
            for at in 0..token.len() {
                let mut other = token.clone().into_bytes();
                other[at] = if other[at] == b'A' { b'B' } else { b'A' };
                let other = String::from_utf8(other).unwrap();
                assert_eq!(key().decode_arrival(&filter, &other), Err(TokenError), "{other}");
                assert_eq!(key().decode_arrival(&filter, &token[..at]), Err(TokenError));
            }
        }
        let cursor = key().encode(&filter, &position(""));
        assert_eq!(key().decode_arrival(&filter, &cursor), Err(TokenError));
        assert_eq!(key().decode_arrival(&filter, &"A".repeat(1 << 20)), Err(TokenError));
    }

    #[test]
    fn cursors_of_erasures_are_good_for_their_own_list_only() {
        let filter = Filter::of_tenant("UA");
        let Position { occurred_at: requested_at, id } = position("0195-abc");
        let place = ErasurePosition { requested_at, id };
        let cursor = key().encode_erasure("UA", &place);
        assert_eq!(key().decode_erasure("UA", &cursor), Ok(place));
        assert_eq!(key().decode_erasure("AA", &cursor), Err(CursorError));
        assert_eq!(key().decode(&filter, &cursor), Err(CursorError));
        assert_eq!(key().decode_arrival(&filter, &cursor), Err(TokenError));
        let of_activities = key().encode(&filter, &position("0195-abc"));
        assert_eq!(key().decode_erasure("UA", &of_activities), Err(CursorError));
        for bad in ["", "AAAA", &"A".repeat(100_000)] {
            assert_eq!(key().decode_erasure("UA", bad), Err(CursorError), "{bad:.20}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(id in "\\PC{0,128}", micros in Timestamp::MIN.as_micros()..=Timestamp::MAX.as_micros()) {
            let position = Position { occurred_at: Timestamp::from_micros(micros).unwrap(), id };
            let filter = Filter::of_tenant("t");
            prop_assert_eq!(key().decode(&filter, &key().encode(&filter, &position)), Ok(position));
        }

        #[test]
        fn never_panics(cursor in "\\PC{0,60}") {
            let _ = key().decode(&Filter::of_tenant("t"), &cursor);
        }
    }
}
