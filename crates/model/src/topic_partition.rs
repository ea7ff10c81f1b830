//! A topic and one of its partitions, and the folder name Kafka gives that pair.
//!
//! Owns the pair's text form (`orders-3`). Does not judge whether a topic name is legal: the broker does.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// One partition of one topic. Cloning copies a pointer, not the name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's index, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// The partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a topic-partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a topic-partition: expected a topic, a hyphen and a partition number")]
pub struct ParseTopicPartitionError {
    /// The text found.
    pub text: String,
}

impl FromStr for TopicPartition {
    type Err = ParseTopicPartitionError;

    /// Reads `orders-3`. Topics may contain hyphens, so the last one separates; only the digits that
    /// `Display` writes are accepted, so that a name maps to one partition and back.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseTopicPartitionError { text: text.to_owned() };
        let (topic, digits) = text.rsplit_once('-').ok_or_else(error)?;
        let canonical = digits == "0" || !digits.starts_with(['0', '+']);
        if topic.is_empty() || !canonical {
            return Err(error());
        }
        let partition: i32 = digits.parse().map_err(|_| error())?;
        if partition < 0 { Err(error()) } else { Ok(Self::new(topic, partition)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<(&str, i32)>) {
        let found: Option<TopicPartition> = text.parse().ok();
        assert_eq!(found, expect.map(|(topic, partition)| TopicPartition::new(topic, partition)), "{text}");
        if let Some(topic_partition) = found {
            assert_eq!(topic_partition.to_string(), text);
        }
    }

    #[test]
    fn folder_names_are_read_back() {
        check("orders-3", Some(("orders", 3)));
        check("a-b-c-0", Some(("a-b-c", 0)));
        check("-0", None);
        check("orders", None);
        check("orders-", None);
        check("orders--1", Some(("orders-", 1)));
        check("orders-03", None);
        check("orders-+3", None);
        check("orders-2147483648", None);
        check("orders-delete", None);
    }
}
