//! OffsetDelete, version 0: a group forgets offsets of topics that it does not read any more (KIP-496).

use std::collections::HashMap;

use tidings_coordinator as coordinator;
use tidings_model::ErrorCode;
use tidings_wire::messages::offset_delete_request::OffsetDeleteRequest;
use tidings_wire::messages::offset_delete_response::{
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use crate::handlers::Cx;

pub(crate) async fn handle(cx: &Cx<'_>, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    match delete(cx, request).await {
        Ok(response) => OffsetDeleteResponse {
            error_code: response.error.code(),
            topics: response.topics.into_iter().map(show).collect(),
            ..OffsetDeleteResponse::default()
        },
        Err(error) => OffsetDeleteResponse { error_code: error.code(), ..OffsetDeleteResponse::default() },
    }
}

async fn delete(
    cx: &Cx<'_>,
    request: OffsetDeleteRequest,
) -> Result<coordinator::OffsetDeleteResponse, ErrorCode> {
    cx.shared.groups_ready().await?;
    let group_id = request.group_id.clone();
    let mut unknown = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let indexes = topic.partitions.iter().map(|partition| partition.partition_index);
        let known = cx.shared.topics.by_name(&topic.name);
        let exists = |index: &i32| known.as_ref().is_some_and(|known| known.partition(*index).is_some());
        let (here, gone): (Vec<i32>, Vec<i32>) = indexes.partition(exists);
        if !gone.is_empty() {
            let partitions =
                gone.into_iter().map(|index| (index, ErrorCode::UnknownTopicOrPartition)).collect();
            unknown.push(coordinator::TopicErrors { topic: topic.name.clone(), partitions });
        }
        topics.push(coordinator::TopicPartitions { topic: topic.name, partitions: here });
    }
    let request = coordinator::OffsetDeleteRequest { group_id: request.group_id, topics };
    let answer =
        cx.shared.groups.call(&group_id, |groups, now_ms| groups.offset_delete(now_ms, request)).await;
    let mut response = answer.ok_or(ErrorCode::CoordinatorNotAvailable)?;
    if response.error == ErrorCode::None {
        join(&mut response.topics, unknown);
    }
    Ok(response)
}

/// Topics that are partly known must not appear twice.
fn join(topics: &mut [coordinator::TopicErrors], unknown: Vec<coordinator::TopicErrors>) {
    let mut gone: HashMap<String, Vec<(i32, ErrorCode)>> = HashMap::with_capacity(unknown.len());
    for topic in unknown {
        gone.entry(topic.topic).or_default().extend(topic.partitions);
    }
    // Every topic of the request was asked of the coordinator, if only with no partition.
    for topic in topics {
        topic.partitions.extend(gone.remove(&topic.topic).unwrap_or_default());
    }
}

fn show(topic: coordinator::TopicErrors) -> OffsetDeleteResponseTopic {
    let partition = |(partition_index, error): (i32, ErrorCode)| OffsetDeleteResponsePartition {
        partition_index,
        error_code: error.code(),
    };
    OffsetDeleteResponseTopic {
        name: topic.topic,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    }
}
