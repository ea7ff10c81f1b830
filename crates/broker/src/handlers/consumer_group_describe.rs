//! ConsumerGroupDescribe, versions 0 and 1: epochs, members and assignments of consumer groups (KIP-848).
//!
//! Version 1 tells which members still speak the classic protocol (KIP-1099). Groups of the classic protocol are not
//! described here, as DescribeGroups does not describe those of the consumer protocol.

use tidings_coordinator as coordinator;
use tidings_coordinator::NotAConsumerGroup;
use tidings_model::ErrorCode;
use tidings_wire::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use tidings_wire::messages::consumer_group_describe_response::{
    Assignment, ConsumerGroupDescribeResponse, DescribedGroup, Member, TopicPartitions,
};

use crate::handlers::Cx;
use crate::mentions::first_of_each;
use crate::operations;

const WITH_MEMBER_TYPE: i16 = 1;
const MEMBER_TYPE_UNKNOWN: i8 = -1;
const MEMBER_TYPE_CLASSIC: i8 = 0;
const MEMBER_TYPE_CONSUMER: i8 = 1;

pub(crate) async fn handle(
    cx: &Cx<'_>,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let with_operations = request.include_authorized_operations;
    let group_ids = first_of_each(request.group_ids, String::clone);
    let groups = group_ids.into_iter().map(|group_id| describe(cx, group_id, with_operations));
    ConsumerGroupDescribeResponse { groups: groups.collect(), ..ConsumerGroupDescribeResponse::default() }
}

fn describe(cx: &Cx<'_>, group_id: String, with_operations: bool) -> DescribedGroup {
    let refuse = |error: ErrorCode, message: Option<String>| DescribedGroup {
        error_code: error.code(),
        error_message: message,
        group_id: group_id.clone(),
        authorized_operations: operations::NOT_ASKED,
        ..DescribedGroup::default()
    };
    if group_id.is_empty() {
        return refuse(ErrorCode::InvalidGroupId, None);
    }
    let found = cx.shared.groups.look(&group_id, |groups, _| groups.describe_consumer_group(&group_id));
    match found.unwrap_or(Err(NotAConsumerGroup::Missing)) {
        Ok(group) => DescribedGroup {
            group_state: group.state.as_str().to_owned(),
            group_epoch: group.group_epoch,
            assignment_epoch: group.assignment_epoch,
            assignor_name: group.assignor_name.to_owned(),
            members: group.members.into_iter().map(|member| describe_member(member, cx.version)).collect(),
            authorized_operations: operations::when(with_operations, operations::GROUP),
            group_id,
            ..DescribedGroup::default()
        },
        Err(NotAConsumerGroup::Classic) => {
            refuse(ErrorCode::GroupIdNotFound, Some(format!("Group {group_id} is not a consumer group.")))
        }
        Err(NotAConsumerGroup::Missing) => {
            refuse(ErrorCode::GroupIdNotFound, Some(format!("Group {group_id} not found.")))
        }
    }
}

fn describe_member(member: coordinator::DescribedConsumerMember, version: i16) -> Member {
    let kind = if member.is_classic { MEMBER_TYPE_CLASSIC } else { MEMBER_TYPE_CONSUMER };
    Member {
        member_id: member.member_id,
        instance_id: member.instance_id,
        rack_id: member.rack_id,
        member_epoch: member.member_epoch,
        client_id: member.client_id,
        client_host: member.client_host,
        subscribed_topic_names: member.subscribed_topic_names,
        subscribed_topic_regex: member.subscribed_topic_regex,
        assignment: assignment(member.assignment),
        target_assignment: assignment(member.target_assignment),
        member_type: if version >= WITH_MEMBER_TYPE { kind } else { MEMBER_TYPE_UNKNOWN },
        ..Member::default()
    }
}

fn assignment(topics: coordinator::DescribedAssignment) -> Assignment {
    let part = |(topic_id, name, partitions): (_, std::sync::Arc<str>, _)| TopicPartitions {
        topic_id,
        topic_name: name.to_string(),
        partitions,
        ..TopicPartitions::default()
    };
    Assignment { topic_partitions: topics.into_iter().map(part).collect(), ..Assignment::default() }
}
