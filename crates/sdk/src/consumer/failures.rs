//! Parking: rejected records become letters before their offsets are committed.

use std::sync::Arc;
use std::time::Duration;

use super::membership::PartitionKey;
use crate::failure::{Failure, FailureTopics, Origin, letter_record};
use crate::producer::{Producer, SendError};
use crate::record::{ReceivedRecord, Record, now_ms};

/// How long letters wait for their acknowledgement before the attempt counts as failed.
const PARK_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Parking {
    producer: Producer,
    group: String,
    retry_topics: Vec<Arc<str>>,
}

/// A letter on its way, and the partition whose offset waits for it.
pub(super) struct PendingLetter {
    pub(super) partition: PartitionKey,
    letter: Record,
}

impl Parking {
    pub(super) fn new(producer: Producer, group: &str, topics: &[FailureTopics]) -> Self {
        let retry_topics = topics.iter().map(|topics| topics.retry(group)).collect();
        Self { producer, group: group.to_string(), retry_topics }
    }

    pub(super) fn letter(
        &self,
        record: &ReceivedRecord,
        failure: &Failure,
        deliveries: u32,
    ) -> PendingLetter {
        let origin = Origin::of(record, self.retry_topics.contains(&record.topic));
        let letter = letter_record(record, &origin, failure, &self.group, deliveries, now_ms());
        PendingLetter { partition: (Arc::clone(&record.topic), record.partition), letter }
    }

    /// Sends letters and answers those that were not acknowledged, with the first reason.
    pub(super) fn park(&self, pending: Vec<PendingLetter>) -> Result<(), (Vec<PendingLetter>, SendError)> {
        let (partitions, letters): (Vec<_>, Vec<_>) =
            pending.into_iter().map(|pending| (pending.partition, pending.letter)).unzip();
        let results = self.producer.send_batch_blocking(&letters, PARK_TIMEOUT);
        let mut first_error = None;
        let mut unsent = Vec::new();
        for ((partition, letter), result) in partitions.into_iter().zip(letters).zip(results) {
            if let Err(error) = result {
                first_error.get_or_insert(error);
                unsent.push(PendingLetter { partition, letter });
            }
        }
        first_error.map_or(Ok(()), |error| Err((unsent, error)))
    }
}
