//! What producers count.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of the latency histogram in seconds: a flush to a fast disk up to a client's patience.
const ACK_SECONDS_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabels {
    topic: String,
}

/// Counters of all producers that share it.
///
/// ```
/// use prometheus_client::registry::Registry;
/// use tidings::{ProducerMetrics, ProducerOptions};
///
/// let mut registry = Registry::default();
/// let metrics = ProducerMetrics::default();
/// metrics.register(&mut registry);
/// metrics.register_produced(&mut registry); // unless the broker in this process exports it
/// let options = ProducerOptions { metrics, ..ProducerOptions::default() };
/// # drop(options);
/// ```
#[derive(Debug, Clone)]
pub struct ProducerMetrics {
    produced: Family<TopicLabels, Counter>,
    failed: Family<TopicLabels, Counter>,
    ack_seconds: Family<TopicLabels, Histogram, fn() -> Histogram>,
    by_topic: Arc<RwLock<HashMap<Arc<str>, Arc<TopicMetrics>>>>,
}

/// The counters of one topic, looked up once per batch instead of once per record.
#[derive(Debug)]
pub(super) struct TopicMetrics {
    pub(super) topic: Arc<str>,
    produced: Counter,
    pub(super) failed: Counter,
    ack_seconds: Histogram,
}

impl Default for ProducerMetrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(ACK_SECONDS_BUCKETS);
        Self {
            produced: Family::default(),
            failed: Family::default(),
            ack_seconds: Family::new_with_constructor(histogram),
            by_topic: Arc::default(),
        }
    }
}

impl ProducerMetrics {
    /// Adds `tidings_produce_failed_total` and `tidings_produce_ack_seconds`, each by topic.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "tidings_produce_failed",
            "Records not acknowledged by their deadline",
            self.failed.clone(),
        );
        registry.register(
            "tidings_produce_ack_seconds",
            "Time from sending a record to its acknowledgement",
            self.ack_seconds.clone(),
        );
    }

    /// Adds `kafka_messages_produced_total` by topic, which an embedded broker counts for all its clients.
    pub fn register_produced(&self, registry: &mut Registry) {
        registry.register(
            "kafka_messages_produced",
            "Records acknowledged by the cluster",
            self.produced.clone(),
        );
    }

    pub(super) fn topic(&self, topic: &Arc<str>) -> Arc<TopicMetrics> {
        if let Some(metrics) = self.by_topic.read().get(topic) {
            return Arc::clone(metrics);
        }
        let labels = TopicLabels { topic: topic.to_string() };
        let metrics = Arc::new(TopicMetrics {
            topic: Arc::clone(topic),
            produced: self.produced.get_or_create(&labels).clone(),
            failed: self.failed.get_or_create(&labels).clone(),
            ack_seconds: self.ack_seconds.get_or_create(&labels).clone(),
        });
        self.by_topic.write().insert(Arc::clone(topic), Arc::clone(&metrics));
        metrics
    }
}

impl TopicMetrics {
    pub(super) fn acknowledged(&self, after: Duration) {
        self.produced.inc();
        self.ack_seconds.observe(after.as_secs_f64());
    }
}
