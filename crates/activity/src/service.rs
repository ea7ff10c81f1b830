//! The activity service: what `tidings up` starts, asks and stops.
//!
//! Owns the store, the spool, the producer, the writer's consumer and their order of starting: the store first (a locked
//! or foreign file is an error at once), then the fallback and its publisher, then, in the background, the topics and, once
//! the store has been reached, the writer. So HTTP answers questions, and takes activities by the fallback, while the cluster
//! cannot be reached, and takes them by the topic while the store cannot.
//! Invariant: `stop` ends the writer between two batches, with what is stored committed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tidings::breaker::BreakerOptions;
use tidings::consumer::ConsumerMetrics;
use tidings::{Cluster, ClusterError, ProducerMetrics, ProducerOptions, ResilientOptions, ResilientProducer};
use tokio::sync::watch;

use crate::api::{self, Topics};
use crate::background::{Background, WriterState};
use crate::fallback::{Fallback, Keeper};
use crate::housekeeper::Housekeeper;
use crate::ingest::Ingest;
use crate::instance::{Instance, InstanceError};
use crate::limits::PUBLISH_LOOK_INTERVAL;
use crate::live::{Live, StoredBell};
use crate::metrics::ActivityMetrics;
use crate::only_instance::{self, OnlyInstanceError};
use crate::publisher::{Publisher, Wake};
use crate::retention::Retention;
use crate::spool::{Spool, SpoolError};
use crate::sqlite::{HeldStore, StoreCopy};
use crate::store::{Store, StoreError};
use crate::store_options::{OpenError, OpenStore, StoreOptions};
use crate::writer::Writer;

/// The topic of activities unless another is named.
pub const DEFAULT_TOPIC: &str = "activities";

/// The group that stores a topic's activities: `activity-writer` for that of the default, else `<topic>-writer`.
pub fn writer_group(topic: &str) -> String {
    if topic == DEFAULT_TOPIC { "activity-writer".to_owned() } else { format!("{topic}-writer") }
}
/// How long a start waits for the answer whether there is another instance; later the writer waits for it.
const ALONE_PATIENCE: Duration = Duration::from_secs(2);

/// How the service runs. Begin with [`ActivityOptions::new`] and change fields.
#[derive(Debug, Clone)]
pub struct ActivityOptions {
    /// The cluster that keeps the stream.
    pub cluster: Cluster,
    /// Whether others can reach the cluster, so that another instance with a store of its own has to be looked for.
    pub is_shared: bool,
    /// Where activities are kept.
    pub store: StoreOptions,
    /// The folder of this instance's own files, made if absent.
    pub folder: PathBuf,
    /// The topic; its dead letters go to `<topic>.dlq`.
    pub topic: String,
    /// Partitions of the topic, if it has to be created.
    pub partitions: i32,
    /// Partitions of the dead letter topic, if it has to be created.
    pub dlq_partitions: i32,
    /// How long a request waits for the cluster's durable ack before it goes to the fallback.
    pub ack_timeout: Duration,
    /// When requests go to the fallback at once. Register its metrics once per process.
    pub breaker: BreakerOptions,
    /// When the fallback leaves the store alone. Register its metrics once per process.
    pub store_breaker: BreakerOptions,
    /// The file that takes activities when neither the cluster nor the store does, and how long it may become.
    pub spool: Option<(PathBuf, u64)>,
    /// How long activities are kept.
    pub retention: Retention,
    /// Where the producer counts; register it once per process.
    pub producer_metrics: ProducerMetrics,
    /// Where the writer's consumer counts; register it once per process.
    pub consumer_metrics: ConsumerMetrics,
}

