//! The consumer's polling thread: prepare, poll, hand over, commit, until asked to stop.
//!
//! It never works on records itself, so the group always hears from it: workers do (`worker`), and what is fetched ahead of
//! them is bounded by pausing partitions.

mod beginnings;
mod ends;
mod lost;
mod poll;
mod prepare;
mod reassign;
mod stored;
mod watch;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use regex::bytes::Regex;

use super::ConsumerError;
use super::board::Board;
use super::claims::Claims;
use super::committer::Committer;
use super::crash::Crash;
use super::delay::Delay;
use super::failures::Parking;
use super::handler::Handler;
use super::key_order::KeyOrder;
use super::membership::{Membership, PartitionKey, list_of};
use super::metrics::GroupMetrics;
use super::options::{ConsumerOptions, StartAt};
use super::poll_limit::PollLimit;
use super::state::{ConsumerMonitor, Phase};
use super::worker::Workshop;
use crate::cluster::{Cluster, ClusterError};
use crate::error::KafkaFault;
use crate::native::{self, FromItsBeginning, RecordQueue};
use crate::producer::Producer;
use ends::Ends;
use lost::Lost;
use poll::{FIRST_RECORD_BYTES, TopicName};
use reassign::Reassign;
use stored::Claiming;

/// How long an idle poll lasts: bounds the time until a stop is noticed.
const IDLE_WAIT: Duration = Duration::from_millis(200);
/// How long a poll lasts while workers have something: bounds the time until a commit or a resume.
const BUSY_WAIT: Duration = Duration::from_millis(5);
/// How often a flow of records is interrupted for commits and the like.
const TICK: Duration = Duration::from_millis(5);
/// How long to wait for room without polling, before partitions are paused: a client that resumes fetches again only after up
/// to a second, in which fast handlers would run dry. Slow ones have enough until then.
const ROOM_WAIT: Duration = Duration::from_secs(1);
/// How long the last commit may take.
const FINAL_COMMIT_WAIT: Duration = Duration::from_millis(1_500);
/// How long a question for the group's commits may take.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait for what former owners parked, twice.
const CATCH_UP_WAIT: Duration = Duration::from_secs(1);

pub(super) struct Runtime {
    cluster: Cluster,
    options: ConsumerOptions,
    monitor: ConsumerMonitor,
    metrics: Arc<GroupMetrics>,
    board: Arc<Board>,
    workshop: Arc<Workshop>,
    workers: Vec<JoinHandle<()>>,
    max_workers: usize,
    /// Where records arrive. A field before the consumer, as it has to go before it.
    records: Arc<RecordQueue>,
    /// The same holds for these.
    retry_topics: HashMap<Arc<str>, FromItsBeginning>,
    consumer: Arc<BaseConsumer<Membership>>,
    reassign: Reassign,
    /// The size of a large record of late, in bytes.
    record_bytes: usize,
    poll_limit: PollLimit,
    polled_at: Instant,
    patterns: Vec<Regex>,
    /// The source topics subscribed to.
    sources: Vec<Arc<str>>,
    /// These, and their retry topics.
    subscribed: Vec<Arc<str>>,
    /// The topics that the whole cluster knows.
    known_topics: HashSet<Arc<str>>,
    topic_names: Vec<TopicName>,
    /// Since when too much is in hand.
    full_since: Option<Instant>,
    next_tick: Instant,
    next_topics: Instant,
    next_refresh: Instant,
    next_probe: Instant,
    claiming: Option<Claiming>,
    /// When a store may be asked again.
    next_claim: Instant,
    ends: Ends,
    lost: Lost,
    /// When the cluster last showed that it is there.
    heard_at: Instant,
}

/// The consumer cannot go on; waiting does not heal it.
struct Fatal {
    reason: String,
    /// Whether it is still a member, and may commit what is done.
    is_member: bool,
}

