//! A JSON object as the body of a request, for routes that take a few fields.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::error::Category;

use crate::problem::{FieldError, Problem};

/// Reads the fields of `T`: 400 if the body is not JSON, 422 with the field that is missing, unknown, twice there or wrong.
pub fn parse_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut field = String::new();
    let mut json = serde_json::Deserializer::from_slice(body);
    let object = Object { field: &mut field, fields: PhantomData };
    let read = object.deserialize(&mut json).and_then(|fields| json.end().map(|()| fields));
    read.map_err(|error| match error.classify() {
        Category::Data => Problem::unprocessable(vec![field_error(&field, &error.to_string())]),
        _ => Problem::bad_request(format!("the body is not JSON: {error}")),
    })
}

/// Serde's words for what is wrong, by the field that they name, or else by the one whose value was read.
fn field_error(field: &str, words: &str) -> FieldError {
    let place = words.rfind(" at line ").unwrap_or(words.len());
    let words = &words[..place];
    let named = |kind: &str| words.strip_prefix(kind)?.strip_prefix(" field `")?.split_once('`');
    if let Some((field, _)) = named("missing") {
        FieldError::new(field, "is required")
    } else if let Some((field, expected)) = named("unknown") {
        FieldError::new(field, format!("is unknown{expected}"))
    } else if let Some((field, _)) = named("duplicate") {
        FieldError::new(field, "is given twice")
    } else {
        FieldError::new(field, in_words(words))
    }
}

/// Serde names Rust's types.
fn in_words(words: &str) -> String {
    match words.rsplit_once(", expected ") {
        Some((found, "u32" | "u64")) => format!("{found}, expected a whole number from 0"),
        Some((found, "a nonzero u32" | "a nonzero u64")) => {
            format!("{found}, expected a whole number from 1")
        }
        _ => words.to_owned(),
    }
}

/// The fields of an object, and of nothing else: derived code takes a list of values for them, too.
struct Object<'a, T> {
    /// The one whose value is being read; empty between them.
    field: &'a mut String,
    fields: PhantomData<T>,
}

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Object<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Object<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(Watched { map, field: self.field }))
    }
}

/// A map that tells which field it is at.
struct Watched<'a, A> {
    map: A,
    field: &'a mut String,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Watched<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.field.clear();
        let Some(name) = self.map.next_key::<String>()? else { return Ok(None) };
        let key = seed.deserialize(StrDeserializer::<A::Error>::new(&name))?;
        *self.field = name;
        Ok(Some(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pair {
        left: String,
        right: u8,
        #[serde(default)]
        pace: Option<NonZeroU32>,
    }

    #[test]
    fn says_which_field_is_wrong() {
        let pair: Pair = parse_object(br#"{"right": 2, "left": "l"}"#).unwrap();
        assert_eq!((pair.left.as_str(), pair.right, pair.pace), ("l", 2, None));
        let check = |body: &str, expected: &str| {
            let problem = parse_object::<Pair>(body.as_bytes()).unwrap_err();
            let said = serde_json::to_string(&problem).unwrap();
            assert!(said.contains(expected), "{body}: {said}");
        };
        check(r#"{"left": "l"}"#, r#"[{"field":"right","detail":"is required"}]"#);
        check(r#"{"left": "l", "left": "m", "right": 2}"#, r#"{"field":"left","detail":"is given twice"}"#);
        check(
            r#"{"up": 1}"#,
            r#"{"field":"up","detail":"is unknown, expected one of `left`, `right`, `pace`"}"#,
        );
        check(r#"["l", 2]"#, r#"{"field":"","detail":"invalid type: sequence, expected an object"}"#);
        let too_large = r#"{"field":"right","detail":"invalid value: integer `300`, expected u8"}"#;
        check(r#"{"left": "l", "right": 300}"#, too_large);
        let number = "expected a whole number from 1";
        let check_pace = |pace: &str, found: &str| {
            let expected = format!(r#"[{{"field":"pace","detail":"{found}, {number}"}}]"#);
            check(&format!(r#"{{"pace": {pace}, "left": "l", "right": 2}}"#), &expected);
        };
        check_pace("0", "invalid value: integer `0`");
        check_pace("-1", "invalid value: integer `-1`");
        check_pace("1.5", "invalid type: floating point `1.5`");
        check_pace("[1]", "invalid type: sequence");
        check(r#"{"left": "l", "pace": 2}"#, r#"[{"field":"right","detail":"is required"}]"#);
        check(r#"{"left": tru}"#, "the body is not JSON");
        check(r#"{"left": "l", "right": 2} x"#, "the body is not JSON");
        check(r#"{"left""#, "the body is not JSON");
        check("", "the body is not JSON");
    }
}
