//! The consumer runtime: a handler, and around it everything that keeps records from being lost or stuck.
//!
//! One thread polls and commits, others call the handler. What it guarantees:
//!
//! - **At least once.** An offset is committed only after the handler is done with every record before it, and after
//!   each record it rejected lies durably in the failure inbox. A crash means redelivery, never loss.
//! - **Order where it is asked for** ([`Ordering`]): by key, by partition, or none; with up to
//!   [`ConsumerOptions::max_concurrency`] calls at the same time. What is done out of order survives a restart in the
//!   metadata of the committed offset, and does not come again.
//! - **A transient failure blocks nobody else.** [`Outcome::Retry`] brings a record again after a wait, and later ones of
//!   its key (or partition) behind it. [`HandlerError`] does so with a whole batch.
//! - **A bad record blocks nobody.** [`Outcome::Reject`] sends it to `<topic>.dlq` with its context, and the rest goes on.
//!   Redriven records come back through `<topic>.<group>.retry`, which the runtime subscribes to as well.
//! - **A bad record's key waits, if asked for** ([`ConsumerOptions::preserve_key_order`]): its later records park behind it.
//! - **A slow handler costs no membership.** The polling thread goes on, with partitions paused where enough is fetched.
//! - **Revoked partitions are let go**: what is with the handler may end for a while, what was done is committed, the rest
//!   is dropped.
//! - **A handler that panics is told**: the consumer ends with what was done committed, and says why
//!   ([`ConsumerOptions::on_crash`]); or the record counts as rejected ([`ConsumerOptions::reject_panics`]).
//! - **A record that is due later blocks nobody** ([`ConsumerOptions::delayed_delivery`], [`ConsumerOptions::delayed_retries`]):
//!   it waits in a topic.
//!
//! - **Exactly once, where the results go to topics or a database**: [`Consumer::exactly_once`] and [`Consumer::stored`] make
//!   work and offsets one.

mod atomic;
mod board;
mod claims;
mod committer;
mod crash;
mod delay;
mod failures;
mod handler;
mod key_order;
mod membership;
mod metrics;
mod options;
mod poll_limit;
mod random;
mod runtime;
mod scheduler;
mod state;
mod tracker;
mod transactional;
mod unowned;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thiserror::Error;

use crate::cluster::{Cluster, ClusterError};
use crate::producer::{Producer, ProducerOptions, TransactionalOptions};
pub use atomic::{Claim, ExactlyOnceHandler, OffsetStore, Output, Position, StoredError, StoredHandler};
use atomic::{ExactlyOnce, Stored};
pub use crash::{Crash, CrashHandler};
pub use handler::{BatchHandler, HandlerError, Outcome, RecordHandler, SharedBatchHandler, async_handler};
use handler::{Handler, OffsetsIn};
pub use metrics::ConsumerMetrics;
#[doc(hidden)]
pub use options::Unprotected;
pub use options::{Backoff, ConsumerOptions, GroupProtocol, Ordering, StartAt};
use runtime::Runtime;
pub use state::{ConsumerMonitor, ConsumerState, PartitionState, Phase};

/// When the cluster ends a transaction of `exactly_once` that its member left open: whoever takes its partitions over waits for
/// that. Handlers are called before it begins.
const TAKEOVER_WAIT: Duration = Duration::from_secs(10);

