//! The log that the broker keeps about itself: `__cluster_metadata-0`.
//!
//! Owns the writing of batches of metadata records. Invariant: when `write` has returned, the records are durable; all
//! records of one call stand in one batch, so that a crash leaves all of them or none.
//!
//! The log keeps a little room on the disk for itself, which only what makes room (deletions, a shorter retention) may
//! use, so that a full disk can always be helped.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use tidings_log::batch::BatchBuilder;
use tidings_log::{AppendError, AppendOptions, CommitError, Origin, PartitionLog};

use crate::clock::Clock;

/// Room for some hundred deletions.
const KEPT_ROOM_BYTES: u64 = 64 << 10;

/// At most: of a batch that holds one record, beyond the record itself.
const RECORD_OVERHEAD_BYTES: usize = 100;

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

    /// Appends the records as one batch and waits until it is durable. Fails on a disk with less than the kept room.
    pub(crate) async fn write(&self, records: &[Bytes]) -> Result<(), WriteError> {
        let bytes: usize = records.iter().map(|record| record.len() + RECORD_OVERHEAD_BYTES).sum();
        self.log.reserve(KEPT_ROOM_BYTES + bytes as u64)?;
        self.append(records).await
    }

    /// The same for records that make room: also on a full disk.
    pub(crate) async fn write_to_make_room(&self, records: &[Bytes]) -> Result<(), WriteError> {
        if let Err(error) = self.log.reserve(KEPT_ROOM_BYTES) {
            tracing::warn!(%error, "the disk is full; this change uses the room that was kept for it");
        }
        self.append(records).await
    }

    async fn append(&self, records: &[Bytes]) -> Result<(), WriteError> {
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
