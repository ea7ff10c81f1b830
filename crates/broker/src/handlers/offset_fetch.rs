//! OffsetFetch, versions 0 to 10: how far groups have read.
//!
//! An answer tells durable offsets only: it waits for the commit of what it shows. Version 2 can ask for everything a
//! group committed and has an error of its own, 5 tells leader epochs, 7 asks for stable offsets (KIP-447): one that an
//! open transaction may be about to replace is answered with UNSTABLE_OFFSET_COMMIT; 8 takes many groups (KIP-709), 9
//! tells which member asks (KIP-848), 10 names topics by id (KIP-516).

use tidings_coordinator as coordinator;
use tidings_model::{ErrorCode, TopicId};
use tidings_wire::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use tidings_wire::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};

use crate::handlers::Cx;
use crate::mentions::{MentionedPartitions, first_of_each};

const ALL_IS_NULL: i16 = 2;
const MANY_GROUPS: i16 = 8;
const BY_TOPIC_ID: i16 = 10;

pub(crate) async fn handle(cx: &Cx<'_>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let requires_stable = request.require_stable;
    if cx.version >= MANY_GROUPS {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in first_of_each(request.groups, |group| group.group_id.clone()) {
            groups.push(fetch(cx, group, requires_stable).await);
        }
        return OffsetFetchResponse { groups, ..OffsetFetchResponse::default() };
    }
    let topics = request.topics.map(|topics| {
        let topic = |topic: tidings_wire::messages::offset_fetch_request::OffsetFetchRequestTopic| {
            OffsetFetchRequestTopics {
                name: topic.name,
                partition_indexes: topic.partition_indexes,
                ..OffsetFetchRequestTopics::default()
            }
        };
        topics.into_iter().map(topic).collect()
    });
    let group =
        OffsetFetchRequestGroup { group_id: request.group_id, topics, ..OffsetFetchRequestGroup::default() };
    let asked = group.topics.clone();
    let answer = fetch(cx, group, requires_stable).await;
    single(answer, cx.version, asked)
}

/// The answer for one group in the form of versions 0 to 7.
fn single(
    group: OffsetFetchResponseGroup,
    version: i16,
    asked: Option<Vec<OffsetFetchRequestTopics>>,
) -> OffsetFetchResponse {
    let error = group.error_code;
    let mut topics = group.topics;
    if version < ALL_IS_NULL && error != ErrorCode::None.code() {
        // No room for an error of the group: every partition carries it.
        topics = asked.unwrap_or_default().into_iter().map(|topic| absent(topic, error)).collect();
    }
    let partition = |partition: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
        ..OffsetFetchResponsePartition::default()
    };
    let topic = |topic: OffsetFetchResponseTopics| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
        ..OffsetFetchResponseTopic::default()
    };
    let topics = topics.into_iter().map(topic).collect();
    let error_code = if version < ALL_IS_NULL { ErrorCode::None.code() } else { error };
    OffsetFetchResponse { topics, error_code, ..OffsetFetchResponse::default() }
}

async fn fetch(
    cx: &Cx<'_>,
    group: OffsetFetchRequestGroup,
    requires_stable: bool,
) -> OffsetFetchResponseGroup {
    let group_id = group.group_id.clone();
    let error = |error: ErrorCode| OffsetFetchResponseGroup {
        group_id: group_id.clone(),
        error_code: error.code(),
        ..OffsetFetchResponseGroup::default()
    };
    if let Err(code) = cx.shared.groups_ready().await {
        return error(code);
    }
    let mut unknown = Vec::new();
    let topics = group.topics.map(|topics| select(cx, topics, &mut unknown));
    let request = coordinator::OffsetFetchRequest { group_id: group.group_id, topics, requires_stable };
    let (member_id, member_epoch) = (group.member_id, group.member_epoch);
    let answer = cx
        .shared
        .groups
        .call(&group_id, |groups, _| {
            match groups.check_offset_fetch(&group_id, member_id.as_deref(), member_epoch) {
                ErrorCode::None => groups.offset_fetch(request),
                error => coordinator::OffsetFetchResponse::refused(error),
            }
        })
        .await;
    let Some(answer) = answer else { return error(ErrorCode::CoordinatorNotAvailable) };
    if answer.error != ErrorCode::None {
        return error(answer.error);
    }
    let mut topics: Vec<_> = answer.topics.into_iter().map(|topic| show(cx, topic)).collect();
    topics.append(&mut unknown);
    OffsetFetchResponseGroup { group_id, topics, ..OffsetFetchResponseGroup::default() }
}

/// What to ask the coordinator for; topics whose id is not known are answered already.
fn select(
    cx: &Cx<'_>,
    topics: Vec<OffsetFetchRequestTopics>,
    unknown: &mut Vec<OffsetFetchResponseTopics>,
) -> Vec<coordinator::TopicPartitions> {
    let mut selected = Vec::with_capacity(topics.len());
    let mut mentioned = MentionedPartitions::default();
    for mut topic in topics {
        let name = if cx.version < BY_TOPIC_ID {
            Some(topic.name.clone())
        } else {
            cx.shared.topics.by_id(topic.topic_id).map(|known| known.name.to_string())
        };
        match name {
            Some(name) => {
                mentioned.keep_new(&name, &mut topic.partition_indexes);
                selected
                    .push(coordinator::TopicPartitions { topic: name, partitions: topic.partition_indexes });
            }
            None => unknown.push(absent(topic, ErrorCode::UnknownTopicId.code())),
        }
    }
    selected
}

fn absent(topic: OffsetFetchRequestTopics, error_code: i16) -> OffsetFetchResponseTopics {
    let partition = |partition_index| OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(String::new()),
        error_code,
        ..OffsetFetchResponsePartitions::default()
    };
    OffsetFetchResponseTopics {
        partitions: topic.partition_indexes.into_iter().map(partition).collect(),
        name: topic.name,
        topic_id: topic.topic_id,
        ..OffsetFetchResponseTopics::default()
    }
}

fn show(cx: &Cx<'_>, topic: coordinator::FetchedTopic) -> OffsetFetchResponseTopics {
    let topic_id = match cx.shared.topics.by_name(&topic.topic) {
        Some(known) if cx.version >= BY_TOPIC_ID => known.id,
        _ => TopicId::ZERO,
    };
    let partition = |partition: coordinator::FetchedOffset| OffsetFetchResponsePartitions {
        partition_index: partition.partition,
        committed_offset: partition.offset,
        committed_leader_epoch: partition.leader_epoch,
        metadata: Some(partition.metadata),
        error_code: partition.error.code(),
        ..OffsetFetchResponsePartitions::default()
    };
    OffsetFetchResponseTopics {
        name: topic.topic,
        topic_id,
        partitions: topic.partitions.into_iter().map(partition).collect(),
        ..OffsetFetchResponseTopics::default()
    }
}
