//! Clients with transactions, all librdkafka's: a sender that commits and aborts over all partitions, and the members of
//! a group that read what was committed, make a record of each one, and move their offsets in the same transaction.
//!
//! Owns their configuration, what they enter in the history and in the ledger, and when one of them dies. Invariants: a
//! transaction counts as committed when its client was told so, and could hear it; as aborted when nobody has asked for its
//! commit; whatever else happens leaves it in doubt. A client that has lost its way ends, and a new one of the same
//! name goes on where the broker says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use tidings_log::testing::Random;

use crate::client::TOPIC;
use crate::history::{Event, History, Ledger, Outcome, Partition, Record};
use crate::librdkafka::config;
use crate::run::Run;

/// What the group makes.
pub const MADE: &str = "invoices";
/// The group.
pub const GROUP: &str = "invoicing";
/// Its members.
pub const MEMBERS: [&str; 2] = ["invoicing-1", "invoicing-2"];

/// How long a call may take before its client looks whether it shall stop.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a poll waits.
const POLL: Duration = Duration::from_millis(10);
/// Records of a transaction at most.
const MOST_RECORDS: usize = 12;

/// It is polled by a thread of its own: an abort waits for a flush that nobody would serve otherwise.
type TransactionalProducer = ThreadedProducer<DefaultProducerContext>;

/// What a client knows of a transaction that it has tried to end.
#[derive(Clone, Copy, PartialEq)]
enum Ended {
    Committed,
    Aborted,
    InDoubt,
}

/// Sends transactions.
#[derive(Debug)]
pub struct Sender {
    id: u32,
    /// The next number on each partition.
    next: Vec<u64>,
    random: Random,
}

impl Sender {
    /// A sender that has sent nothing.
    pub fn new(id: u32, partitions: i32, seed: u64) -> Self {
        let next = vec![0; usize::try_from(partitions).expect("few partitions")];
        Self { id, next, random: Random::new(seed ^ u64::from(id) << 32) }
    }

    /// Its transactional id.
    pub fn transactional_id(&self) -> String {
        format!("sender-{}", self.id)
    }

    /// Sends until the run is stopped.
    pub fn run(&mut self, run: &Run, history: &History, ledger: &Ledger) {
        while let Some(producer) = open(run, &self.transactional_id()) {
            while !run.is_stopped() && self.transaction(&producer, run, history, ledger) {}
        }
    }

    /// One transaction; false when the client has come to its end.
    fn transaction(
        &mut self,
        producer: &TransactionalProducer,
        run: &Run,
        history: &History,
        ledger: &Ledger,
    ) -> bool {
        if producer.begin_transaction().is_err() {
            return false;
        }
        let transaction = ledger.begin();
        for _ in 0..1 + self.random.below(MOST_RECORDS) {
            let index = self.random.below(self.next.len());
            let partition = Partition::try_from(index).expect("few partitions");
            let record = Record { producer: self.id, number: self.next[index] };
            self.next[index] += 1;
            ledger.sent(transaction, partition, record);
            let value = record.value(partition, self.random.below(400));
            if send(producer, TOPIC, partition, &value).is_err() {
                ledger.ended(transaction, Outcome::Aborted);
                return false;
            }
        }
        let ended = match self.random.below(20) {
            // It dies; the next one of its name makes the broker abort what it leaves.
            0 => {
                let _ = producer.flush(PATIENCE);
                ledger.ended(transaction, Outcome::Aborted);
                return false;
            }
            1..=5 => {
                // So that there is something to abort.
                let _ = producer.flush(PATIENCE);
                ledger.ended(transaction, Outcome::Aborted);
                return abort(producer, run) == Ended::Aborted;
            }
            _ => commit(producer, run),
        };
        match ended {
            Ended::Committed if !history.is_dark() => ledger.ended(transaction, Outcome::Committed),
            Ended::Aborted => ledger.ended(transaction, Outcome::Aborted),
            Ended::Committed | Ended::InDoubt => {}
        }
        ended != Ended::InDoubt && !history.is_dark()
    }
}

/// How a member commits its offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offsets {
    /// In the transaction of what it has made.
    InTransaction,
    /// Before it, for itself.
    Beside,
}

/// Counts rebalances: what was read before one may be another's by now.
#[derive(Default)]
struct Rebalances(AtomicU64);

