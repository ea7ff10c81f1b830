//! OffsetCommit, versions 0 to 10: a group keeps how far it has read.
//!
//! The answer leaves when the offsets are durable. Versions 2 to 4 carry a retention, 6 the leader epoch, 7 static
//! members (KIP-345); 9 tells a missing group as GROUP_ID_NOT_FOUND (KIP-848); 10 names topics by id (KIP-516). Offsets
//! of versions 0 and 1 are kept like the others: there is no ZooKeeper to put them in.

use tidings_coordinator as coordinator;
use tidings_model::{ErrorCode, TopicId};
use tidings_wire::messages::offset_commit_request::{OffsetCommitRequest, OffsetCommitRequestTopic};
use tidings_wire::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};

use crate::handlers::Cx;

const GROUP_ID_NOT_FOUND: i16 = 9;
const BY_TOPIC_ID: i16 = 10;

pub(crate) async fn handle(cx: &Cx<'_>, mut request: OffsetCommitRequest) -> OffsetCommitResponse {
    let mut answers: Vec<OffsetCommitResponseTopic> = Vec::with_capacity(request.topics.len());
    let mut accepted = Vec::with_capacity(request.topics.len());
    for topic in std::mem::take(&mut request.topics) {
        answers.push(prepare(cx, topic, &mut accepted));
    }
    if accepted.is_empty() && !answers.is_empty() {
        return OffsetCommitResponse { topics: answers, ..OffsetCommitResponse::default() };
    }
    match commit(cx, request, accepted).await {
        Ok(committed) => merge(&mut answers, &committed),
        Err(error) => fail(&mut answers, error),
    }
    OffsetCommitResponse { topics: answers, ..OffsetCommitResponse::default() }
}

/// Checks one topic and its partitions; what exists goes on to the coordinator, what does not has its error already.
fn prepare(
    cx: &Cx<'_>,
    mut asked: OffsetCommitRequestTopic,
    accepted: &mut Vec<coordinator::CommitTopic>,
) -> OffsetCommitResponseTopic {
    let topics = &cx.shared.topics;
    let found = if cx.version >= BY_TOPIC_ID {
        topics.by_id(asked.topic_id).ok_or(ErrorCode::UnknownTopicId)
    } else {
        topics.by_name(&asked.name).ok_or(ErrorCode::UnknownTopicOrPartition)
    };
    let mut answers = Vec::with_capacity(asked.partitions.len());
    let mut partitions = Vec::with_capacity(asked.partitions.len());
    for partition in asked.partitions {
        let exists = match &found {
            Ok(topic) => {
                topic.partition(partition.partition_index).map(drop).ok_or(ErrorCode::UnknownTopicOrPartition)
            }
            Err(error) => Err(*error),
        };
        answers.push(OffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            error_code: exists.err().unwrap_or_default().code(),
            ..OffsetCommitResponsePartition::default()
        });
        if exists.is_ok() {
            partitions.push(coordinator::CommitPartition {
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata,
            });
        }
    }
    if let Ok(topic) = &found {
        asked.name = topic.name.to_string();
        if !partitions.is_empty() {
            accepted.push(coordinator::CommitTopic { topic: asked.name.clone(), partitions });
        }
    }
    let topic_id = if cx.version >= BY_TOPIC_ID { asked.topic_id } else { TopicId::ZERO };
    OffsetCommitResponseTopic {
        name: asked.name,
        topic_id,
        partitions: answers,
        ..OffsetCommitResponseTopic::default()
    }
}

async fn commit(
    cx: &Cx<'_>,
    request: OffsetCommitRequest,
    topics: Vec<coordinator::CommitTopic>,
) -> Result<coordinator::OffsetCommitResponse, ErrorCode> {
    cx.shared.groups_ready().await?;
    let group_id = request.group_id.clone();
    let request = coordinator::OffsetCommitRequest {
        group_id: request.group_id,
        generation_id: request.generation_id_or_member_epoch,
        member_id: request.member_id,
        group_instance_id: request.group_instance_id,
        retention_time_ms: request.retention_time_ms,
        knows_group_id_not_found: cx.version >= GROUP_ID_NOT_FOUND,
        topics,
    };
    let answer =
        cx.shared.groups.call(&group_id, |groups, now_ms| groups.offset_commit(now_ms, request)).await;
    answer.ok_or(ErrorCode::CoordinatorNotAvailable)
}

/// Puts the coordinator's verdicts, which come in the order of what was accepted, beside those that stand already.
fn merge(answers: &mut [OffsetCommitResponseTopic], committed: &coordinator::OffsetCommitResponse) {
    let mut verdicts = committed.topics.iter().flat_map(|topic| topic.partitions.iter());
    for partition in answers.iter_mut().flat_map(|topic| topic.partitions.iter_mut()) {
        if partition.error_code == ErrorCode::None.code() {
            let verdict = verdicts.next().map_or(ErrorCode::UnknownServerError, |(_, error)| *error);
            partition.error_code = verdict.code();
        }
    }
}

fn fail(answers: &mut [OffsetCommitResponseTopic], error: ErrorCode) {
    for partition in answers.iter_mut().flat_map(|topic| topic.partitions.iter_mut()) {
        if partition.error_code == ErrorCode::None.code() {
            partition.error_code = error.code();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_go_to_the_partitions_that_were_accepted() {
        let partition = |partition_index, error_code| OffsetCommitResponsePartition {
            partition_index,
            error_code,
            ..OffsetCommitResponsePartition::default()
        };
        let mut answers = vec![OffsetCommitResponseTopic {
            partitions: vec![partition(0, 0), partition(9, 3), partition(1, 0)],
            ..OffsetCommitResponseTopic::default()
        }];
        let verdicts = vec![(0, ErrorCode::None), (1, ErrorCode::OffsetMetadataTooLarge)];
        let committed = coordinator::OffsetCommitResponse {
            topics: vec![coordinator::TopicErrors { topic: String::new(), partitions: verdicts }],
        };
        merge(&mut answers, &committed);
        let codes: Vec<i16> = answers[0].partitions.iter().map(|partition| partition.error_code).collect();
        assert_eq!(codes, [0, 3, 12]);
    }
}
