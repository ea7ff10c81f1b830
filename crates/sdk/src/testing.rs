//! A real broker inside the test's own process, and what tests wait for (feature `testing`).
//!
//! [`Broker::start`] gives each test a broker of its own on a free port, with a directory that goes with it, in
//! milliseconds: nothing is mocked, so clients of any kind connect to it. Its [clock](TestClock) can be driven, and it
//! can be stopped, killed and started again. Where `TIDINGS_BOOTSTRAP` names a cluster, the same tests run there; what
//! cannot be done to a cluster of others is refused with [`TestingError::NotOurs`].
//!
//! This is the SDK's only edge to the engine, and no part of its default build. **Invariant:** clients reach the broker
//! over TCP like any other; no test sees inside. Calls here block; in async tests wrap those that wait into
//! `tokio::task::spawn_blocking`.
//!
//! What is not here: a handler's own logic, which needs no broker to be tested.

mod clock;
mod engine;
mod wait;

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thiserror::Error;
use uuid::Uuid;

use crate::admin::{Admin, AdminError, TopicSpec};
use crate::cluster::{Cluster, ClusterError};
use crate::reader::ReadError;
use crate::record::ReceivedRecord;
pub use clock::TestClock;
use engine::Engine;
pub use engine::StartError;

/// Where this names brokers (`host:port`, separated by commas), tests run on them instead of on brokers of their own.
///
/// ```
/// use tidings::testing::BOOTSTRAP_VARIABLE;
///
/// if std::env::var_os(BOOTSTRAP_VARIABLE).is_some() {
///     println!("skipped: a test that kills its broker");
/// }
/// ```
pub const BOOTSTRAP_VARIABLE: &str = "TIDINGS_BOOTSTRAP";

/// How long one request of a helper may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// What a test's broker is like. The default is the quickest.
///
/// ```
/// use tidings::testing::{Broker, BrokerOptions};
///
/// let options = BrokerOptions { durable: true, ..BrokerOptions::default() }.set("num.partitions", "3");
/// let broker = Broker::with(options)?;
/// # drop(broker);
/// # Ok::<(), tidings::testing::TestingError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct BrokerOptions {
    /// Whether acknowledged means synced to the disk, as in production. Otherwise all goes the same way but for the
    /// flushes themselves: what was acknowledged survives all that happens to the test's process, and no power cut.
    pub durable: bool,
    /// The broker's settings, by Kafka's names. A cluster of others has its own: there they are refused.
    pub settings: Vec<(String, String)>,
}

impl BrokerOptions {
    /// Adds a setting by Kafka's name.
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// Why something could not be done for a test.
///
/// ```
/// use std::time::Duration;
/// use tidings::testing::{Broker, TestingError};
///
/// let broker = Broker::start()?;
/// match broker.clock() {
///     Ok(clock) => clock.advance(Duration::from_secs(3_600)),
///     Err(TestingError::NotOurs { bootstrap, .. }) => println!("skipped: {bootstrap} has a clock of its own"),
///     Err(error) => return Err(error),
/// }
/// # Ok::<(), TestingError>(())
/// ```
#[derive(Debug, Error)]
pub enum TestingError {
    /// The broker did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The cluster that `TIDINGS_BOOTSTRAP` names is not this test's to change.
    #[error(
        "cannot {operation} of {bootstrap}: {BOOTSTRAP_VARIABLE} names a cluster that is not the test's own"
    )]
    NotOurs {
        /// What was asked for.
        operation: &'static str,
        /// The cluster.
        bootstrap: String,
    },
    /// What was waited for did not come in time.
    #[error("{waited_for} not within {} ms: {found}", waited.as_millis())]
    TimedOut {
        /// What was waited for.
        waited_for: String,
        /// What there was at the end.
        found: String,
        /// How long was waited.
        waited: Duration,
    },
    /// A client could not be made.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// An administrative call failed.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A topic could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// A broker of a test's own, or the cluster that `TIDINGS_BOOTSTRAP` names. Dropping it ends the broker and removes its
/// directory; of a cluster it deletes the topics made through it.
///
/// ```
/// use std::time::Duration;
/// use tidings::testing::Broker;
/// use tidings::{Producer, ProducerOptions, Record};
///
/// let broker = Broker::start()?;
/// let orders = broker.new_topic("orders", 3)?;
/// let producer = Producer::new(&broker.cluster(), ProducerOptions::default())?;
/// let record = Record::new(orders.as_str()).key("customer-7").value("placed");
/// producer.send_batch_blocking(&[record], Duration::from_secs(5));
///
/// let records = broker.wait_for_records(&orders, 1, Duration::from_secs(5))?;
/// assert_eq!(records[0].value.as_deref(), Some(b"placed".as_slice()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Broker {
    /// None where the cluster is not the test's own.
    engine: Option<Mutex<Engine>>,
    bootstrap: String,
    /// Topics made here, which a cluster of others must not keep.
    made_topics: Mutex<Vec<String>>,
}

impl Broker {
    /// Starts a broker on a free port of the loopback interface. On return it answers.
    pub fn start() -> Result<Self, TestingError> {
        Self::with(BrokerOptions::default())
    }

    /// Starts a broker with options.
    pub fn with(options: BrokerOptions) -> Result<Self, TestingError> {
        match std::env::var(BOOTSTRAP_VARIABLE) {
            Ok(bootstrap) if !bootstrap.trim().is_empty() => Self::on(bootstrap, &options),
            _ => Self::own(&options),
        }
    }

    fn own(options: &BrokerOptions) -> Result<Self, TestingError> {
        let engine = Engine::start(options)?;
        let bootstrap = engine.address().to_string();
        Ok(Self { engine: Some(Mutex::new(engine)), bootstrap, made_topics: Mutex::default() })
    }