impl ClientContext for Rebalances {}

impl ConsumerContext for Rebalances {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// A record that was read and is to be made something of.
struct Input {
    partition: Partition,
    offset: i64,
    value: Vec<u8>,
}

/// A member of the group.
#[derive(Debug)]
pub struct Member {
    instance: &'static str,
    offsets: Offsets,
    random: Random,
}

impl Member {
    /// A member of this name.
    pub fn new(instance: &'static str, offsets: Offsets, seed: u64) -> Self {
        let number = instance.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte));
        Self { instance, offsets, random: Random::new(seed ^ number) }
    }

    /// Reads and makes until the run is stopped.
    pub fn run(&mut self, run: &Run, history: &History) {
        while let Some(producer) = open(run, self.instance) {
            let (producer, consumer) = (Arc::new(producer), self.consumer(run));
            while !run.is_stopped() && self.transaction(&consumer, &producer, run, history) {}
        }
    }

    fn consumer(&self, run: &Run) -> BaseConsumer<Rebalances> {
        let mut config: ClientConfig = config(run);
        config.set("group.id", GROUP).set("group.instance.id", self.instance);
        config.set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        config.set("session.timeout.ms", "6000").set("heartbeat.interval.ms", "500");
        config.set("fetch.wait.max.ms", "20").set("fetch.error.backoff.ms", "5");
        let consumer = config.create_with_context(Rebalances::default()).expect("make a consumer");
        BaseConsumer::subscribe(&consumer, &[TOPIC]).expect("subscribe");
        consumer
    }

    /// Reads some records and makes something of them; false when the client has come to its end.
    fn transaction(
        &mut self,
        consumer: &BaseConsumer<Rebalances>,
        producer: &Arc<TransactionalProducer>,
        run: &Run,
        history: &History,
    ) -> bool {
        let inputs = read(consumer, 1 + self.random.below(4 * MOST_RECORDS));
        let (mut first, mut next) = (BTreeMap::new(), BTreeMap::new());
        for Input { partition, offset, value } in &inputs {
            let (reader, record) = (GROUP.into(), Record::of(*partition, value));
            if !history.enter(Event::Read { reader, partition: *partition, offset: *offset, record }) {
                return false;
            }
            first.entry(*partition).or_insert(*offset);
            next.insert(*partition, *offset + 1);
        }
        if inputs.is_empty() {
            return true;
        }
        if self.offsets == Offsets::Beside {
            if consumer.commit(&list(&next), CommitMode::Sync).is_err() {
                return false;
            }
            enter_commits(&next, history);
        }
        if producer.begin_transaction().is_err() {
            return false;
        }
        let sent = inputs.iter().try_for_each(|input| send(producer, MADE, input.partition, &input.value));
        if sent.is_err() {
            return false;
        }
        let dies = self.random.chance(16);
        let ended = if self.offsets == Offsets::InTransaction && !add_offsets(consumer, producer, &next, run)
        {
            abort(producer, run)
        } else if dies {
            // With everything sent and nothing asked for.
            let _ = producer.flush(PATIENCE);
            return false;
        } else if self.random.chance(8) {
            let _ = producer.flush(PATIENCE);
            abort(producer, run)
        } else {
            commit(producer, run)
        };
        match ended {
            Ended::Committed if self.offsets == Offsets::InTransaction => enter_commits(&next, history),
            Ended::Committed => true,
            Ended::Aborted => rewind(consumer, &first).is_ok(),
            Ended::InDoubt => false,
        }
    }
}

/// A producer whose predecessors of the same name are fenced; none when the run is stopped.
pub fn open(run: &Run, transactional_id: &str) -> Option<TransactionalProducer> {
    while !run.is_stopped() {
        let mut config = config(run);
        config.set("transactional.id", transactional_id).set("linger.ms", "1");
        let producer: TransactionalProducer = config.create().expect("make a producer");
        while !run.is_stopped() {
            match producer.init_transactions(PATIENCE) {
                Ok(()) => return Some(producer),
                Err(error) if is_retriable(&error) => {}
                Err(_) => break,
            }
        }
        run.pause();
    }
    None
}

