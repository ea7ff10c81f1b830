//! Groups of the consumer protocol (KIP-848): the coordinator assigns, members reconcile one after the other.
//!
//! Owns everything about such a group but its offsets, and the way between the two protocols. Invariant: a group
//! changes only when its records are replayed ([`replay`]); a call computes what it wants on copies and drafts records
//! ([`draft`]), so a refused request or a failed append leaves nothing behind. Does not look groups up: `api` does.

pub(crate) mod assignment;
pub(crate) mod assignor;
pub(crate) mod classic_members;
pub(crate) mod draft;
pub(crate) mod error;
pub(crate) mod fence;
pub(crate) mod group;
pub(crate) mod member;
pub(crate) mod migration;
pub(crate) mod protocol;
pub(crate) mod reconcile;
pub(crate) mod records;
pub(crate) mod replay;
pub(crate) mod subscription;
pub(crate) mod target;
pub(crate) mod update;
