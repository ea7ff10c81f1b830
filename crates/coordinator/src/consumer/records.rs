//! The records of consumer groups in Kafka's form, and back.
//!
//! Owns the byte form only: what a record changes is in `replay`. Every field that these messages have is written; what
//! Kafka before 4.1 wrote about partitions (`ConsumerGroupPartitionMetadata`) is recognised and of no use any more.

use std::sync::Arc;

use bytes::Bytes;
use tidings_wire::messages::consumer_group_current_member_assignment_key::ConsumerGroupCurrentMemberAssignmentKey;
use tidings_wire::messages::consumer_group_current_member_assignment_value as current_value;
use tidings_wire::messages::consumer_group_member_metadata_key::ConsumerGroupMemberMetadataKey;
use tidings_wire::messages::consumer_group_member_metadata_value as member_value;
use tidings_wire::messages::consumer_group_metadata_key::ConsumerGroupMetadataKey;
use tidings_wire::messages::consumer_group_metadata_value::ConsumerGroupMetadataValue;
use tidings_wire::messages::consumer_group_partition_metadata_key::ConsumerGroupPartitionMetadataKey;
use tidings_wire::messages::consumer_group_regular_expression_key::ConsumerGroupRegularExpressionKey;
use tidings_wire::messages::consumer_group_regular_expression_value::ConsumerGroupRegularExpressionValue;
use tidings_wire::messages::consumer_group_target_assignment_member_key::ConsumerGroupTargetAssignmentMemberKey;
use tidings_wire::messages::consumer_group_target_assignment_member_value as target_value;
use tidings_wire::messages::consumer_group_target_assignment_metadata_key::ConsumerGroupTargetAssignmentMetadataKey;
use tidings_wire::messages::consumer_group_target_assignment_metadata_value::ConsumerGroupTargetAssignmentMetadataValue;
use tidings_wire::{
    DecodeError, Message, RecordMessage, decode_coordinator_key, encode_coordinator_key, encode_versioned,
};

use super::assignment::Assignment;
use super::group::ConsumerGroup;
use super::member::Member;
use super::subscription::ResolvedRegex;
use crate::CoordinatorRecord;
use crate::records::bounded;

/// The only version of all values.
const VERSION: i16 = 0;

type Record = (Arc<str>, CoordinatorRecord);

/// What a record of a consumer group is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Epoch,
    PartitionMetadata,
    Member { member_id: Arc<str> },
    TargetEpoch,
    Target { member_id: Arc<str> },
    Current { member_id: Arc<str> },
    Regex { regex: String },
}

/// Reads a key, if it is one of a consumer group's.
pub(crate) fn decode_key(record_type: i16, key: &Bytes) -> Option<Result<(String, Subject), DecodeError>> {
    /// The alias of the message is only needed here.
    type CurrentKey = ConsumerGroupCurrentMemberAssignmentKey;
    let bytes = key.clone();
    Some(match record_type {
        ConsumerGroupMetadataKey::RECORD_TYPE => {
            decode_coordinator_key(bytes).map(|key: ConsumerGroupMetadataKey| (key.group_id, Subject::Epoch))
        }
        ConsumerGroupPartitionMetadataKey::RECORD_TYPE => decode_coordinator_key(bytes)
            .map(|key: ConsumerGroupPartitionMetadataKey| (key.group_id, Subject::PartitionMetadata)),
        ConsumerGroupMemberMetadataKey::RECORD_TYPE => {
            decode_coordinator_key(bytes).map(|key: ConsumerGroupMemberMetadataKey| {
                (key.group_id, Subject::Member { member_id: key.member_id.into() })
            })
        }
        ConsumerGroupTargetAssignmentMetadataKey::RECORD_TYPE => decode_coordinator_key(bytes)
            .map(|key: ConsumerGroupTargetAssignmentMetadataKey| (key.group_id, Subject::TargetEpoch)),
        ConsumerGroupTargetAssignmentMemberKey::RECORD_TYPE => {
            decode_coordinator_key(bytes).map(|key: ConsumerGroupTargetAssignmentMemberKey| {
                (key.group_id, Subject::Target { member_id: key.member_id.into() })
            })
        }
        CurrentKey::RECORD_TYPE => decode_coordinator_key(bytes)
            .map(|key: CurrentKey| (key.group_id, Subject::Current { member_id: key.member_id.into() })),
        ConsumerGroupRegularExpressionKey::RECORD_TYPE => {
            decode_coordinator_key(bytes).map(|key: ConsumerGroupRegularExpressionKey| {
                (key.group_id, Subject::Regex { regex: key.regular_expression })
            })
        }
        _ => return None,
    })
}

