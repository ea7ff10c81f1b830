//! The log that the broker keeps about itself: `__cluster_metadata-0`.
//!
//! Owns the writing of batches of metadata records. Invariant: when `write` has returned, the records are durable; all
//! records of one call stand in one batch, so that a crash leaves all of them or none.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use tidings_log::batch::BatchBuilder;
use tidings_log::{AppendError, AppendOptions, CommitError, Origin, PartitionLog};

use crate::clock::Clock;

/// Why metadata was not stored.
#[derive(Debug, Error)]
pub(crate) enum WriteError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// The metadata log; cheap to clone.
#[derive(Clone)]
pub(crate) struct MetadataLog {
    log: Arc<PartitionLog>,
    clock: Arc<dyn Clock>,
}

impl MetadataLog {
    pub(crate) fn new(log: Arc<PartitionLog>, clock: Arc<dyn Clock>) -> MetadataLog {
        MetadataLog { log, clock }
    }

    /// Appends the records as one batch and waits until it is durable.
    pub(crate) async fn write(&self, records: &[Bytes]) -> Result<(), WriteError> {
        let now_ms = self.clock.wall_ms();
        let mut batch = BatchBuilder::new();
        for record in records {
            batch.push(now_ms, None, Some(record), &[]);
        }
        let options = AppendOptions { origin: Origin::Coordinator, leader_epoch: 0, now_ms };
        let appended = self.log.append(batch.build(), options)?;
        Ok(appended.commit.await?)
    }
}
