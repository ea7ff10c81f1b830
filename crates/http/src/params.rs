//! Query strings, read strictly: an unknown, repeated or undecodable parameter is an error, never ignored.
//!
//! A filter that is silently dropped shows a caller other people's rows, so a typo must be loud. Invariant: a
//! [`Params`] holds each known name at most once, decoded to UTF-8.

use crate::problem::{FieldError, Problem};

/// The longest query string read, in bytes.
pub const MAX_QUERY_BYTES: usize = 16 * 1024;

/// The parameters of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params(Vec<(&'static str, String)>);

impl Params {
    /// Reads `query` (`Uri::query`), whose names must be among `known`; else 400, naming each parameter.
    pub fn parse(query: Option<&str>, known: &[&'static str]) -> Result<Self, Problem> {
        let query = query.unwrap_or("");
        if query.len() > MAX_QUERY_BYTES {
            return Err(Problem::bad_request(format!(
                "the query string has {} bytes, more than the {MAX_QUERY_BYTES} allowed",
                query.len()
            )));
        }
        let mut values: Vec<(&'static str, String)> = Vec::new();
        let mut errors = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(name) = decode(name) else {
                errors.push(FieldError::new("", format!("undecodable parameter name {name:?}")));
                continue;
            };
            let Some(known_name) = known.iter().find(|known| **known == name) else {
                errors.push(FieldError::new(name, format!("is unknown; known are {}", known.join(", "))));
                continue;
            };
            if values.iter().any(|(seen, _)| seen == known_name) {
                errors.push(FieldError::new(name, "is given more than once"));
                continue;
            }
            match decode(value) {
                Some(value) => values.push((known_name, value)),
                None => errors.push(FieldError::new(name, "is not percent-encoded UTF-8")),
            }
        }
        if errors.is_empty() { Ok(Self(values)) } else { Err(Problem::bad_parameters(errors)) }
    }

    /// The value of `name`, if it was given; it may be empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let (high, low) = (hex(*rest.first()?)?, hex(*rest.get(1)?)?);
                bytes.push(high << 4 | low);
                rest = &rest[2..];
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["tenant", "q", "limit"];

    #[test]
    fn decodes_values() {
        let params = Params::parse(Some("tenant=a%2Fb+c&q=%C3%A9%26&&limit"), &KNOWN).unwrap();
        assert_eq!(params.get("tenant"), Some("a/b c"));
        assert_eq!(params.get("q"), Some("é&"));
        assert_eq!(params.get("limit"), Some(""));
        assert_eq!(Params::parse(None, &KNOWN).unwrap().get("q"), None);
    }

    #[test]
    fn names_each_bad_parameter() {
        let problem = Params::parse(Some("tenent=x&q=1&q=2&limit=%zz&tenant=%ff"), &KNOWN).unwrap_err();
        let errors: Vec<_> = problem.errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "tenent: is unknown; known are tenant, q, limit",
                "q: is given more than once",
                "limit: is not percent-encoded UTF-8",
                "tenant: is not percent-encoded UTF-8",
            ]
        );
        for bad in ["%", "%4", "%é1=", "q=%+1"] {
            assert!(Params::parse(Some(bad), &KNOWN).is_err(), "{bad}");
        }
        assert!(Params::parse(Some(&"x".repeat(MAX_QUERY_BYTES + 1)), &KNOWN).is_err());
    }
}