pub(crate) fn epoch(group_id: &Arc<str>, epoch: i32, metadata_hash: i64) -> Record {
    let value = ConsumerGroupMetadataValue { epoch, metadata_hash, ..Default::default() };
    write(group_id, &epoch_key(group_id), Some(&value))
}

pub(crate) fn member(group_id: &Arc<str>, member: &Member) -> Record {
    let classic = member.classic.as_ref().map(|classic| member_value::ClassicMemberMetadata {
        session_timeout_ms: classic.session_timeout_ms,
        supported_protocols: classic
            .protocols
            .iter()
            .map(|protocol| member_value::ClassicProtocol {
                name: protocol.name.clone(),
                metadata: protocol.metadata.clone(),
                ..member_value::ClassicProtocol::default()
            })
            .collect(),
        ..member_value::ClassicMemberMetadata::default()
    });
    let value = member_value::ConsumerGroupMemberMetadataValue {
        instance_id: member.instance_id.as_deref().map(str::to_owned),
        rack_id: member.rack_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        subscribed_topic_names: member.subscribed_names.iter().cloned().collect(),
        subscribed_topic_regex: member.subscribed_regex.clone(),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        server_assignor: member.server_assignor.clone(),
        classic_member_metadata: classic,
        ..member_value::ConsumerGroupMemberMetadataValue::default()
    };
    write(group_id, &member_key(group_id, &member.id), Some(&value))
}

pub(crate) fn target_epoch(group_id: &Arc<str>, assignment_epoch: i32) -> Record {
    let value = ConsumerGroupTargetAssignmentMetadataValue { assignment_epoch, ..Default::default() };
    write(group_id, &target_epoch_key(group_id), Some(&value))
}

pub(crate) fn target(group_id: &Arc<str>, member_id: &Arc<str>, assignment: &Assignment) -> Record {
    let partition =
        |(topic_id, partitions): (_, &std::collections::BTreeSet<i32>)| target_value::TopicPartition {
            topic_id,
            partitions: partitions.iter().copied().collect(),
            ..target_value::TopicPartition::default()
        };
    let value = target_value::ConsumerGroupTargetAssignmentMemberValue {
        topic_partitions: assignment.topics().map(partition).collect(),
        ..Default::default()
    };
    write(group_id, &target_key(group_id, member_id), Some(&value))
}

pub(crate) fn current(group_id: &Arc<str>, member: &Member) -> Record {
    let partitions = |assignment: &Assignment| {
        let topic =
            |(topic_id, partitions): (_, &std::collections::BTreeSet<i32>)| current_value::TopicPartitions {
                topic_id,
                partitions: partitions.iter().copied().collect(),
                ..current_value::TopicPartitions::default()
            };
        assignment.topics().map(topic).collect()
    };
    let value = current_value::ConsumerGroupCurrentMemberAssignmentValue {
        member_epoch: member.epoch,
        previous_member_epoch: member.previous_epoch,
        state: member.state.code(),
        assigned_partitions: partitions(&member.assigned),
        partitions_pending_revocation: partitions(&member.pending_revocation),
        ..Default::default()
    };
    write(group_id, &current_key(group_id, &member.id), Some(&value))
}

pub(crate) fn regex(group_id: &Arc<str>, regex: &str, resolved: &ResolvedRegex) -> Record {
    let value = ConsumerGroupRegularExpressionValue {
        topics: resolved.topics.iter().cloned().collect(),
        version: resolved.version,
        timestamp: resolved.resolved_ms,
        ..Default::default()
    };
    write(group_id, &regex_key(group_id, regex), Some(&value))
}