    fn on(bootstrap: String, options: &BrokerOptions) -> Result<Self, TestingError> {
        if !options.settings.is_empty() {
            return Err(TestingError::NotOurs { operation: "change the settings", bootstrap });
        }
        Ok(Self { engine: None, bootstrap, made_topics: Mutex::default() })
    }

    /// The address, as clients take it.
    ///
    /// ```
    /// use tidings::Cluster;
    /// use tidings::testing::Broker;
    ///
    /// let broker = Broker::start()?;
    /// // For a client with settings of its own, or one that is not the SDK's:
    /// let cluster = Cluster::new(broker.bootstrap()).set("fetch.wait.max.ms", "10");
    /// # drop(cluster);
    /// # Ok::<(), tidings::testing::TestingError>(())
    /// ```
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The broker as the SDK's clients take it.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(&self.bootstrap).client_id("a test")
    }

    /// Creates a topic of this name, and waits until it can be used.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<(), TestingError> {
        self.admin()?.create_topic(&TopicSpec::new(topic, partitions))?;
        self.made_topics.lock().push(topic.to_owned());
        Ok(())
    }

    /// Creates a topic whose name begins so and is used by nobody else, also on a cluster that several tests share.
    pub fn new_topic(&self, prefix: &str, partitions: i32) -> Result<String, TestingError> {
        let topic = format!("{prefix}-{}", Uuid::now_v7().simple());
        self.create_topic(&topic, partitions)?;
        Ok(topic)
    }

    /// Waits until a topic holds at least `count` records that readers of committed records see, for at most `limit`.
    /// Answers all it holds then, in the order of each partition. A topic that is not there yet is waited for.
    pub fn wait_for_records(
        &self,
        topic: &str,
        count: usize,
        limit: Duration,
    ) -> Result<Vec<ReceivedRecord>, TestingError> {
        wait::for_records(&self.cluster(), topic, count, Instant::now() + limit, limit)
    }

    /// Waits until a group has committed its way to at most `lag` records before the end of a topic, for at most `limit`.
    ///
    /// The lag is in records that readers of committed records see: what transactions and compaction leave between them
    /// is not counted. In a partition without a committed offset all records are ahead.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::consumer::{Consumer, ConsumerOptions, Outcome};
    /// use tidings::testing::Broker;
    /// use tidings::{Producer, ProducerOptions, ReceivedRecord, Record};
    ///
    /// let (broker, limit) = (Broker::start()?, Duration::from_secs(10));
    /// broker.create_topic("orders", 1)?;
    /// let producer = Producer::new(&broker.cluster(), ProducerOptions::default())?;
    /// producer.send_batch_blocking(&[Record::new("orders").value("placed")], limit).remove(0)?;
    ///
    /// let options = ConsumerOptions::new("billing", ["orders"]);
    /// let consumer =
    ///     Consumer::for_each(&broker.cluster(), producer, options, |_: &ReceivedRecord| Outcome::Done)?;
    /// broker.wait_for_lag("billing", "orders", 0, limit)?;
    /// consumer.stop(limit)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_for_lag(
        &self,
        group: &str,
        topic: &str,
        lag: usize,
        limit: Duration,
    ) -> Result<(), TestingError> {
        wait::for_lag(&self.admin()?, &self.cluster(), group, topic, lag, limit)
    }

    /// The broker's clock. A cluster of others has its own.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::testing::Broker;
    ///
    /// let broker = Broker::start()?;
    /// broker.clock()?.advance(Duration::from_secs(8 * 24 * 3600)); // retention is a week
    /// # Ok::<(), tidings::testing::TestingError>(())
    /// ```
    pub fn clock(&self) -> Result<TestClock, TestingError> {
        Ok(self.engine("drive the clock")?.lock().clock())
    }

    /// Ends the broker cleanly; clients find nobody at its address until [`Broker::restart`].
    pub fn stop(&self) -> Result<(), TestingError> {
        self.engine("stop the brokers")?.lock().stop();
        Ok(())
    }

    /// Ends the broker as `kill -9` would.
    pub fn kill(&self) -> Result<(), TestingError> {
        self.engine("kill the brokers")?.lock().kill();
        Ok(())
    }

    /// Starts the broker again at its address, with its data; one that runs is stopped cleanly before.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::testing::Broker;
    ///
    /// let broker = Broker::start()?;
    /// broker.create_topic("orders", 1)?;
    /// broker.stop()?; // what clients do now can be tested
    /// broker.restart()?;
    /// broker.kill()?;
    /// broker.restart()?;
    /// assert!(broker.wait_for_records("orders", 0, Duration::from_secs(5))?.is_empty());
    /// # Ok::<(), tidings::testing::TestingError>(())
    /// ```
    pub fn restart(&self) -> Result<(), TestingError> {
        Ok(self.engine("restart the brokers")?.lock().restart()?)
    }

    fn engine(&self, operation: &'static str) -> Result<&Mutex<Engine>, TestingError> {
        let not_ours = || TestingError::NotOurs { operation, bootstrap: self.bootstrap.clone() };
        self.engine.as_ref().ok_or_else(not_ours)
    }

    fn admin(&self) -> Result<Admin, ClusterError> {
        Admin::new(&self.cluster(), REQUEST_TIMEOUT)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let topics = std::mem::take(&mut *self.made_topics.lock());
        if self.engine.is_some() || topics.is_empty() {
            return;
        }
        let Ok(admin) = self.admin() else { return };
        for topic in topics {
            if let Err(error) = admin.delete_topic(&topic) {
                tracing::debug!(topic, %error, "topic of a test not deleted");
            }
        }
    }
}
