//! How partitions are spread over members: the assignors of `group.consumer.assignors`.
//!
//! Owns what an assignor sees and the choice among them. Invariants, of every assignor: a partition goes to exactly one
//! member among those subscribed to its topic, and the result depends on nothing but what it is given. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidings_model::TopicId;

use super::assignment::Assignment;

mod balanced;
mod range;
#[cfg(test)]
mod tests;
mod uniform;

/// What each member keeps.
type Kept = BTreeMap<Arc<str>, Assignment>;

/// An assignor that this broker offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Assignor {
    /// Everybody has about as much as everybody else, and keeps what it has.
    #[default]
    Uniform,
    /// Members in order have adjacent partitions of each topic.
    Range,
}

impl Assignor {
    /// Every assignor, in the order of Kafka's default.
    pub const ALL: [Self; 2] = [Self::Uniform, Self::Range];

    /// Its name in requests and settings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// The assignor of this name, if it is among those offered.
    pub fn by_name(name: &str, offered: &[Self]) -> Option<Self> {
        offered.iter().copied().find(|assignor| assignor.name() == name)
    }

    /// Spreads the partitions.
    pub(crate) fn assign(self, group: &GroupView) -> BTreeMap<Arc<str>, Assignment> {
        match self {
            Self::Range => range::assign(group),
            Self::Uniform if group.is_homogeneous() => uniform::assign(group),
            Self::Uniform => balanced::assign(group),
        }
    }
}

/// A member, as an assignor sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemberView {
    pub(crate) instance_id: Option<Arc<str>>,
    /// Topics that exist.
    pub(crate) topics: BTreeSet<TopicId>,
    /// What it was to have so far.
    pub(crate) current: Assignment,
}

/// A group, as an assignor sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupView {
    pub(crate) members: BTreeMap<Arc<str>, MemberView>,
    /// The size of every topic that a member reads.
    pub(crate) partition_counts: BTreeMap<TopicId, i32>,
}

impl GroupView {
    /// Whether everybody reads the same topics.
    fn is_homogeneous(&self) -> bool {
        let mut subscriptions = self.members.values().map(|member| &member.topics);
        let Some(first) = subscriptions.next() else { return true };
        subscriptions.all(|topics| topics == first)
    }

    fn partitions(&self) -> impl Iterator<Item = (TopicId, i32)> {
        self.partition_counts.iter().flat_map(|(topic, count)| (0..*count).map(move |index| (*topic, index)))
    }

    fn exists(&self, topic: TopicId, partition: i32) -> bool {
        self.partition_counts.get(&topic).is_some_and(|count| (0..*count).contains(&partition))
    }

    /// What each member may keep, nothing of it twice, and the partitions that nobody keeps.
    fn keep_current(&self) -> (Kept, Vec<(TopicId, i32)>) {
        let mut taken = BTreeSet::new();
        let mut kept = BTreeMap::new();
        for (member_id, member) in &self.members {
            let mut own = Assignment::default();
            for (topic, partition) in member.current.iter() {
                let may = member.topics.contains(&topic) && self.exists(topic, partition);
                if may && taken.insert((topic, partition)) {
                    own.insert(topic, partition);
                }
            }
            kept.insert(member_id.clone(), own);
        }
        let is_free = |partition: &(TopicId, i32)| !taken.contains(partition);
        (kept, self.partitions().filter(is_free).collect())
    }
}
