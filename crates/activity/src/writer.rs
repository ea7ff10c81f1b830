//! The writer: from the topic into the store, each activity once.
//!
//! Invariants: a batch is in the store, synced, before its offsets may be committed; a record that can never be stored
//! goes to the failure inbox with the reason, and the rest of its batch goes on; a store that fails keeps the batch,
//! however long it takes, and loses nothing. Records come again after a crash: the store's first write wins. Of a large
//! batch one part is read while the one before is stored: where the store is a server, neither waits for the other.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

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
#[derive(Clone)]
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

    /// Stores what the group has read before. What is no activity has become a letter then; answers how much of it there is.
    pub fn store_again(&self, batch: &[ReceivedRecord]) -> Result<usize, HandlerError> {
        self.store_in_parts(batch).map(|rejected| rejected.len())
    }
}

impl BatchHandler for Writer {
    fn handle(&mut self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
        let rejected = self.store_in_parts(batch)?;
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

/// What becomes of records that can never be stored, by their index in the batch.
type Rejected = Vec<(usize, Failure)>;

impl Writer {
    fn store_in_parts(&self, batch: &[ReceivedRecord]) -> Result<Rejected, HandlerError> {
        let mut rejected = Rejected::new();
        let part_items = self.store.part_items();
        if batch.len() <= part_items {
            self.store(0, read_all(batch), &mut rejected)?;
            return Ok(rejected);
        }
        let (read, to_store) = sync_channel(1);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Nobody takes parts any more when one could not be stored.
                batch.chunks(part_items).map(read_all).try_for_each(|part| read.send(part))
            });
            for (index, part) in to_store.into_iter().enumerate() {
                self.store(index * part_items, part, &mut rejected)?;
            }
            Ok(rejected)
        })
    }

    /// Stores a part, whose first record is at `start` in the batch.
    fn store(&self, start: usize, part: Part<'_>, rejected: &mut Rejected) -> Result<(), HandlerError> {
        let mut activities = Vec::with_capacity(part.len());
        for (index, read) in part.into_iter().enumerate() {
            match read {
                Ok(activity) => activities.push(activity),
                Err(error) => rejected.push((start + index, failure(&error))),
            }
        }
        let inserted =
            self.store.insert_batch(&activities).map_err(|error| HandlerError::from_error(&error))?;
        self.stored.ring();
        let count = |wanted| inserted.iter().filter(|inserted| **inserted == wanted).count() as u64;
        self.metrics.stored.inc_by(count(Inserted::Stored));
        self.metrics.duplicates.inc_by(count(Inserted::Duplicate));
        self.metrics.erased.inc_by(count(Inserted::Erased));
        Ok(())
    }
}

/// What some records are.
type Part<'a> = Vec<Result<Activity<'a>, RecordError>>;

fn read_all(records: &[ReceivedRecord]) -> Part<'_> {
    records.iter().map(read).collect()
}

fn read(record: &ReceivedRecord) -> Result<Activity<'_>, RecordError> {
    let record_time = record.timestamp_ms.and_then(Timestamp::from_millis).unwrap_or_else(Timestamp::now);
    cloud_event::read_record(record.value.as_deref(), &record.headers, record_time)
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