/// Why a consumer cannot be started.
///
/// ```
/// use tidings::consumer::{Consumer, ConsumerError, ConsumerOptions, Outcome};
/// use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord};
///
/// let cluster = Cluster::new("localhost:9092");
/// let producer = Producer::new(&cluster, ProducerOptions::default())?;
/// let options = ConsumerOptions::new("billing", ["^orders-("]); // a pattern, and not a good one
/// match Consumer::for_each(&cluster, producer, options, |_: &ReceivedRecord| Outcome::Done) {
///     Err(ConsumerError::Pattern { pattern, reason }) => println!("{pattern}: {reason}"),
///     other => panic!("a bracket is open, and yet: {other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Error)]
pub enum ConsumerError {
    /// The client could not be made.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// There is nothing to subscribe to.
    #[error("group {group}: no topics given")]
    NoTopics {
        /// The group.
        group: String,
    },
    /// An option has no meaning where work and offsets are one.
    #[error(
        "group {group}: {option} does not go together with exactly_once or stored: unset it, or use for_each"
    )]
    NotWithTransactions {
        /// The group.
        group: String,
        /// The option.
        option: &'static str,
    },
    /// A pattern for topics is no regular expression, or too large.
    #[error("topic pattern {pattern}: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The thread could not be started.
    #[error("group {group}: cannot start a thread")]
    Thread {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Why a consumer did not stop as asked.
///
/// ```
/// use std::time::Duration;
/// use tidings::consumer::{Consumer, ConsumerOptions, Outcome, StopError};
/// use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord};
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// # broker.create_topic("orders", 1)?;
/// let producer = Producer::new(&cluster, ProducerOptions::default())?;
/// let options = ConsumerOptions::new("billing", ["orders"]);
/// let consumer = Consumer::for_each(&cluster, producer, options, |_: &ReceivedRecord| Outcome::Done)?;
/// match consumer.stop(Duration::from_secs(30)) {
///     Ok(()) => println!("all is committed"),
///     Err(StopError::TimedOut { .. }) => println!("the handler takes its time; what it does comes again"),
///     Err(StopError::Failed { reason, .. }) => println!("it had stopped before: {reason}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StopError {
    /// Its handler is still working, or the cluster does not answer. It goes on stopping.
    #[error("group {group}: not stopped within {} ms", waited.as_millis())]
    TimedOut {
        /// The group.
        group: String,
        /// How long was waited.
        waited: Duration,
    },
    /// It had stopped before, by a failure that waiting does not heal.
    #[error("group {group} had failed: {reason}")]
    Failed {
        /// The group.
        group: String,
        /// Why.
        reason: String,
    },
}

/// A running consumer. Dropping it asks it to stop without waiting.
///
/// ```
/// use std::time::Duration;
/// use tidings::consumer::{BatchHandler, Consumer, ConsumerOptions, HandlerError, Outcome};
/// use tidings::failure::Failure;
/// use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord};
///
/// struct Print;
///
/// impl BatchHandler for Print {
///     fn handle(&mut self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
///         let print = |record: &ReceivedRecord| match std::str::from_utf8(record.value.as_deref().unwrap_or_default()) {
///             Ok(text) => {
///                 println!("{text}");
///                 Outcome::Done
///             }
///             Err(error) => Outcome::Reject(Failure::new("not UTF-8").caused_by(error.to_string())),
///         };
///         Ok(batch.iter().map(print).collect())
///     }
/// }
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// # broker.create_topic("orders", 1)?;
/// let producer = Producer::new(&cluster, ProducerOptions::default())?;
/// let consumer = Consumer::start(&cluster, producer, ConsumerOptions::new("printer", ["orders"]), Print)?;
/// // … until the service ends:
/// consumer.stop(Duration::from_secs(5))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Consumer {
    monitor: ConsumerMonitor,
    thread: Option<JoinHandle<()>>,
}

impl Consumer {
    /// Has batches handled, one at a time. A failed batch keeps everything waiting.
    ///
    /// Starts the thread and returns at once: connecting, waiting for the topics and joining happen there, and are
    /// seen in [`Consumer::state`]. `producer` writes dead letters.
    pub fn start(
        cluster: &Cluster,
        producer: Producer,
        options: ConsumerOptions,
        handler: impl BatchHandler + 'static,
    ) -> Result<Self, ConsumerError> {
        Self::run(cluster, producer, options, Handler::Batch(Mutex::new(Box::new(handler))))
    }

