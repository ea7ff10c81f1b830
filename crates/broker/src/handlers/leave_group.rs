//! LeaveGroup, versions 0 to 5: members leave, and the others rebalance.
//!
//! Versions 0 to 2 name one member, and its error is the answer's; 3 names many and static ones (KIP-345); 5 has a
//! reason (KIP-800), which is not kept. The rules are the coordinator's.

use tidings_coordinator as coordinator;
use tidings_model::ErrorCode;
use tidings_wire::messages::leave_group_request::LeaveGroupRequest;
use tidings_wire::messages::leave_group_response::{LeaveGroupResponse, MemberResponse};

use crate::handlers::Cx;

const MANY_MEMBERS: i16 = 3;

pub(crate) async fn handle(cx: &Cx<'_>, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let response = match leave(cx, request).await {
        Ok(response) => response,
        Err(error) => coordinator::LeaveGroupResponse { error, members: Vec::new() },
    };
    if cx.version < MANY_MEMBERS {
        let of_member = response.members.first().map_or(ErrorCode::None, |member| member.error);
        let error = if response.error == ErrorCode::None { of_member } else { response.error };
        return LeaveGroupResponse { error_code: error.code(), ..LeaveGroupResponse::default() };
    }
    LeaveGroupResponse {
        error_code: response.error.code(),
        members: response
            .members
            .into_iter()
            .map(|member| MemberResponse {
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
                error_code: member.error.code(),
                ..MemberResponse::default()
            })
            .collect(),
        ..LeaveGroupResponse::default()
    }
}

async fn leave(
    cx: &Cx<'_>,
    request: LeaveGroupRequest,
) -> Result<coordinator::LeaveGroupResponse, ErrorCode> {
    cx.shared.groups_ready().await?;
    let members = if cx.version < MANY_MEMBERS {
        vec![coordinator::LeavingMember { member_id: request.member_id, group_instance_id: None }]
    } else {
        request
            .members
            .into_iter()
            .map(|member| coordinator::LeavingMember {
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
            })
            .collect()
    };
    let group_id = request.group_id.clone();
    let request = coordinator::LeaveGroupRequest { group_id: request.group_id, members };
    let answer = cx.shared.groups.call(&group_id, |groups, now_ms| groups.leave_group(now_ms, request)).await;
    answer.ok_or(ErrorCode::CoordinatorNotAvailable)
}
