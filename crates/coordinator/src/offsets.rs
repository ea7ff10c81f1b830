//! The committed offsets of all groups of the shard.
//!
//! Invariant: changed only by replay. Does not know groups, nor which commits are allowed.

use std::collections::BTreeMap;
use std::sync::Arc;

/// An offset that a group committed, with what it said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset that the group will read.
    pub offset: i64,
    /// The leader epoch of the last record read; -1 when the client did not say.
    pub leader_epoch: i32,
    /// Free text of the client.
    pub metadata: String,
    /// When it was committed: expiry counts from here.
    pub commit_timestamp_ms: i64,
    /// When it ends by the client's own wish (OffsetCommit 2 to 4), or nothing when the broker's retention rules.
    pub expire_timestamp_ms: Option<i64>,
}

pub(crate) type Partitions = BTreeMap<i32, CommittedOffset>;
pub(crate) type Topics = BTreeMap<Arc<str>, Partitions>;

/// Group, topic, partition to offset.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    groups: BTreeMap<Arc<str>, Topics>,
}

impl Offsets {
    pub(crate) fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.groups.get(group)?.get(topic)?.get(&partition)
    }

    /// Everything a group committed.
    pub(crate) fn of_group(&self, group: &str) -> Option<&Topics> {
        self.groups.get(group)
    }

    /// Every partition a group committed an offset of.
    pub(crate) fn partitions_of(&self, group: &str) -> impl Iterator<Item = (&str, i32)> {
        let topics = self.of_group(group).into_iter().flatten();
        topics.flat_map(|(topic, partitions)| partitions.keys().map(|partition| (&**topic, *partition)))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Topics)> {
        self.groups.iter()
    }

    pub(crate) fn put(&mut self, group: &Arc<str>, topic: &str, partition: i32, offset: CommittedOffset) {
        let topics = self.groups.entry(group.clone()).or_default();
        match topics.get_mut(topic) {
            Some(partitions) => {
                partitions.insert(partition, offset);
            }
            None => {
                topics.insert(topic.into(), BTreeMap::from([(partition, offset)]));
            }
        }
    }

    pub(crate) fn remove(&mut self, group: &str, topic: &str, partition: i32) {
        let Some(topics) = self.groups.get_mut(group) else { return };
        let Some(partitions) = topics.get_mut(topic) else { return };
        partitions.remove(&partition);
        if partitions.is_empty() {
            topics.remove(topic);
        }
        if topics.is_empty() {
            self.groups.remove(group);
        }
    }
}
