//! A topic's id: 16 bytes that tell two topics of the same name apart (KIP-516).
//!
//! Owns Kafka's text form: URL-safe base64 without padding, 22 characters. Does not make random ids:
//! randomness is I/O, and belongs to whoever creates the topic.

use std::fmt;
use std::str::FromStr;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const TEXT_LEN: usize = 22;

/// Kafka's `Uuid`: used for topics, log directories and whatever else the protocol calls a uuid.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// No id: what old versions of the protocol and missing topics carry.
    pub const ZERO: Self = Self([0; 16]);

    /// The id of the cluster metadata topic, fixed by Kafka.
    pub const METADATA: Self = Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

    /// Whether this is [`TopicId::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; TEXT_LEN];
        let mut bits = u128::from_be_bytes(self.0);
        // 22 characters carry 132 bits: the last one holds the low 2 bits of the id and 4 zero bits.
        text[TEXT_LEN - 1] = ALPHABET[((bits & 0b11) << 4) as usize];
        bits >>= 2;
        for character in text[..TEXT_LEN - 1].iter_mut().rev() {
            *character = ALPHABET[(bits & 0x3f) as usize];
            bits >>= 6;
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a topic id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a topic id: expected 22 characters of URL-safe base64")]
pub struct ParseTopicIdError {
    /// The text found.
    pub text: String,
}

impl FromStr for TopicId {
    type Err = ParseTopicIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseTopicIdError { text: text.to_owned() };
        if text.len() != TEXT_LEN {
            return Err(error());
        }
        let mut bits: u128 = 0;
        for (index, character) in text.bytes().enumerate() {
            let value = ALPHABET.iter().position(|known| *known == character).ok_or_else(error)? as u128;
            bits = if index < TEXT_LEN - 1 { (bits << 6) | value } else { (bits << 2) | (value >> 4) };
        }
        Ok(Self(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts are what Kafka's `Uuid.toString` prints for the same bytes.
    fn check(bytes: [u8; 16], text: &str) {
        assert_eq!(TopicId(bytes).to_string(), text);
        assert_eq!(text.parse(), Ok(TopicId(bytes)));
    }

    #[test]
    fn text_is_kafkas() {
        check([0; 16], "AAAAAAAAAAAAAAAAAAAAAA");
        check(TopicId::METADATA.0, "AAAAAAAAAAAAAAAAAAAAAQ");
        check([0xff; 16], "_____________________w");
        check([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], "AAECAwQFBgcICQoLDA0ODw");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAA=", "AAAAAAAAAAAAAAAAAAAA+A"] {
            assert!(text.parse::<TopicId>().is_err(), "{text}");
        }
    }
}
