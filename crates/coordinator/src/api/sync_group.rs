//! SyncGroup: the leader hands in everybody's assignment, and everybody gets theirs once it is in the log.

use std::collections::HashMap;

use bytes::Bytes;
use tidings_model::ErrorCode;

use crate::classic::group::ClassicGroup;
use crate::classic::member::Member;
use crate::classic::state::GroupState;
use crate::coordinator::{Context, InFlight};
use crate::{Effects, GroupCoordinator, Release, ReplyToken, records};

/// One member's assignment, as the leader made it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberAssignment {
    /// Whose.
    pub member_id: String,
    /// For consumers topics and partitions; opaque here.
    pub assignment: Bytes,
}

/// A SyncGroup request. From version 5 on the handler refuses one without `protocol_type` or `protocol_name`
/// with [`ErrorCode::InconsistentGroupProtocol`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncGroupRequest {
    /// The group; must not be empty.
    pub group_id: String,
    /// The generation that JoinGroup answered with.
    pub generation_id: i32,
    /// The member's id.
    pub member_id: String,
    /// The static instance (version 3 on).
    pub group_instance_id: Option<String>,
    /// What the member believes the group's kind to be.
    pub protocol_type: Option<String>,
    /// What the member believes the group selected.
    pub protocol_name: Option<String>,
    /// From the leader only; members it leaves out get an empty assignment.
    pub assignments: Vec<MemberAssignment>,
}

/// The answer to a SyncGroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncGroupResponse {
    /// What went wrong, if anything.
    pub error: ErrorCode,
    /// The group's kind (version 5 on).
    pub protocol_type: Option<String>,
    /// The protocol that the group selected (version 5 on).
    pub protocol_name: Option<String>,
    /// The member's assignment.
    pub assignment: Bytes,
}

impl SyncGroupResponse {
    /// A refusal.
    pub fn error(error: ErrorCode) -> Self {
        Self { error, ..Self::default() }
    }

    fn of_group(group: &ClassicGroup, assignment: Bytes) -> Self {
        Self {
            error: ErrorCode::None,
            protocol_type: group.protocol_type.clone(),
            protocol_name: group.protocol_name.clone(),
            assignment,
        }
    }
}

impl GroupCoordinator {
    /// Handles a SyncGroup. The answer goes to `token`, now or when the leader's assignment is written.
    pub fn sync_group(&mut self, now_ms: i64, request: SyncGroupRequest, token: ReplyToken) -> Effects {
        let mut effects = Effects::default();
        if self.consumer_groups.contains_key(request.group_id.as_str()) {
            self.sync_in_consumer_group(now_ms, &request, token, &mut effects);
            return effects;
        }
        let mut cx = self.shard.context(now_ms, &mut effects);
        let checked = match self.groups.get_mut(request.group_id.as_str()) {
            _ if request.group_id.is_empty() => Err(ErrorCode::InvalidGroupId),
            None => Err(ErrorCode::UnknownMemberId),
            Some(group) => validate(group, &request).map(|()| group),
        };
        match checked {
            Err(error) => cx.reply_sync(token, Release::Now, SyncGroupResponse::error(error)),
            Ok(group) => {
                sync(group, request, token, &mut cx);
                group.check();
            }
        }
        effects
    }
}

fn validate(group: &ClassicGroup, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
    let differs = |said: &Option<String>, is: &Option<String>| said.is_some() && is.is_some() && said != is;
    group.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
    if request.generation_id != group.generation_id {
        return Err(ErrorCode::IllegalGeneration);
    }
    if differs(&request.protocol_type, &group.protocol_type)
        || differs(&request.protocol_name, &group.protocol_name)
    {
        return Err(ErrorCode::InconsistentGroupProtocol);
    }
    if group.state() == GroupState::PreparingRebalance {
        return Err(ErrorCode::RebalanceInProgress);
    }
    Ok(())
}

fn sync(group: &mut ClassicGroup, request: SyncGroupRequest, token: ReplyToken, cx: &mut Context<'_>) {
    group.note_sync(&request.member_id, cx);
    if group.state() == GroupState::Stable {
        let assignment =
            group.members.get(request.member_id.as_str()).map(|member| member.assignment.clone());
        let response = SyncGroupResponse::of_group(group, assignment.unwrap_or_default());
        cx.reply_sync(token, Release::WhenDurable, response);
        return;
    }
    group.await_sync(&request.member_id, token, cx);
    if group.is_leader(&request.member_id) {
        assign(group, request.assignments, cx);
    }
}

/// Writes what the leader assigned, and answers everybody who waits for it; the rest will be told when they ask.
fn assign(group: &mut ClassicGroup, assignments: Vec<MemberAssignment>, cx: &mut Context<'_>) {
    let assignments: HashMap<String, Bytes> =
        assignments.into_iter().map(|assigned| (assigned.member_id, assigned.assignment)).collect();
    let of = |member: &Member| assignments.get(&*member.id).cloned().unwrap_or_default();
    cx.write(records::group_metadata_with(group, of), InFlight::GroupAssigned);

    let answers: Vec<_> = group
        .members
        .values_mut()
        .filter_map(|member| Some((member.awaiting_sync.take()?, member.id.clone(), of(member))))
        .collect();
    for (token, member_id, assignment) in answers {
        group.touch(&member_id, cx);
        cx.reply_sync(token, Release::WhenDurable, SyncGroupResponse::of_group(group, assignment));
    }
}
