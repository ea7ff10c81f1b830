//! What the broker tells Prometheus.
//!
//! Owns the counters that requests move, and a collector that computes what is only worth computing when somebody looks:
//! lag, log sizes and offsets. Names with `kafka_` are those of the tutorials, the others begin with `tidings_broker_`.
//! Counting is lock-free but for the per-topic families, which take a read lock.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric, LabelValueEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tidings_log::StorageState;
use tidings_wire::ApiKey;

use crate::shared::Shared;

/// A topic's name as a label; cloning copies a pointer, so that counting allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TopicName(Arc<str>);

impl EncodeLabelValue for TopicName {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        EncodeLabelValue::encode(&&*self.0, encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabels {
    topic: TopicName,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabels {
    api: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabels {
    topic: String,
    partition: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LagLabels {
    topic: String,
    partition: i32,
    group: String,
}

/// The counters; cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    messages_produced: Family<TopicLabels, Counter>,
    bytes_produced: Family<TopicLabels, Counter>,
    bytes_fetched: Counter,
    bytes_in: Counter,
    bytes_out: Counter,
    connections: Gauge,
    acknowledgement_seconds: Histogram,
    /// By API key; made at start so that a request looks nothing up.
    request_seconds: Arc<[Histogram]>,
    request_seconds_by_api: Family<ApiLabels, Histogram, fn() -> Histogram>,
}

fn latency_histogram() -> Histogram {
    // 50 µs to about 26 s.
    Histogram::new(exponential_buckets(0.000_05, 2.0, 20))
}

/// Counts a connection for as long as it lives.
pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let by_api: Family<ApiLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(latency_histogram);
        let served: Vec<ApiKey> = crate::handlers::served_apis().map(|(api, _)| api).collect();
        let histogram = |api: &ApiKey| {
            if served.contains(api) {
                by_api.get_or_create(&ApiLabels { api: format!("{api:?}") }).clone()
            } else {
                latency_histogram()
            }
        };
        Metrics {
            messages_produced: Family::default(),
            bytes_produced: Family::default(),
            bytes_fetched: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            connections: Gauge::default(),
            acknowledgement_seconds: latency_histogram(),
            request_seconds: ApiKey::ALL.iter().map(histogram).collect(),
            request_seconds_by_api: by_api,
        }
    }

    pub(crate) fn connection_opened(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }

    pub(crate) fn bytes_in(&self, bytes: usize) {
        self.bytes_in.inc_by(bytes as u64);
    }

    pub(crate) fn bytes_out(&self, bytes: usize) {
        self.bytes_out.inc_by(bytes as u64);
    }

    pub(crate) fn produced(&self, topic: &Arc<str>, records: u64, bytes: usize) {
        let labels = TopicLabels { topic: TopicName(topic.clone()) };
        self.messages_produced.get_or_create(&labels).inc_by(records);
        self.bytes_produced.get_or_create(&labels).inc_by(bytes as u64);
    }

    pub(crate) fn fetched(&self, bytes: usize) {
        self.bytes_fetched.inc_by(bytes as u64);
    }

    pub(crate) fn answered(&self, api: ApiKey, received: Instant) {
        if let Some(histogram) =
            usize::try_from(api.code()).ok().and_then(|key| self.request_seconds.get(key))
        {
            histogram.observe(received.elapsed().as_secs_f64());
        }
    }

    /// A produce request was answered after its commit.
    pub(crate) fn acknowledged(&self, received: Instant) {
        self.acknowledgement_seconds.observe(received.elapsed().as_secs_f64());
    }

    pub(crate) fn topics_deleted(&self, topics: &[&str]) {
        for topic in topics {
            let labels = TopicLabels { topic: TopicName((*topic).into()) };
            self.messages_produced.remove(&labels);
            self.bytes_produced.remove(&labels);
        }
    }

    /// Registers everything; what is computed reads the broker for as long as it lives.
    pub(crate) fn register(&self, registry: &mut Registry, shared: &Arc<Shared>) {
        registry.register("kafka_messages_produced", "Records appended", self.messages_produced.clone());
        registry.register(
            "tidings_broker_produced_bytes",
            "Bytes of records appended",
            self.bytes_produced.clone(),
        );
        registry.register(
            "tidings_broker_fetched_bytes",
            "Bytes of records fetched",
            self.bytes_fetched.clone(),
        );
        registry.register("tidings_broker_received_bytes", "Bytes of request frames", self.bytes_in.clone());
        registry.register("tidings_broker_sent_bytes", "Bytes of response frames", self.bytes_out.clone());
        registry.register("tidings_broker_connections", "Open client connections", self.connections.clone());
        registry.register(
            "tidings_broker_ack_seconds",
            "From a produce request's arrival to its answer, made after the records are durable",
            self.acknowledgement_seconds.clone(),
        );
        registry.register(
            "tidings_broker_request_seconds",
            "From a request's arrival to its answer",
            self.request_seconds_by_api.clone(),
        );
        registry.register_collector(Box::new(Computed { shared: Arc::downgrade(shared) }));
    }
}

/// What is computed at each scrape.
struct Computed {
    shared: Weak<Shared>,
}

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Computed")
    }
}

