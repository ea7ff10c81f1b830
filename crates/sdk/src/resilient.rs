//! A producer for callers that must answer whatever the cluster does.
//!
//! [`ResilientProducer`] puts three things around a [`Producer`]: it makes the client with the first record, it answers
//! every send by a hard deadline, and a circuit breaker answers at once while the cluster is down. **Invariant:** success
//! or failure is a value, and what to do about a failure is the caller's choice ([`SendError::is_outage`] tells a cluster
//! that takes nothing from a record that it does not take). **Invariant:** only outages trip the breaker: a record that
//! is too large, or a topic that is not there, says nothing about the cluster.
//!
//! What is not here: a fallback, a spool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::breaker::{Breaker, BreakerOptions, BreakerState, CallOutcome, Permit};
use crate::cluster::{Cluster, ClusterError};
use crate::error::KafkaFault;
use crate::producer::{Delivered, Producer, ProducerOptions, SendError};
use crate::record::Record;

/// librdkafka's batches.
const BATCH_BYTES: u32 = 1_000_000;

/// How a [`ResilientProducer`] behaves.
///
/// ```
/// use std::time::Duration;
/// use tidings::ResilientOptions;
///
/// let options = ResilientOptions { timeout: Duration::from_millis(500), ..ResilientOptions::default() };
/// ```
#[derive(Debug, Clone)]
pub struct ResilientOptions {
    /// How long a send waits for its acknowledgement (2 s). The client gives a record up after the same time, so that
    /// one whose failure was told is rarely written later.
    pub timeout: Duration,
    /// When sends are refused at once.
    pub breaker: BreakerOptions,
    /// The client's own settings; its delivery timeout is at most `timeout`.
    pub producer: ProducerOptions,
}

impl Default for ResilientOptions {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(2),
            breaker: BreakerOptions::default(),
            producer: ProducerOptions::default(),
        }
    }
}

/// Sends records to a cluster that may be down, hang or be slow. Cheap to clone; clones share client and breaker.
///
/// ```
/// use tidings::{Cluster, Record, ResilientOptions, ResilientProducer};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// # broker.create_topic("orders", 1)?;
/// let producer = ResilientProducer::new(&cluster, ResilientOptions::default())?;
/// match producer.send(&Record::new("orders").key("customer-7").value("placed")).await {
///     Ok(delivered) => println!("written at offset {}", delivered.offset),
///     Err(error) if error.is_outage() => println!("kept elsewhere: {error}"),
///     Err(error) => println!("this record will not be taken: {error}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ResilientProducer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cluster: Cluster,
    options: Mutex<ProducerOptions>,
    timeout: Duration,
    breaker: Breaker,
    /// How long a failure to have a record taken is believed when nobody sends any more.
    memory: Duration,
    /// Made with the first record.
    producer: Mutex<Option<Producer>>,
}