    /// Has each record handled, many at a time, as [`ConsumerOptions::ordering`] and
    /// [`ConsumerOptions::max_concurrency`] say. Otherwise as [`Consumer::start`].
    ///
    /// ```
    /// use tidings::consumer::{Consumer, ConsumerOptions, Ordering, Outcome};
    /// use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// # broker.create_topic("orders", 1)?;
    /// let producer = Producer::new(&cluster, ProducerOptions::default())?;
    /// let options = ConsumerOptions::new("billing", ["orders"]).ordering(Ordering::Key).max_concurrency(100);
    /// let consumer = Consumer::for_each(&cluster, producer, options, |record: &ReceivedRecord| {
    ///     println!("{}", record.position());
    ///     Outcome::Done
    /// })?;
    /// # drop(consumer);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn for_each(
        cluster: &Cluster,
        producer: Producer,
        options: ConsumerOptions,
        handler: impl RecordHandler + 'static,
    ) -> Result<Self, ConsumerError> {
        Self::run(cluster, producer, options, Handler::Record(Box::new(handler)))
    }

    /// Has batches handled, many at a time, as [`ConsumerOptions::ordering`] and
    /// [`ConsumerOptions::max_concurrency`] say. Otherwise as [`Consumer::start`].
    ///
    /// ```
    /// use tidings::consumer::{Consumer, ConsumerOptions, HandlerError, Ordering, Outcome, SharedBatchHandler};
    /// use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord};
    ///
    /// struct Index;
    ///
    /// impl SharedBatchHandler for Index {
    ///     fn handle(&self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
    ///         println!("{} records in one request", batch.len());
    ///         Ok(Vec::new()) // all done
    ///     }
    /// }
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// # broker.create_topic("orders", 1)?;
    /// let producer = Producer::new(&cluster, ProducerOptions::default())?;
    /// let options = ConsumerOptions::new("search", ["orders"]).ordering(Ordering::Key).max_concurrency(4);
    /// let consumer = Consumer::for_each_batch(&cluster, producer, options, Index)?;
    /// # drop(consumer);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn for_each_batch(
        cluster: &Cluster,
        producer: Producer,
        options: ConsumerOptions,
        handler: impl SharedBatchHandler + 'static,
    ) -> Result<Self, ConsumerError> {
        Self::run(cluster, producer, options, Handler::SharedBatch(Box::new(handler)))
    }

    /// Makes records of records exactly once: what the handler says is to be written, letters included, and the offsets of
    /// its batch are one transaction. Readers of committed records see each result once, whatever crashes.
    ///
    /// Batches come one after the other, bounded by [`ConsumerOptions::max_batch_records`], `max_batch_bytes` and `max_wait`;
    /// `ordering`, `max_concurrency` and `max_attempts` have no meaning here; `preserve_key_order`, delays and `claim_check` are
    /// refused. Every running process needs a transactional id
    /// of its own, and does best to keep it over restarts. Otherwise as [`Consumer::start`].
    ///
    /// ```
    /// use tidings::consumer::{Consumer, ConsumerOptions, HandlerError, Output};
    /// use tidings::{Cluster, ReceivedRecord, Record};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// # ["orders", "invoices"].iter().try_for_each(|topic| broker.create_topic(topic, 1))?;
    /// let options = ConsumerOptions::new("billing", ["orders"]);
    /// let invoice = |batch: &[ReceivedRecord], output: &mut Output| {
    ///     for order in batch {
    ///         let mut invoice = Record::new("invoices").value("12.00");
    ///         invoice.key = order.key.clone();
    ///         output.send(invoice);
    ///     }
    ///     Ok::<(), HandlerError>(())
    /// };
    /// let consumer = Consumer::exactly_once(&cluster, options, "billing-1", invoice)?;
    /// # drop(consumer);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn exactly_once(
        cluster: &Cluster,
        options: ConsumerOptions,
        transactional_id: impl Into<String>,
        handler: impl ExactlyOnceHandler + 'static,
    ) -> Result<Self, ConsumerError> {
        let transactions = TransactionalOptions {
            linger: Duration::ZERO,
            transaction_timeout: TAKEOVER_WAIT,
            ..TransactionalOptions::default()
        };
        let handler = ExactlyOnce::new(cluster, transactional_id.into(), transactions, Box::new(handler));
        // Letters are written by the transactions; this one is never connected.
        let producer = Producer::new(cluster, ProducerOptions::default())?;
        Self::run(
            cluster,
            producer,
            options,
            Handler::Atomic(Mutex::new(Box::new(handler)), OffsetsIn::Group),
        )
    }

    /// Has batches written into a database, each in one transaction with its offsets: effectively once. The consumer goes on
    /// where the store says, whatever the group has committed. Otherwise as [`Consumer::exactly_once`].
    ///
    /// Letters of rejected records are written before the transaction commits, so that a crash between may write one twice.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")] {
    /// use tidings::consumer::{Consumer, ConsumerOptions, HandlerError};
    /// use tidings::stores::SqliteStore;
    /// use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// # broker.create_topic("orders", 1)?;
    /// let producer = Producer::new(&cluster, ProducerOptions::default())?;
    /// let connection = rusqlite::Connection::open_in_memory()?;
    /// connection.execute_batch("CREATE TABLE orders (position TEXT, value BLOB)")?;
    /// let write = |batch: &[ReceivedRecord], transaction: &mut rusqlite::Transaction<'_>| {
    ///     for order in batch {
    ///         let inserted = transaction
    ///             .execute("INSERT INTO orders VALUES (?1, ?2)", (order.position(), &order.value));
    ///         inserted.map_err(|error| HandlerError::from_error(&error))?;
    ///     }
    ///     Ok(Vec::new()) // all done
    /// };
    /// let options = ConsumerOptions::new("billing", ["orders"]);
    /// let consumer = Consumer::stored(&cluster, producer, options, SqliteStore::new(connection)?, write)?;
    /// # drop(consumer);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stored<S: OffsetStore>(
        cluster: &Cluster,
        producer: Producer,
        options: ConsumerOptions,
        store: S,
        handler: impl StoredHandler<S> + 'static,
    ) -> Result<Self, ConsumerError> {
        let handler = Stored::new(&options.group, store, handler);
        Self::run(
            cluster,
            producer,
            options,
            Handler::Atomic(Mutex::new(Box::new(handler)), OffsetsIn::Store),
        )
    }

    fn run(
        cluster: &Cluster,
        producer: Producer,
        options: ConsumerOptions,
        handler: Handler,
    ) -> Result<Self, ConsumerError> {
        let group = options.group.clone();
        if options.topics.is_empty() {
            return Err(ConsumerError::NoTopics { group });
        }
        let monitor = ConsumerMonitor::new(&group);
        let runtime = Runtime::new(cluster, producer, options, handler, monitor.clone())?;
        let thread = std::thread::Builder::new()
            .name(format!("consumer {group}"))
            .spawn(move || runtime.run())
            .map_err(|source| ConsumerError::Thread { group, source })?;
        Ok(Self { monitor, thread: Some(thread) })
    }

    /// What the consumer is doing now. Asks nobody.
    pub fn state(&self) -> ConsumerState {
        self.monitor.state()
    }

    /// A handle for readiness checks and the like, which may outlive the consumer.
    ///
    /// ```
    /// use tidings::consumer::{Consumer, ConsumerOptions, Outcome};
    /// use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// # broker.create_topic("orders", 1)?;
    /// let producer = Producer::new(&cluster, ProducerOptions::default())?;
    /// let options = ConsumerOptions::new("billing", ["orders"]);
    /// let consumer = Consumer::for_each(&cluster, producer, options, |_: &ReceivedRecord| Outcome::Done)?;
    /// let monitor = consumer.monitor();
    /// let is_ready = move || monitor.state().readiness().is_ok(); // for whoever answers health checks
    /// # is_ready();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn monitor(&self) -> ConsumerMonitor {
        self.monitor.clone()
    }

    /// Asks the consumer to stop, without waiting.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::consumer::{Consumer, ConsumerOptions, Outcome};
    /// use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// # broker.create_topic("orders", 1)?;
    /// let producer = Producer::new(&cluster, ProducerOptions::default())?;
    /// let start = |group: &str| {
    ///     let options = ConsumerOptions::new(group, ["orders"]);
    ///     Consumer::for_each(&cluster, producer.clone(), options, |_: &ReceivedRecord| Outcome::Done)
    /// };
    /// let consumers = [start("billing")?, start("mails")?];
    /// consumers.iter().for_each(Consumer::request_stop); // all at the same time
    /// for consumer in consumers {
    ///     println!("{} records done", consumer.state().processed);
    ///     consumer.stop(Duration::from_secs(30))?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn request_stop(&self) {
        self.monitor.request_stop();
    }

    /// Finishes what is with the handler, commits, leaves the group and ends the thread; waits for at most `timeout`.
    ///
    /// What waits for a retry is not finished: it will be delivered again. A static member does not leave, so
    /// that its partitions are still its own when it comes back.
    pub fn stop(mut self, timeout: Duration) -> Result<(), StopError> {
        let group = Arc::clone(self.monitor.group());
        self.request_stop();
        if !self.monitor.wait_for_end(Instant::now() + timeout) {
            return Err(StopError::TimedOut { group: group.to_string(), waited: timeout });
        }
        if let Some(thread) = self.thread.take() {
            // The thread has announced its end; only its stack is left to unwind.
            let _ = thread.join();
        }
        match self.state().phase {
            Phase::Failed { reason } => Err(StopError::Failed { group: group.to_string(), reason }),
            _ => Ok(()),
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.request_stop();
    }
}