impl Runtime {
    pub(super) fn new(
        cluster: &Cluster,
        producer: Producer,
        options: ConsumerOptions,
        handler: Handler,
        monitor: ConsumerMonitor,
    ) -> Result<Self, ConsumerError> {
        if handler.atomic().is_some()
            && let Some(option) = options.refused_with_transactions()
        {
            return Err(ConsumerError::NotWithTransactions { group: options.group, option });
        }
        let patterns = prepare::patterns(&options.topics)?;
        let config = native_config(cluster, &options, &handler)?;
        let max_workers = if handler.is_exclusive() { 1 } else { options.max_concurrency.max(1) };
        let board = Arc::new(Board::new(options.limits(&handler)));
        let poll_limit = PollLimit::of(&config);
        let membership = Membership::new(Arc::clone(&board), cluster, options.revoke_wait, poll_limit);
        let consumer: Arc<BaseConsumer<Membership>> =
            Arc::new(config.create_with_context(membership).map_err(ClusterError::from_kafka)?);
        let records = Arc::new(RecordQueue::new(consumer.client(), tells_ends(&options, &handler)));
        consumer.context().set_records(Some(Arc::clone(&records)));
        if !handler.commits_itself() {
            let committer = Committer::new(consumer.client(), options.commit_interval);
            consumer.context().set_committer(Some(committer));
        }
        let metrics = Arc::new(options.metrics.of_group(&options.group));
        let key_order = key_order(cluster, &producer, &options, &consumer, &board);
        let delay = options.delays().then(|| delay(cluster, &options));
        let workshop = Workshop {
            board: Arc::clone(&board),
            handler,
            consumer: Arc::clone(&consumer),
            unsettled: Mutex::default(),
            parking: Parking::new(cluster, producer, &options),
            key_order,
            delay,
            monitor: monitor.clone(),
            metrics: Arc::clone(&metrics),
            backoff: options.backoff,
            max_attempts: options.max_attempts,
            rejects_panics: options.reject_panics,
            claims: claims(&options),
        };
        let now = Instant::now();
        Ok(Self {
            cluster: cluster.clone(),
            reassign: Reassign::new(&options, poll_limit),
            options,
            monitor,
            metrics,
            board,
            workshop: Arc::new(workshop),
            workers: Vec::new(),
            max_workers,
            records,
            consumer,
            record_bytes: FIRST_RECORD_BYTES,
            poll_limit,
            polled_at: now,
            patterns,
            sources: Vec::new(),
            known_topics: HashSet::new(),
            subscribed: Vec::new(),
            retry_topics: HashMap::new(),
            topic_names: Vec::new(),
            full_since: None,
            next_tick: now,
            next_topics: now,
            next_refresh: now,
            next_probe: now,
            claiming: None,
            next_claim: now,
            ends: Ends::new(now),
            lost: Lost::default(),
            heard_at: now,
        })
    }

    pub(super) fn run(mut self) {
        let monitor = self.monitor.clone();
        let work = AssertUnwindSafe(|| self.work());
        let end = catch_unwind(work).unwrap_or_else(|_| {
            Err(Fatal { reason: "the consumer's thread panicked".into(), is_member: false })
        });
        self.board.stop();
        self.end_workers(end.is_err());
        self.tell_lost();
        if let Some(key_order) = &self.workshop.key_order {
            key_order.stop();
        }
        if let Some(delay) = &self.workshop.delay {
            delay.stop();
        }
        if end.as_ref().map_or_else(|fatal| fatal.is_member, |()| true) {
            let deadline = Instant::now() + FINAL_COMMIT_WAIT;
            if !self.membership().commit_all(self.consumer.client(), deadline) {
                tracing::warn!(group = %monitor.group(), "last offsets not committed; their records will come again");
            }
        }
        for (key, _) in self.membership().owned() {
            self.metrics.forget_lag(&key.0, key.1);
        }
        self.metrics.paused.set(0);
        self.metrics.in_flight.set(0);
        self.metrics.buffered.set(0);
        let on_crash = self.options.on_crash.clone();
        drop(self);
        match end {
            Ok(()) => monitor.update(|state| state.phase = Phase::Stopped),
            Err(Fatal { reason, .. }) => {
                tracing::error!(group = %monitor.group(), reason, "consumer failed");
                monitor.update(|state| state.phase = Phase::Failed { reason: reason.clone() });
                if let Some(on_crash) = on_crash {
                    on_crash.call(&Crash { group: monitor.group(), reason: &reason });
                }
            }
        }
        monitor.announce_end();
    }

    /// Waits for the workers; if the consumer has failed, not for handlers that do not end: somebody has to hear of it.
    fn end_workers(&mut self, has_failed: bool) {
        if has_failed && !self.board.wait_for_handlers(self.failure_wait()) {
            tracing::warn!(group = %self.monitor.group(), "handlers that do not end are left behind");
            return self.workers.clear();
        }
        for worker in self.workers.drain(..) {
            // What a handler panicked with was said by the worker.
            let _ = worker.join();
        }
    }

    /// How long other handlers get to end once one has failed for good.
    fn failure_wait(&self) -> Duration {
        self.poll_limit.cap(self.options.revoke_wait)
    }

    fn membership(&self) -> &Arc<Membership> {
        self.consumer.context()
    }