impl ActivityOptions {
    /// The defaults for a cluster, a store and a folder.
    pub fn new(cluster: Cluster, store: StoreOptions, folder: impl Into<PathBuf>) -> Self {
        Self {
            cluster,
            is_shared: true,
            store,
            folder: folder.into(),
            topic: DEFAULT_TOPIC.to_owned(),
            partitions: 3,
            dlq_partitions: 1,
            ack_timeout: Duration::from_secs(2),
            breaker: BreakerOptions::default(),
            store_breaker: BreakerOptions::default(),
            spool: None,
            retention: Retention::default(),
            producer_metrics: ProducerMetrics::default(),
            consumer_metrics: ConsumerMetrics::default(),
        }
    }
}

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error("open the activity store")]
    Store(#[from] OpenError),
    /// The client of the cluster cannot be made.
    #[error("make a client of the cluster")]
    Cluster(#[from] ClusterError),
    /// The folder cannot be used.
    #[error("use the folder of the activity service")]
    Instance(#[from] InstanceError),
    /// The spool cannot be opened.
    #[error("open the spool of activities")]
    Spool(#[from] SpoolError),
    /// A background thread cannot be started.
    #[error("start a thread of the activity service")]
    Thread(#[source] std::io::Error),
    /// Another instance stores the same stream into a store of its own.
    #[error(transparent)]
    OtherInstance(OnlyInstanceError),
}

impl StartError {
    /// What to do about it, if that can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            _ => None,
        }
    }
}

/// A running service. Dropping it asks the writer to stop without waiting.
pub struct ActivityService {
    opened: OpenStore,
    instance: Instance,
    producer: ResilientProducer,
    ingest: Ingest,
    live: Live,
    spool: Option<Spool>,
    housekeeper: Housekeeper,
    /// Ends the publisher.
    wake: Arc<Wake>,
    topics: watch::Receiver<Topics>,
    /// Set by the background thread once the topics are there.
    consumer: Arc<Mutex<WriterState>>,
}

impl ActivityService {
    /// Opens the store and starts everything else in the background. Blocks for as long as opening the store takes.
    pub fn start(options: ActivityOptions) -> Result<Self, StartError> {
        let instance = Instance::open(&options.folder)?;
        let opened = options.store.open()?;
        let store = opened.store();
        let is_alone = !options.is_shared || is_alone(&options, &*store)?;
        let metrics = ActivityMetrics::default();
        let producer = producer(&options)?;
        let spool = match &options.spool {
            Some((path, max_bytes)) => Some(Spool::open(path, *max_bytes)?),
            None => None,
        };
        let stored = StoredBell::default();
        let live = Live::new(Arc::clone(&store), stored.clone());
        let (found, topics) = watch::channel(Topics::Pending(None));
        let (wake, topic) = (Arc::new(Wake::default()), Arc::<str>::from(options.topic.as_str()));
        let publisher = Publisher {
            producer: producer.clone(),
            topic: Arc::clone(&topic),
            topics: topics.clone(),
            store: Arc::clone(&store),
            look_interval: matches!(opened, OpenStore::Postgres(_)).then_some(PUBLISH_LOOK_INTERVAL),
            spool: spool.clone(),
            wake: Arc::clone(&wake),
            stored: stored.clone(),
            metrics: metrics.clone(),
        };
        publisher.start().map_err(StartError::Thread)?;
        let keeper = Keeper {
            store: Arc::clone(&store),
            breaker: options.store_breaker.clone(),
            spool: spool.clone(),
            wake: Arc::clone(&wake),
            stored: stored.clone(),
            metrics: metrics.clone(),
        };
        let fallback = Fallback::start(keeper).map_err(StartError::Thread)?;
        let housekeeper = Housekeeper::start(Arc::clone(&store), options.retention.clone(), metrics.clone())
            .map_err(StartError::Thread)?;
        let ingest = Ingest::new(producer.clone(), topic, topics.clone(), fallback, metrics.clone());
        let consumer = Arc::new(Mutex::new(WriterState::Waiting));
        let background = Background {
            writer: Some(Writer::new(Arc::clone(&store), stored, metrics)),
            store,
            instance_id: instance.id().to_owned(),
            is_alone,
            producer: producer.clone(),
            consumer: Arc::clone(&consumer),
            topics: found,
            options,
        };
        background.start().map_err(StartError::Thread)?;
        Ok(Self { opened, instance, producer, ingest, live, spool, housekeeper, wake, topics, consumer })
    }

    /// The routes under `/api/v1/activities`.
    pub fn router(&self) -> Router {
        let folder = self.instance.folder().to_owned();
        api::router(self.ingest.clone(), self.store(), self.live.clone(), self.housekeeper.clone(), folder)
    }

    /// From now on activities are kept for this long.
    pub fn set_retention(&self, retention: Retention) {
        self.housekeeper.set_retention(retention);
    }

    /// Ends the answers of the live tail, which would go on for ever. To be called before the server is stopped.
    pub fn end_live(&self) {
        self.live.end();
    }

    /// Adds the service's own metrics (`tidings_activity_…`); those of producer and consumer are the caller's.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.ingest.metrics().register(registry);
    }

    /// What is counted.
    pub fn metrics(&self) -> &ActivityMetrics {
        self.ingest.metrics()
    }

    /// The store.
    pub fn store(&self) -> Arc<dyn Store> {
        self.opened.store()
    }

    /// What copies the service's files while it runs.
    pub fn copier(&self) -> ActivityCopier {
        ActivityCopier { opened: self.opened.clone(), spool: self.spool.clone() }
    }

    /// Whether the topics exist: before, another client could have them created with other settings than ours.
    pub fn has_topics(&self) -> bool {
        *self.topics.borrow() == Topics::Ready
    }

    /// A check for `/readyz` that asks nobody and may outlive the service.
    pub fn readiness(&self) -> impl Fn() -> Result<(), String> + Send + Sync + use<> {
        let (topics, consumer, producer) =
            (self.topics.clone(), Arc::clone(&self.consumer), self.producer.clone());
        let (store, fallback) = (self.store(), self.ingest.fallback().clone());
        move || {
            if let Topics::Pending(why) = &*topics.borrow() {
                return Err(why.clone().unwrap_or_else(|| "the topics are not there yet".to_owned()));
            }
            if let Some(fault) = producer.last_fault() {
                return Err(format!("{fault}; {}", fault.hint()));
            }
            if let Some(fault) = store.fault() {
                return Err(fault);
            }
            if let Some(fault) = fallback.fault() {
                return Err(fault);
            }
            match &*consumer.lock() {
                WriterState::Waiting => Err("the writer has not started yet".to_owned()),
                WriterState::Running(consumer) => consumer.state().readiness(),
                WriterState::Failed(why) => Err(why.clone()),
                WriterState::Stopped => Err("the writer is stopped".to_owned()),
            }
        }
    }

    /// Stops the writer between two batches, commits, leaves the group, and waits for what is being sent. Blocks for
    /// at most `timeout`; answers what did not end in time.
    pub fn stop(self, timeout: Duration) -> Result<(), String> {
        let writer = std::mem::replace(&mut *self.consumer.lock(), WriterState::Stopped);
        let deadline = Instant::now() + timeout;
        self.housekeeper.stop();
        self.wake.stop(deadline);
        let timeout = deadline.saturating_duration_since(Instant::now());
        let flushed = self.producer.flush(timeout).map_err(|fault| fault.to_string());
        if let WriterState::Running(consumer) = writer {
            consumer.stop(timeout).map_err(|error| error.to_string())?;
        }
        if let Err(error) = self.opened.store().close() {
            tracing::debug!(error = &error as &dyn std::error::Error, "the store is not in order at the end");
        }
        flushed
    }
}

/// Copies a running service's files. Cheap to clone.
#[derive(Clone)]
pub struct ActivityCopier {
    opened: OpenStore,
    spool: Option<Spool>,
}

impl ActivityCopier {
    /// Writes what the spool holds to a new file; answers its length, or `None` without a spool. To be called before
    /// [`ActivityCopier::begin_store`]: what leaves the spool in between is in the store then.
    pub fn copy_spool(&self, path: &Path) -> std::io::Result<Option<u64>> {
        self.spool.as_ref().map(|spool| spool.copy_to(path)).transpose()
    }

    /// As [`SqliteStore::begin_copy`](crate::sqlite::SqliteStore::begin_copy); `None` for a store that is no file of ours.
    pub fn begin_store(&self) -> Result<Option<(HeldStore<'_>, StoreCopy)>, StoreError> {
        match &self.opened {
            OpenStore::Sqlite(store) => store.begin_copy().map(Some),
            OpenStore::Postgres(_) => Ok(None),
        }
    }
}

impl Drop for ActivityService {
    fn drop(&mut self) {
        // Readiness checks may hold the state for longer: the consumer has to go with the service all the same.
        *self.consumer.lock() = WriterState::Stopped;
        self.housekeeper.stop();
        self.wake.stop(Instant::now());
    }
}

fn producer(options: &ActivityOptions) -> Result<ResilientProducer, ClusterError> {
    let metrics = options.producer_metrics.clone();
    let resilient = ResilientOptions {
        timeout: options.ack_timeout,
        breaker: options.breaker.clone(),
        producer: ProducerOptions { metrics, ..ProducerOptions::default() },
    };
    ResilientProducer::new(&options.cluster, resilient)
}

/// Whether the cluster says that no other instance stores the stream; `false` if it does not say so soon.
fn is_alone(options: &ActivityOptions, store: &dyn Store) -> Result<bool, StartError> {
    match only_instance::check(options, store, Instant::now() + ALONE_PATIENCE) {
        Ok(()) => Ok(true),
        Err(error @ OnlyInstanceError::OtherInstance { .. }) => Err(StartError::OtherInstance(error)),
        // The service waits for a cluster that does not answer, so its start does not fail for that either.
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot look for other instances yet");
            Ok(false)
        }
    }
}
