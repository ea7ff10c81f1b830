//! Sending records: success or failure as a value, and never past a deadline.
//!
//! **Invariant:** every send answers by its deadline, also when the cluster is down, hangs, or the queue is full.
//! **Invariant:** a successful answer comes after the cluster's own acknowledgement with `acks=all`.
//! **Invariant:** a record that is told to be too large is so by itself, whatever it shared its request with (see `alone`).
//!
//! A batch costs one allocation for its answers and wakes its sender once, however many records it has:
//! librdkafka's delivery reports count it down (see `batch`). The producer is deliberately not idempotent: the
//! first acknowledgement of an idempotent producer takes 500 ms in librdkafka, and records here carry ids by which
//! the reader recognises a repeated one.
//!
//! Several records as one are written by a [`TransactionalProducer`].
//!
//! What is not here: a circuit breaker (`resilient`), a fallback.

mod alone;
mod batch;
mod delivery;
mod group_offsets;
mod metrics;
mod partitioner;
mod pieces;
mod polled;
mod report;
mod transactional;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;
use thiserror::Error;

use crate::cluster::{Cluster, ClusterError};
use crate::error::KafkaFault;
use crate::native;
use crate::record::Record;
use crate::security::ConnectionFaults;
use alone::{Alone, Oversized};
use batch::{Batch, Slot};
use delivery::DeliveryContext;
pub(crate) use group_offsets::send_group_offsets;
pub use metrics::ProducerMetrics;
use metrics::TopicMetrics;
use partitioner::Chosen;
pub use partitioner::{Partitioner, partition_of_key};
pub(crate) use polled::Polled;
pub use report::{DeliveryCallback, DeliveryReport};
pub use transactional::{Transaction, TransactionError, TransactionalOptions, TransactionalProducer};

/// How often a send looks again while the queue is full.
const QUEUE_FULL_RETRY: Duration = Duration::from_millis(1);

/// How a [`Producer`] behaves. The defaults suit a service that waits for each acknowledgement.
///
/// ```
/// use std::time::Duration;
/// use tidings::ProducerOptions;
///
/// let options = ProducerOptions { delivery_timeout: Duration::from_secs(30), ..ProducerOptions::default() };
/// ```
#[derive(Debug, Clone)]
pub struct ProducerOptions {
    /// How long a record waits for others to share its request (0: not at all). Records that arrive while a request
    /// is in flight share the next one anyway.
    pub linger: Duration,
    /// Requests in flight to one broker (1). One keeps the order of each partition through retries, and makes requests
    /// grow with the load by themselves; more hide the latency of a distant cluster.
    pub max_in_flight: u32,
    /// How long the client itself goes on trying to deliver a record, also after its sender's deadline.
    pub delivery_timeout: Duration,
    /// The most bytes of a batch of several records; `None` is librdkafka's 1,000,000. A topic refuses batches that are larger
    /// than its `max.message.bytes`, and then each of their records is sent again alone, which is slow.
    pub max_batch_bytes: Option<u32>,
    /// Kafka's name of a codec (`none`, `lz4`, `zstd`, `gzip`).
    pub compression: String,
    /// Chooses the partitions of records that name none. `None` is Kafka's own choice: by the key's murmur2 hash, as its
    /// Java clients do, or any for a record without key.
    pub partitioner: Option<Arc<dyn Partitioner>>,
    /// Called with what became of each record, for metrics of your own.
    pub on_delivery: Option<DeliveryCallback>,
    /// Where to count. Share one value between the producers of a process.
    pub metrics: ProducerMetrics,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            linger: Duration::ZERO,
            max_in_flight: 1,
            delivery_timeout: Duration::from_secs(5),
            max_batch_bytes: None,
            compression: "none".into(),
            partitioner: None,
            on_delivery: None,
            metrics: ProducerMetrics::default(),
        }
    }
}

/// Where a record was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// The partition it went to.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}

