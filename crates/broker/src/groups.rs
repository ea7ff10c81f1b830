//! The group coordinator at work: its state machines, their logs, their timers and the requests that wait.
//!
//! Owns one shard for each partition of `__consumer_offsets`: the state behind a mutex, so that a call, the append of
//! its records and their replay are one step. Invariants: an answer that depends on records leaves only when they are
//! durable, and so does one that tells an offset which was appended but is not durable yet: what a client was told, a
//! crash cannot take back. The offsets topic is created when the first group is looked for, not at start. Offsets of a
//! topic that was deleted go before anything else is asked of their shard, or a new topic of that name would be read from
//! where the old one was left.
//!
//! Does not know the wire: the handlers translate.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};
use tidings_coordinator::{
    Assignor, ConsumerGroupSettings, ConsumerGroupTimeouts, DeferredResponse, Effects, GroupConfigs,
    GroupCoordinator, GroupSettings, MigrationPolicy, Outcome, Release, Reply, ReplyToken, StorageFailure,
    TopicDirectory, append_error_to_response,
};
use tidings_log::batch::{BatchBuilder, EndTxnMarker, TransactionResult};
use tidings_log::{AppendError, AppendOptions, CommitTicket, Origin, PartitionLog};
use tidings_model::{ErrorCode, NO_SEQUENCE};
use tokio::sync::{Notify, oneshot};

use crate::clock::Clock;
use crate::replay::{ReplayLogError, for_each_batch};
use crate::settings::BrokerSettings;

/// No deadline is set.
const NEVER: i64 = i64::MAX;

/// All groups.
pub(crate) struct Groups {
    settings: GroupSettings,
    topics: Arc<dyn TopicDirectory>,
    configs: Arc<dyn GroupConfigs>,
    clock: Arc<dyn Clock>,
    /// By partition of the offsets topic; empty until the topic exists.
    shards: RwLock<Arc<[Arc<Shard>]>>,
    next_token: AtomicU64,
    /// What the timer sleeps until; a call that yields an earlier deadline wakes it.
    sleeping_until_ms: AtomicI64,
    earlier_deadline: Notify,
}

struct Shard {
    log: Arc<PartitionLog>,
    state: Mutex<ShardState>,
}

struct ShardState {
    coordinator: GroupCoordinator,
    /// The JoinGroup and SyncGroup requests that wait for their answer.
    waiting: HashMap<ReplyToken, oneshot::Sender<Deferred>>,
    /// The commit of the newest append.
    newest_commit: Option<CommitTicket>,
    /// Deleted topics whose offsets could not be removed yet: the append failed.
    forgotten_topics: BTreeSet<String>,
}

struct Deferred {
    response: DeferredResponse,
    durable: Option<CommitTicket>,
}

impl Groups {
    pub(crate) fn new(
        settings: &BrokerSettings,
        topics: Arc<dyn TopicDirectory>,
        configs: Arc<dyn GroupConfigs>,
        clock: Arc<dyn Clock>,
    ) -> Groups {
        let usize_of = |name| usize::try_from(settings.int(name)).unwrap_or_default();
        Groups {
            settings: GroupSettings {
                min_session_timeout_ms: settings.int("group.min.session.timeout.ms"),
                max_session_timeout_ms: settings.int("group.max.session.timeout.ms"),
                initial_rebalance_delay_ms: settings.int("group.initial.rebalance.delay.ms"),
                max_size: usize_of("group.max.size"),
                offset_metadata_max_bytes: usize_of("offset.metadata.max.bytes"),
                offsets_retention_ms: settings.long("offsets.retention.minutes").saturating_mul(60_000),
                offsets_retention_check_interval_ms: settings.long("offsets.retention.check.interval.ms"),
                consumer: consumer_settings(settings),
            },
            topics,
            configs,
            clock,
            shards: RwLock::new(Arc::new([])),
            next_token: AtomicU64::new(0),
            sleeping_until_ms: AtomicI64::new(NEVER),
            earlier_deadline: Notify::new(),
        }
    }

    /// Whether the offsets topic is there and replayed.
    pub(crate) fn is_loaded(&self) -> bool {
        !self.shards.read().is_empty()
    }

    /// Rebuilds the groups from the logs of the offsets topic; does nothing when that was done.
    pub(crate) fn load(&self, logs: &[Arc<PartitionLog>]) -> Result<(), ReplayLogError> {
        if self.is_loaded() {
            return Ok(());
        }
        let shards = logs.iter().map(|log| self.load_shard(log)).collect::<Result<Vec<_>, _>>()?;
        let mut current = self.shards.write();
        if current.is_empty() {
            *current = shards.into();
        }
        drop(current);
        self.wake_timer();
        Ok(())
    }

