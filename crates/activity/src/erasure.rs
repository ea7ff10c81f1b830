//! The erasure of an actor: what is asked for, and the record that it happened.
//!
//! The record says who asked, when, and how many activities went. It does not say whose they were: the actor's id is kept
//! only until the last activity is gone, then a keyed digest of it, by which what comes again is known. Invariant: once
//! a request is durable, nothing of that actor that was received until then is stored any more, whichever way it comes.

use serde::Serialize;

use crate::timestamp::Timestamp;

/// What is to be erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasureRequest {
    /// A new id for it.
    pub id: String,
    /// Whose activities: one tenant's,
    pub tenant: String,
    /// and those whose actor has this id.
    pub actor: String,
    /// Who asks, for the record.
    pub requested_by: String,
    /// Now: what is received later is stored.
    pub requested_at: Timestamp,
}

/// A place in the list of a tenant's erasures, which are ordered by time and id, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErasurePosition {
    /// When the erasure there was asked for.
    pub requested_at: Timestamp,
    /// Its id.
    pub id: String,
}

/// The record of an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Erasure {
    /// Its id.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// Who asked.
    pub requested_by: String,
    /// When.
    pub requested_at: Timestamp,
    /// How many activities are gone so far.
    pub activities: u64,
    /// When the last of them went; `None` while it goes on.
    pub finished_at: Option<Timestamp>,
}

impl Erasure {
    /// Its place in the list.
    pub fn position(&self) -> ErasurePosition {
        ErasurePosition { requested_at: self.requested_at, id: self.id.clone() }
    }
}
