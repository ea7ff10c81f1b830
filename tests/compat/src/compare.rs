//! Two answers, field by field.
//!
//! Owns the walk and the notation of places: `topics[orders].partitions[0].errorCode`, elements by what tells them apart.

use std::collections::BTreeMap;

use serde_json::Value;
use tidings_model::ErrorCode;

use crate::normal::identity;

/// A place where two answers differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The place; empty for the answer as a whole.
    pub field: String,
    /// What Apache Kafka says; `absent` where it says nothing.
    pub kafka: String,
    /// What Tidings says.
    pub tidings: String,
}

const ABSENT: &str = "absent";

/// Every place where the answers differ.
pub fn differences(kafka: &Value, tidings: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(String::new(), kafka, tidings, &mut found);
    found
}

fn walk(field: String, kafka: &Value, tidings: &Value, found: &mut Vec<Difference>) {
    match (kafka, tidings) {
        (Value::Object(left), Value::Object(right)) => {
            // Both were read by the same definition, so they have the same fields.
            for (name, value) in left {
                let path = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
                walk(path, value, right.get(name).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(left), Value::Array(right)) => {
            let (left, right) = (by_identity(left), by_identity(right));
            for (key, value) in &left {
                let path = format!("{field}[{key}]");
                match right.get(key) {
                    Some(other) => walk(path, value, other, found),
                    None => found.push(Difference {
                        field: path,
                        kafka: value.to_string(),
                        tidings: ABSENT.to_owned(),
                    }),
                }
            }
            for (key, value) in right.iter().filter(|(key, _)| !left.contains_key(*key)) {
                let path = format!("{field}[{key}]");
                found.push(Difference { field: path, kafka: ABSENT.to_owned(), tidings: value.to_string() });
            }
        }
        _ if kafka == tidings => {}
        _ => found.push(Difference { kafka: show(&field, kafka), tidings: show(&field, tidings), field }),
    }
}

/// The elements by what tells them apart, numbered where that repeats or is nothing.
fn by_identity(elements: &[Value]) -> BTreeMap<String, &Value> {
    let mut map = BTreeMap::new();
    for element in elements {
        let identity = identity(element).split_whitespace().collect::<Vec<_>>().join(" ");
        let repeated = |number: usize| match (identity.is_empty(), number) {
            (true, _) => number.to_string(),
            (false, 0) => identity.clone(),
            (false, _) => format!("{identity} #{number}"),
        };
        let key = (0..).map(repeated).find(|key| !map.contains_key(key)).expect("numbers do not end");
        map.insert(key, element);
    }
    map
}

fn show(field: &str, value: &Value) -> String {
    let code =
        value.as_i64().filter(|_| field.ends_with("rrorCode")).and_then(|code| i16::try_from(code).ok());
    match code.and_then(ErrorCode::from_code) {
        Some(code) => code.name().to_owned(),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(kafka: Value, tidings: Value, expected: &[(&str, &str, &str)]) {
        let found = differences(&kafka, &tidings);
        let found: Vec<_> =
            found.iter().map(|found| (&*found.field, &*found.kafka, &*found.tidings)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_field_is_named_with_its_element() {
        let answer =
            |code: i64| json!({"topics": [{"name": "a", "errorCode": 0}, {"name": "b", "errorCode": code}]});
        check(answer(3), answer(3), &[]);
        check(answer(0), answer(3), &[("topics[b].errorCode", "NONE", "UNKNOWN_TOPIC_OR_PARTITION")]);
    }

    #[test]
    fn what_only_one_says_is_found_on_both_sides() {
        let (one, two) = (json!({"a": [{"name": "x"}]}), json!({"a": [{"name": "x"}, {"name": "y"}]}));
        check(one.clone(), two.clone(), &[("a[y]", "absent", r#"{"name":"y"}"#)]);
        check(two, one, &[("a[y]", r#"{"name":"y"}"#, "absent")]);
        check(json!([1, 1]), json!([1]), &[("[1]", "1", "absent")]);
    }

    #[test]
    fn an_answer_is_not_a_closed_connection() {
        check(json!({"a": 1}), json!("closed"), &[("", r#"{"a":1}"#, r#""closed""#)]);
    }
}
