//! One group of the classic protocol: its members, its states and how a rebalance moves between them.
//!
//! Owns everything about a group but its offsets. Does not look groups up and does not check requests: `api` does.

pub(crate) mod group;
pub(crate) mod member;
pub(crate) mod rebalance;
pub(crate) mod state;
pub(crate) mod subscription;
