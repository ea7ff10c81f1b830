//! What the member owns: its partitions, how far it is in each, and what happens when the group takes them away.
//!
//! **Invariant:** an offset is committed only for a partition owned at that moment, and only up to the first record
//! that is not done. **Invariant:** the lock is never held while the consumer is polled: rebalances run inside a poll.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, TopicPartitionList};

use super::committer::{Answered, Committer, NextOffset};
use crate::cluster::log_line;
use crate::error::KafkaFault;

/// How long a rebalance waits for the commit of what was done. Longer would delay the whole group.
const REVOKE_COMMIT_WAIT: Duration = Duration::from_secs(2);

/// How often an idle member looks for the answer to a commit.
const ANSWER_CHECK: Duration = Duration::from_millis(20);

pub(super) type PartitionKey = (Arc<str>, i32);

/// How far the member is in a partition.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    /// The next offset to work on: everything before it is done.
    pub(super) next_offset: Option<i64>,
    /// The offset which the group is known to have.
    pub(super) committed_offset: Option<i64>,
    /// The end of the partition, as far as known.
    pub(super) high_watermark: Option<i64>,
}

/// The consumer's context: librdkafka calls it from within a poll.
pub(super) struct Membership {
    inner: Mutex<Inner>,
    bootstrap: String,
}

#[derive(Default)]
struct Inner {
    owned: BTreeMap<PartitionKey, Progress>,
    /// Taken away since the runtime last asked.
    revoked: Vec<PartitionKey>,
    /// New partitions begin paused while a batch is kept.
    paused: bool,
    committer: Option<Committer>,
    fault: Option<KafkaFault>,
    commits_count: u64,
}

impl Membership {
    pub(super) fn new(bootstrap: &str) -> Self {
        Self { inner: Mutex::default(), bootstrap: bootstrap.to_string() }
    }

    pub(super) fn set_committer(&self, committer: Option<Committer>) {
        self.inner.lock().committer = committer;
    }

    /// The partitions taken away since the last call. Records of theirs must be forgotten.
    pub(super) fn take_revoked(&self) -> Vec<PartitionKey> {
        std::mem::take(&mut self.inner.lock().revoked)
    }

    pub(super) fn owned(&self) -> Vec<(PartitionKey, Progress)> {
        self.inner.lock().owned.iter().map(|(key, progress)| (key.clone(), *progress)).collect()
    }

    /// All records of the partition before this offset are done.
    pub(super) fn done_before(&self, key: &PartitionKey, next_offset: i64) {
        if let Some(progress) = self.inner.lock().owned.get_mut(key) {
            progress.next_offset = progress.next_offset.max(Some(next_offset));
        }
    }

    /// What the cluster says about partitions still owned: offsets the member has found out itself stay.
    pub(super) fn learn(
        &self,
        key: &PartitionKey,
        committed_offset: Option<i64>,
        high_watermark: Option<i64>,
    ) {
        if let Some(progress) = self.inner.lock().owned.get_mut(key) {
            if progress.next_offset.is_none() {
                progress.next_offset = committed_offset;
                progress.committed_offset = committed_offset;
            }
            progress.high_watermark = progress.high_watermark.max(high_watermark);
        }
    }

    pub(super) fn set_paused(&self, paused: bool) -> bool {
        std::mem::replace(&mut self.inner.lock().paused, paused)
    }

    pub(super) fn fault(&self) -> Option<KafkaFault> {
        self.inner.lock().fault.clone()
    }

    pub(super) fn set_fault(&self, fault: Option<KafkaFault>) {
        self.inner.lock().fault = fault;
    }

    /// Commits acknowledged since the last call.
    pub(super) fn take_commits_count(&self) -> u64 {
        std::mem::take(&mut self.inner.lock().commits_count)
    }

