//! Offsets that were committed in transactions which have not ended yet (KIP-98, KIP-447).
//!
//! Owns what waits for a marker. Invariants: changed only by replay; a commit that was written later than a waiting one,
//! in a transaction or not, wins over it however late the marker comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::CommittedOffset;

type TopicPartition = (Arc<str>, i32);

/// Group, topic-partition and producer to what waits.
#[derive(Debug, Default)]
pub(crate) struct PendingOffsets {
    groups: BTreeMap<Arc<str>, BTreeMap<TopicPartition, BTreeMap<i64, Pending>>>,
    /// The groups each producer has something waiting in.
    producers: BTreeMap<i64, BTreeSet<Arc<str>>>,
    /// Counts commits, so that their order in the log is known.
    written: u64,
}

/// An offset whose transaction was committed.
#[derive(Debug)]
pub(crate) struct EndedOffset {
    pub(crate) group: Arc<str>,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) offset: CommittedOffset,
}

#[derive(Debug)]
struct Pending {
    order: u64,
    offset: CommittedOffset,
    is_superseded: bool,
}

impl PendingOffsets {
    /// A commit in a transaction.
    pub(crate) fn put(
        &mut self,
        producer_id: i64,
        group: &Arc<str>,
        topic: &str,
        partition: i32,
        offset: CommittedOffset,
    ) {
        self.written += 1;
        let pending = Pending { order: self.written, offset, is_superseded: false };
        let partitions = self.groups.entry(group.clone()).or_default();
        partitions.entry((topic.into(), partition)).or_default().insert(producer_id, pending);
        self.producers.entry(producer_id).or_default().insert(group.clone());
    }

    /// A commit outside of transactions: what waits for the partition was written before it.
    pub(crate) fn supersede(&mut self, group: &str, topic: &str, partition: i32) {
        // Nearly every commit meets no transaction.
        let Some(partitions) = self.groups.get_mut(group) else { return };
        let waiting = partitions.get_mut(&(topic.into(), partition));
        waiting.into_iter().flat_map(BTreeMap::values_mut).for_each(|pending| pending.is_superseded = true);
    }

    /// The partition's offsets are gone, and with them what waits.
    pub(crate) fn remove(&mut self, group: &str, topic: &str, partition: i32) {
        let Some(partitions) = self.groups.get_mut(group) else { return };
        partitions.remove(&(topic.into(), partition));
        if partitions.is_empty() {
            self.groups.remove(group);
        }
    }

    /// The producer's transaction has ended: takes out what waited for that. Where it was committed, gives the offsets that
    /// count now; earlier ones that wait in other transactions lose against them.
    pub(crate) fn end(&mut self, producer_id: i64, is_commit: bool) -> Vec<EndedOffset> {
        let mut ended = Vec::new();
        for group in self.producers.remove(&producer_id).unwrap_or_default() {
            let Some(partitions) = self.groups.get_mut(&group) else { continue };
            partitions.retain(|topic_partition, waiting| {
                if let Some(Pending { order, offset, is_superseded: false }) = waiting.remove(&producer_id)
                    && is_commit
                {
                    waiting.values_mut().for_each(|other| other.is_superseded |= other.order < order);
                    let (topic, partition) = topic_partition.clone();
                    ended.push(EndedOffset { group: group.clone(), topic, partition, offset });
                }
                !waiting.is_empty()
            });
            if partitions.is_empty() {
                self.groups.remove(&group);
            }
        }
        ended
    }

    /// Whether something waits for the partition.
    pub(crate) fn has(&self, group: &str, topic: &str, partition: i32) -> bool {
        self.groups.get(group).is_some_and(|partitions| partitions.contains_key(&(topic.into(), partition)))
    }

    /// Every partition of the group for which something waits.
    pub(crate) fn partitions_of(&self, group: &str) -> impl Iterator<Item = (&str, i32)> {
        let partitions = self.groups.get(group).into_iter().flat_map(BTreeMap::keys);
        partitions.map(|(topic, partition)| (&**topic, *partition))
    }

    /// Every group for which something waits.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Arc<str>> {
        self.groups.keys()
    }
}
