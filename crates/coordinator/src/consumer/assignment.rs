//! A set of partitions by topic id: what a member has, is to have, or must give up.
//!
//! Invariant: no topic is held without a partition, so that two equal sets are equal values.

use std::collections::{BTreeMap, BTreeSet};

use tidings_model::TopicId;

/// Partitions by topic id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Assignment(BTreeMap<TopicId, BTreeSet<i32>>);

impl Assignment {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn contains(&self, topic: TopicId, partition: i32) -> bool {
        self.0.get(&topic).is_some_and(|partitions| partitions.contains(&partition))
    }

    pub(crate) fn insert(&mut self, topic: TopicId, partition: i32) {
        self.0.entry(topic).or_default().insert(partition);
    }

    /// How many partitions there are.
    pub(crate) fn count(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (TopicId, i32)> {
        self.0.iter().flat_map(|(topic, partitions)| partitions.iter().map(move |index| (*topic, *index)))
    }

    /// Each topic with its partitions in order.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (TopicId, &BTreeSet<i32>)> {
        self.0.iter().map(|(topic, partitions)| (*topic, partitions))
    }

    /// What is in both.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        self.iter().filter(|(topic, partition)| other.contains(*topic, *partition)).collect()
    }

    /// What is here and not in the other.
    pub(crate) fn difference(&self, other: &Self) -> Self {
        self.iter().filter(|(topic, partition)| !other.contains(*topic, *partition)).collect()
    }

    /// What is in either.
    pub(crate) fn union(mut self, other: &Self) -> Self {
        for (topic, partitions) in &other.0 {
            self.0.entry(*topic).or_default().extend(partitions);
        }
        self
    }

    pub(crate) fn is_subset_of(&self, other: &Self) -> bool {
        self.iter().all(|(topic, partition)| other.contains(topic, partition))
    }

    pub(crate) fn intersects(&self, other: &Self) -> bool {
        self.iter().any(|(topic, partition)| other.contains(topic, partition))
    }
}

impl FromIterator<(TopicId, i32)> for Assignment {
    fn from_iter<I: IntoIterator<Item = (TopicId, i32)>>(partitions: I) -> Self {
        let mut assignment = Self::default();
        for (topic, partition) in partitions {
            assignment.insert(topic, partition);
        }
        assignment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(partitions: &[(u8, i32)]) -> Assignment {
        partitions.iter().map(|(topic, partition)| (TopicId([*topic; 16]), *partition)).collect()
    }

    #[test]
    fn sets_of_partitions_are_sets() {
        let (left, right) = (of(&[(1, 0), (1, 1), (2, 0)]), of(&[(1, 1), (3, 0)]));
        assert_eq!(left.intersection(&right), of(&[(1, 1)]));
        assert_eq!(left.difference(&right), of(&[(1, 0), (2, 0)]));
        assert_eq!(left.clone().union(&right), of(&[(1, 0), (1, 1), (2, 0), (3, 0)]));
        assert_eq!(left.difference(&left), Assignment::default());
        assert!(of(&[(1, 1)]).is_subset_of(&left) && !right.is_subset_of(&left) && left.intersects(&right));
        assert_eq!((left.count(), Assignment::default().count()), (3, 0));
    }
}
