//! ConsumerGroupDescribe (KIP-848): one group of the consumer protocol with its members.

use std::sync::Arc;

use tidings_model::TopicId;

use crate::consumer::assignment::Assignment;
use crate::consumer::group::ConsumerGroup;
use crate::consumer::member::Member;
use crate::{GroupCoordinator, GroupState};

/// Partitions as an administrator sees them: topics that are gone have no name and are left out.
pub type DescribedAssignment = Vec<(TopicId, Arc<str>, Vec<i32>)>;

/// A member of a described group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedConsumerMember {
    /// Its id.
    pub member_id: String,
    /// Its static instance.
    pub instance_id: Option<String>,
    /// Where it says it is.
    pub rack_id: Option<String>,
    /// The epoch it is in.
    pub member_epoch: i32,
    /// The client id it joined with.
    pub client_id: String,
    /// The address it joined from.
    pub client_host: String,
    /// The topics it names.
    pub subscribed_topic_names: Vec<String>,
    /// The expression for topics it reads.
    pub subscribed_topic_regex: Option<String>,
    /// What it has.
    pub assignment: DescribedAssignment,
    /// What it is to have.
    pub target_assignment: DescribedAssignment,
    /// Whether it still speaks the classic protocol (version 1 on).
    pub is_classic: bool,
}

/// A described group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedConsumerGroup {
    /// Its state.
    pub state: GroupState,
    /// Its epoch.
    pub group_epoch: i32,
    /// The epoch that its target assignment was computed for.
    pub assignment_epoch: i32,
    /// The assignor that it uses.
    pub assignor_name: &'static str,
    /// Its members by id.
    pub members: Vec<DescribedConsumerMember>,
}

/// Why a group cannot be described by this API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAConsumerGroup {
    /// It is of the classic protocol.
    Classic,
    /// There is none.
    Missing,
}

impl GroupCoordinator {
    /// Handles a ConsumerGroupDescribe for one group.
    pub fn describe_consumer_group(
        &self,
        group_id: &str,
    ) -> Result<DescribedConsumerGroup, NotAConsumerGroup> {
        self.assert_replayed();
        let Some(group) = self.consumer_groups.get(group_id) else {
            let is_classic = self.groups.contains_key(group_id);
            return Err(if is_classic { NotAConsumerGroup::Classic } else { NotAConsumerGroup::Missing });
        };
        let offered = &self.shard.settings.consumer.assignors;
        Ok(DescribedConsumerGroup {
            state: group.state(),
            group_epoch: group.epoch,
            assignment_epoch: group.target_epoch,
            assignor_name: ConsumerGroup::preferred_assignor(group.members.values(), offered).name(),
            members: group.members.values().map(|member| self.describe_member(group, member)).collect(),
        })
    }

    fn describe_member(&self, group: &ConsumerGroup, member: &Member) -> DescribedConsumerMember {
        DescribedConsumerMember {
            member_id: member.id.to_string(),
            instance_id: member.instance_id.as_deref().map(str::to_owned),
            rack_id: member.rack_id.clone(),
            member_epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            subscribed_topic_names: member.subscribed_names.iter().cloned().collect(),
            subscribed_topic_regex: member.subscribed_regex.clone(),
            // What it has not given up yet, it still has.
            assignment: self.describe_assignment(&member.assigned.clone().union(&member.pending_revocation)),
            target_assignment: self.describe_assignment(&group.target_of(member)),
            is_classic: member.uses_classic_protocol(),
        }
    }

    fn describe_assignment(&self, assignment: &Assignment) -> DescribedAssignment {
        let named = assignment.topics().filter_map(|(topic, partitions)| {
            Some((topic, self.topics.name_of(topic)?, partitions.iter().copied().collect()))
        });
        named.collect()
    }
}
