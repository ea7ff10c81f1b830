//! The states of a classic group and which may follow which.

use std::fmt;

/// Where a classic group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupState {
    /// No members; it may hold offsets.
    Empty,
    /// Members are asked to join again; answers wait until all have, or the rebalance timeout.
    PreparingRebalance,
    /// A generation is formed and waits for its leader's assignment.
    CompletingRebalance,
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