    fn work(&mut self) -> Result<(), Fatal> {
        if !self.prepare_topics()? {
            return Ok(());
        }
        self.subscribe()?;
        self.monitor.update(|state| state.phase = Phase::Running);
        while !self.monitor.is_stop_requested() {
            if let Some(reason) = self.board.fatal() {
                self.drain(Some(Instant::now() + self.failure_wait()))?;
                return Err(Fatal { reason, is_member: true });
            }
            let polled_records = if self.waits_for_room() { 0 } else { self.poll(self.poll_wait())? };
            if polled_records == 0 || Instant::now() >= self.next_tick {
                self.next_tick = Instant::now() + TICK;
                self.resume_commits();
                self.adjust();
                self.poll_between()?;
                self.refresh();
                self.poll_between()?;
                self.look_for_topics()?;
                self.poll_between()?;
                self.look_for_unowned()?;
            }
        }
        self.drain(None)
    }

    /// Waits a little for room where too much is in hand. `false` if polling is in order.
    fn waits_for_room(&mut self) -> bool {
        let (is_full, has_room) = {
            let board = self.board.lock();
            (board.scheduler.is_full_now(), board.scheduler.has_room())
        };
        match self.full_since {
            None if is_full => self.full_since = Some(Instant::now()),
            None => return false,
            Some(_) if has_room => {
                self.full_since = None;
                return false;
            }
            Some(_) if self.is_stuck() => return false,
            Some(_) => {}
        }
        // Not woken for each result: there may be thousands a second.
        std::thread::sleep(BUSY_WAIT);
        true
    }

    fn is_stuck(&self) -> bool {
        self.full_since.is_some_and(|since| since.elapsed() > self.poll_limit.cap(ROOM_WAIT))
    }

    /// How long to wait for a record: not beyond what is to be done meanwhile.
    fn poll_wait(&self) -> Duration {
        let (in_hand, running, gathers_until) = {
            let scheduler = &self.board.lock().scheduler;
            let (in_hand, running) = scheduler.in_hand_counts();
            (in_hand, running, scheduler.gathers_until())
        };
        if running > 0 {
            return BUSY_WAIT;
        }
        if in_hand > 0 {
            // A worker begins at that time by itself.
            let left = gathers_until.map(|until| until.saturating_duration_since(Instant::now()));
            return whole_millis(left.unwrap_or_default()).clamp(BUSY_WAIT, IDLE_WAIT);
        }
        let next_commit = self.membership().commit_due(self.consumer.client());
        let wait = next_commit.map_or(IDLE_WAIT, |at| at.saturating_duration_since(Instant::now()));
        whole_millis(wait).clamp(Duration::from_millis(1), IDLE_WAIT)
    }

    /// Waits until the handlers are done, and stays a member meanwhile. Nothing else is begun, and nothing taken in.
    fn drain(&mut self, until: Option<Instant>) -> Result<(), Fatal> {
        self.board.stop();
        if let Err(error) = self.consumer.pause(&list_of(&self.owned_keys())) {
            tracing::debug!(%error, "partitions not paused while stopping");
        }
        while self.board.lock().scheduler.in_hand_counts().1 > 0
            && until.is_none_or(|until| Instant::now() < until)
        {
            self.poll(BUSY_WAIT)?;
            self.membership().commit_due(self.consumer.client());
        }
        Ok(())
    }

    /// Polls between two questions to the cluster, if it was so long ago that another one could cost the membership.
    fn poll_between(&mut self) -> Result<(), Fatal> {
        if self.poll_limit.is_near(self.polled_at.elapsed()) {
            self.poll(Duration::ZERO)?;
        }
        Ok(())
    }

    fn hire(&mut self, missing_workers: usize) {
        for _ in 0..missing_workers.min(self.max_workers.saturating_sub(self.workers.len())) {
            self.hire_one();
        }
    }

    fn hire_one(&mut self) {
        let workshop = Arc::clone(&self.workshop);
        let name = format!("handler {} {}", self.options.group, self.workers.len());
        match std::thread::Builder::new().name(name).spawn(move || workshop.work()) {
            Ok(worker) => self.workers.push(worker),
            Err(error) if self.workers.is_empty() => {
                self.board.fail(format!("cannot start a thread: {error}"))
            }
            Err(error) => {
                tracing::warn!(%error, workers = self.workers.len(), "no further handler thread; going on with these");
                self.max_workers = self.workers.len();
            }
        }
    }

