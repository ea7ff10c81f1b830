//! What the group coordinator sees of the topics.

use std::sync::Arc;

use tidings_coordinator::{TopicDirectory, TopicInfo};
use tidings_model::TopicId;

use crate::topics::TopicRegistry;

impl TopicDirectory for TopicRegistry {
    fn version(&self) -> u64 {
        self.inner.image.read().version()
    }

    fn by_name(&self, name: &str) -> Option<TopicInfo> {
        let image = self.inner.image.read();
        let topic = image.by_name(name)?;
        Some(TopicInfo { id: topic.id, partition_count: topic.partition_count() })
    }

    fn name_of(&self, id: TopicId) -> Option<Arc<str>> {
        self.inner.image.read().by_id(id).map(|topic| topic.name.clone())
    }

    fn matching(&self, matches: &dyn Fn(&str) -> bool) -> Vec<Arc<str>> {
        self.inner.image.read().names().filter(|name| matches(name)).cloned().collect()
    }
}
