//! What the log says becomes the state of a consumer group, at start and after each call.
//!
//! Invariant: consumer groups change here and nowhere else. A log that was compacted may tell a group's parts in any
//! order and without their past, so every part makes the group and the member it speaks of.

use std::sync::Arc;

use bytes::Bytes;
use tidings_wire::messages::consumer_group_current_member_assignment_value as current_value;
use tidings_wire::messages::consumer_group_member_metadata_value::ConsumerGroupMemberMetadataValue;
use tidings_wire::messages::consumer_group_metadata_value::ConsumerGroupMetadataValue;
use tidings_wire::messages::consumer_group_regular_expression_value::ConsumerGroupRegularExpressionValue;
use tidings_wire::messages::consumer_group_target_assignment_member_value::ConsumerGroupTargetAssignmentMemberValue;
use tidings_wire::messages::consumer_group_target_assignment_metadata_value::ConsumerGroupTargetAssignmentMetadataValue;
use tidings_wire::{DecodeError, decode_versioned};

use super::assignment::Assignment;
use super::group::{ConsumerGroup, NO_TARGET_EPOCH};
use super::member::{ClassicMember, Member, MemberState};
use super::records::Subject;
use super::subscription::ResolvedRegex;
use crate::{GroupCoordinator, Protocol};

/// The epoch of a member whose standing was deleted and whose metadata is about to be.
const GONE_EPOCH: i32 = -1;

impl GroupCoordinator {
    /// Applies a record of a consumer group.
    pub(crate) fn replay_consumer(
        &mut self,
        group_id: &Arc<str>,
        subject: Subject,
        value: Option<&Bytes>,
    ) -> Result<(), DecodeError> {
        match (subject, value) {
            (Subject::PartitionMetadata, _) => Ok(()),
            (Subject::Epoch, None) => {
                self.consumer_groups.remove(group_id);
                Ok(())
            }
            (subject, Some(value)) => {
                if let Some(group) = self.consumer_groups.get_mut(group_id) {
                    return put(group, subject, value.clone());
                }
                let mut group = ConsumerGroup::new(group_id.clone());
                put(&mut group, subject, value.clone())?;
                // Offsets that came first made a group that is known by nothing else.
                self.groups.remove(group_id);
                self.consumer_groups.insert(group_id.clone(), group);
                Ok(())
            }
            (subject, None) => {
                if let Some(group) = self.consumer_groups.get_mut(group_id) {
                    delete(group, &subject);
                }
                Ok(())
            }
        }
    }
}

fn put(group: &mut ConsumerGroup, subject: Subject, value: Bytes) -> Result<(), DecodeError> {
    match subject {
        Subject::Epoch => {
            let value: ConsumerGroupMetadataValue = decode_versioned(value)?;
            (group.epoch, group.metadata_hash) = (value.epoch, value.metadata_hash);
        }
        Subject::Member { member_id } => {
            let value: ConsumerGroupMemberMetadataValue = decode_versioned(value)?;
            let member = with_metadata(standing_of(group, member_id), value);
            group.put_member(member);
        }
        Subject::TargetEpoch => {
            let value: ConsumerGroupTargetAssignmentMetadataValue = decode_versioned(value)?;
            group.target_epoch = value.assignment_epoch;
        }
        Subject::Target { member_id } => {
            let value: ConsumerGroupTargetAssignmentMemberValue = decode_versioned(value)?;
            let parts = value.topic_partitions.into_iter().map(|part| (part.topic_id, part.partitions));
            let partitions =
                parts.flat_map(|(topic, partitions)| partitions.into_iter().map(move |index| (topic, index)));
            group.target.insert(member_id, partitions.collect());
        }
        Subject::Current { member_id } => {
            let value: current_value::ConsumerGroupCurrentMemberAssignmentValue = decode_versioned(value)?;
            let member = Member {
                epoch: value.member_epoch,
                previous_epoch: value.previous_member_epoch,
                state: MemberState::from_code(value.state),
                assigned: partitions(value.assigned_partitions),
                pending_revocation: partitions(value.partitions_pending_revocation),
                ..standing_of(group, member_id)
            };
            group.put_member(member);
        }
        Subject::Regex { regex } => {
            let value: ConsumerGroupRegularExpressionValue = decode_versioned(value)?;
            let topics = value.topics.into_iter().collect();
            let resolved = ResolvedRegex { topics, version: value.version, resolved_ms: value.timestamp };
            group.regexes.insert(regex, resolved);
        }
        Subject::PartitionMetadata => {}
    }
    Ok(())
}

fn delete(group: &mut ConsumerGroup, subject: &Subject) {
    match subject {
        Subject::Member { member_id } => group.remove_member(member_id),
        Subject::TargetEpoch => group.target_epoch = NO_TARGET_EPOCH,
        Subject::Target { member_id } => {
            group.target.remove(member_id);
        }
        Subject::Current { member_id } => {
            let Some(member) = group.members.get(member_id).cloned() else { return };
            group.put_member(Member {
                epoch: GONE_EPOCH,
                previous_epoch: GONE_EPOCH,
                assigned: Assignment::default(),
                pending_revocation: Assignment::default(),
                ..member
            });
        }
        Subject::Regex { regex } => {
            group.regexes.remove(regex);
        }
        Subject::Epoch | Subject::PartitionMetadata => {}
    }
}

fn standing_of(group: &ConsumerGroup, member_id: Arc<str>) -> Member {
    group.members.get(&member_id).cloned().unwrap_or_else(|| Member::new(member_id))
}

fn with_metadata(member: Member, value: ConsumerGroupMemberMetadataValue) -> Member {
    let classic = value.classic_member_metadata.map(|classic| ClassicMember {
        session_timeout_ms: classic.session_timeout_ms,
        protocols: classic
            .supported_protocols
            .into_iter()
            .map(|protocol| Protocol { name: protocol.name, metadata: protocol.metadata })
            .collect(),
    });
    Member {
        instance_id: value.instance_id.map(Arc::from),
        rack_id: value.rack_id,
        client_id: value.client_id,
        client_host: value.client_host,
        subscribed_names: value.subscribed_topic_names.into_iter().collect(),
        subscribed_regex: value.subscribed_topic_regex.filter(|regex| !regex.is_empty()),
        rebalance_timeout_ms: value.rebalance_timeout_ms,
        server_assignor: value.server_assignor,
        classic,
        ..member
    }
}

fn partitions(topics: Vec<current_value::TopicPartitions>) -> Assignment {
    topics
        .into_iter()
        .flat_map(|topic| topic.partitions.into_iter().map(move |partition| (topic.topic_id, partition)))
        .collect()
}
