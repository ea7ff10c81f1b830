//! Takes secrets out of what is recorded, by the names of fields. `packages/express` has the same lists, and both are
//! tested with its `secret-names.json`.

use serde_json::{Map, Value};

/// What stands in the place of a secret.
///
/// ```
/// use tidings_tower::{Activity, REDACTED};
///
/// let activity = Activity::new("acme", "user.invited").metadata("inviteToken", "s3cret");
/// assert_eq!(serde_json::to_value(&activity)?["metadata"]["inviteToken"], REDACTED);
/// # Ok::<(), serde_json::Error>(())
/// ```
pub const REDACTED: &str = "[redacted]";

/// Deeper values are left out: the platform takes 32 levels.
const MAX_DEPTH: usize = 16;

/// Anywhere in a name, in lower case and without anything but letters and digits.
const PARTS: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "pwd",
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
/// As a word of a name: `userPin` and `pin_2`, but not `spinning`.
const WORDS: [&str; 9] = ["pass", "auth", "pin", "cvv", "cvc", "otp", "ssn", "jwt", "sid"];

/// The value of a field, without secrets.
pub(crate) fn redact(name: &str, value: Value) -> Value {
    if is_secret(name) { REDACTED.into() } else { inside(value, 1) }
}

fn inside(value: Value, depth: usize) -> Value {
    match value {
        Value::Object(_) | Value::Array(_) if depth == MAX_DEPTH => "[too deep]".into(),
        Value::Object(fields) => {
            let redacted = fields.into_iter().map(|(name, value)| {
                let value = if is_secret(&name) { REDACTED.into() } else { inside(value, depth + 1) };
                (name, value)
            });
            Value::Object(redacted.collect())
        }
        Value::Array(elements) => elements.into_iter().map(|element| inside(element, depth + 1)).collect(),
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
    let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let letters = letters.to_ascii_lowercase();
    PARTS.iter().any(|part| letters.contains(part))
        || words(name).any(|word| WORDS.iter().any(|secret| word.eq_ignore_ascii_case(secret)))
}

/// The words of `userPin`, `user_pin` and `USERPin`: `user` and `pin`.
fn words(name: &str) -> impl Iterator<Item = &str> {
    let letters = name.as_bytes();
    let ends_at = move |at: usize| {
        let [before, this] = [letters[at - 1], letters[at]];
        let next_is_lower = letters.get(at + 1).is_some_and(u8::is_ascii_lowercase);
        !this.is_ascii_alphabetic()
            || !before.is_ascii_alphabetic()
            || this.is_ascii_uppercase() && (before.is_ascii_lowercase() || next_is_lower)
    };
    let mut rest = 0;
    std::iter::from_fn(move || {
        let start = rest;
        // Bytes of letters beyond ASCII are words of their own, and are cut where characters are.
        let is_end = |at: &usize| name.is_char_boundary(*at) && ends_at(*at);
        rest = (start + 1..letters.len()).find(is_end).unwrap_or(letters.len());
        (start < letters.len()).then(|| &name[start..rest])
    })
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
    fn the_names_of_secrets_are_those_that_are_agreed_on() {
        let names: Value =
            serde_json::from_str(include_str!("../../../packages/express/test/secret-names.json")).unwrap();
        assert_eq!((&names["parts"], &names["words"]), (&json!(PARTS), &json!(WORDS)));
        for (list, expect) in [("secret", true), ("not_secret", false)] {
            for name in names[list].as_array().unwrap() {
                let name = name.as_str().unwrap();
                assert_eq!(is_secret(name), expect, "{name:?}");
            }
        }
    }

    #[test]
    fn deep_values_are_cut() {
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        assert!(redact("deep", deep).to_string().ends_with("[\"[too deep]\"]]]]]]]]]]]]]]]"));
    }

    #[test]
    fn a_query_keeps_its_pairs() {
        let found = Value::Object(redact_query("note=hi&token=s3cret&pass%77ord=x&&flag&pin=1"));
        let expect =
            json!({"note": "hi", "token": REDACTED, "pass%77ord": REDACTED, "flag": "", "pin": REDACTED});
        assert_eq!(found, expect);
    }
}
