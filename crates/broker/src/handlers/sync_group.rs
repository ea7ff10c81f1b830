//! SyncGroup, versions 0 to 5: the leader hands in the assignments, everybody waits for their own.
//!
//! Version 3 names static members (KIP-345), 5 the protocol the member believes in (KIP-559). The rules are the
//! coordinator's.

use bytes::Bytes;
use tidings_coordinator as coordinator;
use tidings_model::ErrorCode;
use tidings_wire::messages::sync_group_request::SyncGroupRequest;
use tidings_wire::messages::sync_group_response::SyncGroupResponse;

use crate::handlers::Cx;

const WITH_PROTOCOL: i16 = 5;

pub(crate) async fn handle(cx: &Cx<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    let response = match sync(cx, request).await {
        Ok(response) => response,
        Err(error) => coordinator::SyncGroupResponse::error(error),
    };
    SyncGroupResponse {
        error_code: response.error.code(),
        protocol_type: response.protocol_type,
        protocol_name: response.protocol_name,
        assignment: response.assignment,
        ..SyncGroupResponse::default()
    }
}

async fn sync(cx: &Cx<'_>, request: SyncGroupRequest) -> Result<coordinator::SyncGroupResponse, ErrorCode> {
    // A member must say what it believes in, or a mistake could not be told (KIP-559).
    if cx.version >= WITH_PROTOCOL && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return Err(ErrorCode::InconsistentGroupProtocol);
    }
    let group_id = request.group_id.clone();
    // First of all, and with copies: it lets go of the frame while the member waits.
    let request = coordinator::SyncGroupRequest {
        group_id: request.group_id,
        generation_id: request.generation_id,
        member_id: request.member_id,
        group_instance_id: request.group_instance_id,
        protocol_type: request.protocol_type,
        protocol_name: request.protocol_name,
        assignments: request
            .assignments
            .into_iter()
            .map(|assigned| coordinator::MemberAssignment {
                member_id: assigned.member_id,
                assignment: Bytes::copy_from_slice(&assigned.assignment),
            })
            .collect(),
    };
    cx.shared.groups_ready().await?;
    let answer = cx
        .shared
        .groups
        .wait(&group_id, |groups, token, now_ms| groups.sync_group(now_ms, request, token))
        .await;
    match answer {
        Some(coordinator::DeferredResponse::Sync(response)) => Ok(response),
        _ => Err(ErrorCode::CoordinatorNotAvailable),
    }
}
