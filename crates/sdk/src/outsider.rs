//! Consumers with a group that they never join: for questions, and for reading from where the caller says.
//!
//! **Invariant:** what keeps a client from connecting at all is told within [`REFUSAL_PATIENCE`], not after the caller's
//! whole timeout: waiting does not heal a wrong password.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use crate::cluster::{Cluster, ClusterError, LogContext};
use crate::drop_later::DropLater;
use crate::error::KafkaFault;

/// How often a client that connects is asked what it was told.
const CONNECT_STEP: Duration = Duration::from_millis(100);
/// How long other brokers get to be less strict than the one that refused.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(1);
/// Errors taken from a client at once.
const ERRORS_MAX: usize = 100;

/// A consumer that joins no group.
pub(crate) fn outsider(
    cluster: &Cluster,
    config: &ClientConfig,
) -> Result<DropLater<BaseConsumer<LogContext>>, ClusterError> {
    let consumer: BaseConsumer<LogContext> =
        config.create_with_context(LogContext::of(cluster)).map_err(ClusterError::from_kafka)?;
    // librdkafka connects by itself when its first broker is added, but takes the entry of a group's coordinator for that one: it would
    // be its timer of a second later. A question makes it connect now; nobody waits for the answer.
    let _ = consumer.client().fetch_metadata(None, Duration::ZERO);
    Ok(DropLater::new(consumer))
}

/// Waits until a broker has taken the connection and answered. Not for a consumer that reads: its records would be lost.
pub(crate) fn connect(consumer: &BaseConsumer<LogContext>, timeout: Duration) -> Result<(), KafkaError> {
    let deadline = Instant::now() + timeout;
    let faults = &consumer.context().faults;
    let mut refused_at: Option<Instant> = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // It is kept from the first answer on.
        if consumer.client().fetch_cluster_id(left.min(CONNECT_STEP)).is_some() {
            faults.set(None);
            return Ok(());
        }
        hear(consumer);
        if faults.last().is_some_and(|fault| fault.is_refusal()) {
            refused_at.get_or_insert_with(Instant::now);
        }
        if left.is_zero() || refused_at.is_some_and(|at| at.elapsed() > REFUSAL_PATIENCE) {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerTransportFailure));
        }
    }
}

/// Asks for metadata, of one topic or of all, and connects first.
pub(crate) fn fetch_metadata(
    consumer: &BaseConsumer<LogContext>,
    topic: Option<&str>,
    timeout: Duration,
) -> Result<Metadata, KafkaError> {
    let deadline = Instant::now() + timeout;
    connect(consumer, timeout)?;
    consumer.fetch_metadata(topic, deadline.saturating_duration_since(Instant::now()))
}

/// Whether the one who gave the metadata knows the topic.
pub(crate) fn knows(metadata: &Metadata, topic: &str) -> bool {
    let mut found = metadata.topics().iter().filter(|found| found.name() == topic);
    found.any(|found| found.error().is_none() && !found.partitions().is_empty())
}

/// The fault of a question that failed: what the client was told, where that says more.
pub(crate) fn fault_of(
    consumer: &BaseConsumer<LogContext>,
    error: &KafkaError,
    bootstrap: &str,
    waited: Duration,
) -> KafkaFault {
    consumer.context().faults.explain(KafkaFault::from_kafka(error, bootstrap, waited))
}

/// Has the client tell its errors.
fn hear(consumer: &BaseConsumer<LogContext>) {
    for _ in 0..ERRORS_MAX {
        if consumer.poll(Duration::ZERO).is_none() {
            return;
        }
    }
}