/// Why a record is not known to be written.
///
/// ```
/// use std::time::Duration;
/// use tidings::SendError;
///
/// fn next_step(error: &SendError) -> &'static str {
///     match error {
///         error if error.is_outage() => "keep it until the cluster is back",
///         error if error.is_transient() => "send it again",
///         error if error.is_too_large() => "divide it",
///         _ => "look at the record",
///     }
/// }
///
/// let error = SendError::Deadline { topic: "orders".into(), waited: Duration::from_secs(2) };
/// assert!(error.may_be_written()); // so it needs an id by which its reader knows it again
/// println!("{error}: {}; {}", next_step(&error), error.hint());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    /// The deadline passed without an answer. The record **may still be written**: send it again with the same id.
    #[error("{topic}: no acknowledgement within {} ms", waited.as_millis())]
    Deadline {
        /// The topic.
        topic: Arc<str>,
        /// How long was waited.
        waited: Duration,
    },
    /// The client's queue stayed full until the deadline. The record was not sent.
    #[error("{topic}: producer queue full for {} ms", waited.as_millis())]
    QueueFull {
        /// The topic.
        topic: Arc<str>,
        /// How long was waited.
        waited: Duration,
    },
    /// The cluster failed too often in a row, and is left alone for a while. The record was not sent.
    #[error("{topic}: circuit breaker open for another {} ms", retry_after.as_millis())]
    BreakerOpen {
        /// The topic.
        topic: Arc<str>,
        /// When the cluster is tried again; zero while it is being tried.
        retry_after: Duration,
    },
    /// The cluster, or the client on its behalf, refused the record.
    #[error("{topic}: {fault}")]
    Refused {
        /// The topic.
        topic: Arc<str>,
        /// Why.
        #[source]
        fault: KafkaFault,
    },
}

impl SendError {
    fn topic(&self) -> &Arc<str> {
        match self {
            Self::Deadline { topic, .. }
            | Self::QueueFull { topic, .. }
            | Self::BreakerOpen { topic, .. }
            | Self::Refused { topic, .. } => topic,
        }
    }

    /// Whether the topic takes no record that large: sending it again would be in vain.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Refused { fault: KafkaFault::RecordTooLarge, .. })
    }

    /// Whether the record may have been written although no acknowledgement came.
    pub fn may_be_written(&self) -> bool {
        match self {
            Self::Deadline { .. } => true,
            Self::QueueFull { .. } | Self::BreakerOpen { .. } => false,
            // A client that is refused goes on trying, for as long as it keeps the record.
            Self::Refused { fault, .. } => {
                fault.is_refusal() || (fault.is_transient() && *fault != KafkaFault::QueueFull)
            }
        }
    }

    /// Whether sending the same record later may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Deadline { .. } | Self::QueueFull { .. } | Self::BreakerOpen { .. } => true,
            Self::Refused { fault, .. } => fault.is_transient(),
        }
    }

    /// Whether it is the cluster that takes nothing now, rather than this record that it does not take.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Refused { fault, .. } if fault.is_refusal() => true,
            error => error.is_transient(),
        }
    }

    /// What the operator can do, in one sentence.
    pub fn hint(&self) -> String {
        match self {
            Self::Deadline { .. } => "check that the cluster answers, or allow more time".into(),
            Self::QueueFull { .. } => KafkaFault::QueueFull.hint(),
            Self::BreakerOpen { .. } => "check that the cluster answers; it is tried again by itself".into(),
            Self::Refused { fault, .. } => fault.hint(),
        }
    }
}

/// Sends records to a cluster. Cheap to clone; all clones share one connection and one queue.
///
/// ```
/// use std::time::Duration;
/// use tidings::{Cluster, Producer, ProducerOptions, Record};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// # broker.create_topic("orders", 1)?;
/// let producer = Producer::new(&cluster, ProducerOptions::default())?;
/// let record = Record::new("orders").key("customer-7").value("placed");
/// let delivered = producer.send(&record, Duration::from_secs(2)).await?;
/// println!("written to partition {} at offset {}", delivered.partition, delivered.offset);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Producer {
    inner: Arc<Inner>,
}

type Client = Polled<DeliveryContext, Chosen>;

struct Inner {
    client: Client,
    alone: Alone,
    bootstrap: String,
    metrics: ProducerMetrics,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("bootstrap", &self.inner.bootstrap).finish_non_exhaustive()
    }
}

impl Producer {
    /// Makes a producer. It connects when the first record is sent, or in [`Producer::connect`].
    pub fn new(cluster: &Cluster, options: ProducerOptions) -> Result<Self, ClusterError> {
        let config = Self::config(cluster, &options)?;
        let context = DeliveryContext {
            faults: Arc::new(cluster.connection_faults()),
            bootstrap: cluster.bootstrap().to_string(),
            partitioner: options.partitioner.map(Chosen),
            on_delivery: options.on_delivery,
            has_last_word: false,
        };
        let client = Client::new(&config, context.clone()).map_err(ClusterError::from_kafka)?;
        let bootstrap = cluster.bootstrap().to_string();
        let alone = Alone::new(config, context);
        Ok(Self { inner: Arc::new(Inner { client, alone, bootstrap, metrics: options.metrics }) })
    }

