//! LeaveGroup: members go, by their own wish or, by instance id, by an administrator's.

use std::sync::Arc;

use tidings_model::ErrorCode;

use crate::classic::group::ClassicGroup;
use crate::classic::state::GroupState;
use crate::coordinator::Context;
use crate::{Effects, GroupCoordinator, Outcome, Release, StorageFailure};

/// One member that leaves. Up to version 2 a request has one, without an instance id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeavingMember {
    /// Its id; empty to name it by its instance.
    pub member_id: String,
    /// Its static instance.
    pub group_instance_id: Option<String>,
}

/// A LeaveGroup request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaveGroupRequest {
    /// The group; must not be empty.
    pub group_id: String,
    /// Who leaves.
    pub members: Vec<LeavingMember>,
}

/// What became of one leaving member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftMember {
    /// As in the request.
    pub member_id: String,
    /// As in the request.
    pub group_instance_id: Option<String>,
    /// What went wrong, if anything.
    pub error: ErrorCode,
}

/// The answer to a LeaveGroup. Up to version 2 the only member's error takes the place of `error`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaveGroupResponse {
    /// What went wrong with the whole request, if anything.
    pub error: ErrorCode,
    /// Each member, in the order of the request.
    pub members: Vec<LeftMember>,
}

impl StorageFailure for LeaveGroupResponse {
    fn fail(&mut self, error: ErrorCode) {
        *self = Self { error, members: Vec::new() };
    }
}

impl GroupCoordinator {
    /// Handles a LeaveGroup: those who stay are asked to join again.
    pub fn leave_group(&mut self, now_ms: i64, request: LeaveGroupRequest) -> Outcome<LeaveGroupResponse> {
        let mut effects = Effects::default();
        let mut cx = self.shard.context(now_ms, &mut effects);
        if request.group_id.is_empty() {
            return Outcome::now(LeaveGroupResponse {
                error: ErrorCode::InvalidGroupId,
                members: Vec::new(),
            });
        }
        let Some(group) = self.groups.get_mut(request.group_id.as_str()) else {
            return self.leave_consumer_group(now_ms, request);
        };
        let mut members = Vec::with_capacity(request.members.len());
        for member in request.members {
            let error = leave(group, &member, &mut cx).err().unwrap_or(ErrorCode::None);
            members.push(left(member, error));
        }
        if members.iter().any(|member| member.error == ErrorCode::None) {
            match group.state() {
                GroupState::Stable | GroupState::CompletingRebalance => group.prepare_rebalance(&mut cx),
                GroupState::PreparingRebalance => group.complete_join_if_all_joined(&mut cx),
                _ => {}
            }
        }
        group.check();
        let release = if effects.records.is_empty() { Release::Now } else { Release::WhenDurable };
        Outcome { response: LeaveGroupResponse { error: ErrorCode::None, members }, release, effects }
    }
}

fn left(member: LeavingMember, error: ErrorCode) -> LeftMember {
    LeftMember { member_id: member.member_id, group_instance_id: member.group_instance_id, error }
}

fn leave(group: &mut ClassicGroup, member: &LeavingMember, cx: &mut Context<'_>) -> Result<(), ErrorCode> {
    let instance_id = member.group_instance_id.as_deref();
    let member_id: Arc<str> = if member.member_id.is_empty() {
        instance_id
            .and_then(|instance_id| group.static_member_id(instance_id))
            .cloned()
            .ok_or(ErrorCode::UnknownMemberId)?
    } else {
        if !group.is_pending(&member.member_id) {
            group.validate_member(&member.member_id, instance_id)?;
        }
        member.member_id.as_str().into()
    };
    group.remove_member(&member_id, cx);
    Ok(())
}
