//! TxnOffsetCommit: a producer commits a group's offsets in its transaction (KIP-98, KIP-447).

use std::sync::Arc;

use tidings_model::ErrorCode;

use super::TopicErrors;
use super::offset_commit::{answer, is_longer_than};
use crate::classic::group::ClassicGroup;
use crate::classic::state::GroupState;
use crate::consumer::group::ConsumerGroup;
use crate::consumer::member::check_member_epoch;
use crate::coordinator::InFlight;
use crate::{
    CommitPartition, CommitTopic, CommittedOffset, Effects, GroupCoordinator, OffsetCommitResponse, Outcome,
    Release, records,
};

/// A TxnOffsetCommit request; that the partition is part of the transaction was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TxnOffsetCommitRequest {
    /// The group; may be empty.
    pub group_id: String,
    /// The producer's id.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// The member's generation; -1 where the producer does not say (before version 3).
    pub generation_id: i32,
    /// The member's id; empty where the producer does not say.
    pub member_id: String,
    /// The static instance.
    pub group_instance_id: Option<String>,
    /// The offsets.
    pub topics: Vec<CommitTopic>,
}

impl GroupCoordinator {
    /// Handles a TxnOffsetCommit. The records belong to the producer's transaction: see [`Effects::producer`].
    pub fn txn_offset_commit(
        &mut self,
        now_ms: i64,
        request: TxnOffsetCommitRequest,
    ) -> Outcome<OffsetCommitResponse> {
        let mut effects = Effects::default();
        let mut cx = self.shard.context(now_ms, &mut effects);
        let group_id: Arc<str> = request.group_id.as_str().into();
        let checked = match self.consumer_groups.get(&group_id) {
            Some(group) => validate_in_consumer_group(group, &request),
            None => validate(self.groups.get(&group_id), &request),
        };
        if let Err(error) = checked {
            let refused = |partition: CommitPartition| (partition.partition, error);
            return Outcome::now(answer(request.topics, refused));
        }
        let max_metadata = cx.settings().offset_metadata_max_bytes;
        let mut topics = Vec::with_capacity(request.topics.len());
        for CommitTopic { topic, partitions } in request.topics {
            let mut errors = Vec::with_capacity(partitions.len());
            for CommitPartition { partition, offset, leader_epoch, metadata } in partitions {
                let metadata = metadata.unwrap_or_default();
                if is_longer_than(&metadata, max_metadata) {
                    errors.push((partition, ErrorCode::OffsetMetadataTooLarge));
                    continue;
                }
                let (commit_timestamp_ms, expire_timestamp_ms) = (now_ms, None);
                let offset = CommittedOffset {
                    offset,
                    leader_epoch,
                    metadata,
                    commit_timestamp_ms,
                    expire_timestamp_ms,
                };
                cx.write(records::offset_commit(&group_id, &topic, partition, offset), InFlight::Offset);
                errors.push((partition, ErrorCode::None));
            }
            topics.push(TopicErrors { topic, partitions: errors });
        }
        effects.producer = Some((request.producer_id, request.producer_epoch));
        Outcome { response: OffsetCommitResponse { topics }, release: Release::WhenDurable, effects }
    }
}

/// Whether the commit comes from a member of the current generation, or from a producer that does not name one: older
/// ones do not, so it is let through also while the group has members.
fn validate(group: Option<&ClassicGroup>, request: &TxnOffsetCommitRequest) -> Result<(), ErrorCode> {
    let Some(group) = group else {
        return if request.generation_id < 0 { Ok(()) } else { Err(ErrorCode::IllegalGeneration) };
    };
    if request.generation_id < 0 && group.state() == GroupState::Empty {
        return Ok(());
    }
    if names_a_member(request) {
        group.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != group.generation_id {
            return Err(ErrorCode::IllegalGeneration);
        }
    }
    Ok(())
}

/// The same in a group of the consumer protocol (KIP-848), whose members have an epoch in place of a generation.
fn validate_in_consumer_group(
    group: &ConsumerGroup,
    request: &TxnOffsetCommitRequest,
) -> Result<(), ErrorCode> {
    if !names_a_member(request) {
        return Ok(());
    }
    let member = group.members.get(request.member_id.as_str()).ok_or(ErrorCode::UnknownMemberId)?;
    // Producers know no member epochs: to them it is a generation, as in Kafka.
    check_member_epoch(member, request.generation_id).map_err(|error| match error {
        ErrorCode::StaleMemberEpoch => ErrorCode::IllegalGeneration,
        other => other,
    })
}

fn names_a_member(request: &TxnOffsetCommitRequest) -> bool {
    request.generation_id >= 0 || !request.member_id.is_empty() || request.group_instance_id.is_some()
}
