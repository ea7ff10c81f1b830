//! TxnOffsetCommit, versions 0 to 5: a producer commits a group's offsets in its transaction (KIP-98).
//!
//! The offsets count once the transaction is committed; until then, who asks for stable offsets waits (KIP-447). Version 3
//! names the member and its generation, which fences a member that was replaced (KIP-447), 4 knows TRANSACTION_ABORTABLE, 5
//! takes the group's partition of `__consumer_offsets` into the transaction without an AddOffsetsToTxn (KIP-890).

use tidings_coordinator as coordinator;
use tidings_coordinator::{AddPartitionsRequest, TRANSACTION_VERSION_2};
use tidings_model::ErrorCode;
use tidings_wire::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestTopic,
};
use tidings_wire::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};

use crate::handlers::Cx;
use crate::handlers::produce::transaction_error;
use crate::topics::names::OFFSETS_TOPIC;
use crate::transactions::{RefusedBatch, one_partition};

/// The first version that knows TRANSACTION_ABORTABLE.
const ABORTABLE: i16 = 4;

/// The first version that adds the partition by itself.
const ADDS_PARTITION: i16 = 5;

pub(crate) async fn handle(cx: &Cx<'_>, mut request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let asked = std::mem::take(&mut request.topics);
    let mut answers = Vec::with_capacity(asked.len());
    let mut accepted = Vec::with_capacity(asked.len());
    for topic in asked {
        answers.push(prepare(cx, topic, &mut accepted));
    }
    if accepted.is_empty() && !answers.is_empty() {
        return TxnOffsetCommitResponse { topics: answers, ..TxnOffsetCommitResponse::default() };
    }
    let verdicts: Result<Vec<ErrorCode>, ErrorCode> = commit(cx, request, accepted).await.map(|committed| {
        let topics = committed.topics.into_iter().flat_map(|topic| topic.partitions);
        topics.map(|(_, error)| error).collect()
    });
    let mut next = 0;
    for partition in answers.iter_mut().flat_map(|topic| topic.partitions.iter_mut()) {
        if partition.error_code != ErrorCode::None.code() {
            continue;
        }
        let verdict = match &verdicts {
            Ok(verdicts) => verdicts.get(next).copied().unwrap_or(ErrorCode::UnknownServerError),
            Err(error) => *error,
        };
        partition.error_code = verdict.code();
        next += 1;
    }
    TxnOffsetCommitResponse { topics: answers, ..TxnOffsetCommitResponse::default() }
}

/// Checks one topic and its partitions; what exists goes on to the coordinator, what does not has its error already.
fn prepare(
    cx: &Cx<'_>,
    asked: TxnOffsetCommitRequestTopic,
    accepted: &mut Vec<coordinator::CommitTopic>,
) -> TxnOffsetCommitResponseTopic {
    let known = cx.shared.topics.by_name(&asked.name);
    let mut answers = Vec::with_capacity(asked.partitions.len());
    let mut partitions = Vec::with_capacity(asked.partitions.len());
    for partition in asked.partitions {
        let exists = known.as_ref().is_some_and(|topic| topic.partition(partition.partition_index).is_some());
        let error = if exists { ErrorCode::None } else { ErrorCode::UnknownTopicOrPartition };
        answers.push(TxnOffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            error_code: error.code(),
            ..TxnOffsetCommitResponsePartition::default()
        });
        if exists {
            partitions.push(coordinator::CommitPartition {
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata,
            });
        }
    }
    if !partitions.is_empty() {
        accepted.push(coordinator::CommitTopic { topic: asked.name.clone(), partitions });
    }
    TxnOffsetCommitResponseTopic {
        name: asked.name,
        partitions: answers,
        ..TxnOffsetCommitResponseTopic::default()
    }
}

async fn commit(
    cx: &Cx<'_>,
    request: TxnOffsetCommitRequest,
    topics: Vec<coordinator::CommitTopic>,
) -> Result<coordinator::OffsetCommitResponse, ErrorCode> {
    if request.group_id.is_empty() {
        return Err(ErrorCode::InvalidGroupId);
    }
    cx.shared.groups_ready().await?;
    cx.shared.transactions_ready().await?;
    let groups = &cx.shared.groups;
    let partition = groups.partition_of(&request.group_id).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let adds = cx.version >= ADDS_PARTITION;
    let asked = AddPartitionsRequest {
        transactional_id: request.transactional_id,
        producer_id: request.producer_id,
        producer_epoch: request.producer_epoch,
        partitions: one_partition(&OFFSETS_TOPIC.into(), partition),
        client_version: if adds { TRANSACTION_VERSION_2 } else { 0 },
    };
    let commit = coordinator::TxnOffsetCommitRequest {
        group_id: request.group_id,
        producer_id: request.producer_id,
        producer_epoch: request.producer_epoch,
        generation_id: request.generation_id,
        member_id: request.member_id,
        group_instance_id: request.group_instance_id,
        topics,
    };
    let group_id = commit.group_id.clone();
    let begun = cx.shared.transactions.append_first(asked, adds, || {
        Ok(groups.begin(&group_id, |groups, now_ms| groups.txn_offset_commit(now_ms, commit)))
    });
    match begun {
        Ok(Some(begun)) => Ok(begun.finish().await),
        Ok(None) => Err(ErrorCode::CoordinatorNotAvailable),
        Err(RefusedBatch::Transaction(error)) => Err(transaction_error(error, cx.version >= ABORTABLE, adds)),
        Err(RefusedBatch::Append(error)) => Err(error.error_code()),
    }
}
