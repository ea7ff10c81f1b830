//! The transaction coordinator at work: its state machines, their logs, and the markers that end transactions.
//!
//! Owns one shard for each partition of `__transaction_state`, built like those of [`crate::groups`]. Invariants: markers
//! are written only after the outcome is durable, and the transaction is told complete only after its markers are; a batch
//! opens a transaction in a partition only under the shard's lock and while the transaction is going on, so that no batch
//! comes in behind the markers. What a crash leaves half done, a start finishes: decided outcomes get their markers, and
//! transactions in logs that no coordinator looks after are aborted.
//!
//! Records that add partitions or tell a completion ride with what is appended next: what builds on them lies behind them
//! in the same commit round or a later one. That is what makes a transaction cost three flushes (in the older protocol
//! four): its records, its outcome, its markers.

mod completing;
mod reconcile;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tidings_coordinator::{
    AddPartitionsRequest, Answer, CoordinatorRecord, Effects, Outcome, Release, StorageFailure,
    TransactionCoordinator, TransactionPartitions, TransactionSettings, append_error_to_response,
};
use tidings_log::batch::BatchBuilder;
use tidings_log::{AppendError, AppendOptions, Appended, CommitTicket, Origin, PartitionLog};
use tidings_model::ErrorCode;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::clock::Clock;
use crate::groups::{Groups, java_hash};
use crate::replay::{ReplayLogError, for_each_record};
use crate::settings::BrokerSettings;
use crate::topics::TopicRegistry;
use completing::Job;

/// No deadline is set.
const NEVER: i64 = i64::MAX;

/// Transactions have one leader, and so one epoch of it, for ever.
const COORDINATOR_EPOCH: i32 = 0;

/// All transactional ids.
pub(crate) struct Transactions {
    settings: TransactionSettings,
    clock: Arc<dyn Clock>,
    topics: TopicRegistry,
    groups: Arc<Groups>,
    /// By partition of the transactions' topic; empty until the topic exists.
    shards: RwLock<Arc<[Arc<Shard>]>>,
    /// To the task that writes markers.
    jobs: mpsc::UnboundedSender<Job>,
    incoming: Mutex<Option<mpsc::UnboundedReceiver<Job>>>,
    /// There are shards now, and with them deadlines.
    loaded: Notify,
}

struct Shard {
    log: Arc<PartitionLog>,
    state: Mutex<ShardState>,
}

struct ShardState {
    coordinator: TransactionCoordinator,
    /// The commit of the newest append that somebody may have to wait for.
    newest_commit: Option<CommitTicket>,
    /// Transactional ids whose markers are being written: a second job would write its markers into the next transaction.
    under_way: HashSet<Arc<str>>,
    /// Requests that wait for a transaction to be complete.
    waiting: HashMap<Arc<str>, Vec<oneshot::Sender<()>>>,
}

/// Why a batch did not get into a transaction.
#[derive(Debug)]
pub(crate) enum RefusedBatch {
    /// The coordinator says so.
    Transaction(ErrorCode),
    /// The log says so.
    Append(AppendError),
}