    /// Whether a producer can be made of these, as far as it shows without making one.
    pub(crate) fn check_settings(cluster: &Cluster, options: &ProducerOptions) -> Result<(), ClusterError> {
        let config = Self::config(cluster, options)?;
        config.create_native_config().map(drop).map_err(ClusterError::from_kafka)
    }

    fn config(cluster: &Cluster, options: &ProducerOptions) -> Result<ClientConfig, ClusterError> {
        let mut config = cluster.producer_config()?;
        config.set("linger.ms", format!("{}", options.linger.as_secs_f64() * 1e3));
        config.set("max.in.flight", options.max_in_flight.to_string());
        config.set("message.timeout.ms", options.delivery_timeout.as_millis().to_string());
        config.set("compression.codec", &options.compression);
        if let Some(bytes) = options.max_batch_bytes {
            config.set("batch.size", bytes.max(1).to_string());
        }
        Ok(config)
    }

    /// Sends one record and waits for its acknowledgement, for at most `timeout`.
    ///
    /// Dropping the future does not take the record back.
    pub async fn send(&self, record: &Record, timeout: Duration) -> Result<Delivered, SendError> {
        let mut results = self.send_batch(std::slice::from_ref(record), timeout).await;
        results.pop().expect("one record has one result")
    }

    /// Sends records and waits until each is acknowledged or has failed, for at most `timeout` altogether.
    ///
    /// The results are in the order of the records.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::{Cluster, Producer, ProducerOptions, Record};
    ///
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// # broker.create_topic("orders", 1)?;
    /// let producer = Producer::new(&cluster, ProducerOptions::default())?;
    /// let records = ["placed", "paid", "sent"].map(|value| Record::new("orders").key("customer-7").value(value));
    /// let results = producer.send_batch(&records, Duration::from_secs(2)).await;
    /// for (record, result) in records.iter().zip(results) {
    ///     if let Err(error) = result {
    ///         println!("{:?} is not known to be written: {error}", record.key);
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn send_batch(
        &self,
        records: &[Record],
        timeout: Duration,
    ) -> Vec<Result<Delivered, SendError>> {
        let deadline = Instant::now() + timeout;
        let mut results = self.send_through(&self.inner.client, records, deadline).await;
        if let Some(oversized) = Oversized::of(records, &results) {
            match self.inner.alone.client() {
                Ok(client) => {
                    let alone = self.send_through(&client, &oversized.records, deadline).await;
                    oversized.settle(&mut results, alone);
                }
                Err(error) => oversized.leave(&mut results, &error),
            }
        }
        self.count_failed(&results);
        results
    }

    async fn send_through(
        &self,
        client: &Client,
        records: &[Record],
        deadline: Instant,
    ) -> Vec<Result<Delivered, SendError>> {
        let batch = Batch::new(records.len());
        let mut sent = 0;
        while self.enqueue(client, &batch, records, &mut sent) == Enqueued::QueueFull {
            if Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(QUEUE_FULL_RETRY).await;
        }
        batch.wait(records.len() - sent, deadline).await;
        self.results(&batch, records, sent)
    }

