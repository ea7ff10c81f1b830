//! The writer: from the topic into the store, each activity once.
//!
//! Invariants: a batch is in the store, synced, before its offsets may be committed; a record that can never be stored
//! goes to the failure inbox with the reason, and the rest of its batch goes on; a store that fails keeps the batch,
//! however long it takes, and loses nothing. Records come again after a crash: the store's first write wins.

use std::sync::Arc;

use tidings::ReceivedRecord;
use tidings::consumer::{BatchHandler, HandlerError, Outcome};
use tidings::failure::Failure;

use crate::activity::Activity;
use crate::cloud_event::{self, RecordError};
use crate::live::StoredBell;
use crate::metrics::ActivityMetrics;
use crate::rules::summary;
use crate::store::{Inserted, Store};
use crate::timestamp::Timestamp;

/// Handles batches of the topic's records.
pub struct Writer {
    store: Arc<dyn Store>,
    stored: StoredBell,
    metrics: ActivityMetrics,
}

impl Writer {
    /// A writer into `store`, which rings `stored`.
    pub fn new(store: Arc<dyn Store>, stored: StoredBell, metrics: ActivityMetrics) -> Self {
        Self { store, stored, metrics }
    }
}

impl BatchHandler for Writer {
    fn handle(&mut self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
        let mut activities = Vec::with_capacity(batch.len());
        let mut rejected = Vec::new();
        for (index, record) in batch.iter().enumerate() {
            match read(record) {
                Ok(activity) => activities.push(activity),
                Err(error) => rejected.push((index, failure(&error))),
            }
        }
        let inserted =
            self.store.insert_batch(&activities).map_err(|error| HandlerError::from_error(&error))?;
        self.stored.ring();
        let stored = inserted.iter().filter(|inserted| **inserted == Inserted::Stored).count() as u64;
        self.metrics.stored.inc_by(stored);
        let erased = inserted.iter().filter(|inserted| **inserted == Inserted::Erased).count() as u64;
        self.metrics.duplicates.inc_by(inserted.len() as u64 - stored - erased);
        self.metrics.erased.inc_by(erased);
        self.metrics.dead_letters.inc_by(rejected.len() as u64);
        if rejected.is_empty() {
            return Ok(Vec::new());
        }
        let mut outcomes = vec![Outcome::Done; batch.len()];
        for (index, failure) in rejected {
            outcomes[index] = Outcome::Reject(failure);
        }
        Ok(outcomes)
    }
}

fn read(record: &ReceivedRecord) -> Result<Activity<'_>, RecordError> {
    let record_time = record.timestamp_ms.and_then(Timestamp::from_millis).unwrap_or_else(Timestamp::now);
    cloud_event::read(record.value.as_deref(), record_time)
}

/// The reason in one sentence, and what lies below it as causes.
fn failure(error: &RecordError) -> Failure {
    match error {
        RecordError::NotAnActivity(errors) => {
            Failure::new("the data is not an activity").caused_by(summary(errors))
        }
        RecordError::NotJson(cause) => Failure::new("the value is not JSON").caused_by(cause.to_string()),
        RecordError::Empty | RecordError::TooLarge { .. } | RecordError::NotAnEvent(_) => {
            Failure::new(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests;
