//! JoinGroup, versions 0 to 9: a member joins its group's next generation, and waits for the others.
//!
//! Version 0 has no rebalance timeout: the session timeout stands in. Version 4 gives a member its id before it joins
//! (KIP-394), 5 static members (KIP-345), 7 the protocol type, 9 tells a returning static leader to skip the assignment
//! (KIP-814). The rules are the coordinator's.

use bytes::Bytes;
use tidings_coordinator as coordinator;
use tidings_model::ErrorCode;
use tidings_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use tidings_wire::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};

use crate::handlers::Cx;

const WITH_REBALANCE_TIMEOUT: i16 = 1;
const KNOWN_MEMBER_ID: i16 = 4;
/// The first version whose answer may lack a protocol name.
const NULLABLE_PROTOCOL: i16 = 7;
const SKIP_ASSIGNMENT: i16 = 9;

pub(crate) async fn handle(cx: &Cx<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    let member_id = request.member_id.clone();
    let response = match join(cx, request).await {
        Ok(response) => response,
        Err(error) => coordinator::JoinGroupResponse::error(&member_id, error),
    };
    let with_null = |name: Option<String>| {
        if cx.version < NULLABLE_PROTOCOL { Some(name.unwrap_or_default()) } else { name }
    };
    JoinGroupResponse {
        error_code: response.error.code(),
        generation_id: response.generation_id,
        protocol_type: response.protocol_type,
        protocol_name: with_null(response.protocol_name),
        leader: response.leader,
        skip_assignment: response.skip_assignment,
        member_id: response.member_id,
        members: response
            .members
            .into_iter()
            .map(|member| JoinGroupResponseMember {
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
                metadata: member.metadata,
                ..JoinGroupResponseMember::default()
            })
            .collect(),
        ..JoinGroupResponse::default()
    }
}

/// What the coordinator is told, without the client. Metadata is copied: the member keeps it for as long as it lives, and a
/// slice would keep the whole frame.
fn joining(request: JoinGroupRequest, version: i16) -> coordinator::JoinGroupRequest {
    let protocol = |protocol: JoinGroupRequestProtocol| coordinator::Protocol {
        name: protocol.name,
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    };
    coordinator::JoinGroupRequest {
        group_id: request.group_id,
        member_id: request.member_id,
        group_instance_id: request.group_instance_id,
        client_id: String::new(),
        client_host: String::new(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: if version < WITH_REBALANCE_TIMEOUT {
            request.session_timeout_ms
        } else {
            request.rebalance_timeout_ms
        },
        protocol_type: request.protocol_type,
        protocols: request.protocols.into_iter().map(protocol).collect(),
        requires_known_member_id: version >= KNOWN_MEMBER_ID,
        supports_skip_assignment: version >= SKIP_ASSIGNMENT,
    }
}

async fn join(cx: &Cx<'_>, request: JoinGroupRequest) -> Result<coordinator::JoinGroupResponse, ErrorCode> {
    let group_id = request.group_id.clone();
    // First of all: it lets go of the frame.
    let request = coordinator::JoinGroupRequest {
        client_id: cx.client_id.unwrap_or_default().to_owned(),
        client_host: format!("/{}", cx.client.peer.ip()),
        ..joining(request, cx.version)
    };
    cx.shared.groups_ready().await?;
    let answer = cx
        .shared
        .groups
        .wait(&group_id, |groups, token, now_ms| groups.join_group(now_ms, request, token))
        .await;
    match answer {
        Some(coordinator::DeferredResponse::Join(response)) => Ok(response),
        _ => Err(ErrorCode::CoordinatorNotAvailable),
    }
}

#[cfg(test)]
mod tests {
    use tidings_wire::{Chunk, Decoder, Message, RequestHeader, encode_request};

    use super::*;

    /// A hundred megabytes behind the end of a message stayed for as long as its member.
    #[test]
    fn a_member_does_not_keep_the_frame_that_it_came_in() {
        let metadata = Bytes::from_static(b"m");
        let protocol = JoinGroupRequestProtocol { name: "range".to_owned(), metadata, ..Default::default() };
        let request = JoinGroupRequest { protocols: vec![protocol], ..JoinGroupRequest::default() };
        let mut frame = Vec::new();
        for chunk in encode_request(3, 1, None, &request).expect("it encodes") {
            let Chunk::Bytes(bytes) = chunk else { panic!("external records") };
            frame.extend(bytes);
        }
        let frame = Bytes::from(frame).slice(4..);
        let mut body = Decoder::new(frame.clone());
        RequestHeader::decode(&mut body).expect("a header");
        let kept = joining(JoinGroupRequest::decode(&mut body, 3).expect("a body"), 3);
        drop(body);
        assert!(frame.is_unique());
        assert_eq!(&kept.protocols[0].metadata[..], b"m");
    }
}
