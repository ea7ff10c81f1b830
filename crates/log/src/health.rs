//! Whether the storage can still be trusted with writes.
//!
//! Owns one flag and the reason. Invariants: it goes from healthy to failed once and never back, because
//! after a failed sync the kernel may have dropped what it could not write, and a second sync would say
//! that all is well; only a restart, whose recovery writes again what is not known to be durable, heals.

use std::sync::{Arc, OnceLock};

use crate::space::LowSpace;

/// What [`crate::DataDir::storage_state`] answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageState {
    /// Reads and writes.
    Healthy,
    /// Reads and the broker's own writes, until there is space again.
    LowSpace(LowSpace),
    /// Reads only, while the file system takes no writes.
    ReadOnly,
    /// Reads only, until a restart.
    Failed {
        /// What failed, and where.
        why: Arc<str>,
    },
}

#[derive(Debug, Default)]
pub(crate) struct Health {
    failed: OnceLock<Arc<str>>,
}

impl Health {
    /// Stops all writes until a restart; the first reason stays.
    pub fn fail(&self, why: String) -> Arc<str> {
        let reason = self.failed.get_or_init(|| {
            tracing::error!("{why}; writes stop until a restart, reads go on");
            why.into()
        });
        reason.clone()
    }

    pub fn failure(&self) -> Option<&Arc<str>> {
        self.failed.get()
    }
}