pub(crate) fn member_tombstone(group_id: &Arc<str>, member_id: &str) -> Record {
    tombstone(group_id, &member_key(group_id, member_id))
}

pub(crate) fn target_tombstone(group_id: &Arc<str>, member_id: &str) -> Record {
    tombstone(group_id, &target_key(group_id, member_id))
}

pub(crate) fn current_tombstone(group_id: &Arc<str>, member_id: &str) -> Record {
    tombstone(group_id, &current_key(group_id, member_id))
}

pub(crate) fn regex_tombstone(group_id: &Arc<str>, regex: &str) -> Record {
    tombstone(group_id, &regex_key(group_id, regex))
}

/// Everything that makes the group as it stands.
pub(crate) fn all(group: &ConsumerGroup) -> Vec<Record> {
    let members = || group.members.values();
    let mut records: Vec<Record> = members().map(|each| member(&group.id, each)).collect();
    records.extend(group.regexes.iter().map(|(text, resolved)| regex(&group.id, text, resolved)));
    records.push(epoch(&group.id, group.epoch, group.metadata_hash));
    records
        .extend(group.target.iter().map(|(member_id, assignment)| target(&group.id, member_id, assignment)));
    records.push(target_epoch(&group.id, group.target_epoch));
    records.extend(members().map(|each| current(&group.id, each)));
    records
}

/// Everything that ends the group; the epoch's tombstone comes last.
pub(crate) fn all_tombstones(group: &ConsumerGroup) -> Vec<Record> {
    let id = &group.id;
    let members = || group.members.keys();
    let mut records: Vec<Record> = members().map(|member_id| current_tombstone(id, member_id)).collect();
    records.extend(members().map(|member_id| target_tombstone(id, member_id)));
    records.push(tombstone(id, &target_epoch_key(id)));
    records.extend(members().map(|member_id| member_tombstone(id, member_id)));
    records.extend(group.regexes.keys().map(|regex| regex_tombstone(id, regex)));
    records.push(tombstone(id, &epoch_key(id)));
    records
}

fn epoch_key(group_id: &str) -> ConsumerGroupMetadataKey {
    ConsumerGroupMetadataKey { group_id: group_id.to_owned() }
}

fn member_key(group_id: &str, member_id: &str) -> ConsumerGroupMemberMetadataKey {
    ConsumerGroupMemberMetadataKey { group_id: group_id.to_owned(), member_id: member_id.to_owned() }
}

fn target_epoch_key(group_id: &str) -> ConsumerGroupTargetAssignmentMetadataKey {
    ConsumerGroupTargetAssignmentMetadataKey { group_id: group_id.to_owned() }
}

fn target_key(group_id: &str, member_id: &str) -> ConsumerGroupTargetAssignmentMemberKey {
    ConsumerGroupTargetAssignmentMemberKey { group_id: group_id.to_owned(), member_id: member_id.to_owned() }
}

fn current_key(group_id: &str, member_id: &str) -> ConsumerGroupCurrentMemberAssignmentKey {
    ConsumerGroupCurrentMemberAssignmentKey { group_id: group_id.to_owned(), member_id: member_id.to_owned() }
}

fn regex_key(group_id: &str, regex: &str) -> ConsumerGroupRegularExpressionKey {
    ConsumerGroupRegularExpressionKey { group_id: group_id.to_owned(), regular_expression: regex.to_owned() }
}

fn tombstone<K: RecordMessage>(group_id: &Arc<str>, key: &K) -> Record {
    write::<K, ConsumerGroupMetadataValue>(group_id, key, None)
}

fn write<K: RecordMessage, V: Message>(group_id: &Arc<str>, key: &K, value: Option<&V>) -> Record {
    let value = value.map(|value| bounded(encode_versioned(value, VERSION)));
    (group_id.clone(), CoordinatorRecord { key: bounded(encode_coordinator_key(key)), value })
}