    fn load_shard(&self, log: &Arc<PartitionLog>) -> Result<Arc<Shard>, ReplayLogError> {
        let mut coordinator = GroupCoordinator::new(self.settings.clone(), random_bits)
            .with_topics(self.topics.clone())
            .with_group_configs(self.configs.clone());
        for_each_batch(log, |batch, records| -> Result<(), ReplayLogError> {
            let producer_id = batch.header.producer_id;
            if let Some(marker) = EndTxnMarker::parse(&batch.bytes) {
                coordinator.replay_end_transaction(producer_id, marker.result == TransactionResult::Commit);
                return Ok(());
            }
            for record in records {
                let (key, value) = (record.key.as_ref(), record.value.as_ref());
                let replayed = match key {
                    Some(key) if batch.header.is_transactional() => {
                        coordinator.replay_in_transaction(producer_id, key, value)
                    }
                    Some(key) => coordinator.replay(key, value),
                    None => Ok(()),
                };
                if let Err(error) = replayed {
                    // As Kafka: one unreadable record must not make every group of the shard unusable.
                    tracing::warn!(offset = record.offset, %error, "skipped a record of __consumer_offsets");
                }
            }
            Ok(())
        })?;
        coordinator.on_loaded(self.clock.steady_ms());
        let state = ShardState {
            coordinator,
            waiting: HashMap::new(),
            newest_commit: None,
            forgotten_topics: BTreeSet::new(),
        };
        Ok(Arc::new(Shard { log: log.clone(), state: Mutex::new(state) }))
    }

    /// The shard of a group, as Kafka spreads groups over the partitions of the offsets topic.
    fn shard(&self, group_id: &str) -> Option<Arc<Shard>> {
        let shards = self.shards.read();
        let count = u32::try_from(shards.len()).ok().filter(|count| *count > 0)?;
        shards.get((java_hash(group_id) & 0x7fff_ffff).checked_rem(count)? as usize).cloned()
    }

    /// The number of a group's partition of the offsets topic.
    pub(crate) fn partition_of(&self, group_id: &str) -> Option<i32> {
        let count = u32::try_from(self.shards.read().len()).ok().filter(|count| *count > 0)?;
        i32::try_from((java_hash(group_id) & 0x7fff_ffff).checked_rem(count)?).ok()
    }

    /// A call whose answer is known at once. Ends when the answer may be sent; none while there are no groups at all.
    pub(crate) async fn call<R: StorageFailure>(
        &self,
        group_id: &str,
        call: impl FnOnce(&mut GroupCoordinator, i64) -> Outcome<R>,
    ) -> Option<R> {
        Some(self.begin(group_id, call)?.finish().await)
    }

    /// The part of [`Groups::call`] that waits for nothing.
    pub(crate) fn begin<R: StorageFailure>(
        &self,
        group_id: &str,
        call: impl FnOnce(&mut GroupCoordinator, i64) -> Outcome<R>,
    ) -> Option<Begun<R>> {
        let shard = self.shard(group_id)?;
        let mut state = self.lock(&shard);
        let now_ms = self.clock.steady_ms();
        let Outcome { mut response, release, effects } = call(&mut state.coordinator, now_ms);
        if let Err(error) = self.carry_out(&shard, &mut state, effects, now_ms) {
            response.fail(error);
        }
        let durable = if release == Release::WhenDurable { state.newest_commit.clone() } else { None };
        self.note_deadline(&state);
        Some(Begun { response, durable })
    }

    /// Writes the marker that ends a producer's transaction into a partition of the offsets topic, and lets the offsets
    /// count that were committed in it. The ticket is ready when the marker is durable.
    pub(crate) fn end_transaction(
        &self,
        partition: i32,
        producer: (i64, i16),
        marker: EndTxnMarker,
        is_epoch_bumped: bool,
    ) -> Result<CommitTicket, AppendError> {
        let shard = usize::try_from(partition).ok().and_then(|index| self.shards.read().get(index).cloned());
        // Without the partition there are no offsets in it.
        let Some(shard) = shard else { return Ok(CommitTicket::ready()) };
        let mut state = self.lock(&shard);
        let options =
            AppendOptions { origin: Origin::Coordinator, leader_epoch: 0, now_ms: self.clock.wall_ms() };
        let appended = shard.log.append_marker(producer, marker, is_epoch_bumped, options)?;
        state.newest_commit = Some(appended.commit.clone());
        state.coordinator.replay_end_transaction(producer.0, marker.result == TransactionResult::Commit);
        Ok(appended.commit)
    }

