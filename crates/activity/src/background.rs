//! What of a start nobody waits for: the topics are found or made, then the writer runs; and what is looked after then.
//!
//! Owns one thread, which tries for as long as the cluster or the store is away, and later asks an idle cluster that was away
//! whether it is back. Invariant: no writer runs for long beside that of an instance with another store: where two have begun
//! together, one gives way.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidings::admin::{Admin, AdminError, TopicSpec};
use tidings::consumer::{Consumer, ConsumerError, ConsumerOptions};
use tidings::failure::FailureTopics;
use tidings::{ClusterError, ResilientProducer};
use tokio::sync::watch;

use crate::api::Topics;
use crate::fill::Filler;
use crate::limits::{
    WRITER_BATCH_BYTES, WRITER_BATCH_RECORDS, WRITER_COMMIT_INTERVAL, WRITER_FETCH_BYTES, WRITER_FETCH_WAIT,
    WRITER_SESSION, WRITER_WAIT,
};
use crate::only_instance::{self, OnlyInstanceError, member_prefix, until_known};
use crate::retry::Retry;
use crate::service::{ActivityOptions, writer_group};
use crate::store::Store;
use crate::writer::Writer;

/// How long a request to the cluster may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at what runs.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the writer.
pub enum WriterState {
    /// Not started yet.
    Waiting,
    /// Running.
    Running(Consumer),
    /// Not to be started, and why.
    Failed(String),
    /// The service has ended.
    Stopped,
}

/// Why the writer does not run.
#[derive(Debug, thiserror::Error)]
enum WriterError {
    #[error("make the writer's producer: {0}")]
    Producer(#[from] ClusterError),
    #[error("{0}")]
    Consumer(#[from] ConsumerError),
}

/// What is left to do.
pub struct Background {
    /// How the service runs.
    pub options: ActivityOptions,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The id of this instance.
    pub instance_id: String,
    /// Whether other instances have been looked for.
    pub is_alone: bool,
    /// The producer.
    pub producer: ResilientProducer,
    /// The writer.
    pub writer: Option<Writer>,
    /// Where it is told whether the topics are there.
    pub topics: watch::Sender<Topics>,
    /// Where the writer's consumer is put.
    pub consumer: Arc<Mutex<WriterState>>,
}

impl Background {
    /// Starts the thread.
    pub fn start(self) -> std::io::Result<()> {
        std::thread::Builder::new().name("activity topics".to_owned()).spawn(move || self.run()).map(drop)
    }

    fn run(mut self) {
        // Letting go of the administrator waits for its thread: that is left until the writer runs.
        let Some(admin) = self.topics_found() else { return };
        self.topics.send_replace(Topics::Ready);
        let Ok(store_id) = until_known(&*self.store, || self.is_over()) else { return };
        if !self.is_alone && !self.found_alone() {
            return;
        }
        // Before the writer commits: its own offsets would look like those of a store that was lost.
        self.start_filler(&admin);
        self.start_writer(&store_id);
        drop(admin);
        Watch::of(self, &store_id).run();
    }

    fn is_over(&self) -> bool {
        self.topics.is_closed() || matches!(*self.consumer.lock(), WriterState::Stopped)
    }

    /// Tries until the topics are there; `None` if the service has ended.
    fn topics_found(&self) -> Option<Admin> {
        let mut retry = Retry::new();
        loop {
            let error = match self.find_topics() {
                Ok(admin) => return Some(admin),
                Err(error) => error,
            };
            if self.is_over() {
                return None;
            }
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            let why = format!("{error}{hint}");
            if retry.is_news(&why, Instant::now()) {
                tracing::warn!(why, topic = self.options.topic, "the topics cannot be found or created yet");
            }
            self.topics.send_replace(Topics::Pending(Some(why)));
            retry.wait(|| self.is_over());
        }
    }

    fn find_topics(&self) -> Result<Admin, AdminError> {
        let admin = Admin::new(&self.options.cluster, ADMIN_TIMEOUT)?;
        let mut specs = FailureTopics::of(&self.options.topic).specs(self.options.dlq_partitions);
        specs.insert(0, TopicSpec::new(&self.options.topic, self.options.partitions));
        admin.ensure_topics(&specs)?;
        self.fit_batches(&admin);
        Ok(admin)
    }

    /// Has the producer make batches that the topic takes. Where that is not told, or changes later, what is refused is sent
    /// record by record.
    fn fit_batches(&self, admin: &Admin) {
        match admin.topic_setting(&self.options.topic, "max.message.bytes") {
            Ok(bytes) => {
                if let Some(bytes) = bytes.and_then(|bytes| bytes.parse().ok()) {
                    self.producer.limit_batches(bytes);
                }
            }
            Err(error) => tracing::debug!(%error, "the topic's limit of batches is not known"),
        }
    }

    /// Asks until the cluster says whether there is another instance.
    fn found_alone(&self) -> bool {
        let mut retry = Retry::new();
        loop {
            let deadline = Instant::now() + ADMIN_TIMEOUT;
            match only_instance::check(&self.options, &*self.store, deadline) {
                Ok(()) => return true,
                Err(error @ OnlyInstanceError::OtherInstance { .. }) => {
                    fail(&self.consumer, &error);
                    return false;
                }
                Err(_) if self.is_over() => return false,
                Err(error) => {
                    if retry.is_news(&error.to_string(), Instant::now()) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(error, "other instances cannot be looked for yet");
                    }
                    retry.wait(|| self.is_over());
                }
            }
        }
    }

    fn start_filler(&self, admin: &Admin) {
        let Some(writer) = self.writer.clone() else { return };
        let filler = Filler {
            cluster: self.options.cluster.clone(),
            topic: self.options.topic.clone(),
            store: Arc::clone(&self.store),
            writer,
            consumer: Arc::clone(&self.consumer),
        };
        if let Err(error) = filler.start(admin) {
            tracing::error!(%error, "a new activity store is not filled from the topic before the next start");
        }
    }

    fn start_writer(&mut self, store_id: &str) {
        let Some(writer) = self.writer.take() else { return };
        let mut state = self.consumer.lock();
        if matches!(*state, WriterState::Stopped) {
            return;
        }
        // The group knows its members by their store.
        let member = member_prefix(&self.options.topic, store_id) + &self.instance_id;
        match consume(&self.options, &self.producer, member, writer) {
            Ok(consumer) => *state = WriterState::Running(consumer),
            Err(error) => {
                drop(state);
                fail(&self.consumer, &error);
            }
        }
    }
}

/// Looks after what runs. It keeps neither the store nor the writer from ending.
struct Watch {
    options: ActivityOptions,
    store_id: String,
    producer: ResilientProducer,
    topics: watch::Sender<Topics>,
    consumer: Weak<Mutex<WriterState>>,
    /// As many partitions were the writer's when other instances were last looked for.
    partitions_count: usize,
}

impl Watch {
    fn of(background: Background, store_id: &str) -> Self {
        let Background { options, producer, topics, consumer, .. } = background;
        let (store_id, consumer) = (store_id.to_owned(), Arc::downgrade(&consumer));
        Self { options, store_id, producer, topics, consumer, partitions_count: 0 }
    }

