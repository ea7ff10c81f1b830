//! The spool as a place for events.

use std::sync::Arc;
use std::time::Duration;

use super::Keeper;
use super::place::{Events, Keep, NotKept, Place};
use crate::metrics::ActivityMetrics;
use crate::publisher::Wake;
use crate::spool::Spool;

/// The way into the spool. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SpoolPlace {
    spool: Spool,
    place: Place,
}

impl SpoolPlace {
    /// Starts the thread.
    pub fn start(spool: Spool, keeper: &Keeper) -> std::io::Result<Self> {
        let (wake, metrics) = (Arc::clone(&keeper.wake), keeper.metrics.clone());
        let into = IntoSpool { spool: spool.clone(), wake, metrics };
        Ok(Self { spool, place: Place::start("activity spool", into)? })
    }

    /// Whether it has events that wait for store or cluster.
    pub fn has_older(&self) -> bool {
        self.spool.pending_bytes() > 0
    }

    /// Has events appended and synced, within `limit`.
    pub async fn keep(&self, events: &Events, limit: Duration) -> Result<(), NotKept> {
        self.place.keep(events, limit).await
    }
}

struct IntoSpool {
    spool: Spool,
    wake: Arc<Wake>,
    metrics: ActivityMetrics,
}

impl Keep for IntoSpool {
    fn keep(&self, events: &[&[u8]]) -> Result<(), NotKept> {
        if let Err(error) = self.spool.append(events) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "the spool takes nothing");
            return Err(NotKept::Refused);
        }
        self.metrics.spooled.inc_by(events.len() as u64);
        self.metrics.spool_bytes.set(self.spool.pending_bytes() as i64);
        self.wake.ring();
        Ok(())
    }
}