    /// Reads what the group has committed in newly assigned partitions; their records wait for it.
    fn resume_commits(&mut self) {
        let unresumed = self.board.lock().scheduler.unresumed();
        let unresumed = self.resume_stored(unresumed);
        if unresumed.is_empty() {
            return;
        }
        let timeout = self.poll_limit.cap(COMMITTED_TIMEOUT);
        let is_behind =
            |order: &Arc<KeyOrder>| !order.catch_up(&unresumed, self.poll_limit.cap(CATCH_UP_WAIT));
        match self.consumer.committed_offsets(list_of(&unresumed), timeout) {
            // What former owners parked is in the topic once their commits are known, and is read before anything else.
            Ok(_) if self.workshop.key_order.as_ref().is_some_and(is_behind) => {}
            Ok(committed) => self.resume_from(&committed),
            Err(error) => {
                let fault = KafkaFault::from_kafka(&error, self.cluster.bootstrap(), timeout);
                tracing::debug!(group = %self.options.group, %fault, "committed offsets not read; asking again");
                self.membership().set_fault(Some(fault));
            }
        }
        let missing_workers = self.board.lock().missing_workers();
        self.hire(missing_workers);
    }

    fn resume_from(&mut self, committed: &TopicPartitionList) {
        let mut uncommitted = Vec::new();
        let metadata = native::read_metadata(committed);
        for (element, metadata) in committed.elements().iter().zip(metadata) {
            if let Err(error) = element.error() {
                tracing::debug!(%error, "committed offset not known yet");
                continue;
            }
            let key = (element.topic().into(), element.partition());
            match element.offset() {
                Offset::Offset(offset) => self.board.resume(&key, Some(offset), &metadata),
                _ if self.begins_in_transactions() => uncommitted.push(key),
                _ => self.board.resume(&key, None, &metadata),
            }
        }
        self.commit_beginnings(uncommitted);
    }

    /// Pauses what has run too far ahead, and resumes what has room again.
    fn adjust(&mut self) {
        let is_stuck = self.is_stuck();
        let (pause, resume) = self.board.lock().scheduler.pauses(is_stuck);
        // A partition that was taken away meanwhile is refused, and none of our business any more.
        if !pause.is_empty()
            && let Err(error) = self.consumer.pause(&list_of(&pause))
        {
            tracing::debug!(%error, "partitions not paused");
        }
        if !resume.is_empty()
            && let Err(error) = self.consumer.resume(&list_of(&resume))
        {
            tracing::debug!(%error, "partitions not resumed");
        }
        let missing_workers = self.board.lock().missing_workers();
        self.hire(missing_workers);
    }

    fn owned_keys(&self) -> Vec<PartitionKey> {
        self.membership().owned().into_iter().map(|(key, _)| key).collect()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // The queues must go before their client, and leaving the group must not commit again.
        self.membership().set_committer(None);
        self.membership().set_records(None);
    }
}

fn native_config(
    cluster: &Cluster,
    options: &ConsumerOptions,
    handler: &Handler,
) -> Result<ClientConfig, ClusterError> {
    let mut config = cluster.consumer_config(&options.group)?;
    if tells_ends(options, handler) {
        config.set("enable.partition.eof", "true");
    }
    config.set("auto.offset.reset", options.start_at.setting());
    for (name, value) in options.protocol.settings() {
        config.set(*name, *value);
    }
    if let Some(instance_id) = &options.instance_id {
        config.set("group.instance.id", instance_id);
    }
    PollLimit::of(&config).hold_fetches(&mut config);
    Ok(config)
}

/// Whether the client tells when a partition is read that has nothing, and where it begins.
fn tells_ends(options: &ConsumerOptions, handler: &Handler) -> bool {
    handler.stored().is_some() || options.start_at == StartAt::Latest
}

/// Rounded up: `rdkafka` waits in milliseconds, and spins through what is left of one.
fn whole_millis(wait: Duration) -> Duration {
    Duration::from_millis(wait.as_nanos().div_ceil(1_000_000).try_into().unwrap_or(u64::MAX))
}

fn claims(options: &ConsumerOptions) -> Option<Claims> {
    let claims = options.claim_check.clone()?;
    Some(Claims { claims, max_bytes: options.max_batch_bytes })
}

/// What keeps records until they are due.
fn delay(cluster: &Cluster, options: &ConsumerOptions) -> Arc<Delay> {
    let (group, instance_id) = (&options.group, options.instance_id.as_deref());
    Delay::new(cluster, group, instance_id, options.delays_retries())
}

/// What keeps the order of keys through failures, where that is asked for.
fn key_order(
    cluster: &Cluster,
    producer: &Producer,
    options: &ConsumerOptions,
    consumer: &Arc<BaseConsumer<Membership>>,
    board: &Arc<Board>,
) -> Option<Arc<KeyOrder>> {
    options.preserve_key_order.then(|| {
        let order = KeyOrder::new(cluster, producer.clone(), options, Arc::clone(board));
        order.set_consumer(Arc::downgrade(consumer));
        order
    })
}
