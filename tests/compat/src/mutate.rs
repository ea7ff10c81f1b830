//! Requests that differ from a sensible one in one field.
//!
//! Owns which values are tried for a type: the bounds, the numbers around what means something in the protocol, null where
//! it may or may not be, nothing, twice the same, names that no topic may have. What is tried depends on the definitions
//! and the request only, so that both brokers are asked the same.

use serde_json::{Value, json};

use crate::definitions::{Field, Fields, Kind};

/// A changed request.
#[derive(Debug)]
pub struct Mutation {
    /// What was changed to what.
    pub what: String,
    /// The request.
    pub body: Value,
}

/// Every change of one field of `body` that `version` can carry, but for the fields in `except` (paths without indexes).
pub fn mutations(fields: &Fields, version: i16, body: &Value, except: &[&str]) -> Vec<Mutation> {
    let mut found = Vec::new();
    let mut walk = Walk { version, except, body, found: &mut found };
    walk.fields(fields, body, &mut Vec::new());
    found
}

/// A step into a message: a field's name, or the first element of an array.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    First,
}

struct Walk<'a> {
    version: i16,
    except: &'a [&'a str],
    body: &'a Value,
    found: &'a mut Vec<Mutation>,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &Fields, holder: &Value, path: &mut Vec<Step>) {
        let version = self.version;
        for field in fields.iter().filter(|field| field.versions.contains(version)) {
            path.push(Step::Field(field.name.clone()));
            if !self.except.contains(&text(path).as_str()) {
                let value = holder.get(&field.name).unwrap_or(&field.default);
                for other in others(field, self.version, value) {
                    self.change(path, &other);
                }
                self.descend(&field.kind, value, path);
            }
            path.pop();
        }
    }

    fn descend(&mut self, kind: &Kind, value: &Value, path: &mut Vec<Step>) {
        match kind {
            Kind::Struct(fields) if !value.is_null() => self.fields(fields, value, path),
            Kind::Array(element) => {
                let Some(first) = value.as_array().and_then(|elements| elements.first()) else { return };
                path.push(Step::First);
                match &**element {
                    Kind::Struct(fields) => self.fields(fields, first, path),
                    plain => {
                        values(plain)
                            .into_iter()
                            .filter(|other| other != first)
                            .for_each(|other| self.change(path, &other));
                    }
                }
                path.pop();
            }
            _ => {}
        }
    }

    fn change(&mut self, path: &[Step], value: &Value) {
        let mut body = self.body.clone();
        let mut place = &mut body;
        for step in path {
            place = match step {
                Step::Field(name) => &mut place[name.as_str()],
                Step::First => &mut place[0],
            };
        }
        *place = value.clone();
        let shown: String = value.to_string().chars().take(40).collect();
        self.found.push(Mutation { what: format!("{} = {shown}", text(path)), body });
    }
}

/// A path without indexes: `topics.partitions.timestamp`.
fn text(path: &[Step]) -> String {
    let names = path.iter().filter_map(|step| match step {
        Step::Field(name) => Some(name.as_str()),
        Step::First => None,
    });
    names.collect::<Vec<_>>().join(".")
}

/// What a field could be instead of `value`.
fn others(field: &Field, version: i16, value: &Value) -> Vec<Value> {
    let mut others = match (&field.kind, value) {
        (Kind::Array(_), Value::Array(elements)) => arrays(elements),
        (kind, _) => values(kind),
    };
    // Null where it may not be is malformed; a tagged field that is null is not written, a number has no null.
    let has_null = matches!(field.kind, Kind::String | Kind::Bytes | Kind::Records | Kind::Array(_))
        || (matches!(field.kind, Kind::Struct(_)) && field.nullable.contains(version));
    if has_null && field.tag_in(version).is_none() {
        others.push(Value::Null);
    }
    others.retain(|other| other != value);
    others
}

fn arrays(elements: &[Value]) -> Vec<Value> {
    let mut arrays = vec![json!([])];
    if let Some(first) = elements.first() {
        arrays.push(json!([first, first]));
    }
    arrays
}

fn values(kind: &Kind) -> Vec<Value> {
    match kind {
        Kind::Bool => vec![json!(false), json!(true)],
        Kind::Int(1) => numbers(&[i64::from(i8::MIN), i64::from(i8::MAX)]),
        Kind::Int(2) => numbers(&[i64::from(i16::MIN), i64::from(i16::MAX)]),
        Kind::Int(4) => numbers(&[i64::from(i32::MIN), i64::from(i32::MAX)]),
        Kind::Int(_) => numbers(&[i64::MIN, i64::MAX]),
        Kind::Unsigned(_) => vec![json!(0), json!(0xffff)],
        Kind::Float => vec![json!(0.0), json!(-1.0)],
        Kind::Uuid => vec![json!("0".repeat(32)), json!("0".repeat(31) + "1"), json!("f".repeat(32))],
        Kind::String => {
            vec![json!(""), json!("nobody"), json!("no/name: ü"), json!("x".repeat(250)), json!("..")]
        }
        Kind::Bytes | Kind::Records => vec![json!(""), json!("hex:00"), json!("garbage that is no batch")],
        Kind::Struct(_) | Kind::Array(_) => Vec::new(),
    }
}

fn numbers(bounds: &[i64]) -> Vec<Value> {
    [-3, -2, -1, 0, 1, 2, 99].iter().chain(bounds).map(|number| json!(number)).collect()
}
