//! What of a start nobody waits for: the topics are found or made, then the writer runs.
//!
//! Owns one thread, which tries for as long as the cluster or the store is away. Invariant: no writer runs beside that of an
//! instance with another store, as far as the group shows it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tidings::admin::{Admin, AdminError, TopicSpec};
use tidings::consumer::{Consumer, ConsumerError, ConsumerOptions};
use tidings::failure::FailureTopics;
use tidings::{ClusterError, ResilientProducer};
use tokio::sync::watch;

use crate::api::Topics;
use crate::limits::{WRITER_BATCH_BYTES, WRITER_BATCH_RECORDS, WRITER_WAIT};
use crate::only_instance::{self, OnlyInstanceError, member_prefix, until_known};
use crate::service::{ActivityOptions, WRITER_GROUP};
use crate::store::Store;
use crate::writer::Writer;

/// How long a request to the cluster may take.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(500);

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
    pub writer: Writer,
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

    fn run(self) {
        // Letting go of the administrator waits for its thread: that is left until the writer runs.
        let Some(admin) = self.topics_found() else { return };
        self.topics.send_replace(Topics::Ready);
        let Ok(store_id) = until_known(&*self.store, || self.is_over()) else { return };
        if self.is_alone || self.found_alone() {
            self.start_writer(&store_id);
        }
        drop(admin);
    }

    fn is_over(&self) -> bool {
        self.topics.is_closed() || matches!(*self.consumer.lock(), WriterState::Stopped)
    }

    /// Tries until the topics are there; `None` if the service has ended.
    fn topics_found(&self) -> Option<Admin> {
        loop {
            let error = match self.find_topics() {
                Ok(admin) => return Some(admin),
                Err(error) => error,
            };
            if self.is_over() {
                return None;
            }
            tracing::warn!(%error, topic = self.options.topic, "the topics cannot be found or created yet");
            self.topics.send_replace(Topics::Pending(Some(error.to_string())));
            std::thread::sleep(RETRY);
        }
    }

    fn find_topics(&self) -> Result<Admin, AdminError> {
        let admin = Admin::new(&self.options.cluster, ADMIN_TIMEOUT)?;
        let mut specs = FailureTopics::of(&self.options.topic).specs(self.options.dlq_partitions);
        specs.insert(0, TopicSpec::new(&self.options.topic, self.options.partitions));
        admin.ensure_topics(&specs)?;
        Ok(admin)
    }

    /// Asks until the cluster says whether there is another instance.
    fn found_alone(&self) -> bool {
        loop {
            let deadline = Instant::now() + ADMIN_TIMEOUT;
            match only_instance::check(&self.options.cluster, &*self.store, deadline) {
                Ok(()) => return true,
                Err(error @ OnlyInstanceError::OtherInstance { .. }) => {
                    fail(&self.consumer, &error);
                    return false;
                }
                Err(_) if self.is_over() => return false,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "other instances cannot be looked for yet");
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    fn start_writer(self, store_id: &str) {
        let mut state = self.consumer.lock();
        if matches!(*state, WriterState::Stopped) {
            return;
        }
        // The group knows its members by their store.
        let member = member_prefix(store_id) + &self.instance_id;
        match consume(&self.options, &self.producer, member, self.writer) {
            Ok(consumer) => *state = WriterState::Running(consumer),
            Err(error) => {
                drop(state);
                fail(&self.consumer, &error);
            }
        }
    }
}

fn fail(consumer: &Mutex<WriterState>, error: &dyn std::error::Error) {
    tracing::error!(%error, "the writer cannot be started");
    let mut state = consumer.lock();
    if !matches!(*state, WriterState::Stopped) {
        *state = WriterState::Failed(error.to_string());
    }
}

fn consume(
    options: &ActivityOptions,
    producer: &ResilientProducer,
    member: String,
    writer: Writer,
) -> Result<Consumer, WriterError> {
    let mut consumer = ConsumerOptions::new(WRITER_GROUP, [&options.topic]);
    consumer.instance_id = Some(member);
    consumer.max_batch_records = WRITER_BATCH_RECORDS;
    consumer.max_batch_bytes = WRITER_BATCH_BYTES;
    consumer.max_wait = WRITER_WAIT;
    consumer.letter_partitions = options.dlq_partitions;
    consumer.metrics = options.consumer_metrics.clone();
    Ok(Consumer::start(&options.cluster, producer.producer()?, consumer, writer)?)
}
