//! The topics as every request sees them: a value that is replaced, never changed in part.
//!
//! Owns lookup by name and id. Invariants: both maps hold the same topics; a topic's partitions are dense from 0.
//! Changes come from the registry only, after the change is durable.

use std::collections::HashMap;
use std::sync::Arc;

use tidings_log::PartitionLog;
use tidings_model::TopicId;

use crate::settings::topic::TopicOverrides;
use crate::topics::names;

/// One topic and the logs of its partitions.
#[derive(Clone)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: TopicId,
    /// By partition index.
    pub(crate) partitions: Vec<Arc<PartitionLog>>,
    pub(crate) overrides: TopicOverrides,
}

impl Topic {
    pub(crate) fn is_internal(&self) -> bool {
        names::is_internal(&self.name)
    }

    /// The log of a partition, if the topic has it.
    pub(crate) fn partition(&self, index: i32) -> Option<&Arc<PartitionLog>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }

    pub(crate) fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }
}

/// All topics.
#[derive(Default)]
pub(crate) struct Image {
    by_name: HashMap<Arc<str>, Arc<Topic>>,
    by_id: HashMap<TopicId, Arc<Topic>>,
    /// Grows with every change.
    version: u64,
}

impl Image {
    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    pub(crate) fn by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// Grows with every change.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The names of all topics, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_name.keys()
    }

    /// All topics ordered by name.
    pub(crate) fn sorted(&self) -> Vec<Arc<Topic>> {
        let mut topics: Vec<_> = self.by_name.values().cloned().collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics
    }

    /// The name of a topic that the new name could be mistaken for.
    pub(crate) fn colliding(&self, name: &str) -> Option<&str> {
        if !name.contains(['.', '_']) {
            return None;
        }
        let key = names::collision_key(name);
        self.by_name.keys().find(|known| names::collision_key(known) == key).map(|known| &**known)
    }

    /// Adds a topic or replaces the one of the same name.
    pub(crate) fn put(&mut self, topic: Topic) {
        self.version += 1;
        let topic = Arc::new(topic);
        if let Some(old) = self.by_name.insert(topic.name.clone(), topic.clone()) {
            self.by_id.remove(&old.id);
        }
        self.by_id.insert(topic.id, topic);
    }

    pub(crate) fn remove(&mut self, id: TopicId) -> Option<Arc<Topic>> {
        let topic = self.by_id.remove(&id)?;
        self.version += 1;
        self.by_name.remove(&topic.name);
        Some(topic)
    }
}
