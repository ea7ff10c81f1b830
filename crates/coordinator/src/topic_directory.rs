//! What the coordinator must know about topics: their ids, sizes and names.
//!
//! Owns the question only; the broker answers it from its registry, tests from a map. Invariant: whatever changes an
//! answer changes [`TopicDirectory::version`] too, so that a group looks again only when there is something to see.

use std::sync::Arc;

use tidings_model::TopicId;

/// A topic that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its id.
    pub id: TopicId,
    /// How many partitions it has.
    pub partition_count: i32,
}

/// The topics there are now.
pub trait TopicDirectory: Send + Sync {
    /// Grows with every topic that is created, deleted or given more partitions.
    fn version(&self) -> u64;

    /// The topic of this name.
    fn by_name(&self, name: &str) -> Option<TopicInfo>;

    /// The name of the topic with this id.
    fn name_of(&self, id: TopicId) -> Option<Arc<str>>;

    /// The names that `matches` accepts, in any order.
    fn matching(&self, matches: &dyn Fn(&str) -> bool) -> Vec<Arc<str>>;
}

/// There are no topics: what a coordinator starts with.
#[derive(Debug)]
pub(crate) struct NoTopics;

impl TopicDirectory for NoTopics {
    fn version(&self) -> u64 {
        0
    }

    fn by_name(&self, _name: &str) -> Option<TopicInfo> {
        None
    }

    fn name_of(&self, _id: TopicId) -> Option<Arc<str>> {
        None
    }

    fn matching(&self, _matches: &dyn Fn(&str) -> bool) -> Vec<Arc<str>> {
        Vec::new()
    }
}
