//! ConsumerGroupHeartbeat, versions 0 and 1: the life of a member of a consumer group (KIP-848).
//!
//! The answer leaves when what it tells is durable. Version 1 brought regular expressions, and clients that make their
//! members' ids themselves (KIP-1082). The rules are the coordinator's.

use tidings_coordinator as coordinator;
use tidings_model::ErrorCode;
use tidings_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use tidings_wire::messages::consumer_group_heartbeat_response::{
    Assignment, ConsumerGroupHeartbeatResponse, TopicPartitions,
};

use crate::handlers::Cx;

const CLIENTS_MAKE_MEMBER_IDS: i16 = 1;

pub(crate) async fn handle(
    cx: &Cx<'_>,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    match heartbeat(cx, request).await {
        Ok(response) => ConsumerGroupHeartbeatResponse {
            error_code: response.error.code(),
            error_message: response.message,
            member_id: response.member_id,
            member_epoch: response.member_epoch,
            heartbeat_interval_ms: response.heartbeat_interval_ms,
            assignment: response.assignment.map(assignment),
            ..ConsumerGroupHeartbeatResponse::default()
        },
        Err(error) => ConsumerGroupHeartbeatResponse {
            error_code: error.code(),
            ..ConsumerGroupHeartbeatResponse::default()
        },
    }
}

fn assignment(topics: Vec<(tidings_model::TopicId, Vec<i32>)>) -> Assignment {
    let part =
        |(topic_id, partitions)| TopicPartitions { topic_id, partitions, ..TopicPartitions::default() };
    Assignment { topic_partitions: topics.into_iter().map(part).collect(), ..Assignment::default() }
}

async fn heartbeat(
    cx: &Cx<'_>,
    request: ConsumerGroupHeartbeatRequest,
) -> Result<coordinator::ConsumerGroupHeartbeatResponse, ErrorCode> {
    cx.shared.groups_ready().await?;
    let group_id = request.group_id.clone();
    let owned = request
        .topic_partitions
        .map(|topics| topics.into_iter().map(|topic| (topic.topic_id, topic.partitions)).collect::<Vec<_>>());
    let request = coordinator::ConsumerGroupHeartbeatRequest {
        group_id: request.group_id,
        member_id: request.member_id,
        member_epoch: request.member_epoch,
        instance_id: request.instance_id,
        rack_id: request.rack_id,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        client_id: cx.client_id.unwrap_or_default().to_owned(),
        client_host: format!("/{}", cx.client.peer.ip()),
        subscribed_topic_names: request.subscribed_topic_names,
        subscribed_topic_regex: request.subscribed_topic_regex,
        server_assignor: request.server_assignor,
        owned,
        requires_member_id: cx.version >= CLIENTS_MAKE_MEMBER_IDS,
    };
    let answer =
        cx.shared.groups.call(&group_id, |groups, now_ms| groups.consumer_group_heartbeat(now_ms, request));
    answer.await.ok_or(ErrorCode::CoordinatorNotAvailable)
}
