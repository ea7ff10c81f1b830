//! The clients that most programs use: librdkafka's idempotent producer and its members of a group.
//!
//! Owns their configuration and what they enter in the history. Invariants: a producer gives nothing up (no
//! timeout of messages); a member commits what it was given, synchronously. What happens on the wire is
//! librdkafka's business: that is the point. Not for power cuts: nobody can make it unhear an answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use tidings_log::testing::Random;

use crate::client::TOPIC;
use crate::history::{Event, History, Record};
use crate::run::Run;

/// How long a poll waits.
const POLL: Duration = Duration::from_millis(10);
/// Unacknowledged records of a producer at most: the load must not outrun the checker.
const OUTSTANDING: u64 = 2_000;
/// Records between two commits of a member.
const COMMIT_EVERY: usize = 50;

/// What all of them have in common.
pub(crate) fn config(run: &Run) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", run.address());
    config.set("reconnect.backoff.ms", "5").set("reconnect.backoff.max.ms", "50");
    config.set("retry.backoff.ms", "5").set("retry.backoff.max.ms", "50");
    config.set("log_level", "0");
    config
}

/// Enters each acknowledgement.
struct Acknowledgements {
    id: u32,
    history: History,
    outcome: Arc<Mutex<Outcome>>,
}

#[derive(Debug, Default)]
struct Outcome {
    settled: u64,
    failures: Vec<String>,
}

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Self::DeliveryOpaque) {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.settled += 1;
        match result {
            Ok(message) => {
                let _heard = self.history.enter(Event::Acknowledged {
                    producer: self.id,
                    partition: message.partition(),
                    numbers: *number..*number + 1,
                    base_offset: Some(message.offset()).filter(|offset| *offset >= 0),
                });
            }
            Err((error, _)) => outcome.failures.push(error.to_string()),
        }
    }
}

/// Produces with librdkafka until the run is stopped, then waits until everything is acknowledged. Returns what
/// librdkafka gave up, which is nothing unless the broker broke a promise.
pub fn produce(id: u32, partitions: i32, seed: u64, run: &Run, history: &History) -> Vec<String> {
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let context = Acknowledgements { id, history: history.clone(), outcome: outcome.clone() };
    let mut config = config(run);
    config.set("enable.idempotence", "true").set("message.timeout.ms", "0").set("linger.ms", "2");
    let producer: BaseProducer<Acknowledgements> =
        config.create_with_context(context).expect("make a producer");
    let mut random = Random::new(seed ^ u64::from(id) << 32);
    let mut next = vec![0u64; usize::try_from(partitions).expect("few partitions")];
    while !run.is_stopped() {
        let settled = outcome.lock().unwrap_or_else(PoisonError::into_inner).settled;
        if next.iter().sum::<u64>() - settled < OUTSTANDING {
            for _ in 0..20 {
                let index = random.below(next.len());
                send(&producer, id, index, next[index], &mut random, history);
                next[index] += 1;
            }
        }
        producer.poll(POLL);
    }
    let flushed = producer.flush(Duration::from_secs(180));
    let mut failures = std::mem::take(&mut outcome.lock().unwrap_or_else(PoisonError::into_inner).failures);
    failures
        .extend(flushed.err().map(|error| format!("not everything was acknowledged in the end: {error}")));
    failures
}

fn send(
    producer: &BaseProducer<Acknowledgements>,
    id: u32,
    index: usize,
    number: u64,
    random: &mut Random,
    history: &History,
) {
    let partition = i32::try_from(index).expect("few partitions");
    let _heard = history.enter(Event::Sent { producer: id, partition, numbers: number..number + 1 });
    let value = Record { producer: id, number }.value(partition, random.below(200));
    let record: BaseRecord<'_, (), _, _> =
        BaseRecord::with_opaque_to(TOPIC, Box::new(number)).partition(partition).payload(&value);
    producer.send(record).map_err(|(error, _)| error).expect("the queue has room");
}

/// A member of a group: joins, reads and commits until the run is stopped. With an instance's name it keeps its place
/// when the broker comes back; without one the group is balanced anew.
pub fn consume(group: &Arc<str>, instance: Option<&str>, run: &Run, history: &History) {
    let mut config = config(run);
    config.set("group.id", &**group);
    if let Some(instance) = instance {
        config.set("group.instance.id", instance);
    }
    config.set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
    config.set("session.timeout.ms", "6000").set("heartbeat.interval.ms", "500");
    config.set("fetch.wait.max.ms", "20").set("fetch.error.backoff.ms", "5");
    let consumer: BaseConsumer = config.create().expect("make a consumer");
    consumer.subscribe(&[TOPIC]).expect("subscribe");
    let mut since_commit = 0;
    let mut newest: std::collections::BTreeMap<i32, i64> = std::collections::BTreeMap::new();
    while !run.is_stopped() {
        let polled = consumer.poll(POLL);
        let idle = polled.is_none();
        if let Some(Ok(message)) = polled {
            let (partition, offset) = (message.partition(), message.offset());
            let record = Record::of(partition, message.payload().unwrap_or_default());
            let _heard = history.enter(Event::Read { reader: group.clone(), partition, offset, record });
            newest.insert(partition, offset + 1);
            since_commit += 1;
        }
        if since_commit >= COMMIT_EVERY || (idle && since_commit > 0) {
            since_commit = 0;
            commit(&consumer, group, &mut newest, history);
        }
    }
}

/// Commits what was read of the partitions that are still this member's; another's progress must not be undone. A
/// commit that fails is forgotten: what it would have covered is read again.
fn commit(
    consumer: &BaseConsumer,
    group: &Arc<str>,
    newest: &mut std::collections::BTreeMap<i32, i64>,
    history: &History,
) {
    let assigned = consumer.assignment().expect("ask for the assignment");
    newest.retain(|partition, _| assigned.find_partition(TOPIC, *partition).is_some());
    let mut offsets = rdkafka::TopicPartitionList::new();
    for (partition, offset) in newest.iter() {
        let offset = rdkafka::Offset::Offset(*offset);
        offsets.add_partition_offset(TOPIC, *partition, offset).expect("a valid offset");
    }
    if consumer.commit(&offsets, CommitMode::Sync).is_ok() {
        for (partition, offset) in newest.iter() {
            let (group, partition, offset) = (group.clone(), *partition, *offset);
            let _heard = history.enter(Event::Committed { group, partition, offset });
        }
    }
    newest.clear();
}