    fn run(mut self) {
        while !self.topics.is_closed() {
            std::thread::sleep(WATCH_INTERVAL);
            self.producer.probe(&self.options.topic);
            if self.options.is_shared {
                self.look_for_others();
            }
        }
    }

    /// Where others have come or gone the group has divided the partitions anew. One of two stores gives way.
    fn look_for_others(&mut self) {
        let Some(consumer) = self.consumer.upgrade() else { return };
        let partitions_count = match &*consumer.lock() {
            WriterState::Running(consumer) => consumer.state().partitions.len(),
            _ => return,
        };
        if partitions_count == self.partitions_count {
            return;
        }
        match only_instance::find_other(&self.options, &self.store_id, ADMIN_TIMEOUT) {
            Ok(Some(other)) if *other < *member_prefix(&self.options.topic, &self.store_id) => {
                fail(&consumer, &OnlyInstanceError::other(&self.options.topic, other));
            }
            Ok(_) => self.partitions_count = partitions_count,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "other instances cannot be looked for yet");
            }
        }
    }
}

fn fail(consumer: &Mutex<WriterState>, error: &dyn std::error::Error) {
    tracing::error!(%error, "the writer does not run");
    let mut state = consumer.lock();
    if !matches!(*state, WriterState::Stopped) {
        let before = std::mem::replace(&mut *state, WriterState::Failed(error.to_string()));
        drop(state);
        // Letting go of a consumer waits for its thread.
        drop(before);
    }
}

fn consume(
    options: &ActivityOptions,
    producer: &ResilientProducer,
    member: String,
    writer: Writer,
) -> Result<Consumer, WriterError> {
    let mut consumer = ConsumerOptions::new(writer_group(&options.topic), [&options.topic]);
    consumer.instance_id = Some(member);
    consumer.max_batch_records = WRITER_BATCH_RECORDS;
    consumer.max_batch_bytes = WRITER_BATCH_BYTES;
    consumer.max_wait = WRITER_WAIT;
    consumer.commit_interval = WRITER_COMMIT_INTERVAL;
    consumer.letter_partitions = options.dlq_partitions;
    consumer.metrics = options.consumer_metrics.clone();
    let cluster = options.cluster.clone();
    let cluster = cluster.set("fetch.wait.max.ms", WRITER_FETCH_WAIT.as_millis().to_string());
    let cluster = cluster.set("fetch.min.bytes", WRITER_FETCH_BYTES.to_string());
    let cluster = cluster.set("session.timeout.ms", WRITER_SESSION.as_millis().to_string());
    Ok(Consumer::start(&cluster, producer.producer()?, consumer, writer)?)
}
