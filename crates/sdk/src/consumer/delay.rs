//! Delayed delivery: records that are due later, and retries that wait where they block nobody.
//!
//! A record that is not due goes to the group's `delay` topic, whose partitions differ in how long their records wait: a
//! quarter of a second, four times that, and so on. In a partition all wait equally long, so the first one is always the
//! next. When its time in the partition is over it moves on: to the partition of what is left, and in the end to the retry
//! topic (`mover`). What is less than the shortest wait is waited for in place.
//!
//! **Invariant:** a record is never handed out before it is due, by the clock of the member that hands it out.
//! **Invariant:** memory is bounded whatever waits: topics hold it.

mod mover;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::admin::AdminError;
use crate::cluster::{Cluster, ClusterError};
use crate::failure::{
    DELAY_PARTITIONS, DUE_HEADER, Failure, FailureTopics, Origin, delayed_record, delayed_until,
};
use crate::record::{ReceivedRecord, Record, now_ms};
use mover::Mover;

/// What a record waits in the first partition of a delay topic.
const SHORTEST_WAIT_MS: i64 = 250;

/// How long records of a partition wait, in milliseconds.
fn wait_ms(partition: i32) -> i64 {
    SHORTEST_WAIT_MS << (2 * partition)
}

/// The partition in which a record waits that is due in so many milliseconds; `None`: none, it waits in place.
fn partition_for(left_ms: i64) -> Option<i32> {
    (0..DELAY_PARTITIONS).rev().find(|partition| wait_ms(*partition) <= left_ms)
}

/// When a record is to be handed out.
pub(super) enum Due {
    Now,
    /// Soon enough to wait for it in place.
    Soon(Duration),
    /// At this time, in milliseconds since the epoch.
    Later(i64),
    /// Its header makes no sense.
    Unreadable(Failure),
}

pub(super) struct Delay {
    cluster: Cluster,
    group: String,
    instance_id: Option<String>,
    /// Whether retries wait in the topic, too.
    delays_retries: bool,
    /// By source.
    topics: RwLock<HashMap<Arc<str>, FailureTopics>>,
    is_stopping: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Delay {
    pub(super) fn new(
        cluster: &Cluster,
        group: &str,
        instance_id: Option<&str>,
        delays_retries: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster: cluster.clone(),
            group: group.to_string(),
            instance_id: instance_id.map(|instance_id| format!("{instance_id}-delay")),
            delays_retries,
            topics: RwLock::default(),
            is_stopping: AtomicBool::new(false),
            thread: Mutex::default(),
        })
    }

    /// Moves the records of these source topics, whose delay topics exist.
    pub(super) fn watch(self: &Arc<Self>, sources: &[Arc<str>]) -> Result<(), DelayError> {
        *self.topics.write() =
            sources.iter().map(|source| (Arc::clone(source), FailureTopics::of(source))).collect();
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let mover = Mover::new(Arc::clone(self))?;
            let name = format!("delay {}", self.group);
            let started = std::thread::Builder::new().name(name).spawn(move || mover.run());
            *thread = Some(started.map_err(DelayError::Thread)?);
        }
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.lock().take() {
            // What it panicked with was said by itself.
            let _ = thread.join();
        }
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// When a record is due. In a retry topic only our own header counts: the other one has been obeyed.
    pub(super) fn due(&self, record: &ReceivedRecord) -> Due {
        let due_ms = match self.topics.read().contains_key(&record.topic) {
            false => delayed_until(&record.headers).map(|(due_ms, _)| due_ms),
            true => match record.headers.last(DUE_HEADER) {
                None => None,
                Some(_) => {
                    match record.headers.last_str(DUE_HEADER).and_then(|text| text.parse::<i64>().ok()) {
                        Some(due_ms) => Some(due_ms),
                        None => {
                            let text =
                                format!("header {DUE_HEADER} holds no time in milliseconds since 1970");
                            return Due::Unreadable(Failure::new(text));
                        }
                    }
                }
            },
        };
        let left_ms = due_ms.map_or(0, |due_ms| due_ms.saturating_sub(now_ms()));
        match (due_ms, partition_for(left_ms)) {
            (Some(due_ms), Some(_)) => Due::Later(due_ms),
            (Some(_), None) if left_ms > 0 => Due::Soon(Duration::from_millis(left_ms.unsigned_abs())),
            _ => Due::Now,
        }
    }

    /// Attempts before the record's last delay, if it was a retry that waited.
    pub(super) fn attempts_before(&self, record: &ReceivedRecord) -> u32 {
        match self.topics.read().contains_key(&record.topic) {
            true => 0,
            false => delayed_until(&record.headers).map_or(0, |(_, attempts)| attempts),
        }
    }

    /// Whether a retry after this time waits in the topic.
    pub(super) fn takes_retry(&self, wait: Duration) -> bool {
        self.delays_retries && wait.as_millis() as i64 >= SHORTEST_WAIT_MS
    }

    /// The record to write instead of handling this one now. `attempts`: how often it was handed out for nothing.
    pub(super) fn record(
        &self,
        record: &ReceivedRecord,
        source: &Arc<str>,
        due_ms: i64,
        attempts: u32,
    ) -> Record {
        let is_retry_topic = *source != record.topic;
        let origin = Origin::of(record, is_retry_topic);
        let topic = FailureTopics::of(source).delay(&self.group);
        let partition = partition_for(due_ms.saturating_sub(now_ms())).unwrap_or(0);
        let before = self.attempts_before(record);
        delayed_record(record, &origin, due_ms, attempts, before.saturating_add(attempts), topic)
            .partition(partition)
    }
}

/// Why delayed records cannot be moved.
#[derive(Debug, thiserror::Error)]
pub(super) enum DelayError {
    #[error("the Kafka client could not be made: {0}")]
    Client(#[from] ClusterError),
    #[error("cannot subscribe to delay topics: {0}")]
    Subscribe(rdkafka::error::KafkaError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_waits_in_the_longest_partition_that_is_not_too_long() {
        for (left_ms, expect) in [
            (-5, None),
            (249, None),
            (250, Some(0)),
            (999, Some(0)),
            (1_000, Some(1)),
            (3_600_000, Some(6)),
            (i64::MAX, Some(DELAY_PARTITIONS - 1)),
        ] {
            assert_eq!(partition_for(left_ms), expect, "{left_ms}");
        }
    }

    #[test]
    fn every_delay_takes_few_steps() {
        for left in [1_000, 59_000, 3_599_999, 86_399_999, 30 * 86_400_000] {
            let (mut left_ms, mut steps) = (left, 0);
            while let Some(partition) = partition_for(left_ms) {
                left_ms -= wait_ms(partition);
                steps += 1;
            }
            assert!(steps <= 3 * DELAY_PARTITIONS, "{left}: {steps}");
        }
    }
}
