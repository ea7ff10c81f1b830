//! A JSON object as the body of a request, for routes that take a few fields.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::error::Category;

use crate::problem::{FieldError, Problem};

/// Reads the fields of `T`: 400 if the body is not JSON, 422 with the field that is missing, unknown, twice there or wrong.
pub fn parse_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    match serde_json::from_slice::<Object<T>>(body) {
        Ok(Object(fields)) => Ok(fields),
        Err(error) if error.classify() == Category::Data => {
            Err(Problem::unprocessable(vec![field_error(&error.to_string())]))
        }
        Err(error) => Err(Problem::bad_request(format!("the body is not JSON: {error}"))),
    }
}

/// Serde's words for what is wrong, by field where they name one.
fn field_error(words: &str) -> FieldError {
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
        FieldError::new("", words)
    }
}

/// Derived code takes a list of values for the fields, too.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnlyMaps<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OnlyMaps<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(OnlyMaps(PhantomData)).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pair {
        left: String,
        right: u8,
    }

    #[test]
    fn says_which_field_is_wrong() {
        let pair: Pair = parse_object(br#"{"right": 2, "left": "l"}"#).unwrap();
        assert_eq!((pair.left.as_str(), pair.right), ("l", 2));
        let check = |body: &str, expected: &str| {
            let problem = parse_object::<Pair>(body.as_bytes()).unwrap_err();
            let said = serde_json::to_string(&problem).unwrap();
            assert!(said.contains(expected), "{body}: {said}");
        };
        check(r#"{"left": "l"}"#, r#"[{"field":"right","detail":"is required"}]"#);
        check(r#"{"left": "l", "left": "m", "right": 2}"#, r#"{"field":"left","detail":"is given twice"}"#);
        check(r#"{"up": 1}"#, r#"{"field":"up","detail":"is unknown, expected `left` or `right`"}"#);
        check(r#"["l", 2]"#, "invalid type: sequence, expected an object");
        check(r#"{"left": "l", "right": 300}"#, "invalid value: integer `300`, expected u8");
        check(r#"{"left""#, "the body is not JSON");
        check("", "the body is not JSON");
    }
}
