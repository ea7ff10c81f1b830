//! OffsetDelete: an administrator drops offsets of topics that a group no longer reads; and what a topic's
//! deletion drops.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidings_model::ErrorCode;

use super::{TopicErrors, TopicPartitions};
use crate::classic::group::ClassicGroup;
use crate::classic::state::GroupState;
use crate::coordinator::InFlight;
use crate::{Effects, GroupCoordinator, Outcome, Release, StorageFailure, records};

/// An OffsetDelete request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetDeleteRequest {
    /// The group; must not be empty.
    pub group_id: String,
    /// The partitions whose offsets are to go.
    pub topics: Vec<TopicPartitions>,
}

/// The answer to an OffsetDelete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetDeleteResponse {
    /// What went wrong with the whole request, if anything; then there are no topics.
    pub error: ErrorCode,
    /// In the order of the request.
    pub topics: Vec<TopicErrors>,
}

impl StorageFailure for OffsetDeleteResponse {
    fn fail(&mut self, error: ErrorCode) {
        *self = Self { error, topics: Vec::new() };
    }
}

impl GroupCoordinator {
    /// Handles an OffsetDelete. A partition without an offset counts as done; a topic that the group reads is
    /// refused.
    pub fn offset_delete(
        &mut self,
        now_ms: i64,
        request: OffsetDeleteRequest,
    ) -> Outcome<OffsetDeleteResponse> {
        let mut effects = Effects::default();
        let mut cx = self.shard.context(now_ms, &mut effects);
        let classic = self.groups.get(request.group_id.as_str());
        let consumer = self.consumer_groups.get(request.group_id.as_str());
        let error = match classic {
            _ if request.group_id.is_empty() => ErrorCode::InvalidGroupId,
            None if consumer.is_none() => ErrorCode::GroupIdNotFound,
            Some(group) => validate(group).err().unwrap_or_default(),
            None => ErrorCode::None,
        };
        if error != ErrorCode::None {
            return Outcome::now(OffsetDeleteResponse { error, topics: Vec::new() });
        }
        let group_id: Arc<str> = request.group_id.as_str().into();
        let is_read_by_members = |topic: &str| {
            classic.is_some_and(|group| group.is_subscribed_to(topic))
                || consumer.is_some_and(|group| group.is_subscribed_to(topic))
        };
        let mut topics = Vec::with_capacity(request.topics.len());
        for TopicPartitions { topic, partitions } in request.topics {
            let is_read = is_read_by_members(&topic);
            let error = if is_read { ErrorCode::GroupSubscribedToTopic } else { ErrorCode::None };
            for partition in &partitions {
                if !is_read && self.offsets.get(&group_id, &topic, *partition).is_some() {
                    cx.write(records::offset_tombstone(&group_id, &topic, *partition), InFlight::Offset);
                }
            }
            let partitions = partitions.into_iter().map(|partition| (partition, error)).collect();
            topics.push(TopicErrors { topic, partitions });
        }
        let response = OffsetDeleteResponse { error: ErrorCode::None, topics };
        Outcome { response, release: Release::WhenDurable, effects }
    }

    /// Topics that do not exist although there are offsets for them.
    pub fn missing_topics(&self) -> BTreeSet<String> {
        let committed = self.committed_offsets().map(|(_, topic, _, _)| topic);
        let pending = self.pending.groups().flat_map(|group_id| self.pending.partitions_of(group_id));
        let topics: BTreeSet<&str> = committed.chain(pending.map(|(topic, _)| topic)).collect();
        topics.into_iter().filter(|topic| self.topics.by_name(topic).is_none()).map(str::to_owned).collect()
    }

    /// Topics were deleted: drops every group's offsets of them.
    pub fn on_topics_deleted(&mut self, now_ms: i64, topics: &[&str]) -> Effects {
        let mut effects = Effects::default();
        let mut cx = self.shard.context(now_ms, &mut effects);
        for (group_id, committed) in self.offsets.iter() {
            for topic in topics {
                let partitions = committed.get(*topic).into_iter().flat_map(|partitions| partitions.keys());
                for partition in partitions {
                    cx.write(records::offset_tombstone(group_id, topic, *partition), InFlight::Offset);
                }
            }
        }
        for group_id in self.pending.groups() {
            let pending = self.pending.partitions_of(group_id).filter(|(topic, _)| topics.contains(topic));
            for (topic, partition) in pending {
                // A transaction that commits later must not bring them back.
                if self.offsets.get(group_id, topic, partition).is_none() {
                    cx.write(records::offset_tombstone(group_id, topic, partition), InFlight::Offset);
                }
            }
        }
        effects
    }
}

/// Only consumers say what they read; a group of another kind must be without members.
fn validate(group: &ClassicGroup) -> Result<(), ErrorCode> {
    if group.state() == GroupState::Empty || group.is_consumer_group() {
        Ok(())
    } else {
        Err(ErrorCode::NonEmptyGroup)
    }
}
