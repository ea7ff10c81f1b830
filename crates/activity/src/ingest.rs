//! The way in: activities become records, and are accepted when the topic, or else the fallback, has them durably.
//!
//! Invariants: what is reported as accepted was acknowledged with `acks=all`, or synced by the fallback; the answer comes
//! by the producer's deadline and the fallback's. What the cluster did not acknowledge in time may still be written; since
//! the first write of an id wins, having it in both places, or sending it again with the same id, is safe.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings::{Headers, Record, ResilientProducer, SendError};
use tokio::sync::watch;

use crate::activity::Activity;
use crate::api::Topics;
use crate::cloud_event::CloudEvent;
use crate::fallback::{Fallback, KeepError, Via};
use crate::metrics::ActivityMetrics;

/// Takes activities in.
#[derive(Debug, Clone)]
pub struct Ingest {
    producer: ResilientProducer,
    topic: Arc<str>,
    topics: watch::Receiver<Topics>,
    /// Until when topics that are being looked for are waited for.
    looking_until: Instant,
    fallback: Fallback,
    metrics: ActivityMetrics,
}

/// Why the topic does not have an activity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The topic is not there yet.
    #[error("the topics are not there yet{}", .0.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    NoTopics(Option<String>),
    /// The send failed.
    #[error("not acknowledged: {0}")]
    Failed(SendError),
}

impl NotSent {
    fn may_be_written(&self) -> bool {
        matches!(self, Self::Failed(error) if error.may_be_written())
    }

    /// Whether the topic will never take it: kept elsewhere, it would wait for ever.
    fn is_too_large(&self) -> bool {
        matches!(self, Self::Failed(error) if error.is_too_large())
    }
}

/// Why an activity was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotAccepted {
    /// Neither the topic nor the fallback has it.
    #[error("{not_sent}; {not_kept}")]
    Nowhere {
        /// What the topic's side said.
        not_sent: NotSent,
        /// What the fallback said.
        not_kept: KeepError,
    },
    /// The topic refuses this record, whatever the state of the cluster.
    #[error(transparent)]
    Refused(NotSent),
}

impl NotAccepted {
    /// Whether it may have been written all the same.
    pub fn may_be_written(&self) -> bool {
        match self {
            Self::Nowhere { not_sent, not_kept } => not_sent.may_be_written() || not_kept.may_be_kept(),
            Self::Refused(not_sent) => not_sent.may_be_written(),
        }
    }

    /// How long until the cluster or the store is tried again, if both are left alone.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Nowhere {
                not_sent: NotSent::Failed(SendError::BreakerOpen { retry_after, .. }),
                not_kept,
            } => not_kept.retry_after().min(*retry_after),
            Self::Nowhere { .. } | Self::Refused(_) => Duration::ZERO,
        }
    }

    /// Whether the topic takes no record that large: sending it again would be in vain.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Refused(not_sent) if not_sent.is_too_large())
    }
}

impl Ingest {
    /// An ingest into `topic`, which is sent to only once it exists.
    pub fn new(
        producer: ResilientProducer,
        topic: Arc<str>,
        topics: watch::Receiver<Topics>,
        fallback: Fallback,
        metrics: ActivityMetrics,
    ) -> Self {
        let looking_until = Instant::now() + producer.timeout();
        Self { producer, topic, topics, looking_until, fallback, metrics }
    }

    /// How long a request waits for the topic.
    pub fn ack_timeout(&self) -> Duration {
        self.producer.timeout()
    }

    /// The way past the topic.
    pub fn fallback(&self) -> &Fallback {
        &self.fallback
    }

    /// What is counted.
    pub fn metrics(&self) -> &ActivityMetrics {
        &self.metrics
    }

    /// The record of an activity.
    pub fn record(&self, activity: &Activity<'_>) -> Record {
        record(&self.topic, activity)
    }

