//! The states of groups, and which may follow which in a classic one.

use std::fmt;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupState {
    /// No members; it may hold offsets.
    Empty,
    /// Members are asked to join again; answers wait until all have, or the rebalance timeout.
    PreparingRebalance,
    /// A generation is formed and waits for its leader's assignment.
    CompletingRebalance,
    /// A consumer group has changed and has no target assignment for it yet.
    Assigning,
    /// Members of a consumer group are on their way to their target assignment.
    Reconciling,
    /// Every member has its assignment.
    Stable,
    /// The group does not exist; only told to clients, never held.
    Dead,
}

impl GroupState {
    /// Kafka's name, as ListGroups and DescribeGroups tell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }

    /// Whether a group may go from this state to `next`.
    pub(crate) fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Empty | Self::CompletingRebalance | Self::Stable, Self::PreparingRebalance)
                | (Self::PreparingRebalance, Self::CompletingRebalance | Self::Empty)
                | (Self::CompletingRebalance, Self::Stable)
        )
    }
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