fn send(
    producer: &TransactionalProducer,
    topic: &str,
    partition: Partition,
    value: &[u8],
) -> KafkaResult<()> {
    let record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).partition(partition).payload(value);
    producer.send(record).map_err(|(error, _)| error)
}

/// Asks for the commit until there is an answer.
fn commit(producer: &TransactionalProducer, run: &Run) -> Ended {
    while !run.is_stopped() {
        match producer.commit_transaction(PATIENCE) {
            Ok(()) => return Ended::Committed,
            Err(error) if requires_abort(&error) => return abort(producer, run),
            Err(error) if is_retriable(&error) => {}
            Err(_) => return Ended::InDoubt,
        }
    }
    Ended::InDoubt
}

fn abort(producer: &TransactionalProducer, run: &Run) -> Ended {
    while !run.is_stopped() {
        match producer.abort_transaction(PATIENCE) {
            Ok(()) => return Ended::Aborted,
            Err(error) if is_retriable(&error) => {}
            Err(_) => return Ended::InDoubt,
        }
    }
    Ended::InDoubt
}

/// False when the transaction has to be aborted.
fn add_offsets(
    consumer: &BaseConsumer<Rebalances>,
    producer: &Arc<TransactionalProducer>,
    next: &BTreeMap<Partition, i64>,
    run: &Run,
) -> bool {
    let Some(metadata) = consumer.group_metadata() else { return false };
    let metadata = Arc::new(metadata);
    while !run.is_stopped() {
        let (answer, answered) = channel();
        let (producer, metadata, offsets) = (Arc::clone(producer), Arc::clone(&metadata), list(next));
        std::thread::spawn(move || {
            let _ = answer.send(producer.send_offsets_to_transaction(&offsets, &metadata, PATIENCE));
        });
        match unless_stopped(&answered, run) {
            Some(Ok(())) => return true,
            Some(Err(error)) if !requires_abort(&error) && is_retriable(&error) => {}
            Some(Err(_)) | None => return false,
        }
    }
    false
}

/// The answer of a call; none where the run was stopped and it does not come. librdkafka 2.12 may wait for ever for a broker
/// that is gone, whatever its timeout: then the call is left behind with its producer, whose name the next one takes over.
fn unless_stopped<T>(answered: &Receiver<T>, run: &Run) -> Option<T> {
    loop {
        let is_last = run.is_stopped();
        match answered.recv_timeout(2 * PATIENCE) {
            Err(RecvTimeoutError::Timeout) if !is_last => {}
            answer => return answer.ok(),
        }
    }
}

fn requires_abort(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.txn_requires_abort())
}

/// A flush that has taken too long is tried again, too.
fn is_retriable(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => error.is_retriable(),
        KafkaError::Flush(_) => true,
        _ => false,
    }
}

/// Up to so many records, as long as they come without a pause.
fn read(consumer: &BaseConsumer<Rebalances>, most: usize) -> Vec<Input> {
    let mut inputs = Vec::new();
    let rebalances = &consumer.context().0;
    let mut seen = rebalances.load(Relaxed);
    while inputs.len() < most {
        let polled = consumer.poll(POLL);
        let now = rebalances.load(Relaxed);
        if now != seen {
            // It starts from the committed offsets again.
            inputs.clear();
            seen = now;
        }
        match polled {
            Some(Ok(message)) => inputs.push(Input {
                partition: message.partition(),
                offset: message.offset(),
                value: message.payload().unwrap_or_default().to_vec(),
            }),
            Some(Err(_)) => {}
            None => break,
        }
    }
    inputs
}

fn list(offsets: &BTreeMap<Partition, i64>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(TOPIC, *partition, Offset::Offset(*offset)).expect("a valid offset");
    }
    list
}

/// False when nobody can have heard of it.
fn enter_commits(next: &BTreeMap<Partition, i64>, history: &History) -> bool {
    next.iter().all(|(partition, offset)| {
        let group: Arc<str> = GROUP.into();
        history.enter(Event::Committed { group, partition: *partition, offset: *offset })
    })
}

/// Reads again from where the transaction began.
fn rewind(consumer: &BaseConsumer<Rebalances>, first: &BTreeMap<Partition, i64>) -> KafkaResult<()> {
    first.iter().try_for_each(|(partition, offset)| {
        consumer.seek(TOPIC, *partition, Offset::Offset(*offset), PATIENCE)
    })
}
