//! OffsetCommit: a group, or a client that uses one for its offsets only, says how far it has read.

use std::sync::Arc;

use tidings_model::ErrorCode;

use super::TopicErrors;
use crate::classic::group::ClassicGroup;
use crate::classic::state::GroupState;
use crate::consumer::group::ConsumerGroup;
use crate::consumer::member::check_member_epoch;
use crate::coordinator::InFlight;
use crate::{CommittedOffset, Effects, GroupCoordinator, Outcome, Release, StorageFailure, records};

/// An offset to commit for one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitPartition {
    /// The partition's number.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// The leader epoch of the last record read; -1 if not known (before version 6).
    pub leader_epoch: i32,
    /// Free text; null is the same as empty.
    pub metadata: Option<String>,
}

/// Offsets to commit for one topic. Unknown topics are refused by the handler, which knows the topics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitTopic {
    /// The topic's name.
    pub topic: String,
    /// Its partitions.
    pub partitions: Vec<CommitPartition>,
}

/// An OffsetCommit request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetCommitRequest {
    /// The group; may be empty.
    pub group_id: String,
    /// The member's generation; -1 from a client that is no member.
    pub generation_id: i32,
    /// The member's id; empty from a client that is no member.
    pub member_id: String,
    /// The static instance (version 7 on).
    pub group_instance_id: Option<String>,
    /// The client's own retention from now on (versions 2 to 4), unless -1.
    pub retention_time_ms: i64,
    /// Whether a missing group is told as [`ErrorCode::GroupIdNotFound`] (version 9 on) or as
    /// [`ErrorCode::IllegalGeneration`].
    pub knows_group_id_not_found: bool,
    /// The offsets.
    pub topics: Vec<CommitTopic>,
}

/// The answer to an OffsetCommit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffsetCommitResponse {
    /// In the order of the request.
    pub topics: Vec<TopicErrors>,
}

impl StorageFailure for OffsetCommitResponse {
    fn fail(&mut self, error: ErrorCode) {
        self.topics.iter_mut().for_each(|topic| topic.fail(error));
    }
}

impl GroupCoordinator {
    /// Handles an OffsetCommit. All offsets of a request are written together; those with metadata that is too
    /// long are refused alone.
    pub fn offset_commit(
        &mut self,
        now_ms: i64,
        request: OffsetCommitRequest,
    ) -> Outcome<OffsetCommitResponse> {
        let mut effects = Effects::default();
        let mut cx = self.shard.context(now_ms, &mut effects);
        let group_id: Arc<str> = request.group_id.as_str().into();
        let group = self.groups.get(&group_id);
        let checked = match self.consumer_groups.get(&group_id) {
            Some(group) => validate_in_consumer_group(group, &request),
            None => validate(group, &request),
        };
        if let Err(error) = checked {
            let refused = |partition: CommitPartition| (partition.partition, error);
            return Outcome::now(answer(request.topics, refused));
        }
        if let Some(group) = group {
            // A commit is a sign of life.
            if matches!(group.state(), GroupState::Stable | GroupState::PreparingRebalance) {
                group.touch(&request.member_id, &mut cx);
            }
        }
        let max_metadata = cx.settings().offset_metadata_max_bytes;
        let expire_timestamp_ms =
            (request.retention_time_ms != -1).then(|| now_ms.saturating_add(request.retention_time_ms));
        let mut topics = Vec::with_capacity(request.topics.len());
        for CommitTopic { topic, partitions } in request.topics {
            let mut errors = Vec::with_capacity(partitions.len());
            for partition in partitions {
                let metadata = partition.metadata.unwrap_or_default();
                if is_longer_than(&metadata, max_metadata) {
                    errors.push((partition.partition, ErrorCode::OffsetMetadataTooLarge));
                    continue;
                }
                let offset = CommittedOffset {
                    offset: partition.offset,
                    leader_epoch: partition.leader_epoch,
                    metadata,
                    commit_timestamp_ms: now_ms,
                    expire_timestamp_ms,
                };
                cx.write(
                    records::offset_commit(&group_id, &topic, partition.partition, offset),
                    InFlight::Offset,
                );
                errors.push((partition.partition, ErrorCode::None));
            }
            topics.push(TopicErrors { topic, partitions: errors });
        }
        Outcome { response: OffsetCommitResponse { topics }, release: Release::WhenDurable, effects }
    }
}

pub(super) fn answer(
    topics: Vec<CommitTopic>,
    each: impl Fn(CommitPartition) -> (i32, ErrorCode),
) -> OffsetCommitResponse {
    let topics = topics.into_iter().map(|CommitTopic { topic, partitions }| TopicErrors {
        topic,
        partitions: partitions.into_iter().map(&each).collect(),
    });
    OffsetCommitResponse { topics: topics.collect() }
}

/// Java counts a string's length in UTF-16 units, and so does Kafka's limit.
pub(super) fn is_longer_than(metadata: &str, max: usize) -> bool {
    metadata.len() > max && metadata.encode_utf16().count() > max
}

/// Whether the commit comes from a member of the current generation, or from outside while nobody is a member.
fn validate(group: Option<&ClassicGroup>, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
    let Some(group) = group else {
        return match request.generation_id {
            ..0 => Ok(()),
            _ if request.knows_group_id_not_found => Err(ErrorCode::GroupIdNotFound),
            _ => Err(ErrorCode::IllegalGeneration),
        };
    };
    let is_empty = group.state() == GroupState::Empty;
    if request.generation_id < 0 && is_empty {
        return Ok(());
    }
    let names_a_member = !request.member_id.is_empty() || request.group_instance_id.is_some();
    if request.generation_id >= 0 || names_a_member {
        group.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != group.generation_id {
            return Err(ErrorCode::IllegalGeneration);
        }
    } else if !is_empty {
        return Err(ErrorCode::UnknownMemberId);
    }
    if group.state() == GroupState::CompletingRebalance {
        // It has the new generation but not yet its assignment: it cannot know what it may commit.
        return Err(ErrorCode::RebalanceInProgress);
    }
    Ok(())
}

/// Whether the commit comes from a member in its current epoch, or from outside while nobody is a member.
fn validate_in_consumer_group(group: &ConsumerGroup, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
    if request.generation_id < 0 && group.members.is_empty() {
        return Ok(());
    }
    let member = group.members.get(request.member_id.as_str()).ok_or(ErrorCode::UnknownMemberId)?;
    let is_classic = member.uses_classic_protocol();
    if !is_classic && !request.knows_group_id_not_found {
        // STALE_MEMBER_EPOCH came with that version, too: what it would be told otherwise it cannot know.
        return Err(ErrorCode::UnsupportedVersion);
    }
    check_member_epoch(member, request.generation_id)
}
