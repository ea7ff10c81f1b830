//! Heartbeat, versions 0 to 4: a member is alive, and learns that its group rebalances.
//!
//! Version 3 names static members (KIP-345). The rules are the coordinator's.

use tidings_coordinator as coordinator;
use tidings_model::ErrorCode;
use tidings_wire::messages::heartbeat_request::HeartbeatRequest;
use tidings_wire::messages::heartbeat_response::HeartbeatResponse;

use crate::handlers::Cx;

pub(crate) async fn handle(cx: &Cx<'_>, request: HeartbeatRequest) -> HeartbeatResponse {
    let error = beat(cx, request).await.err().unwrap_or_default();
    HeartbeatResponse { error_code: error.code(), ..HeartbeatResponse::default() }
}

async fn beat(cx: &Cx<'_>, request: HeartbeatRequest) -> Result<(), ErrorCode> {
    cx.shared.groups_ready().await?;
    let request = coordinator::HeartbeatRequest {
        group_id: request.group_id,
        generation_id: request.generation_id,
        member_id: request.member_id,
        group_instance_id: request.group_instance_id,
    };
    let answer =
        cx.shared.groups.look(&request.group_id, |groups, now_ms| groups.heartbeat(now_ms, &request));
    match answer {
        Some(ErrorCode::None) => Ok(()),
        Some(error) => Err(error),
        None => Err(ErrorCode::CoordinatorNotAvailable),
    }
}
