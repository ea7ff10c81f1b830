//! Takes secrets out of what is recorded, by the names of fields.

use serde_json::{Map, Value};

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Parts of names, in lower case and without anything but letters and digits.
const PARTS: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "authorization",
    "cookie",
    "apikey",
    "credential",
    "privatekey",
    "cardnumber",
    "sessionid",
];
/// Whole names, likewise.
const NAMES: [&str; 6] = ["pwd", "pin", "cvv", "cvc", "otp", "ssn"];

/// The value of a field, without secrets.
pub(crate) fn redact(name: &str, value: Value) -> Value {
    if is_secret(name) {
        return REDACTED.into();
    }
    match value {
        Value::Object(fields) => Value::Object(
            fields.into_iter().map(|(name, value)| (name.clone(), redact(&name, value))).collect(),
        ),
        Value::Array(elements) => elements.into_iter().map(|element| redact("", element)).collect(),
        other => other,
    }
}

/// The pairs of a query, as they are written, without secrets.
pub(crate) fn redact_query(query: &str) -> Map<String, Value> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let split = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // An encoded name may be that of a secret.
        let value = if name.contains(['%', '+']) { REDACTED.into() } else { redact(name, value.into()) };
        (name.to_owned(), value)
    };
    pairs.map(split).collect()
}

fn is_secret(name: &str) -> bool {
    let name: String =
        name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    NAMES.contains(&name.as_str()) || PARTS.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_replaced_wherever_they_lie_and_nothing_else_is() {
        let value = json!({"user": "ada", "Pass-Word": "x", "nested": [{"api_key": 1, "count": 2}], "tokens": [1], "spinning": 3});
        let expect = json!({
            "user": "ada", "Pass-Word": REDACTED, "nested": [{"api_key": REDACTED, "count": 2}], "tokens": REDACTED,
            "spinning": 3
        });
        assert_eq!(redact("form", value), expect);
        assert_eq!(redact("cvv", json!(123)), REDACTED);
    }

    #[test]
    fn a_query_keeps_its_pairs() {
        let found = Value::Object(redact_query("note=hi&token=s3cret&pass%77ord=x&&flag&pin=1"));
        let expect =
            json!({"note": "hi", "token": REDACTED, "pass%77ord": REDACTED, "flag": "", "pin": REDACTED});
        assert_eq!(found, expect);
    }
}
