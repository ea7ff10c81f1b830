//! What a request names more than once. Requests may name hundreds of thousands of things: nothing here is sought in a list.
//!
//! Owns the rule that whatever is described is described once for each request, as Kafka does for Metadata: otherwise a
//! small frame that repeats one name makes an answer larger than any memory. Does not know what is named.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

/// Keeps the first mention of each, in the order of the request.
pub(crate) fn first_of_each<T, K: Eq + Hash>(mut mentions: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = HashSet::with_capacity(mentions.len());
    mentions.retain(|mention| seen.insert(key(mention)));
    mentions
}

/// What is named once, and what is named more often; each of them once, in the order of the request.
pub(crate) fn once_and_repeated<T: Clone + Eq + Hash>(mentions: Vec<T>) -> (Vec<T>, Vec<T>) {
    let mut times: HashMap<&T, usize> = HashMap::with_capacity(mentions.len());
    for mention in &mentions {
        *times.entry(mention).or_default() += 1;
    }
    let repeated: HashSet<T> =
        times.into_iter().filter(|(_, times)| *times > 1).map(|(mention, _)| mention.clone()).collect();
    first_of_each(mentions, T::clone).into_iter().partition(|mention| !repeated.contains(mention))
}

/// The partitions that a request has named so far.
#[derive(Default)]
pub(crate) struct MentionedPartitions {
    topics: HashMap<String, HashSet<i32>>,
}

impl MentionedPartitions {
    /// Keeps those partitions of the topic that were not named before.
    pub(crate) fn keep_new(&mut self, topic: &str, partitions: &mut Vec<i32>) {
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.to_owned(), HashSet::new());
        }
        if let Some(seen) = self.topics.get_mut(topic) {
            partitions.retain(|partition| seen.insert(*partition));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mention_of_each_stays_in_its_place() {
        let mentions = vec![("b", 1), ("a", 2), ("b", 3), ("c", 4), ("a", 5)];
        let kept = first_of_each(mentions, |(name, _)| *name);
        assert_eq!(kept, [("b", 1), ("a", 2), ("c", 4)]);
    }

    #[test]
    fn what_is_repeated_is_told_apart_and_named_once() {
        let (once, repeated) = once_and_repeated(vec!["b", "a", "c", "b", "d", "c", "b"]);
        assert_eq!((once, repeated), (vec!["a", "d"], vec!["b", "c"]));
    }

    #[test]
    fn a_topic_may_be_named_in_parts_and_each_partition_counts_once() {
        let mut mentioned = MentionedPartitions::default();
        let mut keep = |topic: &str, mut partitions: Vec<i32>| {
            mentioned.keep_new(topic, &mut partitions);
            partitions
        };
        assert_eq!(keep("orders", vec![1, 0, 1]), [1, 0]);
        assert_eq!(keep("returns", vec![0]), [0]);
        assert_eq!(keep("orders", vec![0, 2]), [2]);
    }
}