    /// [`Producer::send_batch`] for threads outside of a runtime.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::{Cluster, Delivered, Producer, ProducerOptions, Record};
    ///
    /// let limit = Duration::from_secs(5);
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// # broker.create_topic("orders", 1)?;
    /// let producer = Producer::new(&cluster, ProducerOptions::default())?;
    /// producer.connect(&["orders"], limit)?;
    /// let records = ["placed", "paid", "sent"].map(|value| Record::new("orders").key("customer-7").value(value));
    /// let written: Vec<Delivered> = producer.send_batch_blocking(&records, limit).into_iter().collect::<Result<_, _>>()?;
    /// assert_eq!(written[2].offset, 2);
    /// producer.flush(limit)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_batch_blocking(
        &self,
        records: &[Record],
        timeout: Duration,
    ) -> Vec<Result<Delivered, SendError>> {
        let deadline = Instant::now() + timeout;
        let mut results = self.send_through_blocking(&self.inner.client, records, deadline);
        if let Some(oversized) = Oversized::of(records, &results) {
            match self.inner.alone.client() {
                Ok(client) => {
                    let alone = self.send_through_blocking(&client, &oversized.records, deadline);
                    oversized.settle(&mut results, alone);
                }
                Err(error) => oversized.leave(&mut results, &error),
            }
        }
        self.count_failed(&results);
        results
    }

    fn send_through_blocking(
        &self,
        client: &Client,
        records: &[Record],
        deadline: Instant,
    ) -> Vec<Result<Delivered, SendError>> {
        let batch = Batch::new(records.len());
        let mut sent = 0;
        while self.enqueue(client, &batch, records, &mut sent) == Enqueued::QueueFull {
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(QUEUE_FULL_RETRY);
        }
        batch.wait_blocking(records.len() - sent, deadline);
        self.results(&batch, records, sent)
    }

    /// Connects and learns the leaders of these topics, so that the first send is not slower than the others.
    ///
    /// Blocks for at most `timeout`. Tells a missing topic from a cluster that cannot be reached. Success says that the cluster
    /// answers, not that it takes records.
    pub fn connect(&self, topics: &[&str], timeout: Duration) -> Result<(), KafkaFault> {
        let deadline = Instant::now() + timeout;
        for topic in topics {
            let left = deadline.saturating_duration_since(Instant::now());
            let fault = |error: &KafkaError| {
                self.faults().explain(KafkaFault::from_kafka(error, &self.inner.bootstrap, timeout))
            };
            let metadata =
                self.inner.client.client().fetch_metadata(Some(topic), left).map_err(|e| fault(&e))?;
            if let Some(error) = metadata.topics().first().and_then(rdkafka::metadata::MetadataTopic::error) {
                return Err(KafkaFault::from_code(error.into(), &self.inner.bootstrap, timeout));
            }
        }
        self.faults().answered();
        Ok(())
    }

    /// The last failure to reach the cluster, or to have it take a record, if no record was acknowledged since. Asks nobody: for
    /// readiness checks. [`Producer::connect`] ends the first kind as well.
    ///
    /// ```
    /// use tidings::{Cluster, Producer, ProducerOptions};
    ///
    /// /// For a readiness check.
    /// fn readiness(producer: &Producer) -> Result<String, String> {
    ///     match producer.last_fault() {
    ///         Some(fault) => Err(format!("{fault}; {}", fault.hint())),
    ///         None => Ok(format!("{} records under way", producer.in_flight_count())),
    ///     }
    /// }
    ///
    /// let producer = Producer::new(&Cluster::new("localhost:9092"), ProducerOptions::default())?;
    /// println!("{:?}", readiness(&producer));
    /// # Ok::<(), tidings::ClusterError>(())
    /// ```
    pub fn last_fault(&self) -> Option<KafkaFault> {
        self.faults().last()
    }

    /// Forgets a failure to have the cluster take a record, if no record has met it for so long.
    pub(crate) fn forget_undelivered(&self, after: Duration) {
        self.faults().forget_undelivered(after);
    }

    fn faults(&self) -> &ConnectionFaults {
        &self.inner.client.context().faults
    }

    /// Records sent and not yet acknowledged.
    pub fn in_flight_count(&self) -> usize {
        let alone = self.inner.alone.made().map_or(0, |client| client.in_flight_count());
        usize::try_from(self.inner.client.in_flight_count() + alone).unwrap_or(0)
    }

    /// Waits until nothing is in flight, for at most `timeout`. Call it before the process ends.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaFault> {
        let deadline = Instant::now() + timeout;
        let fault = |error| KafkaFault::from_kafka(&error, &self.inner.bootstrap, timeout);
        self.inner.client.flush(timeout).map_err(fault)?;
        let left = deadline.saturating_duration_since(Instant::now());
        self.inner.alone.made().map_or(Ok(()), |client| client.flush(left)).map_err(fault)
    }

    /// Hands over the records from `sent` on, until the end or until the queue is full.
    fn enqueue(&self, client: &Client, batch: &Arc<Batch>, records: &[Record], sent: &mut usize) -> Enqueued {
        let mut metrics: Option<Arc<TopicMetrics>> = None;
        while let Some(record) = records.get(*sent) {
            let metrics = match &metrics {
                Some(metrics) if *metrics.topic == *record.topic => Arc::clone(metrics),
                _ => Arc::clone(metrics.insert(self.inner.metrics.topic(&record.topic))),
            };
            let slot = Box::new(Slot { batch: Arc::clone(batch), index: *sent, metrics });
            match client.send(native::to_native_record(record, slot)) {
                Ok(()) => {}
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    return Enqueued::QueueFull;
                }
                Err((error, native)) => {
                    let fault = KafkaFault::from_kafka(&error, &self.inner.bootstrap, Duration::ZERO);
                    native.delivery_opaque.complete(Err(fault));
                }
            }
            *sent += 1;
        }
        Enqueued::All
    }

    fn results(&self, batch: &Batch, records: &[Record], sent: usize) -> Vec<Result<Delivered, SendError>> {
        let waited = batch.started.elapsed();
        let results = batch.take_results();
        let results = results.into_iter().zip(records).enumerate().map(|(index, (result, record))| {
            let topic = Arc::clone(&record.topic);
            let error = match result {
                Some(Ok(delivered)) => return Ok(delivered),
                Some(Err(fault)) => SendError::Refused { topic, fault },
                None if index >= sent => SendError::QueueFull { topic, waited },
                None => match self.last_fault().filter(KafkaFault::is_refusal) {
                    Some(fault) => SendError::Refused { topic, fault },
                    None => SendError::Deadline { topic, waited },
                },
            };
            Err(error)
        });
        results.collect()
    }

    fn count_failed(&self, results: &[Result<Delivered, SendError>]) {
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            self.inner.metrics.topic(error.topic()).failed.inc();
        }
    }
}

