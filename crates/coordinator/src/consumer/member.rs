//! A member of a consumer group: what it wants, where it stands, and what it has.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidings_model::ErrorCode;

use super::assignment::Assignment;
use crate::Protocol;

/// The epoch of a static member that left and may come back to its partitions.
pub(crate) const LEFT_STATIC_EPOCH: i32 = -2;

/// How far a member is on its way to its target assignment. The codes are those of Kafka's records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// It has all of the target of its epoch.
    #[default]
    Stable,
    /// It must give up partitions before it can move to the next epoch.
    UnrevokedPartitions,
    /// It is in the newest epoch and waits for partitions that others still hold.
    UnreleasedPartitions,
    /// A later version wrote a state that this one does not know.
    Unknown,
}

impl MemberState {
    pub(crate) fn from_code(code: i8) -> Self {
        match code {
            0 => Self::Stable,
            1 => Self::UnrevokedPartitions,
            2 => Self::UnreleasedPartitions,
            _ => Self::Unknown,
        }
    }

    pub(crate) fn code(self) -> i8 {
        match self {
            Self::Stable => 0,
            Self::UnrevokedPartitions => 1,
            Self::UnreleasedPartitions => 2,
            Self::Unknown => 127,
        }
    }
}

/// What a member that still speaks the classic protocol joined with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassicMember {
    pub(crate) session_timeout_ms: i32,
    pub(crate) protocols: Vec<Protocol>,
}

/// One member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) rack_id: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) subscribed_names: BTreeSet<String>,
    /// Not empty: an empty expression is none.
    pub(crate) subscribed_regex: Option<String>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) server_assignor: Option<String>,
    /// Of a member that speaks the classic protocol.
    pub(crate) classic: Option<ClassicMember>,
    pub(crate) epoch: i32,
    pub(crate) previous_epoch: i32,
    pub(crate) state: MemberState,
    pub(crate) assigned: Assignment,
    pub(crate) pending_revocation: Assignment,
}

impl Member {
    pub(crate) fn new(id: Arc<str>) -> Self {
        Self { id, rebalance_timeout_ms: -1, ..Self::default() }
    }

    pub(crate) fn uses_classic_protocol(&self) -> bool {
        self.classic.is_some()
    }

    /// Whether there is nothing left to do for this target.
    pub(crate) fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == target_epoch
    }

    /// Everything nobody else may have yet.
    pub(crate) fn holds(&self) -> impl Iterator<Item = (tidings_model::TopicId, i32)> {
        self.assigned.iter().chain(self.pending_revocation.iter())
    }

    /// Whether the two would write the same metadata record: all but where they stand and what they hold.
    pub(crate) fn has_metadata_of(&self, other: &Self) -> bool {
        self.id == other.id
            && self.instance_id == other.instance_id
            && self.rack_id == other.rack_id
            && self.client_id == other.client_id
            && self.client_host == other.client_host
            && self.subscribed_names == other.subscribed_names
            && self.subscribed_regex == other.subscribed_regex
            && self.rebalance_timeout_ms == other.rebalance_timeout_ms
            && self.server_assignor == other.server_assignor
            && self.classic == other.classic
    }
}

/// Whether a member that commits or fetches offsets is where it believes itself to be; each protocol has its own error.
pub(crate) fn check_member_epoch(member: &Member, found: i32) -> Result<(), ErrorCode> {
    match found == member.epoch {
        true => Ok(()),
        false if member.uses_classic_protocol() => Err(ErrorCode::IllegalGeneration),
        false => Err(ErrorCode::StaleMemberEpoch),
    }
}