    /// Takes records in and answers for each, in order, when it is durable or has failed.
    pub async fn accept(&self, records: &[Record]) -> Vec<Result<Via, NotAccepted>> {
        if records.is_empty() {
            return Vec::new();
        }
        let started = Instant::now();
        let mut results = self.send(records, started).await;
        if results.iter().any(Result::is_err) {
            self.fall_back(records, &mut results).await;
        }
        self.metrics.ack_seconds.observe(started.elapsed().as_secs_f64());
        let results: Vec<_> = results
            .into_iter()
            .map(|result| result.map_err(|(not_sent, not_kept)| not_accepted(not_sent, not_kept)))
            .collect();
        let failed = results.iter().filter(|result| result.is_err()).count() as u64;
        self.metrics.failed.inc_by(failed);
        self.metrics.accepted.inc_by(records.len() as u64 - failed);
        results
    }

    async fn send(&self, records: &[Record], started: Instant) -> Vec<Attempt> {
        if let Err(not_sent) = self.topics_ready().await {
            return records.iter().map(|_| Err((not_sent.clone(), None))).collect();
        }
        // One deadline for both waits.
        let left = self.producer.timeout().saturating_sub(started.elapsed()).max(Duration::from_millis(1));
        let sent = self.producer.send_batch_within(records, left).await;
        let attempt = |result: Result<_, _>| match result {
            Ok(_) => Ok(Via::Stream),
            Err(error) => Err((NotSent::Failed(error), None)),
        };
        sent.into_iter().map(attempt).collect()
    }

    /// Waits for topics that are being looked for, but not for a cluster that is known not to have any or to be slow to say so.
    async fn topics_ready(&self) -> Result<(), NotSent> {
        let mut topics = self.topics.clone();
        let known = topics.wait_for(|topics| *topics != Topics::Pending(None));
        let patience = self.looking_until.saturating_duration_since(Instant::now());
        let known = tokio::time::timeout(patience, known).await;
        match known {
            Ok(Ok(topics)) => match &*topics {
                Topics::Ready => Ok(()),
                Topics::Pending(why) => Err(NotSent::NoTopics(why.clone())),
            },
            Ok(Err(_)) | Err(_) => Err(NotSent::NoTopics(None)),
        }
    }

    /// Keeps elsewhere what the cluster did not take.
    async fn fall_back(&self, records: &[Record], results: &mut [Attempt]) {
        let failed = |result: &Attempt| matches!(result, Err((not_sent, _)) if !not_sent.is_too_large());
        let pairs = records.iter().zip(results.iter());
        let events: Vec<Vec<u8>> = pairs
            .filter(|(_, result)| failed(result))
            .filter_map(|(record, _)| record.value.clone())
            .collect();
        if events.is_empty() {
            return;
        }
        let kept = self.fallback.keep(events).await;
        for result in results.iter_mut().filter(|result| failed(result)) {
            match &kept {
                Ok(via) => *result = Ok(*via),
                Err(not_kept) => {
                    if let Err((_, place)) = result {
                        *place = Some(not_kept.clone());
                    }
                }
            }
        }
    }
}

/// What became of a record: the second error is that of the fallback, where it was tried.
type Attempt = Result<Via, (NotSent, Option<KeepError>)>;

/// The record of an activity.
pub fn record(topic: &Arc<str>, activity: &Activity<'_>) -> Record {
    let event = CloudEvent::new(activity);
    let attributes = event.headers();
    let bytes = attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    let mut headers = Headers::with_capacity(attributes.len(), bytes);
    for (name, value) in attributes {
        headers.push(name, value.as_bytes());
    }
    Record {
        topic: Arc::clone(topic),
        partition: None,
        key: Some(activity.tenant.as_bytes().to_vec()),
        value: Some(event.to_json()),
        headers,
        timestamp_ms: None,
    }
}

fn not_accepted(not_sent: NotSent, not_kept: Option<KeepError>) -> NotAccepted {
    match not_kept {
        Some(not_kept) => NotAccepted::Nowhere { not_sent, not_kept },
        None => NotAccepted::Refused(not_sent),
    }
}
