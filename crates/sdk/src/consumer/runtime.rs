//! The consumer's thread: prepare, poll, handle, park, commit, until asked to stop.

mod prepare;
mod watch;

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;

use super::committer::Committer;
use super::failures::{Parking, PendingLetter};
use super::handler::{BatchHandler, HandlerError, Outcome};
use super::membership::{Membership, PartitionKey};
use super::metrics::GroupMetrics;
use super::options::ConsumerOptions;
use super::state::{ConsumerMonitor, Phase};
use crate::cluster::{Cluster, ClusterError};
use crate::error::KafkaFault;
use crate::failure::FailureTopics;
use crate::native;
use crate::producer::{Producer, SendError};
use crate::record::{ReceivedRecord, now_ms};

/// How long an idle poll lasts: bounds the time until a stop is noticed.
const IDLE_WAIT: Duration = Duration::from_millis(200);
/// How long the last commit may take.
const FINAL_COMMIT_WAIT: Duration = Duration::from_millis(1_500);

pub(super) struct Runtime {
    cluster: Cluster,
    options: ConsumerOptions,
    handler: Box<dyn BatchHandler>,
    monitor: ConsumerMonitor,
    metrics: GroupMetrics,
    parking: Parking,
    failure_topics: Vec<FailureTopics>,
    consumer: BaseConsumer<Membership>,
    /// Records that arrived while a batch was kept.
    ahead: VecDeque<ReceivedRecord>,
    topic_names: Vec<Arc<str>>,
    next_refresh: Instant,
    next_probe: Instant,
    /// When the cluster last showed that it is there.
    heard_at: Instant,
}

/// The consumer cannot go on; waiting does not heal it.
struct Fatal(String);

impl Runtime {
    pub(super) fn new(
        cluster: &Cluster,
        producer: Producer,
        options: ConsumerOptions,
        handler: Box<dyn BatchHandler>,
        monitor: ConsumerMonitor,
    ) -> Result<Self, ClusterError> {
        let mut config = cluster.consumer_config(&options.group)?;
        config.set("auto.offset.reset", options.start_at.setting());
        if let Some(instance_id) = &options.instance_id {
            config.set("group.instance.id", instance_id);
        }
        let membership = Membership::new(cluster.bootstrap());
        let consumer: BaseConsumer<Membership> =
            config.create_with_context(membership).map_err(ClusterError::from_kafka)?;
        let committer = Committer::new(consumer.client(), options.commit_interval);
        consumer.context().set_committer(Some(committer));
        let failure_topics: Vec<_> = options.topics.iter().map(|topic| FailureTopics::of(topic)).collect();
        let parking = Parking::new(producer, &options.group, &failure_topics);
        let metrics = options.metrics.of_group(&options.group);
        let now = Instant::now();
        Ok(Self {
            cluster: cluster.clone(),
            options,
            handler,
            monitor,
            metrics,
            parking,
            failure_topics,
            consumer,
            ahead: VecDeque::new(),
            topic_names: Vec::new(),
            next_refresh: now,
            next_probe: now,
            heard_at: now,
        })
    }

    pub(super) fn run(mut self) {
        let monitor = self.monitor.clone();
        let work = AssertUnwindSafe(|| self.work());
        let end = catch_unwind(work).unwrap_or_else(|_| Err(Fatal("the handler panicked".into())));
        if end.is_ok() {
            let deadline = Instant::now() + FINAL_COMMIT_WAIT;
            if !self.membership().commit_all(self.consumer.client(), deadline) {
                tracing::warn!(group = %monitor.group(), "last offsets not committed; their records will come again");
            }
        }
        for (key, _) in self.membership().owned() {
            self.metrics.forget_lag(&key.0, key.1);
        }
        self.metrics.paused.set(0);
        // The queue of commits must go before its client, and leaving the group must not commit again.
        self.membership().set_committer(None);
        drop(self);
        let phase = match end {
            Ok(()) => Phase::Stopped,
            Err(Fatal(reason)) => {
                tracing::error!(group = %monitor.group(), reason, "consumer failed");
                Phase::Failed { reason }
            }
        };
        monitor.update(|state| state.phase = phase);
        monitor.announce_end();
    }

    fn membership(&self) -> &Arc<Membership> {
        self.consumer.context()
    }

    fn work(&mut self) -> Result<(), Fatal> {
        if !self.prepare_topics() {
            return Ok(());
        }
        let retry_topics = self.failure_topics.iter().map(|topics| topics.retry(&self.options.group));
        let topics: Vec<Arc<str>> =
            self.options.topics.iter().map(|topic| topic.as_str().into()).chain(retry_topics).collect();
        let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        self.consumer.subscribe(&names).map_err(|error| Fatal(format!("cannot subscribe: {error}")))?;
        self.monitor.update(|state| state.phase = Phase::Running);
        while !self.monitor.is_stop_requested() {
            let batch = self.gather()?;
            if !batch.is_empty() {
                self.process(batch)?;
            }
            self.refresh();
        }
        Ok(())
    }

