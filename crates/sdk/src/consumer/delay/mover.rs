//! The thread that moves delayed records on when their time in a partition is over.
//!
//! It is a member of a group of its own, `<group>.delay`. Records and the offsets up to which they are moved are one
//! transaction: nothing is lost or delivered twice by it, whatever is killed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::{Delay, DelayError, partition_for, wait_ms};
use crate::admin::Admin;
use crate::cluster::{ClusterError, log_line};
use crate::consumer::membership::{PartitionKey, keys, list_of, resume_for_next};
use crate::consumer::poll_limit::PROBE_TIMEOUT;
use crate::consumer::transactional::Transactional;
use crate::consumer::unowned::Lookout;
use crate::failure::delayed_until;
use crate::native;
use crate::record::{ReceivedRecord, Record, now_ms};

/// How long the thread sleeps at most: bounds how late it sees that the clock was set, and the end.
const MAX_SLEEP: Duration = Duration::from_millis(100);
/// Records of a partition in memory; beyond, and beyond these bytes, it is paused.
const MAX_WAITING_RECORDS: usize = 1_000;
const MAX_WAITING_BYTES: usize = 1024 * 1024;
/// Records moved in one transaction.
const MAX_MOVED: usize = 500;
/// How long to wait after a failure.
const FAILURE_WAIT: Duration = Duration::from_secs(1);
/// How often what was moved is deleted from the delay topics, which keep everything else for ever.
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
const PURGE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Mover {
    delay: Arc<Delay>,
    /// Its own.
    group: String,
    /// Of all its producers: each settles what the one before has left open.
    transactional_id: String,
    /// A field before the consumer, as it has to go before it.
    lookout: Lookout,
    consumer: Arc<BaseConsumer<Context>>,
    /// Retry topics by delay topics.
    routes: HashMap<Arc<str>, Arc<str>>,
    queues: HashMap<PartitionKey, Queue>,
    producer: Option<Transactional>,
    /// Up to where partitions were moved since the last purge.
    moved: HashMap<PartitionKey, i64>,
    next_purge: Instant,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

struct Waiting {
    record: ReceivedRecord,
    due_ms: i64,
    seen_at: Instant,
}

impl Waiting {
    /// Milliseconds until its time in its partition is over; not more than the partition's wait, however the clock is set.
    fn left_ms(&self, now_ms: i64) -> i64 {
        let wait_ms = wait_ms(self.record.partition);
        let written_ms = self.record.timestamp_ms.unwrap_or(now_ms);
        let until_ms = written_ms.saturating_add(wait_ms).min(self.due_ms);
        let seen_ms = self.seen_at.elapsed().as_millis() as i64;
        until_ms.saturating_sub(now_ms).min(wait_ms - seen_ms)
    }
}

impl Mover {
    pub(super) fn new(delay: Arc<Delay>) -> Result<Self, DelayError> {
        let group = format!("{}.delay", delay.group);
        let member = delay.instance_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let transactional_id = format!("tidings-delay-{}-{member}", delay.group);
        let mut config = delay.cluster.reader_config(&group)?;
        config.set("auto.offset.reset", "earliest");
        if let Some(instance_id) = &delay.instance_id {
            config.set("group.instance.id", instance_id);
        }
        let consumer = config.create_with_context(Context::default()).map_err(ClusterError::from_kafka)?;
        let consumer = Arc::new(consumer);
        Ok(Self {
            delay,
            group,
            transactional_id,
            lookout: Lookout::new(Duration::ZERO),
            consumer,
            routes: HashMap::new(),
            queues: HashMap::new(),
            producer: None,
            moved: HashMap::new(),
            next_purge: Instant::now() + PURGE_INTERVAL,
        })
    }

    pub(super) fn run(mut self) {
        while !self.delay.is_stopping() {
            if let Err(error) = self.subscribe() {
                tracing::warn!(group = self.delay.group, %error, "delay topics not read");
            }
            self.poll(self.sleep());
            self.adjust();
            if let Err(error) = self.move_due() {
                tracing::warn!(group = self.delay.group, error, "delayed records not moved; they wait");
                self.poll(FAILURE_WAIT);
            }
            self.purge();
            self.look_for_unowned();
        }
    }

    /// Subscribes to the delay topics of all sources, if there are others than before.
    fn subscribe(&mut self) -> Result<(), DelayError> {
        let group = &self.delay.group;
        let topics = self.delay.topics.read();
        let routes: HashMap<_, _> =
            topics.values().map(|topics| (topics.delay(group), topics.retry(group))).collect();
        // As many as before may be others: a topic that matches a pattern goes, another one comes.
        if routes == self.routes {
            return Ok(());
        }
        let names: Vec<&str> = routes.keys().map(|topic| &**topic).collect();
        self.consumer.subscribe(&names).map_err(DelayError::Subscribe)?;
        self.routes = routes;
        Ok(())
    }

    /// Joins anew if the group leaves a topic to nobody: a member that leaves makes it assign anew.
    fn look_for_unowned(&mut self) {
        if self.lookout.look(&self.consumer, &self.group, self.routes.keys(), PROBE_TIMEOUT) {
            self.join_anew();
        }
    }

    fn join_anew(&mut self) {
        self.lookout.forget();
        self.queues.clear();
        self.consumer.unsubscribe();
        self.routes.clear();
    }

    /// Until the first record has to move.
    fn sleep(&self) -> Duration {
        let now_ms = now_ms();
        let firsts = self.queues.values().filter_map(|queue| queue.waiting.front());
        let left_ms = firsts.map(|waiting| waiting.left_ms(now_ms)).min().unwrap_or(i64::MAX);
        Duration::from_millis(left_ms.max(0).unsigned_abs()).min(MAX_SLEEP)
    }

    fn poll(&mut self, sleep: Duration) {
        let mut wait = sleep;
        for _ in 0..MAX_WAITING_RECORDS {
            let polled = self.consumer.poll(wait);
            // What was taken away belongs to others now; what was not moved comes again.
            if self.consumer.context().is_revoked.swap(false, Ordering::Relaxed) {
                self.queues.clear();
            }
            wait = Duration::ZERO;
            match polled {
                None => return,
                Some(Err(error)) => tracing::debug!(group = self.delay.group, %error, "delay topic not read"),
                Some(Ok(message)) => {
                    let Some((topic, _)) = self.routes.get_key_value(message.topic()) else { continue };
                    let record = native::to_received(&message, Arc::clone(topic));
                    // Nobody else writes there; what has no time is due.
                    let due_ms = delayed_until(&record.headers).map_or(0, |(due_ms, _)| due_ms);
                    let queue = self.queues.entry((Arc::clone(topic), record.partition)).or_default();
                    queue.bytes += record.size_bytes();
                    queue.waiting.push_back(Waiting { record, due_ms, seen_at: Instant::now() });
                }
            }
        }
    }

    /// Pauses partitions with enough in memory, and resumes those that have room.
    fn adjust(&mut self) {
        for (key, queue) in &self.queues {
            let is_full = queue.waiting.len() >= MAX_WAITING_RECORDS || queue.bytes >= MAX_WAITING_BYTES;
            let has_room =
                queue.waiting.len() < MAX_WAITING_RECORDS / 2 && queue.bytes < MAX_WAITING_BYTES / 2;
            let list = list_of(std::slice::from_ref(key));
            // Not over a poll: a rebalance in it asks for the lock.
            let mut paused = self.consumer.context().paused.lock();
            let changed = match (paused.contains(key), is_full, has_room) {
                (false, true, _) => self.consumer.pause(&list).map(|()| paused.insert(key.clone())),
                (true, _, true) => self.consumer.resume(&list).map(|()| paused.remove(key)),
                _ => continue,
            };
            if let Err(error) = changed {
                tracing::debug!(%error, "delay partition not paused or resumed");
            }
        }
    }

    /// Moves what has waited long enough.
    fn move_due(&mut self) -> Result<(), String> {
        let now_ms = now_ms();
        let mut records = Vec::new();
        let mut counts: Vec<(PartitionKey, usize, i64)> = Vec::new();
        for (key, queue) in &self.queues {
            let due = queue.waiting.iter().take_while(|waiting| waiting.left_ms(now_ms) <= 0);
            let due: Vec<&Waiting> = due.take(MAX_MOVED - records.len()).collect();
            if let Some(last) = due.last() {
                counts.push((key.clone(), due.len(), last.record.offset + 1));
                records.extend(due.into_iter().map(|waiting| self.next_place(waiting, now_ms)));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.write(&records, &counts) {
            self.producer = None;
            // Whether it counts is not known: the group's offsets tell, once the transaction is settled.
            self.join_anew();
            return Err(error);
        }
        for (key, count, next_offset) in counts {
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.bytes -=
                    queue.waiting.drain(..count).map(|waiting| waiting.record.size_bytes()).sum::<usize>();
            }
            self.moved.insert(key, next_offset);
        }
        Ok(())
    }

    fn write(&mut self, records: &[Record], counts: &[(PartitionKey, usize, i64)]) -> Result<(), String> {
        let producer = match &self.producer {
            Some(producer) => producer,
            None => {
                let opened = Transactional::open(&self.delay.cluster, &self.transactional_id);
                self.producer.insert(opened.map_err(|error| error.to_string())?)
            }
        };
        let metadata = self.consumer.group_metadata().ok_or("not a member of its group")?;
        let commit = || -> Result<(), KafkaError> {
            let mut offsets = TopicPartitionList::with_capacity(counts.len());
            for ((topic, partition), _, next_offset) in counts {
                offsets.add_partition_offset(topic, *partition, Offset::Offset(*next_offset))?;
            }
            producer.begin()?;
            producer.send(records.iter())?;
            producer.commit(offsets, metadata)
        };
        commit().map_err(|error| {
            let fault = producer.fault(&error);
            producer.abort();
            format!("{fault}; {}", fault.hint())
        })
    }

    /// Where a record goes now: to the partition for what is left, or to its group.
    fn next_place(&self, waiting: &Waiting, now_ms: i64) -> Record {
        let ReceivedRecord { topic, key, value, headers, .. } = &waiting.record;
        let partition = partition_for(waiting.due_ms.saturating_sub(now_ms));
        let next = match partition {
            Some(_) => Arc::clone(topic),
            None => Arc::clone(&self.routes[topic]),
        };
        Record {
            partition,
            key: key.clone(),
            value: value.clone(),
            headers: headers.clone(),
            ..Record::new(next)
        }
    }

    /// Deletes what was moved.
    fn purge(&mut self) {
        if Instant::now() < self.next_purge {
            return;
        }
        self.next_purge = Instant::now() + PURGE_INTERVAL;
        let moved: Vec<_> = self.moved.drain().collect();
        if moved.is_empty() {
            return;
        }
        let purged = Admin::new(&self.delay.cluster, PURGE_TIMEOUT)
            .map_err(DelayError::from)
            .and_then(|admin| Ok(admin.delete_records_before(&moved)?));
        if let Err(error) = purged {
            tracing::debug!(group = self.delay.group, %error, "moved records not deleted; next time");
        }
    }
}

#[derive(Default)]
struct Context {
    is_revoked: AtomicBool,
    paused: Mutex<HashSet<PartitionKey>>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            self.is_revoked.store(true, Ordering::Relaxed);
            let mut paused = self.paused.lock();
            let taken: Vec<_> = keys(list).into_iter().filter(|key| paused.remove(key)).collect();
            resume_for_next(consumer, &taken);
        }
    }
}
