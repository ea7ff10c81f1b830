//! What the member owns: its partitions, how far it is in each, and what happens when the group takes them away.
//!
//! **Invariant:** an offset is committed only for a partition owned at that moment, and only up to the first record
//! that is not done. **Invariant:** the lock is never held while the consumer is polled: rebalances run inside a poll.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, TopicPartitionList};

use super::board::Board;
use super::committer::{Answered, Committer};
use super::poll_limit::PollLimit;
use super::scheduler::{Due, Progress};
use crate::cluster::{Cluster, log_line};
use crate::error::KafkaFault;
use crate::native::{RecordQueue, Reset};
use crate::security::ConnectionFaults;

/// How long a rebalance waits for the commit of what was done. Longer would delay the whole group.
const REVOKE_COMMIT_WAIT: Duration = Duration::from_secs(2);

/// How often an idle member looks for the answer to a commit.
const ANSWER_CHECK: Duration = Duration::from_millis(20);

pub(super) type PartitionKey = (Arc<str>, i32);

/// The consumer's context: librdkafka calls it from within a poll.
pub(super) struct Membership {
    /// What is owned, and how far it is. Locked after `inner`, never before.
    board: Arc<Board>,
    inner: Mutex<Inner>,
    faults: ConnectionFaults,
    bootstrap: String,
    revoke_wait: Duration,
    poll_limit: PollLimit,
}

#[derive(Default)]
struct Inner {
    /// Taken away since the runtime last asked.
    revoked: Vec<PartitionKey>,
    /// Given up by the client since the runtime last asked.
    resets: Vec<Reset>,
    committer: Option<Committer>,
    /// Where the records of new partitions are to arrive.
    records: Option<Arc<RecordQueue>>,
    commits_count: u64,
}

impl Membership {
    pub(super) fn new(
        board: Arc<Board>,
        cluster: &Cluster,
        revoke_wait: Duration,
        poll_limit: PollLimit,
    ) -> Self {
        let revoke_wait = poll_limit.cap(revoke_wait);
        let (faults, bootstrap) = (cluster.connection_faults(), cluster.bootstrap().to_string());
        Self { board, inner: Mutex::default(), faults, bootstrap, revoke_wait, poll_limit }
    }

    pub(super) fn set_committer(&self, committer: Option<Committer>) {
        self.inner.lock().committer = committer;
    }

    pub(super) fn set_records(&self, records: Option<Arc<RecordQueue>>) {
        self.inner.lock().records = records;
    }

    /// The partitions taken away since the last call.
    pub(super) fn take_revoked(&self) -> Vec<PartitionKey> {
        std::mem::take(&mut self.inner.lock().revoked)
    }

    /// The positions that the client has given up since the last call.
    pub(super) fn take_resets(&self) -> Vec<Reset> {
        std::mem::take(&mut self.inner.lock().resets)
    }

    pub(super) fn owned(&self) -> Vec<(PartitionKey, Progress)> {
        self.board.lock().scheduler.owned()
    }

    pub(super) fn fault(&self) -> Option<KafkaFault> {
        self.faults.last()
    }

    pub(super) fn set_fault(&self, fault: Option<KafkaFault>) {
        self.faults.set(fault);
    }

    /// The same fault, or the refusal that is behind it.
    pub(super) fn explain(&self, fault: KafkaFault) -> KafkaFault {
        self.faults.explain(fault)
    }

    /// Commits acknowledged since the last call.
    pub(super) fn take_commits_count(&self) -> u64 {
        std::mem::take(&mut self.inner.lock().commits_count)
    }

    /// Takes the answer of a commit in flight, and sends what is done since. Never waits. Answers when to call again.
    pub(super) fn commit_due(&self, client: &Client<Self>) -> Option<Instant> {
        let mut inner = self.inner.lock();
        inner.take_answer(Duration::ZERO, self);
        let committer = inner.committer.as_ref()?;
        if committer.is_in_flight() {
            return Some(Instant::now() + ANSWER_CHECK);
        }
        if Instant::now() < committer.next_at() {
            return Some(committer.next_at());
        }
        let due = self.board.lock().scheduler.uncommitted();
        if due.is_empty() {
            return None;
        }
        inner.send(client, due);
        Some(Instant::now() + ANSWER_CHECK)
    }

    /// Commits everything that is done and waits for the answer until the deadline. Whether all is committed.
    pub(super) fn commit_all(&self, client: &Client<Self>, deadline: Instant) -> bool {
        self.inner.lock().commit_all(client, deadline, self)
    }
}

impl Inner {
    fn send(&mut self, client: &Client<Membership>, offsets: Vec<Due>) {
        if let Some(committer) = &mut self.committer
            && let Err(error) = committer.send(client, offsets)
        {
            tracing::warn!(%error, "offset commit not sent");
        }
    }

