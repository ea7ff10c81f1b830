//! What consumers count.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
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

/// From a quarter of a millisecond to a quarter of an hour.
const SECONDS: [f64; 12] = [0.000_25, 0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0];

/// A histogram for durations.
#[derive(Debug, Clone, Copy)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(SECONDS)
    }
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
#[derive(Debug, Clone)]
pub struct ConsumerMetrics {
    processed: Family<GroupLabels, Counter>,
    dead_letters: Family<GroupLabels, Counter>,
    retries: Family<GroupLabels, Counter>,
    commits: Family<GroupLabels, Counter>,
    records_lost: Family<GroupLabels, Counter>,
    paused: Family<GroupLabels, Gauge>,
    in_flight: Family<GroupLabels, Gauge>,
    buffered: Family<GroupLabels, Gauge>,
    handler_seconds: Family<GroupLabels, Histogram, Seconds>,
    latency_seconds: Family<GroupLabels, Histogram, Seconds>,
    lag: Family<LagLabels, Gauge>,
    lag_seconds: Family<LagLabels, Gauge<f64, AtomicU64>>,
}

impl Default for ConsumerMetrics {
    fn default() -> Self {
        Self {
            processed: Family::default(),
            dead_letters: Family::default(),
            retries: Family::default(),
            commits: Family::default(),
            records_lost: Family::default(),
            paused: Family::default(),
            in_flight: Family::default(),
            buffered: Family::default(),
            handler_seconds: Family::new_with_constructor(Seconds),
            latency_seconds: Family::new_with_constructor(Seconds),
            lag: Family::default(),
            lag_seconds: Family::default(),
        }
    }
}

impl ConsumerMetrics {
    /// Adds, each by group: `tidings_consumer_processed_total`, `tidings_consumer_dead_letters_total`,
    /// `tidings_consumer_retries_total`, `tidings_consumer_commits_total`, `tidings_consumer_records_lost_total` (removed
    /// before they were read, as [`super::ConsumerState::lost`]), `tidings_consumer_paused` (0 or 1),
    /// `tidings_consumer_in_flight` and `tidings_consumer_buffered` (records), `tidings_consumer_handler_seconds` (a call of
    /// the handler), `tidings_consumer_latency_seconds` (from a record's timestamp until it is done); and by topic,
    /// partition and group `tidings_consumer_lag_seconds` (the age of the first record that is not done).
    pub fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, family: &Family<GroupLabels, Counter>| {
            registry.register(name, help, family.clone());
        };
        counter("tidings_consumer_processed", "Records the handler is done with", &self.processed);
        counter("tidings_consumer_dead_letters", "Records parked in a failure inbox", &self.dead_letters);
        counter("tidings_consumer_retries", "Attempts after transient failures", &self.retries);
        counter("tidings_consumer_commits", "Offset commits acknowledged", &self.commits);
        let help = "Records that were removed from their topic before the group read them";
        counter("tidings_consumer_records_lost", help, &self.records_lost);
        registry.register(
            "tidings_consumer_paused",
            "Whether the consumer keeps records after a transient failure",
            self.paused.clone(),
        );
        let mut gauge = |name: &str, help: &str, family: &Family<GroupLabels, Gauge>| {
            registry.register(name, help, family.clone());
        };
        gauge("tidings_consumer_in_flight", "Records that are with the handler", &self.in_flight);
        gauge(
            "tidings_consumer_buffered",
            "Records fetched and not done, those with the handler included",
            &self.buffered,
        );
        let mut seconds = |name: &str, help: &str, family: &Family<GroupLabels, Histogram, Seconds>| {
            registry.register(name, help, family.clone());
        };
        seconds(
            "tidings_consumer_handler_seconds",
            "Duration of a call of the handler",
            &self.handler_seconds,
        );
        seconds(
            "tidings_consumer_latency_seconds",
            "From the timestamp of a record until it is done",
            &self.latency_seconds,
        );
        registry.register(
            "tidings_consumer_lag_seconds",
            "Age of the first record that is not done; 0 where there is none",
            self.lag_seconds.clone(),
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
            records_lost: self.records_lost.get_or_create(&labels).clone(),
            paused: self.paused.get_or_create(&labels).clone(),
            in_flight: self.in_flight.get_or_create(&labels).clone(),
            buffered: self.buffered.get_or_create(&labels).clone(),
            handler_seconds: self.handler_seconds.get_or_create(&labels).clone(),
            latency_seconds: self.latency_seconds.get_or_create(&labels).clone(),
            lag: self.lag.clone(),
            lag_seconds: self.lag_seconds.clone(),
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
    pub(super) records_lost: Counter,
    pub(super) paused: Gauge,
    pub(super) in_flight: Gauge,
    pub(super) buffered: Gauge,
    pub(super) handler_seconds: Histogram,
    pub(super) latency_seconds: Histogram,
    lag: Family<LagLabels, Gauge>,
    lag_seconds: Family<LagLabels, Gauge<f64, AtomicU64>>,
}

impl GroupMetrics {
    pub(super) fn set_lag(&self, partition: &PartitionState) {
        if let Some(lag) = partition.lag() {
            self.lag.get_or_create(&self.labels(&partition.topic, partition.partition)).set(lag);
        }
        if let Some(lag_ms) = partition.lag_ms {
            let labels = self.labels(&partition.topic, partition.partition);
            self.lag_seconds.get_or_create(&labels).set(lag_ms as f64 / 1e3);
        }
    }

    /// A partition of somebody else is not this member's to report.
    pub(super) fn forget_lag(&self, topic: &str, partition: i32) {
        let labels = self.labels(topic, partition);
        self.lag.remove(&labels);
        self.lag_seconds.remove(&labels);
    }

    fn labels(&self, topic: &str, partition: i32) -> LagLabels {
        LagLabels { topic: topic.to_string(), partition, group: self.group.clone() }
    }
}
