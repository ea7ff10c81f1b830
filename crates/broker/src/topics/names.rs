//! Which topic names are legal.
//!
//! Owns Kafka's rules, with Kafka's words: clients show them to people.

/// The longest legal name: it becomes part of a folder name.
const MAX_NAME_BYTES: usize = 249;

/// The topic that keeps groups and offsets.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The topic that keeps transactions.
pub(crate) const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// The log that keeps topics and producer id blocks; not a topic that clients see, nor may they make one of that name.
pub(crate) const METADATA_TOPIC: &str = "__cluster_metadata";

/// Whether clients may not write to it.
pub(crate) fn is_internal(name: &str) -> bool {
    matches!(name, OFFSETS_TOPIC | TRANSACTIONS_TOPIC)
}

/// Checks a name; the error is a sentence for the client.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("Topic name is invalid: the empty string is not allowed".to_owned());
    }
    if name == "." || name == ".." {
        return Err("Topic name is invalid: '.' or '..' is not allowed".to_owned());
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(format!(
            "Topic name is invalid: the length of '{name}' is longer than the max allowed length {MAX_NAME_BYTES}"
        ));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return Err(format!(
            "Topic name is invalid: '{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ));
    }
    Ok(())
}

/// The form in which two names collide: metrics of many systems cannot tell a period from an underscore.
pub(crate) fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, legal: bool) {
        assert_eq!(check_name(name).is_ok(), legal, "{name}");
    }

    #[test]
    fn names_are_judged_as_kafka_does() {
        for name in ["a", "orders", "a.b_c-D9", "...", &"x".repeat(249), OFFSETS_TOPIC, METADATA_TOPIC] {
            check(name, true);
        }
        for name in ["", ".", "..", "a b", "ü", "a/b", "a\0", &"x".repeat(250)] {
            check(name, false);
        }
    }

    #[test]
    fn period_and_underscore_collide() {
        assert_eq!(collision_key("a.b"), collision_key("a_b"));
        assert_ne!(collision_key("a.b"), collision_key("a-b"));
    }
}
