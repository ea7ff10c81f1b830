//! Heartbeat: a member says it lives, and learns whether to join again.

use tidings_model::ErrorCode;

use crate::classic::state::GroupState;
use crate::{Effects, GroupCoordinator};

/// A Heartbeat request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeartbeatRequest {
    /// The group; must not be empty.
    pub group_id: String,
    /// The generation that the member is in.
    pub generation_id: i32,
    /// The member's id.
    pub member_id: String,
    /// The static instance (version 3 on).
    pub group_instance_id: Option<String>,
}

impl GroupCoordinator {
    /// Handles a Heartbeat; the answer is its error code and may leave at once.
    pub fn heartbeat(&mut self, now_ms: i64, request: &HeartbeatRequest) -> ErrorCode {
        let mut effects = Effects::default();
        let cx = &mut self.shard.context(now_ms, &mut effects);
        if request.group_id.is_empty() {
            return ErrorCode::InvalidGroupId;
        }
        let Some(group) = self.groups.get(request.group_id.as_str()) else {
            return self.heartbeat_in_consumer_group(now_ms, request);
        };
        if let Err(error) = group.validate_member(&request.member_id, request.group_instance_id.as_deref()) {
            return error;
        }
        if request.generation_id != group.generation_id {
            return ErrorCode::IllegalGeneration;
        }
        group.touch(&request.member_id, cx);
        match group.state() {
            GroupState::PreparingRebalance => ErrorCode::RebalanceInProgress,
            _ => ErrorCode::None,
        }
    }
}
