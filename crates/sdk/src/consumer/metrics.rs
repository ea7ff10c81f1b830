//! What consumers count.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::state::PartitionState;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabels {
    group: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LagLabels {
    topic: String,
    partition: i32,
    group: String,
}

/// Counters of all consumers that share it.
///
/// ```
/// use prometheus_client::registry::Registry;
/// use tidings::consumer::{ConsumerMetrics, ConsumerOptions};
///
/// let mut registry = Registry::default();
/// let metrics = ConsumerMetrics::default();
/// metrics.register(&mut registry);
/// metrics.register_lag(&mut registry); // unless the broker in this process exports it
/// let mut options = ConsumerOptions::new("billing", ["orders"]);
/// options.metrics = metrics;
/// ```
#[derive(Debug, Clone, Default)]
pub struct ConsumerMetrics {
    processed: Family<GroupLabels, Counter>,
    dead_letters: Family<GroupLabels, Counter>,
    retries: Family<GroupLabels, Counter>,
    commits: Family<GroupLabels, Counter>,
    paused: Family<GroupLabels, Gauge>,
    lag: Family<LagLabels, Gauge>,
}

impl ConsumerMetrics {
    /// Adds, each by group: `tidings_consumer_processed_total`, `tidings_consumer_dead_letters_total`,
    /// `tidings_consumer_retries_total`, `tidings_consumer_commits_total` and `tidings_consumer_paused` (0 or 1).
    pub fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, family: &Family<GroupLabels, Counter>| {
            registry.register(name, help, family.clone());
        };
        counter("tidings_consumer_processed", "Records the handler is done with", &self.processed);
        counter("tidings_consumer_dead_letters", "Records parked in a failure inbox", &self.dead_letters);
        counter("tidings_consumer_retries", "Attempts after transient failures", &self.retries);
        counter("tidings_consumer_commits", "Offset commits acknowledged", &self.commits);
        registry.register(
            "tidings_consumer_paused",
            "Whether the consumer keeps a batch after a transient failure",
            self.paused.clone(),
        );
    }

    /// Adds `kafka_consumer_lag` by topic, partition and group, for the partitions assigned to these consumers.
    pub fn register_lag(&self, registry: &mut Registry) {
        registry.register("kafka_consumer_lag", "Records the group has not worked on yet", self.lag.clone());
    }

    pub(super) fn of_group(&self, group: &str) -> GroupMetrics {
        let labels = GroupLabels { group: group.to_string() };
        GroupMetrics {
            group: group.to_string(),
            processed: self.processed.get_or_create(&labels).clone(),
            dead_letters: self.dead_letters.get_or_create(&labels).clone(),
            retries: self.retries.get_or_create(&labels).clone(),
            commits: self.commits.get_or_create(&labels).clone(),
            paused: self.paused.get_or_create(&labels).clone(),
            lag: self.lag.clone(),
        }
    }
}

/// The counters of one group.
pub(super) struct GroupMetrics {
    group: String,
    pub(super) processed: Counter,
    pub(super) dead_letters: Counter,
    pub(super) retries: Counter,
    pub(super) commits: Counter,
    pub(super) paused: Gauge,
    lag: Family<LagLabels, Gauge>,
}

impl GroupMetrics {
    pub(super) fn set_lag(&self, partition: &PartitionState) {
        if let Some(lag) = partition.lag() {
            self.lag.get_or_create(&self.labels(&partition.topic, partition.partition)).set(lag);
        }
    }

    /// A partition of somebody else is not this member's to report.
    pub(super) fn forget_lag(&self, topic: &str, partition: i32) {
        self.lag.remove(&self.labels(topic, partition));
    }

    fn labels(&self, topic: &str, partition: i32) -> LagLabels {
        LagLabels { topic: topic.to_string(), partition, group: self.group.clone() }
    }
}