    /// Takes the answer of a commit in flight, and sends what is done since. Never waits. Answers when to call again.
    pub(super) fn commit_due(&self, client: &Client<Self>) -> Option<Instant> {
        let mut inner = self.inner.lock();
        inner.take_answer(Duration::ZERO, &self.bootstrap);
        let due = inner.uncommitted();
        let committer = inner.committer.as_mut()?;
        if due.is_empty() && !committer.is_in_flight() {
            return None;
        }
        if !due.is_empty() && !committer.is_in_flight() && Instant::now() >= committer.next_at() {
            inner.send(client, due);
        }
        let committer = inner.committer.as_ref()?;
        Some(if committer.is_in_flight() { Instant::now() + ANSWER_CHECK } else { committer.next_at() })
    }

    /// Commits everything that is done and waits for the answer until the deadline. Whether all is committed.
    pub(super) fn commit_all(&self, client: &Client<Self>, deadline: Instant) -> bool {
        self.inner.lock().commit_all(client, deadline, &self.bootstrap)
    }
}

impl Inner {
    fn uncommitted(&self) -> Vec<NextOffset> {
        let due = self.owned.iter().filter(|(_, progress)| progress.next_offset != progress.committed_offset);
        due.filter_map(|(key, progress)| Some((key.clone(), progress.next_offset?))).collect()
    }

    fn send(&mut self, client: &Client<Membership>, offsets: Vec<NextOffset>) {
        if let Some(committer) = &mut self.committer
            && let Err(error) = committer.send(client, offsets)
        {
            tracing::warn!(%error, "offset commit not sent");
        }
    }

    fn take_answer(&mut self, wait: Duration, bootstrap: &str) {
        let Some(Answered { offsets, result }) = self.committer.as_mut().and_then(|c| c.poll(wait)) else {
            return;
        };
        match result {
            Ok(()) => {
                self.fault = None;
                self.commits_count += 1;
                for (key, next_offset) in offsets {
                    if let Some(progress) = self.owned.get_mut(&key) {
                        progress.committed_offset = Some(next_offset);
                    }
                }
            }
            // The group is moving on: a rebalance follows, and decides who commits.
            Err(error) if is_rebalance(&error) => {
                tracing::debug!(%error, "offset commit overtaken by a rebalance")
            }
            Err(error) => {
                tracing::warn!(%error, "offset commit refused; it will be tried again");
                self.fault = Some(KafkaFault::from_kafka(&error, bootstrap, Duration::ZERO));
            }
        }
    }

    fn commit_all(&mut self, client: &Client<Membership>, deadline: Instant, bootstrap: &str) -> bool {
        let mut sent_count = 0;
        loop {
            if self.committer.as_ref().is_some_and(Committer::is_in_flight) {
                let left = deadline.saturating_duration_since(Instant::now());
                self.take_answer(left, bootstrap);
                if self.committer.as_ref().is_some_and(Committer::is_in_flight) {
                    return false;
                }
            }
            let due = self.uncommitted();
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

fn keys(list: &TopicPartitionList) -> Vec<PartitionKey> {
    list.elements().iter().map(|element| (element.topic().into(), element.partition())).collect()
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "tidings::kafka", %error, reason, "consumer error");
        self.inner.lock().fault = Some(KafkaFault::from_kafka(&error, &self.bootstrap, Duration::ZERO));
    }
}

impl ConsumerContext for Membership {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            let mut inner = self.inner.lock();
            // Lost partitions have another owner already, whose offsets ours would overwrite.
            if !consumer.assignment_lost() {
                inner.commit_all(consumer.client(), Instant::now() + REVOKE_COMMIT_WAIT, &self.bootstrap);
            }
            for key in keys(list) {
                inner.owned.remove(&key);
                inner.revoked.push(key);
            }
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(list) = rebalance {
            let mut inner = self.inner.lock();
            if inner.paused
                && let Err(error) = consumer.pause(list)
            {
                tracing::warn!(%error, "new partitions not paused");
            }
            for key in keys(list) {
                inner.owned.insert(key, Progress::default());
            }
        }
    }
}