impl Collector for Computed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(shared) = self.shared.upgrade() else { return Ok(()) };
        encode_reserved(&shared, &mut encoder)?;
        encode_space(&shared, &mut encoder)?;
        encode_lag(&shared, &mut encoder)?;
        encode_logs(&shared, &mut encoder)
    }
}

fn encode_reserved(shared: &Shared, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let reserved = i64::try_from(shared.request_budget.reserved_bytes()).unwrap_or(i64::MAX);
    let help = "Bytes of queued.max.request.bytes that requests hold";
    let gauge =
        encoder.encode_descriptor("tidings_broker_reserved_request_bytes", help, None, MetricType::Gauge)?;
    ConstGauge::new(reserved).encode(gauge)
}

fn encode_space(shared: &Shared, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let low = shared.data_dir.is_low_on_space();
    let is_read_only = shared.data_dir.storage_state() == StorageState::ReadOnly;
    let available = i64::try_from(shared.data_dir.available_bytes()).unwrap_or(i64::MAX);
    let help = "Bytes that are free on the disk";
    let gauge = encoder.encode_descriptor("tidings_broker_disk_free_bytes", help, None, MetricType::Gauge)?;
    ConstGauge::new(available).encode(gauge)?;
    let help = "1 while produces are refused because less than log.min.free.bytes are free";
    let gauge = encoder.encode_descriptor("tidings_broker_low_space", help, None, MetricType::Gauge)?;
    ConstGauge::new(i64::from(low)).encode(gauge)?;
    let help = "1 while writes fail because the file system takes none";
    let gauge = encoder.encode_descriptor("tidings_broker_read_only", help, None, MetricType::Gauge)?;
    ConstGauge::new(i64::from(is_read_only)).encode(gauge)
}

fn encode_lag(shared: &Shared, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let mut lags = Vec::new();
    shared.groups.for_each_offset(|group, topic, partition, offset| {
        let topic_found = shared.topics.by_name(topic);
        if let Some(log) = topic_found.as_ref().and_then(|topic| topic.partition(partition)) {
            let lag = log.high_watermark().saturating_sub(offset).max(0);
            lags.push((LagLabels { topic: topic.to_owned(), partition, group: group.to_owned() }, lag));
        }
    });
    let mut family = encoder.encode_descriptor(
        "kafka_consumer_lag",
        "Records not yet committed by a group",
        None,
        MetricType::Gauge,
    )?;
    for (labels, lag) in lags {
        ConstGauge::new(lag).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn encode_logs(shared: &Shared, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let topics = shared.topics.all();
    let logs = || topics.iter().flat_map(|topic| topic.partitions.iter());
    let labels = |log: &tidings_log::PartitionLog| {
        let of = log.topic_partition();
        PartitionLabels { topic: of.topic.to_string(), partition: of.partition }
    };
    let mut family = encoder.encode_descriptor(
        "tidings_broker_log_size_bytes",
        "Bytes of a partition's log",
        None,
        MetricType::Gauge,
    )?;
    for log in logs() {
        let size = i64::try_from(log.size_bytes()).unwrap_or(i64::MAX);
        ConstGauge::new(size).encode(family.encode_family(&labels(log))?)?;
    }
    let help = "The offset that consumers read below: everything before it is durable";
    let mut family =
        encoder.encode_descriptor("tidings_broker_high_watermark", help, None, MetricType::Gauge)?;
    for log in logs() {
        ConstGauge::new(log.high_watermark()).encode(family.encode_family(&labels(log))?)?;
    }
    Ok(())
}