impl ResilientProducer {
    /// Checks the settings. Nothing is connected, and no client made, before the first record.
    pub fn new(cluster: &Cluster, options: ResilientOptions) -> Result<Self, ClusterError> {
        let ResilientOptions { timeout, breaker, mut producer } = options;
        producer.delivery_timeout = producer.delivery_timeout.min(timeout).max(Duration::from_millis(1));
        Producer::check_settings(cluster, &producer)?;
        // A probe by a record, when the time of an open breaker is over, may last as long as a send.
        let memory = breaker.open_for + timeout * 2;
        let inner = Inner {
            memory,
            cluster: cluster.clone(),
            options: Mutex::new(producer),
            timeout,
            breaker: Breaker::new(breaker),
            producer: Mutex::new(None),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Sends one record: answers by the deadline, and at once while the breaker is open.
    pub async fn send(&self, record: &Record) -> Result<Delivered, SendError> {
        let mut results = self.send_batch(std::slice::from_ref(record)).await;
        results.pop().expect("one record has one result")
    }

    /// Sends records; the results are in their order. For the breaker they are one call: it fails if the cluster did not
    /// take one of them.
    pub async fn send_batch(&self, records: &[Record]) -> Vec<Result<Delivered, SendError>> {
        self.send_batch_within(records, self.inner.timeout).await
    }

    /// [`ResilientProducer::send_batch`] for a caller that has less time left.
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    /// use tidings::{Cluster, Record, ResilientOptions, ResilientProducer};
    ///
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// # broker.create_topic("orders", 1)?;
    /// let producer = ResilientProducer::new(&cluster, ResilientOptions::default())?;
    /// let request_ends = Instant::now() + Duration::from_secs(1);
    /// let orders = ["placed", "paid"].map(|value| Record::new("orders").value(value));
    /// for result in producer.send_batch(&orders).await {
    ///     result?;
    /// }
    /// let left = request_ends.saturating_duration_since(Instant::now()); // the request goes on
    /// for result in producer.send_batch_within(&orders, left.min(producer.timeout())).await {
    ///     println!("{result:?}");
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn send_batch_within(
        &self,
        records: &[Record],
        timeout: Duration,
    ) -> Vec<Result<Delivered, SendError>> {
        let (permit, producer) = match self.admit(records) {
            Ok(admitted) => admitted,
            Err(results) => return results,
        };
        let results = producer.send_batch(records, timeout.min(self.inner.timeout)).await;
        self.end(permit, outcome(&results));
        results
    }

    /// [`ResilientProducer::send_batch`] for threads outside of a runtime.
    ///
    /// ```
    /// use tidings::{Cluster, Record, ResilientOptions, ResilientProducer};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// # broker.create_topic("orders", 1)?;
    /// let producer = ResilientProducer::new(&cluster, ResilientOptions::default())?;
    /// for result in producer.send_batch_blocking(&[Record::new("orders").value("placed")]) {
    ///     println!("written at offset {}", result?.offset);
    /// }
    /// println!("{} records under way", producer.producer()?.in_flight_count());
    /// producer.flush(producer.timeout())?; // before the process ends
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_batch_blocking(&self, records: &[Record]) -> Vec<Result<Delivered, SendError>> {
        let (permit, producer) = match self.admit(records) {
            Ok(admitted) => admitted,
            Err(results) => return results,
        };
        let results = producer.send_batch_blocking(records, self.inner.timeout);
        self.end(permit, outcome(&results));
        results
    }

    /// How long a send may take.
    pub fn timeout(&self) -> Duration {
        self.inner.timeout
    }

    /// Asks the cluster whether it is back, if something failed and nothing was acknowledged since: for callers that may
    /// not send for a while, and want breaker and [`ResilientProducer::last_fault`] to be true all the same. Blocks for at
    /// most the timeout; does nothing while the breaker is open.
    ///
    /// A cluster that answers need not take records: its disk may be full. So an answer closes a breaker on trial only (the next
    /// send that fails opens it again), and ends at once what was wrong with the connections, but a failure to have a record
    /// taken only when no record has met it for a while: as long as the breaker stays open, and two timeouts.
    ///
    /// ```
    /// use tidings::breaker::BreakerState;
    /// use tidings::{Cluster, ResilientOptions, ResilientProducer};
    ///
    /// /// For a readiness check, called every few seconds.
    /// fn readiness(producer: &ResilientProducer) -> Result<(), String> {
    ///     producer.probe("orders");
    ///     match producer.last_fault() {
    ///         Some(fault) => Err(format!("{fault}; {}", fault.hint())),
    ///         None if producer.is_refusing() => Err("the cluster is left alone for a while".into()),
    ///         None if producer.breaker_state() == BreakerState::HalfOpen => Err("the cluster is being tried".into()),
    ///         None => Ok(()),
    ///     }
    /// }
    ///
    /// let producer = ResilientProducer::new(&Cluster::new("localhost:9092"), ResilientOptions::default())?;
    /// assert_eq!(readiness(&producer), Ok(())); // nothing was sent, so nothing failed
    /// # Ok::<(), tidings::ClusterError>(())
    /// ```
    pub fn probe(&self, topic: &str) {
        let Some(producer) = self.inner.producer.lock().clone() else { return };
        if producer.last_fault().is_none() && self.breaker_state() == BreakerState::Closed {
            return;
        }
        let Ok(permit) = self.inner.breaker.admit(Instant::now()) else { return };
        let outcome = match producer.connect(&[topic], self.inner.timeout) {
            Ok(()) => {
                producer.forget_undelivered(self.inner.memory);
                CallOutcome::Answered
            }
            Err(fault) if fault.is_transient() => CallOutcome::Failure,
            Err(_) => CallOutcome::Unknown,
        };
        self.end(permit, outcome);
    }

    /// Makes batches of at most so many bytes, as [`ProducerOptions::max_batch_bytes`] does, where that is learned only after the
    /// start. To be called before the first record is sent: a client that is made keeps its settings.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::admin::Admin;
    /// use tidings::{Cluster, ResilientOptions, ResilientProducer};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// # broker.create_topic("orders", 1)?;
    /// let producer = ResilientProducer::new(&cluster, ResilientOptions::default())?;
    /// let admin = Admin::new(&cluster, Duration::from_secs(10))?;
    /// if let Some(bytes) = admin.topic_setting("orders", "max.message.bytes")? {
    ///     producer.limit_batches(bytes.parse()?);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn limit_batches(&self, bytes: u32) {
        let mut options = self.inner.options.lock();
        // A limit that is higher than the client's own is no reason to make larger ones.
        if bytes < options.max_batch_bytes.unwrap_or(BATCH_BYTES) {
            options.max_batch_bytes = Some(bytes);
        }
    }

    /// Whether the breaker refuses whatever is sent now.
    pub fn is_refusing(&self) -> bool {
        self.inner.breaker.is_refusing(Instant::now())
    }

    /// Whether sends go through.
    pub fn breaker_state(&self) -> BreakerState {
        self.inner.breaker.state()
    }

    /// The last failure to reach the cluster, or to have it take a record, if no record was acknowledged since. Asks nobody.
    pub fn last_fault(&self) -> Option<KafkaFault> {
        self.inner.producer.lock().as_ref().and_then(Producer::last_fault)
    }

    /// The producer below, for what needs no breaker; made now if no record was sent yet.
    pub fn producer(&self) -> Result<Producer, ClusterError> {
        let mut producer = self.inner.producer.lock();
        if let Some(producer) = &*producer {
            return Ok(producer.clone());
        }
        let made = Producer::new(&self.inner.cluster, self.inner.options.lock().clone())?;
        Ok(producer.insert(made).clone())
    }

    /// Waits until nothing is in flight, for at most `timeout`. Call it before the process ends.
    pub fn flush(&self, timeout: Duration) -> Result<(), KafkaFault> {
        let producer = self.inner.producer.lock().clone();
        producer.map_or(Ok(()), |producer| producer.flush(timeout))
    }

    /// Leave to send, or the answer to each record.
    fn admit(&self, records: &[Record]) -> Result<(Permit<'_>, Producer), Vec<Result<Delivered, SendError>>> {
        let all = |error: &dyn Fn(Arc<str>) -> SendError| {
            records.iter().map(|record| Err(error(Arc::clone(&record.topic)))).collect::<Vec<_>>()
        };
        if records.is_empty() {
            return Err(Vec::new());
        }
        let permit = self
            .inner
            .breaker
            .admit(Instant::now())
            .map_err(|retry_after| all(&|topic| SendError::BreakerOpen { topic, retry_after }))?;
        let producer = self.producer().map_err(|error| {
            let reason = error.to_string();
            all(&|topic| {
                let (name, reason) = ("client".to_owned(), reason.clone());
                SendError::Refused { topic, fault: KafkaFault::Kafka { name, reason, transient: false } }
            })
        })?;
        Ok((permit, producer))
    }

    /// Tells the operator of an outage, and of its end.
    fn end(&self, permit: Permit<'_>, outcome: CallOutcome) {
        let bootstrap = self.inner.cluster.bootstrap();
        match permit.end(outcome, Instant::now()) {
            Some(BreakerState::Open) => {
                let fault = self.last_fault().map(|fault| fault.to_string());
                let error = fault.unwrap_or_else(|| "no acknowledgement in time".to_owned());
                tracing::warn!(bootstrap, error, "the cluster takes nothing and is left alone for a while");
            }
            Some(BreakerState::Closed) => tracing::info!(bootstrap, "the cluster answers again"),
            Some(BreakerState::HalfOpen) | None => {}
        }
    }
}

/// What the results of one call say about the cluster.
fn outcome(results: &[Result<Delivered, SendError>]) -> CallOutcome {
    if results.iter().any(|result| result.as_ref().is_err_and(SendError::is_outage)) {
        CallOutcome::Failure
    } else if results.iter().any(Result::is_ok) {
        CallOutcome::Success
    } else {
        CallOutcome::Unknown
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::until::until;

    #[test]
    fn only_outages_count_as_failures() {
        let topic: Arc<str> = "t".into();
        let refused = |fault| Err(SendError::Refused { topic: Arc::clone(&topic), fault });
        let delivered = || Ok(Delivered { partition: 0, offset: 1 });
        let late = || Err(SendError::Deadline { topic: Arc::clone(&topic), waited: Duration::ZERO });
        let storage =
            || KafkaFault::Kafka { name: "KafkaStorageError".into(), reason: "disk".into(), transient: true };
        let denied = || KafkaFault::Authentication { bootstrap: "b".into(), reason: "no".into() };
        let check = |results: Vec<Result<Delivered, SendError>>, expected| {
            assert_eq!(outcome(&results), expected, "{results:?}");
        };
        check(vec![delivered()], CallOutcome::Success);
        check(vec![delivered(), refused(KafkaFault::RecordTooLarge)], CallOutcome::Success);
        check(vec![refused(KafkaFault::RecordTooLarge)], CallOutcome::Unknown);
        check(vec![refused(KafkaFault::UnknownTopic)], CallOutcome::Unknown);
        check(vec![delivered(), late()], CallOutcome::Failure);
        check(vec![refused(storage())], CallOutcome::Failure);
        check(vec![refused(denied())], CallOutcome::Failure);
    }

    /// A full disk, or too few replicas: metadata is answered, and produces fail. Each answer counted as a success, and the
    /// breaker never opened.
    #[test]
    fn a_cluster_that_answers_and_takes_nothing_opens_it() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("orders", 1, 1).unwrap();
        let refusals = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR; 100_000];
        cluster.request_errors(RDKafkaApiKey::Produce, &refusals);
        let open_for = Duration::from_secs(1);
        let breaker = BreakerOptions { open_for, ..BreakerOptions::default() };
        let options =
            ResilientOptions { timeout: Duration::from_millis(300), breaker, ..ResilientOptions::default() };
        let producer = ResilientProducer::new(&Cluster::new(cluster.bootstrap_servers()), options).unwrap();
        producer.producer().unwrap().connect(&["orders"], Duration::from_secs(20)).unwrap();
        let send = || producer.send_batch_blocking(&[Record::new("orders").value("x")]).remove(0);
        for number in 1..=5 {
            assert_eq!(producer.breaker_state(), BreakerState::Closed, "before {number}");
            assert!(send().unwrap_err().is_outage());
            // The client gives a record up a little later than its sender does.
            until(|| producer.last_fault().is_some());
            producer.probe("orders");
            assert!(producer.last_fault().is_some(), "after {number}");
        }
        assert_eq!(producer.breaker_state(), BreakerState::Open);
        // The answer closes it on trial, and nothing is forgotten for it.
        until(|| {
            producer.probe("orders");
            producer.breaker_state() == BreakerState::Closed
        });
        assert!(producer.last_fault().is_some());
        assert!(send().unwrap_err().is_outage());
        assert_eq!(producer.breaker_state(), BreakerState::Open);
        // It is over, and nobody sends.
        cluster.clear_request_errors(RDKafkaApiKey::Produce);
        until(|| {
            producer.probe("orders");
            producer.last_fault().is_none() && producer.breaker_state() == BreakerState::Closed
        });
        send().unwrap();
    }

    #[test]
    fn settings_are_checked_and_nothing_is_made_before_the_first_record() {
        let cluster = Cluster::new("127.0.0.1:9").set("no.such.setting", "1");
        assert!(ResilientProducer::new(&cluster, ResilientOptions::default()).is_err());
        let producer =
            ResilientProducer::new(&Cluster::new("127.0.0.1:9"), ResilientOptions::default()).unwrap();
        assert!(producer.send_batch_blocking(&[]).is_empty());
        assert!(producer.inner.producer.lock().is_none());
        assert_eq!(producer.last_fault(), None);
        producer.flush(Duration::ZERO).unwrap();
    }
}