    fn take_answer(&mut self, wait: Duration, membership: &Membership) {
        let Some(Answered { offsets, result }) = self.committer.as_mut().and_then(|c| c.poll(wait)) else {
            return;
        };
        match result {
            Ok(()) => {
                membership.faults.set(None);
                self.commits_count += 1;
                let mut board = membership.board.lock();
                offsets.into_iter().for_each(|due| board.scheduler.committed(due));
            }
            // The group is moving on: a rebalance follows, and decides who commits.
            Err(error) if is_rebalance(&error) => {
                tracing::debug!(%error, "offset commit overtaken by a rebalance")
            }
            Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::OffsetMetadataTooLarge)) => {
                let mut board = membership.board.lock();
                let max_bytes = &mut board.scheduler.limits.metadata_max_bytes;
                *max_bytes /= 2;
                tracing::warn!(
                    max_bytes,
                    "offset metadata refused as too large; less of what is done out of order is remembered: \
                     set offset_metadata_max_bytes to the cluster's offset.metadata.max.bytes"
                );
            }
            Err(error) => {
                tracing::warn!(%error, "offset commit refused; it will be tried again");
                let fault = KafkaFault::from_kafka(&error, &membership.bootstrap, Duration::ZERO);
                membership.faults.set(Some(fault));
            }
        }
    }

    fn commit_all(
        &mut self,
        client: &Client<Membership>,
        deadline: Instant,
        membership: &Membership,
    ) -> bool {
        let mut sent_count = 0;
        loop {
            if self.committer.as_ref().is_some_and(Committer::is_in_flight) {
                let left = deadline.saturating_duration_since(Instant::now());
                self.take_answer(left, membership);
                if self.committer.as_ref().is_some_and(Committer::is_in_flight) {
                    return false;
                }
            }
            let due = membership.board.lock().scheduler.uncommitted();
            if due.is_empty() {
                return true;
            }
            // One refusal may be a leftover of the commit before; a second one is the cluster's answer.
            if sent_count == 2 || self.committer.is_none() {
                return false;
            }
            sent_count += 1;
            self.send(client, due);
        }
    }
}

/// Lets go of the pause of paused partitions that are taken away. librdkafka keeps it past their assignment: given back to this
/// member, they would never be fetched again. For no others: it makes the client ask anew where they begin.
pub(super) fn resume_for_next<C: ConsumerContext>(consumer: &BaseConsumer<C>, paused: &[PartitionKey]) {
    if paused.is_empty() {
        return;
    }
    if let Err(error) = consumer.resume(&list_of(paused)) {
        tracing::warn!(%error, "partitions that were taken away not resumed");
    }
}

fn is_rebalance(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::ConsumerCommit(
            RDKafkaErrorCode::RebalanceInProgress
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::AssignmentLost
        )
    )
}

/// As the client takes partitions.
pub(super) fn list_of(keys: &[PartitionKey]) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(keys.len());
    for (topic, partition) in keys {
        list.add_partition(topic, *partition);
    }
    list
}

/// As we take them.
pub(super) fn keys(list: &TopicPartitionList) -> Vec<PartitionKey> {
    list.elements().iter().map(|element| (element.topic().into(), element.partition())).collect()
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
        if let Some(reset) = Reset::of_line(fac, message) {
            self.inner.lock().resets.push(reset);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.faults.hear(&error, reason);
    }
}

impl ConsumerContext for Membership {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let (Rebalance::Assign(list), Some(records)) = (rebalance, &self.inner.lock().records) {
            // Before the first is fetched: records of one partition must not come by two ways.
            keys(list)
                .iter()
                .for_each(|(topic, partition)| records.take(consumer.client(), topic, *partition));
        }
        if let Rebalance::Revoke(list) = rebalance {
            let keys = keys(list);
            let mut inner = self.inner.lock();
            // Lost partitions have another owner already, whose offsets ours would overwrite.
            if !consumer.assignment_lost() {
                if !self.board.settle(&keys, self.revoke_wait) {
                    tracing::warn!("partitions given up with records in work, which come again elsewhere");
                }
                let deadline = Instant::now() + self.poll_limit.cap(REVOKE_COMMIT_WAIT);
                inner.commit_all(consumer.client(), deadline, self);
            }
            let paused = {
                let mut board = self.board.lock();
                let paused = board.scheduler.paused_of(&keys);
                board.scheduler.revoke(&keys);
                paused
            };
            inner.revoked.extend(keys);
            resume_for_next(consumer, &paused);
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            let mut board = self.board.lock();
            let mut is_paused = board.scheduler.is_full_now();
            if is_paused && let Err(error) = consumer.pause(list) {
                tracing::warn!(%error, "new partitions not paused");
                is_paused = false;
            }
            for key in keys(list) {
                board.scheduler.assign(key, is_paused);
            }
        }
    }
}
