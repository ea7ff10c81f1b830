//! Why a JSON value is no draft: every misshapen field by its path.
//!
//! The fast path parses straight into a `Draft` and stops at the first error, of which serde knows the column and not
//! the field. Only when that has failed is the value read again here, as a tree, to say precisely what is wrong. So
//! this module decides nothing: it explains a refusal, and falls back on serde's own words where it finds no reason.
//! It stops looking when it has found more than an answer tells: whoever sends nothing but errors costs little.

use serde_json::{Map, Value};
use tidings_http::{FieldError, FieldErrors};

/// What shape a field has.
enum Shape {
    Text,
    Entity,
    Entities,
    Context,
    Any,
}

const DRAFT: &[(&str, Shape, Required)] = &[
    ("id", Shape::Text, Required::No),
    ("tenant", Shape::Text, Required::Yes),
    ("actor", Shape::Entity, Required::No),
    ("action", Shape::Text, Required::Yes),
    ("targets", Shape::Entities, Required::No),
    ("context", Shape::Context, Required::No),
    ("metadata", Shape::Any, Required::No),
    ("occurred_at", Shape::Text, Required::No),
    ("received_at", Shape::Text, Required::No),
];

const ENTITY: &[(&str, Shape, Required)] = &[
    ("type", Shape::Text, Required::No),
    ("id", Shape::Text, Required::Yes),
    ("name", Shape::Text, Required::No),
];

const CONTEXT: &[(&str, Shape, Required)] = &[
    ("ip", Shape::Text, Required::No),
    ("user_agent", Shape::Text, Required::No),
    ("request_id", Shape::Text, Required::No),
    ("correlation_id", Shape::Text, Required::No),
];

#[derive(PartialEq, Eq, Clone, Copy)]
enum Required {
    Yes,
    No,
}

/// Why `json`, which is well formed, is no draft; `refused` is what the fast path said, and is used where no field is
/// to blame.
pub fn refused(json: &str, refused: &serde_json::Error) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if let Ok(value) = serde_json::from_str(json) {
        object("", &value, DRAFT, &mut errors);
    }
    if errors.is_empty() {
        errors.push(FieldError::new("", reason(refused)));
    }
    errors
}

/// serde's words without the position, which belongs to one element or one line and is told otherwise.
pub fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn object(path: &str, value: &Value, fields: &[(&str, Shape, Required)], errors: &mut FieldErrors) {
    let Value::Object(map) = value else {
        errors.push(FieldError::new(path, format!("expected an object, found {}", kind(value))));
        return;
    };
    for (name, shape, required) in fields {
        let at = join(path, name);
        match map.get(*name) {
            None if *required == Required::Yes => errors.push(FieldError::new(at, "is missing")),
            Some(Value::Null) if *required == Required::Yes => {
                errors.push(FieldError::new(at, "expected a string, found null"));
            }
            None | Some(Value::Null) => {}
            Some(value) => field(&at, value, shape, errors),
        }
    }
    unknown(path, map, fields, errors);
}

fn field(path: &str, value: &Value, shape: &Shape, errors: &mut FieldErrors) {
    match shape {
        Shape::Text if !value.is_string() => {
            errors.push(FieldError::new(path, format!("expected a string, found {}", kind(value))));
        }
        Shape::Text | Shape::Any => {}
        Shape::Entity => object(path, value, ENTITY, errors),
        Shape::Context => object(path, value, CONTEXT, errors),
        Shape::Entities => match value {
            Value::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    if errors.has_more() {
                        return;
                    }
                    object(&format!("{path}[{index}]"), element, ENTITY, errors);
                }
            }
            other => errors.push(FieldError::new(path, format!("expected an array, found {}", kind(other)))),
        },
    }
}

fn unknown(
    path: &str,
    map: &Map<String, Value>,
    fields: &[(&str, Shape, Required)],
    errors: &mut FieldErrors,
) {
    for name in map.keys().filter(|name| fields.iter().all(|(known, ..)| known != name)) {
        if errors.has_more() {
            return;
        }
        let known: Vec<&str> = fields.iter().map(|(known, ..)| *known).collect();
        let shown: String = name.chars().take(64).collect();
        errors
            .push(FieldError::new(join(path, &shown), format!("is unknown; known are {}", known.join(", "))));
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use crate::activity::Draft;
    use crate::limits::MAX_ACTIVITY_BYTES;

    use super::*;

    /// Some hundred bytes for each of two that were sent would be a way to fill the memory.
    #[test]
    fn nothing_but_errors_costs_no_more_than_a_few() {
        let targets = format!(r#"{{"tenant":"t","action":"a","targets":[{}1]}}"#, "1,".repeat(32_700));
        let keys: String = (0..6000).map(|key| format!(r#","{key}":1"#)).collect();
        let unknown = format!(r#"{{"tenant":"t","action":"a"{keys}}}"#);
        for json in [targets, unknown] {
            assert!(json.len() <= MAX_ACTIVITY_BYTES);
            let error = serde_json::from_str::<Draft<'_>>(&json).unwrap_err();
            let errors = refused(&json, &error);
            assert_eq!((errors.listed().len(), errors.has_more()), (100, true));
        }
    }
}
