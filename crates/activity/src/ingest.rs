//! The way into the topic: activities become records, and are accepted when the cluster has acknowledged them.
//!
//! Invariant: what is reported as accepted was acknowledged with `acks=all`. What was not acknowledged in time may
//! still be written; since the first write of an id wins, sending it again with the same id is safe.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings::{Headers, Producer, Record, SendError};

use crate::activity::Activity;
use crate::cloud_event::CloudEvent;
use crate::metrics::ActivityMetrics;

/// Sends activities to the topic.
#[derive(Debug, Clone)]
pub struct Ingest {
    producer: Producer,
    topic: Arc<str>,
    /// How long one request, or one chunk of a stream, waits for its ack.
    ack_timeout: Duration,
    metrics: ActivityMetrics,
}

impl Ingest {
    /// An ingest into `topic`.
    pub fn new(producer: Producer, topic: Arc<str>, ack_timeout: Duration, metrics: ActivityMetrics) -> Self {
        Self { producer, topic, ack_timeout, metrics }
    }

    /// What is counted.
    pub fn metrics(&self) -> &ActivityMetrics {
        &self.metrics
    }

    /// How long a send waits for its ack.
    pub fn ack_timeout(&self) -> Duration {
        self.ack_timeout
    }

    /// The record of an activity.
    pub fn record(&self, activity: &Activity<'_>) -> Record {
        let event = CloudEvent::new(activity);
        let attributes = event.headers();
        let bytes = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
        let mut headers = Headers::with_capacity(attributes.len(), bytes);
        for (name, value) in attributes {
            headers.push(name, value.as_bytes());
        }
        Record {
            topic: Arc::clone(&self.topic),
            partition: None,
            key: Some(activity.tenant.as_bytes().to_vec()),
            value: Some(event.to_json()),
            headers,
            timestamp_ms: None,
        }
    }

    /// Sends records and answers for each, in order, when it is durable or has failed.
    pub async fn send(&self, records: &[Record]) -> Vec<Result<(), SendError>> {
        if records.is_empty() {
            return Vec::new();
        }
        let started = Instant::now();
        let sent = self.producer.send_batch(records, self.ack_timeout).await;
        self.metrics.ack_seconds.observe(started.elapsed().as_secs_f64());
        let failed = sent.iter().filter(|result| result.is_err()).count() as u64;
        self.metrics.failed.inc_by(failed);
        self.metrics.accepted.inc_by(records.len() as u64 - failed);
        sent.into_iter().map(|result| result.map(|_| ())).collect()
    }
}