#[derive(PartialEq, Eq)]
enum Enqueued {
    All,
    QueueFull,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Admin, TopicSpec};
    use crate::testing::Broker;

    /// A topic whose batches may have 10 kB. Of a batch that has more librdkafka failed all records, and callers were told
    /// that each of them was too large.
    #[test]
    fn only_what_is_too_large_alone_is_too_large() {
        let limit = Duration::from_secs(20);
        let broker = Broker::start().unwrap();
        let spec = TopicSpec::new("small", 1).config("max.message.bytes", "10000");
        Admin::new(&broker.cluster(), limit).unwrap().create_topic(&spec).unwrap();
        let reports = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let told = Arc::clone(&reports);
        let on_delivery = DeliveryCallback::new(move |report| told.lock().push(report.result.is_ok()));
        let linger = Duration::from_millis(50);
        let options =
            ProducerOptions { linger, on_delivery: Some(on_delivery), ..ProducerOptions::default() };
        let producer = Producer::new(&broker.cluster(), options).unwrap();
        let record = |bytes: usize| Record::new("small").value(vec![b'x'; bytes]);
        let mut records: Vec<_> = (0..30).map(|_| record(1000)).collect();
        records.insert(7, record(11_000));
        let results = producer.send_batch_blocking(&records, limit);
        for (place, result) in results.iter().enumerate() {
            let is_too_large = result.as_ref().is_err_and(SendError::is_too_large);
            assert_eq!((result.is_ok(), is_too_large), (place != 7, place == 7), "{place}: {result:?}");
        }
        assert_eq!(producer.inner.metrics.topic(&"small".into()).failed.get(), 1);
        assert_eq!(broker.wait_for_records("small", 30, limit).unwrap().len(), 30);
        let reports = reports.lock();
        assert_eq!((reports.len(), reports.iter().filter(|is_ok| !**is_ok).count()), (31, 1));
        producer.flush(limit).unwrap();
        assert_eq!(producer.in_flight_count(), 0);
    }

    #[test]
    fn batches_that_fit_need_no_second_client() {
        let limit = Duration::from_secs(20);
        let broker = Broker::start().unwrap();
        let spec = TopicSpec::new("small", 1).config("max.message.bytes", "10000");
        Admin::new(&broker.cluster(), limit).unwrap().create_topic(&spec).unwrap();
        let linger = Duration::from_millis(50);
        let options = ProducerOptions { linger, max_batch_bytes: Some(10_000), ..ProducerOptions::default() };
        let producer = Producer::new(&broker.cluster(), options).unwrap();
        let record = Record::new("small").key("k").header("h", "v").value(vec![b'x'; 990]);
        let results = producer.send_batch_blocking(&vec![record; 100], limit);
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        assert!(producer.inner.alone.made().is_none());
    }
}