impl Transactions {
    pub(crate) fn new(
        settings: &BrokerSettings,
        clock: Arc<dyn Clock>,
        topics: TopicRegistry,
        groups: Arc<Groups>,
    ) -> Transactions {
        let (jobs, incoming) = mpsc::unbounded_channel();
        Transactions {
            settings: TransactionSettings {
                max_timeout_ms: settings.int("transaction.max.timeout.ms"),
                abort_interval_ms: settings
                    .long("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
                id_expiration_ms: settings.long("transactional.id.expiration.ms"),
                expiry_interval_ms: settings
                    .long("transaction.remove.expired.transaction.cleanup.interval.ms"),
            },
            clock,
            topics,
            groups,
            shards: RwLock::new(Arc::new([])),
            jobs,
            incoming: Mutex::new(Some(incoming)),
            loaded: Notify::new(),
        }
    }

    /// Whether the transactions' topic is there and replayed.
    pub(crate) fn is_loaded(&self) -> bool {
        !self.shards.read().is_empty()
    }

    /// Rebuilds the transactions from their logs and finishes what was half done; does nothing when that was done.
    pub(crate) fn load(&self, logs: &[Arc<PartitionLog>]) -> Result<(), ReplayLogError> {
        if self.is_loaded() {
            return Ok(());
        }
        let shards = logs.iter().map(|log| self.load_shard(log)).collect::<Result<Vec<_>, _>>()?;
        let mut current = self.shards.write();
        if !current.is_empty() {
            return Ok(());
        }
        *current = shards.into();
        for shard in current.iter() {
            self.enqueue_decided(shard, &mut shard.state.lock(), &CommitTicket::ready());
        }
        drop(current);
        self.loaded.notify_one();
        Ok(())
    }

    fn load_shard(&self, log: &Arc<PartitionLog>) -> Result<Arc<Shard>, ReplayLogError> {
        let mut coordinator = TransactionCoordinator::new(self.settings.clone());
        for_each_record(log, |record| -> Result<(), ReplayLogError> {
            let replayed =
                record.key.as_ref().map_or(Ok(()), |key| coordinator.replay(key, record.value.as_ref()));
            if let Err(error) = replayed {
                // As Kafka: one unreadable record must not make every transactional id of the shard unusable.
                tracing::warn!(offset = record.offset, %error, "skipped a record of __transaction_state");
            }
            Ok(())
        })?;
        coordinator.on_loaded(self.clock.steady_ms());
        let state = ShardState {
            coordinator,
            newest_commit: None,
            under_way: HashSet::new(),
            waiting: HashMap::new(),
        };
        Ok(Arc::new(Shard { log: log.clone(), state: Mutex::new(state) }))
    }

    /// The shard of a transactional id, as Kafka spreads them over the partitions of the topic.
    fn shard(&self, transactional_id: &str) -> Option<Arc<Shard>> {
        let shards = self.shards.read();
        let count = u32::try_from(shards.len()).ok().filter(|count| *count > 0)?;
        shards.get((java_hash(transactional_id) & 0x7fff_ffff).checked_rem(count)? as usize).cloned()
    }

    /// A call about one transactional id. Ends when the answer may be sent, which is, where the call has decided the
    /// outcome of a transaction, when that is complete, or when a marker could not be written at once. None where the
    /// call needs a fresh producer id.
    pub(crate) async fn call<R: StorageFailure>(
        &self,
        transactional_id: &str,
        call: impl FnOnce(&mut TransactionCoordinator, i64) -> Answer<R>,
    ) -> Result<Option<R>, ErrorCode> {
        let shard = self.shard(transactional_id).ok_or(ErrorCode::CoordinatorNotAvailable)?;
        let (mut response, durable, completed) = {
            let mut state = shard.state.lock();
            let answer = call(&mut state.coordinator, self.clock.steady_ms());
            let Answer::Ready(Outcome { mut response, release, effects }) = answer else { return Ok(None) };
            let writes = !effects.records.is_empty();
            if let Err(error) = self.carry_out(&shard, &mut state, &effects, false) {
                response.fail(append_error_to_response(error));
                return Ok(Some(response));
            }
            let durable = if release == Release::WhenDurable { state.newest_commit.clone() } else { None };
            let completed = if writes { self.decided(&shard, &mut state, transactional_id) } else { None };
            (response, durable, completed)
        };
        if let Some(durable) = durable
            && let Err(error) = durable.await
        {
            tracing::debug!(%error, "transaction records not durable");
            response.fail(append_error_to_response(ErrorCode::KafkaStorageError));
            return Ok(Some(response));
        }
        if let Some(completed) = completed {
            // Dropped where the markers have to wait: the outcome is decided all the same.
            let _ = completed.await;
        }
        Ok(Some(response))
    }

    /// A call that writes nothing.
    pub(crate) fn look<R>(
        &self,
        transactional_id: &str,
        call: impl FnOnce(&TransactionCoordinator) -> R,
    ) -> Option<R> {
        let shard = self.shard(transactional_id)?;
        let state = shard.state.lock();
        Some(call(&state.coordinator))
    }

    /// Asks every shard the same.
    pub(crate) fn look_all<R>(&self, mut call: impl FnMut(&TransactionCoordinator, i64) -> R) -> Vec<R> {
        let shards = self.shards.read().clone();
        let now_ms = self.clock.steady_ms();
        shards.iter().map(|shard| call(&shard.state.lock().coordinator, now_ms)).collect()
    }

    /// Appends a batch that begins the transaction in its partition: asks the coordinator, and with `adds` has it take
    /// the partition in (KIP-890).
    pub(crate) fn append_first<A>(
        &self,
        request: AddPartitionsRequest,
        adds: bool,
        append: impl FnOnce() -> Result<A, AppendError>,
    ) -> Result<A, RefusedBatch> {
        // Nobody was given a producer id for it.
        let shard = self
            .shard(&request.transactional_id)
            .ok_or(RefusedBatch::Transaction(ErrorCode::InvalidProducerIdMapping))?;
        let mut state = shard.state.lock();
        let asked = if adds {
            let Outcome { response, effects, .. } =
                state.coordinator.add_partitions(self.clock.steady_ms(), &request);
            self.carry_out(&shard, &mut state, &effects, true).map_or_else(|error| error, |()| response)
        } else {
            verify(&state.coordinator, &request)
        };
        match asked {
            // Still under the lock: no marker can come between.
            ErrorCode::None => append().map_err(RefusedBatch::Append),
            error => Err(RefusedBatch::Transaction(error)),
        }
    }

    /// Appends and replays. With `rides`, the commit is left to what is appended next.
    fn carry_out(
        &self,
        shard: &Shard,
        state: &mut ShardState,
        effects: &Effects,
        rides: bool,
    ) -> Result<(), ErrorCode> {
        if effects.records.is_empty() {
            return Ok(());
        }
        match append_records(shard, &effects.records, self.clock.wall_ms(), rides) {
            Ok(appended) => {
                if rides {
                    appended.commit.leave();
                } else {
                    state.newest_commit = Some(appended.commit);
                }
                state.coordinator.replay_all(&effects.records);
                Ok(())
            }
            Err(error) => {
                // Before the line about it, as in groups.
                state.coordinator.on_append_failed();
                tracing::error!(%error, "append to __transaction_state failed");
                Err(error.error_code())
            }
        }
    }

    /// Has the markers written where the outcome of the id's transaction was just decided.
    fn decided(
        &self,
        shard: &Arc<Shard>,
        state: &mut ShardState,
        transactional_id: &str,
    ) -> Option<oneshot::Receiver<()>> {
        let completion = state.coordinator.completion(transactional_id)?;
        let (sender, receiver) = oneshot::channel();
        state.waiting.entry(completion.transactional_id.clone()).or_default().push(sender);
        let decided = state.newest_commit.clone().unwrap_or_else(CommitTicket::ready);
        self.enqueue(shard, state, completion, decided);
        Some(receiver)
    }

    /// Works for as long as it is polled: writes markers, and aborts what takes too long.
    pub(crate) async fn run(self: Arc<Self>) {
        let incoming = self.incoming.lock().take();
        let Some(incoming) = incoming else { return };
        tokio::join!(self.clone().write_markers(incoming), self.run_timers());
    }

    async fn run_timers(&self) {
        loop {
            let next = self.work_off_deadlines();
            tokio::select! {
                () = self.loaded.notified() => {}
                () = self.clock.sleep_until(next), if next != NEVER => {}
            }
        }
    }

    fn work_off_deadlines(&self) -> i64 {
        let shards = self.shards.read().clone();
        let mut next = NEVER;
        for shard in shards.iter() {
            let mut state = shard.state.lock();
            let effects = state.coordinator.on_deadline(self.clock.steady_ms());
            if self.carry_out(shard, &mut state, &effects, false).is_ok() && !effects.records.is_empty() {
                let decided = state.newest_commit.clone().unwrap_or_else(CommitTicket::ready);
                self.enqueue_decided(shard, &mut state, &decided);
            }
            next = next.min(state.coordinator.next_deadline_ms().unwrap_or(NEVER));
        }
        next
    }
}

fn verify(coordinator: &TransactionCoordinator, request: &AddPartitionsRequest) -> ErrorCode {
    let mut partitions = request
        .partitions
        .iter()
        .flat_map(|(topic, partitions)| partitions.iter().map(move |partition| (topic, *partition)));
    let refused = partitions
        .find_map(|(topic, partition)| coordinator.verify_partition(request, topic, partition).err());
    refused.unwrap_or(ErrorCode::None)
}

fn append_records(
    shard: &Shard,
    records: &[CoordinatorRecord],
    now_ms: i64,
    rides: bool,
) -> Result<Appended, AppendError> {
    let mut batch = BatchBuilder::new();
    for record in records {
        batch.push(now_ms, Some(&record.key), record.value.as_deref(), &[]);
    }
    let options = AppendOptions { origin: Origin::Coordinator, leader_epoch: 0, now_ms };
    match rides {
        true => shard.log.append_with_more(batch.build(), options),
        false => shard.log.append(batch.build(), options),
    }
}

/// One partition in the form of requests for many.
pub(crate) fn one_partition(topic: &Arc<str>, partition: i32) -> TransactionPartitions {
    TransactionPartitions::from([(topic.clone(), [partition].into())])
}