    /// A call that writes nothing and answers at once. None while there are no groups at all.
    pub(crate) fn look<R>(
        &self,
        group_id: &str,
        call: impl FnOnce(&mut GroupCoordinator, i64) -> R,
    ) -> Option<R> {
        let shard = self.shard(group_id)?;
        let mut state = shard.state.lock();
        let answer = call(&mut state.coordinator, self.clock.steady_ms());
        self.note_deadline(&state);
        Some(answer)
    }

    /// Asks every shard the same.
    pub(crate) fn look_all<R>(&self, mut call: impl FnMut(&GroupCoordinator) -> R) -> Vec<R> {
        let shards = self.shards.read().clone();
        shards.iter().map(|shard| call(&shard.state.lock().coordinator)).collect()
    }

    /// Topics are gone: so are the offsets committed for them.
    pub(crate) fn on_topics_deleted(&self, topics: &[&str]) {
        let shards = self.shards.read().clone();
        for shard in shards.iter() {
            shard.state.lock().forgotten_topics.extend(topics.iter().map(|topic| (*topic).to_owned()));
            drop(self.lock(shard));
        }
    }

    /// Removes the offsets of topics that do not exist: a crash may have come between the end of a topic and theirs. To be
    /// called after the load, before anybody can make a topic.
    pub(crate) fn forget_missing_topics(&self) {
        let shards = self.shards.read().clone();
        for shard in shards.iter() {
            let mut state = shard.state.lock();
            state.forgotten_topics = state.coordinator.missing_topics();
            drop(state);
            drop(self.lock(shard));
        }
    }

    /// Locks a shard, and tries again to remove the offsets of deleted topics where that has failed.
    fn lock<'a>(&self, shard: &'a Shard) -> MutexGuard<'a, ShardState> {
        let mut state = shard.state.lock();
        if !state.forgotten_topics.is_empty() {
            let now_ms = self.clock.steady_ms();
            let topics = std::mem::take(&mut state.forgotten_topics);
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            let effects = state.coordinator.on_topics_deleted(now_ms, &names);
            if self.carry_out(shard, &mut state, effects, now_ms).is_err() {
                state.forgotten_topics = topics;
            }
        }
        state
    }

    /// A call that is answered under a token, by itself or by a later call. None while there are no groups at all.
    pub(crate) async fn wait(
        &self,
        group_id: &str,
        call: impl FnOnce(&mut GroupCoordinator, ReplyToken, i64) -> Effects,
    ) -> Option<DeferredResponse> {
        let shard = self.shard(group_id)?;
        let token = ReplyToken(self.next_token.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.lock(&shard);
            let now_ms = self.clock.steady_ms();
            state.waiting.insert(token, sender);
            let effects = call(&mut state.coordinator, token, now_ms);
            // A failed append has turned the replies into errors already.
            let _ = self.carry_out(&shard, &mut state, effects, now_ms);
            self.note_deadline(&state);
        }
        let Deferred { mut response, durable } = receiver.await.ok()?;
        if let Some(error) = not_durable(durable).await {
            response.fail(error);
        }
        Some(response)
    }

    /// Appends, replays and hands out the replies. The error is what the direct answer must become.
    fn carry_out(
        &self,
        shard: &Shard,
        state: &mut ShardState,
        effects: Effects,
        now_ms: i64,
    ) -> Result<(), ErrorCode> {
        if effects.records.is_empty() {
            state.deliver(effects.replies);
            return Ok(());
        }
        let options =
            AppendOptions { origin: Origin::Coordinator, leader_epoch: 0, now_ms: self.clock.wall_ms() };
        match shard.log.append(encode_batch(&effects, options.now_ms), options) {
            Ok(appended) => {
                state.newest_commit = Some(appended.commit);
                match effects.producer {
                    Some((producer_id, _)) => {
                        state.coordinator.replay_all_in_transaction(producer_id, &effects.records);
                    }
                    None => state.coordinator.replay_all(&effects.records),
                }
                state.deliver(effects.replies);
                Ok(())
            }
            Err(error) => {
                // Before the line about it: whatever panicked in between would leave the shard refusing for ever.
                let code = error.error_code();
                let replies = state.coordinator.on_append_failed(now_ms, effects, code);
                state.deliver(replies);
                if let AppendError::Sequence { .. } = error {
                    tracing::debug!(%error, "refused offsets in a transaction");
                } else {
                    tracing::error!(%error, "append to __consumer_offsets failed");
                }
                Err(append_error_to_response(code))
            }
        }
    }

    fn note_deadline(&self, state: &ShardState) {
        let deadline = state.coordinator.next_deadline_ms().unwrap_or(NEVER);
        if deadline < self.sleeping_until_ms.load(Ordering::Relaxed) {
            self.wake_timer();
        }
    }

    fn wake_timer(&self) {
        self.earlier_deadline.notify_one();
    }

    /// Works off deadlines for as long as it is polled.
    pub(crate) async fn run_timers(&self) {
        loop {
            let next = self.work_off_deadlines();
            self.sleeping_until_ms.store(next, Ordering::Relaxed);
            // A deadline set between the two lines above found the old value: it has notified, or is seen here.
            let next = next.min(self.next_deadline_ms());
            tokio::select! {
                () = self.earlier_deadline.notified() => {}
                () = self.clock.sleep_until(next), if next != NEVER => {}
            }
        }
    }

    fn next_deadline_ms(&self) -> i64 {
        let shards = self.shards.read().clone();
        shards
            .iter()
            .filter_map(|shard| shard.state.lock().coordinator.next_deadline_ms())
            .min()
            .unwrap_or(NEVER)
    }

    fn work_off_deadlines(&self) -> i64 {
        let shards = self.shards.read().clone();
        let mut next = NEVER;
        for shard in shards.iter() {
            let mut state = self.lock(shard);
            let now_ms = self.clock.steady_ms();
            let effects = state.coordinator.on_deadline(now_ms);
            let _ = self.carry_out(shard, &mut state, effects, now_ms);
            next = next.min(state.coordinator.next_deadline_ms().unwrap_or(NEVER));
        }
        next
    }

    /// Shows every committed offset: group, topic, partition, offset.
    pub(crate) fn for_each_offset(&self, mut show: impl FnMut(&str, &str, i32, i64)) {
        let shards = self.shards.read().clone();
        for shard in shards.iter() {
            let state = shard.state.lock();
            for (group, topic, partition, committed) in state.coordinator.committed_offsets() {
                show(group, topic, partition, committed.offset);
            }
        }
    }
}

