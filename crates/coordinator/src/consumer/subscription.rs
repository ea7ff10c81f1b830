//! What members read: names, regular expressions, and what the topics behind them look like.
//!
//! Owns the syntax of expressions, which is RE2's (as Kafka's): `regex` shares its grammar and its linear time. Topic
//! names are ASCII, so classes are too. Invariants: an expression must match a name as a whole; compiling is bounded by
//! [`COMPILED_MAX_BYTES`].

use std::collections::BTreeSet;

use regex::bytes::{Regex, RegexBuilder};
use tidings_model::TopicId;

use super::error::ConsumerGroupError;
use crate::TopicDirectory;

/// How large a compiled expression may become: the request that carries it is bounded, what it can ask for is not.
const COMPILED_MAX_BYTES: usize = 1 << 20;

/// The topics that an expression stood for when it was last looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResolvedRegex {
    pub(crate) topics: BTreeSet<String>,
    /// [`TopicDirectory::version`] at that time; kept in the record, as in Kafka, and otherwise of no use.
    pub(crate) version: i64,
    pub(crate) resolved_ms: i64,
}

/// Whether the text is an expression.
pub(crate) fn compile(text: &str) -> Result<Regex, ConsumerGroupError> {
    let build =
        |pattern: &str| RegexBuilder::new(pattern).unicode(false).size_limit(COMPILED_MAX_BYTES).build();
    let pattern = unquote(text);
    // By itself first: what follows would close a group that the text left open.
    let anchored = build(&pattern).and_then(|_| build(&format!(r"\A(?:{pattern})\z")));
    anchored.map_err(|error| ConsumerGroupError::InvalidRegularExpression {
        regex: text.to_owned(),
        why: error.to_string(),
    })
}

/// Writes RE2's `\Q...\E` in the form that `regex` knows.
fn unquote(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('\\') {
        let (before, escape) = rest.split_at(position);
        pattern.push_str(before);
        if let Some(quoted) = escape.strip_prefix(r"\Q") {
            let (literal, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
            pattern.push_str(&regex::escape(literal));
            rest = after;
        } else {
            // The escaped character may itself be a backslash.
            let end = escape.char_indices().nth(2).map_or(escape.len(), |(end, _)| end);
            pattern.push_str(&escape[..end]);
            rest = &escape[end..];
        }
    }
    pattern.push_str(rest);
    pattern
}

/// The topics that an expression stands for now.
pub(crate) fn resolve(
    text: &str,
    topics: &dyn TopicDirectory,
    now_ms: i64,
) -> Result<ResolvedRegex, ConsumerGroupError> {
    let regex = compile(text)?;
    let version = i64::try_from(topics.version()).unwrap_or(i64::MAX);
    let names = topics.matching(&|name| regex.is_match(name.as_bytes()));
    Ok(ResolvedRegex {
        topics: names.into_iter().map(|name| name.to_string()).collect(),
        version,
        resolved_ms: now_ms,
    })
}

/// The topics of these names that exist, by id.
pub(crate) fn topic_ids<'a>(
    names: impl Iterator<Item = &'a str>,
    topics: &dyn TopicDirectory,
) -> BTreeSet<TopicId> {
    names.filter_map(|name| topics.by_name(name)).map(|topic| topic.id).collect()
}

/// A number that differs when the topics behind these names do: 0 if none of them exists, otherwise FNV-1a over names,
/// ids and sizes. It is kept in the group's record, so that a restart is no reason to rebalance.
pub(crate) fn metadata_hash(names: &BTreeSet<&str>, topics: &dyn TopicDirectory) -> i64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = BASIS;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    };
    for name in names {
        let Some(topic) = topics.by_name(name) else { continue };
        add(name.as_bytes());
        // No name has this byte: two lists of topics cannot run into each other.
        add(&[0]);
        add(&topic.id.0);
        add(&topic.partition_count.to_be_bytes());
    }
    if hash == BASIS { 0 } else { i64::from_be_bytes(hash.to_be_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(regex: &str, matches: &[&str], others: &[&str]) {
        let compiled = compile(regex).unwrap();
        for name in matches {
            assert!(compiled.is_match(name.as_bytes()), "{regex} and {name}");
        }
        for name in others {
            assert!(!compiled.is_match(name.as_bytes()), "{regex} and {name}");
        }
    }

    #[test]
    fn an_expression_matches_whole_names() {
        check("orders.*", &["orders", "orders-1"], &["my-orders"]);
        check("a|b", &["a", "b"], &["ab", "ax", "xb"]);
        check("(?i)ORDERS", &["orders"], &["order"]);
        check(r"t\d+", &["t1", "t12"], &["t", "tx"]);
        check(r"\Qa.b\E\d", &["a.b1"], &["axb1", "a.b"]);
        check(r"\Qa.b", &["a.b"], &["axb"]);
        check(r"a\\Q", &[r"a\Q"], &["aQ"]);
        check("", &[""], &["a"]);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["(", "[", "a)(b", "*", r"(?=a)b", r"(a)\1", "a{1000}{1000}{1000}"] {
            let error = compile(text).unwrap_err();
            assert_eq!(error.code(), tidings_model::ErrorCode::InvalidRegularExpression, "{text}");
        }
    }
}
