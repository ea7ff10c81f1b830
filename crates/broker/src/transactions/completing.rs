//! Writes the markers of decided transactions and tells the coordinator when they are durable.
//!
//! Invariants: at most one job for each transactional id is under way; it goes on until every partition that exists has its
//! marker, whatever refuses in between; only a log that refuses everything until a restart ends it early, and the restart
//! begins it anew.

use std::sync::Arc;

use tidings_coordinator::{Completion, TransactionPartitions};
use tidings_log::batch::{EndTxnMarker, TransactionResult};
use tidings_log::{AppendError, AppendOptions, CommitTicket, Origin, SequenceError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{COORDINATOR_EPOCH, Shard, ShardState, Transactions};
use crate::topics::names::OFFSETS_TOPIC;

/// How long a marker waits that a disk refused.
const RETRY_MS: i64 = 500;

/// A decided transaction.
pub(super) struct Job {
    pub shard: Arc<Shard>,
    pub completion: Completion,
    /// Ready when the outcome is durable.
    pub decided: CommitTicket,
}

/// What became of one round of markers.
enum Round {
    Written(CommitTicket),
    /// Those that were refused, for another round.
    Refused(TransactionPartitions),
    /// No log takes anything until a restart.
    Stopped,
}

impl Transactions {
    /// Has the markers written of transactions that are decided though no request asked for it: they took too long, or a
    /// crash has left them.
    pub(super) fn enqueue_decided(&self, shard: &Arc<Shard>, state: &mut ShardState, decided: &CommitTicket) {
        for completion in state.coordinator.completions() {
            if !state.under_way.contains(&completion.transactional_id) {
                let transactional_id = &*completion.transactional_id;
                tracing::info!(
                    transactional_id,
                    commit = completion.is_commit,
                    "ending a transaction without its producer"
                );
                self.enqueue(shard, state, completion, decided.clone());
            }
        }
    }

    pub(super) fn enqueue(
        &self,
        shard: &Arc<Shard>,
        state: &mut ShardState,
        completion: Completion,
        decided: CommitTicket,
    ) {
        if state.under_way.insert(completion.transactional_id.clone()) {
            // The receiver lives as long as the broker does.
            let _ = self.jobs.send(Job { shard: shard.clone(), completion, decided });
        }
    }

    pub(super) async fn write_markers(self: Arc<Self>, mut incoming: mpsc::UnboundedReceiver<Job>) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                job = incoming.recv() => match job {
                    Some(job) => drop(running.spawn(self.clone().finish(job))),
                    None => return,
                },
                Some(_) = running.join_next() => {}
            }
        }
    }

    async fn finish(self: Arc<Self>, Job { shard, completion, decided }: Job) {
        if decided.await.is_err() {
            // Whether it was decided, a restart will tell.
            self.wake_waiting(&shard, &completion);
            return;
        }
        let mut left = completion.partitions.clone();
        loop {
            match self.write_round(&completion, &left) {
                Round::Written(commit) => match commit.await {
                    Ok(()) => break,
                    Err(_) => return self.wake_waiting(&shard, &completion),
                },
                Round::Refused(refused) => left = refused,
                Round::Stopped => return self.wake_waiting(&shard, &completion),
            }
            // The outcome is decided; nobody needs to wait for a disk that has no room.
            self.wake_waiting(&shard, &completion);
            self.clock.sleep_until(self.clock.steady_ms().saturating_add(RETRY_MS)).await;
        }
        while !self.tell_complete(&shard, &completion) {
            self.wake_waiting(&shard, &completion);
            self.clock.sleep_until(self.clock.steady_ms().saturating_add(RETRY_MS)).await;
        }
        self.wake_waiting(&shard, &completion);
    }

    /// Appends markers to all these partitions; one commit serves them.
    fn write_round(&self, completion: &Completion, partitions: &TransactionPartitions) -> Round {
        let mut commit = CommitTicket::ready();
        let mut refused = TransactionPartitions::new();
        for (topic, indexes) in partitions {
            for index in indexes {
                match self.write_marker(completion, topic, *index) {
                    Ok(ticket) => commit = commit.newest(ticket),
                    Err(AppendError::StorageFailed { .. } | AppendError::Closed { .. }) => {
                        return Round::Stopped;
                    }
                    Err(error) => {
                        tracing::error!(%error, "a transaction's marker has to wait");
                        refused.entry(topic.clone()).or_default().insert(*index);
                    }
                }
            }
        }
        if refused.is_empty() { Round::Written(commit) } else { Round::Refused(refused) }
    }

    fn write_marker(
        &self,
        completion: &Completion,
        topic: &str,
        index: i32,
    ) -> Result<CommitTicket, AppendError> {
        let producer = (completion.producer_id, completion.producer_epoch);
        let marker = marker(completion.is_commit);
        let written = if topic == OFFSETS_TOPIC {
            self.groups.end_transaction(index, producer, marker, completion.is_epoch_bumped)
        } else {
            let known = self.topics.by_name(topic);
            let Some(log) = known.as_ref().and_then(|topic| topic.partition(index)) else {
                return Ok(CommitTicket::ready());
            };
            let options = options(self.clock.wall_ms());
            log.append_marker(producer, marker, completion.is_epoch_bumped, options)
                .map(|appended| appended.commit)
        };
        match written {
            // The partition is gone, and the transaction in it; or the marker is there already.
            Err(AppendError::Deleted { .. }) => Ok(CommitTicket::ready()),
            Err(AppendError::Sequence { source: SequenceError::Fenced { .. }, .. }) => {
                Ok(CommitTicket::ready())
            }
            other => other,
        }
    }

    /// Writes that the transaction is complete; false where the disk refuses. The record rides with the next one: a
    /// restart that does not find it writes the markers once more, which changes nothing.
    fn tell_complete(&self, shard: &Shard, completion: &Completion) -> bool {
        let mut state = shard.state.lock();
        let outcome = state.coordinator.complete(self.clock.steady_ms(), completion);
        let told = self.carry_out(shard, &mut state, &outcome.effects, true).is_ok();
        if told {
            // Under the same lock: the next transaction may be decided as soon as this one is over.
            state.under_way.remove(&completion.transactional_id);
        }
        told
    }

    fn wake_waiting(&self, shard: &Shard, completion: &Completion) {
        // Whoever waits finds its sender dropped.
        shard.state.lock().waiting.remove(&completion.transactional_id);
    }
}

pub(super) fn marker(is_commit: bool) -> EndTxnMarker {
    let result = if is_commit { TransactionResult::Commit } else { TransactionResult::Abort };
    EndTxnMarker { result, coordinator_epoch: COORDINATOR_EPOCH }
}

pub(super) fn options(now_ms: i64) -> AppendOptions {
    AppendOptions { origin: Origin::Coordinator, leader_epoch: 0, now_ms }
}
