//! A topic of a test's own, and a handler that remembers.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tidings::admin::{Admin, TopicSpec};
use tidings::consumer::{BatchHandler, Consumer, ConsumerOptions, HandlerError, Outcome};
use tidings::failure::{Failure, FailureInbox};
use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord, Record, now_ms};
use tidings_tests::{Kafka, LONG, Tidings, signal_child, until};

/// How long a call may take on a busy machine.
pub const PATIENCE: Duration = LONG;

/// How long a consumer may take to stop. A member that leaves while its group changes has its LeaveGroup behind the JoinGroup that
/// waits for the others, and librdkafka gives up on it after five seconds: once for the group, and once for that of its delays.
pub const STOP_LIMIT: Duration = LONG;

/// A producer that does not give a record up before its sender does.
pub fn patient_producer() -> ProducerOptions {
    ProducerOptions { delivery_timeout: PATIENCE, ..ProducerOptions::default() }
}

/// The command that runs an ignored test of this program in a process of its own.
pub fn process_of(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A member in a process of its own; dropping it kills it.
pub struct Member(Child);

impl Member {
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Sends a signal; one that stops it has stopped it on return.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        signal_child(&self.0, signal);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cluster with a topic that no other test uses.
pub struct Scene {
    pub cluster: Cluster,
    pub admin: Admin,
    pub producer: Producer,
    pub topic: String,
    pub group: String,
    _broker: Option<(Tidings, TempDir)>,
}

impl Scene {
    /// A new topic of three partitions.
    #[track_caller]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (bootstrap, broker) = crate::cluster_under_test();
        let cluster = Cluster::new(bootstrap).client_id("a test");
        let admin = Admin::new(&cluster, PATIENCE).unwrap();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let topic = format!("orders-{}-{}-{number}", now_ms(), std::process::id());
        admin.create_topic(&TopicSpec::new(&topic, 3)).unwrap();
        let producer = Producer::new(&cluster, patient_producer()).unwrap();
        Self { cluster, admin, producer, group: format!("{topic}-group"), topic, _broker: broker }
    }

    /// Produces values with sixteen keys in turn.
    #[track_caller]
    pub fn produce(&self, values: impl IntoIterator<Item = String>) {
        let record = |(index, value): (usize, String)| {
            Record::new(self.topic.as_str()).key(format!("key-{}", index % 16)).value(value)
        };
        let records: Vec<_> = values.into_iter().enumerate().map(record).collect();
        self.send(&records);
    }

    /// Produces numbers as text to a topic, with so many keys in turn.
    #[track_caller]
    pub fn produce_numbers(&self, topic: &str, values: Range<usize>, keys: usize) {
        let record =
            |value: usize| Record::new(topic).key(format!("key-{}", value % keys)).value(value.to_string());
        self.send(&values.map(record).collect::<Vec<_>>());
    }

    /// Sends records, and waits until all have their place.
    #[track_caller]
    pub fn send(&self, records: &[Record]) {
        for sent in self.producer.send_batch_blocking(records, PATIENCE) {
            sent.unwrap();
        }
    }

    /// Waits until the group has committed so many records of the topic: a stop has nothing left to commit then, for which it
    /// has little time.
    #[track_caller]
    pub fn until_committed(&self, count: i64) {
        let kafka = Kafka::new(self.cluster.bootstrap());
        until(&format!("{count} records are committed"), || {
            let committed = kafka.committed(&self.group, &self.topic);
            (committed.iter().filter(|offset| **offset > 0).sum::<i64>() == count).then_some(())
        });
    }

    /// A static member with a small batch, so that there are several.
    pub fn options(&self) -> ConsumerOptions {
        let mut options = ConsumerOptions::new(&self.group, [&self.topic]);
        options.instance_id = Some("only".into());
        options.max_batch_records = 100;
        options.backoff.initial = Duration::from_millis(20);
        options
    }

    #[track_caller]
    pub fn consume(&self, options: ConsumerOptions, handler: &Remembering) -> Consumer {
        Consumer::start(&self.cluster, self.producer.clone(), options, handler.clone()).unwrap()
    }

    pub fn inbox(&self) -> FailureInbox {
        FailureInbox::new(&self.cluster, self.producer.clone(), &self.topic).timeout(PATIENCE)
    }
}

/// A function as a handler of batches.
pub struct InBatches<F>(pub F);

impl<F> BatchHandler for InBatches<F>
where
    F: FnMut(&[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> + Send + 'static,
{
    fn handle(&mut self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
        (self.0)(batch)
    }
}

/// What a handler saw, and how it is to behave.
#[derive(Default)]
pub struct Memory {
    /// How often each record was done, by value.
    pub done: BTreeMap<String, u32>,
    /// The last offset done in each partition, and whether any came out of order.
    last_offsets: BTreeMap<(String, i32), i64>,
    pub out_of_order: u32,
    /// Calls that are still to fail as transient.
    pub failing_calls: u32,
    /// Values that are rejected.
    pub rejects: Option<fn(&str) -> bool>,
}

/// A handler whose memory the test shares.
#[derive(Clone, Default)]
pub struct Remembering {
    pub memory: Arc<Mutex<Memory>>,
}

impl Remembering {
    pub fn with<T>(&self, look: impl FnOnce(&mut Memory) -> T) -> T {
        look(&mut self.memory.lock().unwrap())
    }

    /// Every record done, and how often the most frequent one was.
    pub fn counts(&self) -> (usize, u32) {
        self.with(|memory| (memory.done.len(), memory.done.values().copied().max().unwrap_or(0)))
    }
}

impl BatchHandler for Remembering {
    fn handle(&mut self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
        self.with(|memory| {
            if memory.failing_calls > 0 {
                memory.failing_calls -= 1;
                return Err(HandlerError::transient("store down").caused_by("connection refused"));
            }
            Ok(batch.iter().map(|record| memory.take(record)).collect())
        })
    }
}

impl Memory {
    fn take(&mut self, record: &ReceivedRecord) -> Outcome {
        let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
        let last = self.last_offsets.insert((record.topic.to_string(), record.partition), record.offset);
        self.out_of_order += u32::from(last.is_some_and(|last| last >= record.offset));
        if self.rejects.is_some_and(|rejects| rejects(&value)) {
            return Outcome::Reject(Failure::new("cannot be worked on").caused_by("the test says so"));
        }
        *self.done.entry(value).or_default() += 1;
        Outcome::Done
    }
}
