//! DescribeGroups, versions 0 to 6: state, protocol and members of groups.
//!
//! Version 3 can ask for authorized operations (KIP-430), 4 tells static members (KIP-345); before 6 a group that does
//! not exist is described as dead, from 6 on it is GROUP_ID_NOT_FOUND (KIP-1043).

use tidings_coordinator as coordinator;
use tidings_model::ErrorCode;
use tidings_wire::messages::describe_groups_request::DescribeGroupsRequest;
use tidings_wire::messages::describe_groups_response::{
    DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};

use crate::handlers::Cx;
use crate::mentions::first_of_each;
use crate::operations;

const GROUP_ID_NOT_FOUND: i16 = 6;

pub(crate) async fn handle(cx: &Cx<'_>, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let with_operations = request.include_authorized_operations;
    let group_ids = first_of_each(request.groups, String::clone);
    let groups = group_ids.into_iter().map(|group_id| describe(cx, group_id, with_operations)).collect();
    DescribeGroupsResponse { groups, ..DescribeGroupsResponse::default() }
}

fn describe(cx: &Cx<'_>, group_id: String, with_operations: bool) -> DescribedGroup {
    let authorized_operations = operations::when(with_operations, operations::GROUP);
    let found = cx.shared.groups.look(&group_id, |groups, _| groups.describe_group(&group_id)).flatten();
    match found {
        Some(group) => DescribedGroup {
            group_id,
            group_state: group.state.as_str().to_owned(),
            protocol_type: group.protocol_type,
            protocol_data: group.protocol,
            members: group.members.into_iter().map(member).collect(),
            authorized_operations,
            ..DescribedGroup::default()
        },
        None => DescribedGroup {
            error_code: if cx.version < GROUP_ID_NOT_FOUND { 0 } else { ErrorCode::GroupIdNotFound.code() },
            error_message: (cx.version >= GROUP_ID_NOT_FOUND).then(|| why_not(cx, &group_id)),
            group_id,
            group_state: "Dead".to_owned(),
            authorized_operations: operations::NOT_ASKED,
            ..DescribedGroup::default()
        },
    }
}

fn why_not(cx: &Cx<'_>, group_id: &str) -> String {
    let found = cx.shared.groups.look(group_id, |groups, _| groups.describe_consumer_group(group_id));
    match found {
        Some(Ok(_)) => format!("Group {group_id} is not a classic group."),
        _ => format!("Group {group_id} not found."),
    }
}

fn member(member: coordinator::DescribedMember) -> DescribedGroupMember {
    DescribedGroupMember {
        member_id: member.member_id,
        group_instance_id: member.group_instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
        member_metadata: member.metadata,
        member_assignment: member.assignment,
        ..DescribedGroupMember::default()
    }
}