    /// Collects the next batch: waits for a first record, then a little for others.
    fn gather(&mut self) -> Result<Vec<ReceivedRecord>, Fatal> {
        let mut batch: Vec<_> = std::mem::take(&mut self.ahead).into();
        let mut bytes: usize = batch.iter().map(ReceivedRecord::size_bytes).sum();
        let mut deadline = (!batch.is_empty()).then(Instant::now);
        while batch.len() < self.options.max_batch_records && bytes < self.options.max_batch_bytes {
            let wait = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => self.idle_wait(),
            };
            let Some(record) = self.poll(wait, &mut batch)? else { break };
            bytes += record.size_bytes();
            batch.push(record);
            deadline.get_or_insert_with(|| Instant::now() + self.options.max_wait);
        }
        Ok(batch)
    }

    /// How long to wait for a first record: not beyond a commit that is due.
    fn idle_wait(&self) -> Duration {
        let next_commit = self.membership().commit_due(self.consumer.client());
        let wait = next_commit.map_or(IDLE_WAIT, |at| at.saturating_duration_since(Instant::now()));
        wait.clamp(Duration::from_millis(1), IDLE_WAIT)
    }

    /// Polls once. Rebalances happen inside: records in hand of partitions taken away are dropped at once.
    fn poll(
        &mut self,
        wait: Duration,
        in_hand: &mut Vec<ReceivedRecord>,
    ) -> Result<Option<ReceivedRecord>, Fatal> {
        let polled = match self.consumer.poll(wait) {
            Some(Ok(message)) => {
                self.heard_at = Instant::now();
                let topic = interned(&mut self.topic_names, message.topic());
                Ok(Some(native::to_received(&message, topic)))
            }
            Some(Err(error)) => Err(error),
            None => Ok(None),
        };
        self.drop_revoked(in_hand);
        match polled {
            Ok(record) => Ok(record),
            Err(KafkaError::MessageConsumptionFatal(code)) => {
                let fault = KafkaFault::from_code(code, self.cluster.bootstrap(), wait);
                Err(Fatal(format!("{fault}; {}", fault.hint())))
            }
            Err(error) => {
                let fault = KafkaFault::from_kafka(&error, self.cluster.bootstrap(), wait);
                tracing::debug!(group = %self.options.group, %fault, "consumer fault");
                self.membership().set_fault(Some(fault));
                Ok(None)
            }
        }
    }

    fn drop_revoked(&mut self, in_hand: &mut Vec<ReceivedRecord>) {
        let revoked = self.membership().take_revoked();
        if revoked.is_empty() {
            return;
        }
        let is_kept = |record: &ReceivedRecord| {
            !revoked.iter().any(|(topic, partition)| *topic == record.topic && *partition == record.partition)
        };
        in_hand.retain(is_kept);
        self.ahead.retain(is_kept);
        for (topic, partition) in &revoked {
            self.metrics.forget_lag(topic, *partition);
        }
    }

    /// Has a batch handled and its rejected records parked, however long that takes. Returns early if asked to stop;
    /// then nothing of the batch is marked done.
    fn process(&mut self, mut batch: Vec<ReceivedRecord>) -> Result<(), Fatal> {
        let mut failed_attempts = 0;
        let mut letters = loop {
            if batch.is_empty() {
                self.resume();
                return Ok(());
            }
            match self.handle(&batch) {
                Ok(outcomes) => break self.letters(&batch, outcomes, failed_attempts + 1),
                Err(error) => {
                    failed_attempts += 1;
                    if !self.back_off(&mut batch, failed_attempts, error.to_string())? {
                        return Ok(());
                    }
                }
            }
        };
        let rejected_count = letters.len() as u64;
        while !letters.is_empty() {
            let Err((unsent, error)) = self.parking.park(letters) else { break };
            failed_attempts += 1;
            if matches!(&error, SendError::Refused { fault: KafkaFault::UnknownTopic, .. })
                && let Err(error) = self.try_prepare_topics()
            {
                tracing::warn!(%error, "dead letter topic missing and not created");
            }
            let reason = format!("cannot park a rejected record: {error}; {}", error.hint());
            if !self.back_off(&mut batch, failed_attempts, reason)? {
                return Ok(());
            }
            letters = unsent;
            letters.retain(|letter| batch.iter().any(|record| is_of(record, &letter.partition)));
        }
        self.mark_done(&batch, rejected_count);
        self.resume();
        Ok(())
    }

    fn handle(&mut self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
        let outcomes = self.handler.handle(batch)?;
        if !outcomes.is_empty() && outcomes.len() != batch.len() {
            let (found, expected) = (outcomes.len(), batch.len());
            return Err(HandlerError::transient(format!(
                "the handler answered {found} outcomes for {expected} records"
            )));
        }
        Ok(outcomes)
    }

    fn letters(
        &self,
        batch: &[ReceivedRecord],
        outcomes: Vec<Outcome>,
        deliveries: u32,
    ) -> Vec<PendingLetter> {
        let letter = |(record, outcome): (&ReceivedRecord, Outcome)| match outcome {
            Outcome::Done => None,
            Outcome::Reject(failure) => {
                tracing::warn!(at = record.position(), error = failure.error, "record rejected");
                Some(self.parking.letter(record, &failure, deliveries))
            }
        };
        batch.iter().zip(outcomes).filter_map(letter).collect()
    }

    fn mark_done(&mut self, batch: &[ReceivedRecord], rejected_count: u64) {
        let mut last: Option<(PartitionKey, i64)> = None;
        for record in batch {
            match &mut last {
                Some((key, next_offset)) if is_of(record, key) => *next_offset = record.offset + 1,
                _ => {
                    if let Some((key, next_offset)) = &last {
                        self.membership().done_before(key, *next_offset);
                    }
                    last = Some(((Arc::clone(&record.topic), record.partition), record.offset + 1));
                }
            }
        }
        if let Some((key, next_offset)) = &last {
            self.membership().done_before(key, *next_offset);
        }
        let processed_count = batch.len() as u64;
        self.metrics.processed.inc_by(processed_count);
        self.metrics.dead_letters.inc_by(rejected_count);
        self.monitor.update(|state| {
            state.processed += processed_count;
            state.rejected += rejected_count;
        });
        self.membership().commit_due(self.consumer.client());
    }

    /// Keeps a batch for a while: partitions paused, the member alive. `false` if asked to stop.
    fn back_off(
        &mut self,
        batch: &mut Vec<ReceivedRecord>,
        failed_attempts: u32,
        reason: String,
    ) -> Result<bool, Fatal> {
        let wait = self.options.backoff.wait(failed_attempts, jitter());
        tracing::warn!(group = %self.options.group, failed_attempts, wait_ms = wait.as_millis() as u64, reason,
            "batch kept after a transient failure");
        self.pause();
        self.metrics.retries.inc();
        self.monitor.update(|state| {
            state.retries += 1;
            let since_ms = match &state.phase {
                Phase::Paused { since_ms, .. } => *since_ms,
                _ => now_ms(),
            };
            state.phase = Phase::Paused { reason, attempts: failed_attempts, since_ms };
        });
        let until = Instant::now() + wait;
        while !self.monitor.is_stop_requested() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            let arrived = self.poll(left.min(self.idle_wait()), batch)?;
            self.ahead.extend(arrived);
            self.refresh();
        }
        Ok(false)
    }

    fn pause(&mut self) {
        if !self.membership().set_paused(true) {
            self.metrics.paused.set(1);
            let owned = self.owned_list();
            if let Err(error) = self.consumer.pause(&owned) {
                tracing::warn!(%error, "partitions not paused");
            }
        }
    }

    fn resume(&mut self) {
        if self.membership().set_paused(false) {
            self.metrics.paused.set(0);
            self.monitor.update(|state| state.phase = Phase::Running);
            let owned = self.owned_list();
            if let Err(error) = self.consumer.resume(&owned) {
                tracing::warn!(%error, "partitions not resumed");
            }
        }
    }

    fn owned_list(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), _) in self.membership().owned() {
            list.add_partition(&topic, partition);
        }
        list
    }
}

fn is_of(record: &ReceivedRecord, key: &PartitionKey) -> bool {
    record.partition == key.1 && record.topic == key.0
}

/// One `Arc` for each topic instead of one for each record.
fn interned(names: &mut Vec<Arc<str>>, topic: &str) -> Arc<str> {
    if let Some(name) = names.iter().find(|name| ***name == *topic) {
        return Arc::clone(name);
    }
    let name: Arc<str> = topic.into();
    names.push(Arc::clone(&name));
    name
}

/// A number from 0 to 1, different in every process and call, so that members do not retry in step.
fn jitter() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_a_fraction_and_varies() {
        let values: Vec<f64> = (0..32).map(|_| jitter()).collect();
        assert!(values.iter().all(|value| (0.0..1.0).contains(value)));
        assert!(values.iter().any(|value| *value != values[0]));
    }

    #[test]
    fn topics_are_interned_once() {
        let mut names = Vec::new();
        let first = interned(&mut names, "orders");
        assert!(Arc::ptr_eq(&first, &interned(&mut names, "orders")));
        interned(&mut names, "invoices");
        assert_eq!(names.len(), 2);
    }
}