/// A call that is carried out and whose answer waits for the commit.
pub(crate) struct Begun<R> {
    response: R,
    durable: Option<CommitTicket>,
}

impl<R: StorageFailure> Begun<R> {
    /// Ends when the answer may be sent.
    pub(crate) async fn finish(mut self) -> R {
        if let Some(error) = not_durable(self.durable).await {
            self.response.fail(error);
        }
        self.response
    }
}

impl ShardState {
    fn deliver(&mut self, replies: Vec<Reply>) {
        for Reply { token, response, release } in replies {
            let durable = if release == Release::WhenDurable { self.newest_commit.clone() } else { None };
            if let Some(sender) = self.waiting.remove(&token) {
                // The connection may have gone; the group does not mind.
                let _ = sender.send(Deferred { response, durable });
            }
        }
    }
}

async fn not_durable(ticket: Option<CommitTicket>) -> Option<ErrorCode> {
    let error = ticket?.await.err()?;
    tracing::debug!(%error, "group records not durable");
    Some(append_error_to_response(ErrorCode::KafkaStorageError))
}

fn encode_batch(effects: &Effects, now_ms: i64) -> bytes::Bytes {
    let mut batch = BatchBuilder::new();
    if let Some((producer_id, producer_epoch)) = effects.producer {
        // On the producer's behalf, and not one of the batches that it counts.
        batch = batch.producer(producer_id, producer_epoch, NO_SEQUENCE).transactional();
    }
    for record in &effects.records {
        batch.push(now_ms, Some(&record.key), record.value.as_deref(), &[]);
    }
    batch.build()
}

fn consumer_settings(settings: &BrokerSettings) -> ConsumerGroupSettings {
    let assignor = |name: &str| Assignor::by_name(name.trim(), &Assignor::ALL);
    ConsumerGroupSettings {
        timeouts: ConsumerGroupTimeouts {
            session_timeout_ms: settings.int("group.consumer.session.timeout.ms"),
            heartbeat_interval_ms: settings.int("group.consumer.heartbeat.interval.ms"),
        },
        max_size: usize::try_from(settings.int("group.consumer.max.size")).unwrap_or_default(),
        assignors: settings.value("group.consumer.assignors").split(',').filter_map(assignor).collect(),
        migration_policy: MigrationPolicy::by_name(settings.value("group.consumer.migration.policy"))
            .unwrap_or_default(),
    }
}

fn random_bits() -> [u8; 16] {
    crate::random::bytes()
}

/// `String.hashCode` of Java, which Kafka spreads groups by.
pub(crate) fn java_hash(text: &str) -> u32 {
    text.encode_utf16().fold(0, |hash: u32, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_spread_as_in_kafka() {
        assert_eq!(java_hash(""), 0);
        assert_eq!(java_hash("hello"), 99_162_322);
        assert_eq!(java_hash("activity-writer") as i32, {
            let mut hash = 0i32;
            for byte in b"activity-writer" {
                hash = hash.wrapping_mul(31).wrapping_add(i32::from(*byte));
            }
            hash
        });
    }
}
