//! Why a consumer group refuses a request, with Kafka's code for it.

use thiserror::Error;
use tidings_model::ErrorCode;

/// A refusal. It changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ConsumerGroupError {
    /// A field that must be there, or must not.
    #[error("{what}")]
    InvalidRequest { what: &'static str },
    /// `group.consumer.assignors` has no such assignor.
    #[error("server assignor {found} is not offered: expected one of {offered}")]
    UnsupportedAssignor { found: String, offered: String },
    /// No group of this protocol has the id, and it cannot become one.
    #[error("group {group_id} is not a consumer group")]
    GroupIdNotFound { group_id: String },
    /// `group.consumer.max.size` members are there.
    #[error("the group has {max_size} members, which is the most it may have")]
    GroupMaxSizeReached { max_size: usize },
    /// The member or instance is not in the group, or not by this protocol.
    #[error("{member_id} is not a member of the group")]
    UnknownMemberId { member_id: String },
    /// The member is not where it believes itself to be.
    #[error("member epoch {found} is not {expected}: the member must give up its partitions and join again")]
    FencedMemberEpoch { found: i32, expected: i32 },
    /// A later version left the member in a state that this one does not know.
    #[error("the member's state is not known: it must give up its partitions and join again")]
    UnknownMemberState,
    /// Another member has the instance id and has not left.
    #[error("instance {instance_id} belongs to member {owner_id}, which has not left")]
    UnreleasedInstanceId { instance_id: String, owner_id: String },
    /// Another member has taken the instance id over.
    #[error("instance {instance_id} belongs to member {owner_id} now")]
    FencedInstanceId { instance_id: String, owner_id: String },
    /// The expression does not compile.
    #[error("{regex:?} is not a regular expression: {why}")]
    InvalidRegularExpression { regex: String, why: String },
    /// The member is not in the generation it believes (classic protocol).
    #[error("generation {found} is not {expected}")]
    IllegalGeneration { found: i32, expected: i32 },
    /// The group cannot use the member's protocols (classic protocol).
    #[error("the group cannot use the member's protocols")]
    InconsistentGroupProtocol,
    /// The member must join again (classic protocol).
    #[error("the member must join again")]
    RebalanceInProgress,
}

impl ConsumerGroupError {
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::InvalidRequest { .. } => ErrorCode::InvalidRequest,
            Self::UnsupportedAssignor { .. } => ErrorCode::UnsupportedAssignor,
            Self::GroupIdNotFound { .. } => ErrorCode::GroupIdNotFound,
            Self::GroupMaxSizeReached { .. } => ErrorCode::GroupMaxSizeReached,
            Self::UnknownMemberId { .. } => ErrorCode::UnknownMemberId,
            Self::FencedMemberEpoch { .. } | Self::UnknownMemberState => ErrorCode::FencedMemberEpoch,
            Self::UnreleasedInstanceId { .. } => ErrorCode::UnreleasedInstanceId,
            Self::FencedInstanceId { .. } => ErrorCode::FencedInstanceId,
            Self::InvalidRegularExpression { .. } => ErrorCode::InvalidRegularExpression,
            Self::IllegalGeneration { .. } => ErrorCode::IllegalGeneration,
            Self::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
            Self::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        }
    }
}
