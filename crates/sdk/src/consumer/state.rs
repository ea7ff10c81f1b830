//! What a consumer shows of itself, and how it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::error::KafkaFault;

/// What a consumer is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It waits for something before it can join: the cluster, or a topic.
    Starting {
        /// For what, if it failed to get it at once.
        waiting_for: Option<String>,
    },
    /// It is a member of its group, or joining.
    Running,
    /// It keeps records after a transient failure of their batch, or because they cannot be parked.
    Paused {
        /// Why.
        reason: String,
        /// Failed attempts so far.
        attempts: u32,
        /// Since when, milliseconds since the epoch.
        since_ms: i64,
    },
    /// It was stopped.
    Stopped,
    /// It ended by a failure that waiting does not heal.
    Failed {
        /// Why.
        reason: String,
    },
}

/// How far a consumer is in one partition.
///
/// ```
/// use tidings::consumer::PartitionState;
///
/// let state = PartitionState {
///     topic: "orders".into(),
///     partition: 0,
///     next_offset: Some(90),
///     high_watermark: Some(100),
///     lag_ms: Some(1_500),
/// };
/// assert_eq!(state.lag(), Some(10));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionState {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The next offset to work on, if known.
    pub next_offset: Option<i64>,
    /// The end of the partition, if known.
    pub high_watermark: Option<i64>,
    /// The age of the first record that is not done, by its timestamp, in milliseconds; 0 if all are done. `None` while
    /// unknown. While that record is not fetched yet, the age of the last one done stands for it.
    pub lag_ms: Option<i64>,
}

impl PartitionState {
    /// Offsets between the two, if both are known. Those that no record has, as the markers of transactions, count until they are
    /// known to be such, for a few seconds.
    pub fn lag(&self) -> Option<i64> {
        Some((self.high_watermark? - self.next_offset?).max(0))
    }
}

/// A snapshot of a consumer.
///
/// ```
/// use tidings::consumer::{ConsumerState, PartitionState};
///
/// /// The partition that is furthest behind.
/// fn slowest(state: &ConsumerState) -> Option<&PartitionState> {
///     state.partitions.iter().max_by_key(|partition| partition.lag())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerState {
    /// What it is doing.
    pub phase: Phase,
    /// The partitions it has been assigned.
    pub partitions: Vec<PartitionState>,
    /// Records done, rejected ones included.
    pub processed: u64,
    /// Records parked in the failure inbox.
    pub rejected: u64,
    /// Attempts after transient failures.
    pub retries: u64,
    /// Records that were removed from their topic, by its retention or by an administrator, before the group had read them: told
    /// with their offsets in the log. What was there is not known any more, so markers of transactions count as well.
    pub lost: u64,
    /// Records that are with the handler now.
    pub in_flight: usize,
    /// Records fetched and not done, those with the handler included.
    pub buffered: usize,
    /// Keys (or partitions) whose first record waits for its next attempt now.
    pub retrying: usize,
    /// The last trouble with the cluster, if it has not answered since.
    pub fault: Option<KafkaFault>,
}

impl ConsumerState {
    /// Why the consumer is not working, or `Ok`: for readiness checks.
    pub fn readiness(&self) -> Result<(), String> {
        match (&self.phase, &self.fault) {
            (Phase::Running, None) => Ok(()),
            (Phase::Running, Some(fault)) => Err(format!("{fault}; {}", fault.hint())),
            (Phase::Starting { waiting_for: None }, _) => Err("starting".into()),
            (Phase::Starting { waiting_for: Some(what) }, _) => Err(what.clone()),
            (Phase::Paused { reason, attempts, .. }, _) => {
                Err(format!("paused after {attempts} attempts: {reason}"))
            }
            (Phase::Stopped, _) => Err("stopped".into()),
            (Phase::Failed { reason }, _) => Err(format!("failed: {reason}")),
        }
    }

    /// Records not yet worked on in all assigned partitions; `None` while one of them is unknown.
    pub fn lag(&self) -> Option<i64> {
        self.partitions.iter().map(PartitionState::lag).sum()
    }
}

/// Watches a consumer. Cheap to clone.
///
/// ```
/// use tidings::consumer::{Consumer, ConsumerMonitor, ConsumerOptions, Outcome, Phase};
/// use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord};
///
/// /// For a readiness check.
/// fn readiness(monitor: &ConsumerMonitor) -> Result<(), String> {
///     let state = monitor.state();
///     if let Phase::Failed { reason } = state.phase {
///         return Err(format!("group {} has ended: {reason}", monitor.group()));
///     }
///     println!("{:?} records behind, {} done", state.lag(), state.processed);
///     state.readiness()
/// }
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// # broker.create_topic("orders", 1)?;
/// let producer = Producer::new(&cluster, ProducerOptions::default())?;
/// let options = ConsumerOptions::new("billing", ["orders"]);
/// let consumer = Consumer::for_each(&cluster, producer, options, |_: &ReceivedRecord| Outcome::Done)?;
/// println!("{:?}", readiness(&consumer.monitor()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConsumerMonitor {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    group: Arc<str>,
    state: Mutex<ConsumerState>,
    stop_requested: AtomicBool,
    ended: Mutex<bool>,
    end: Condvar,
}

impl ConsumerMonitor {
    pub(super) fn new(group: &str) -> Self {
        let state = ConsumerState {
            phase: Phase::Starting { waiting_for: None },
            partitions: Vec::new(),
            processed: 0,
            rejected: 0,
            retries: 0,
            lost: 0,
            in_flight: 0,
            buffered: 0,
            retrying: 0,
            fault: None,
        };
        let shared = Shared {
            group: group.into(),
            state: Mutex::new(state),
            stop_requested: AtomicBool::new(false),
            ended: Mutex::new(false),
            end: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The group.
    pub fn group(&self) -> &Arc<str> {
        &self.shared.group
    }

    /// What the consumer is doing now. Asks nobody.
    pub fn state(&self) -> ConsumerState {
        self.shared.state.lock().clone()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut ConsumerState)) {
        change(&mut self.shared.state.lock());
    }

    pub(super) fn request_stop(&self) {
        self.shared.stop_requested.store(true, Ordering::Release);
    }

    pub(super) fn is_stop_requested(&self) -> bool {
        self.shared.stop_requested.load(Ordering::Acquire)
    }

    pub(super) fn announce_end(&self) {
        *self.shared.ended.lock() = true;
        self.shared.end.notify_all();
    }

    pub(super) fn wait_for_end(&self, deadline: Instant) -> bool {
        let mut ended = self.shared.ended.lock();
        self.shared.end.wait_while_until(&mut ended, |ended| !*ended, deadline);
        *ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_says_what_is_wrong() {
        let monitor = ConsumerMonitor::new("g");
        assert_eq!(monitor.state().readiness(), Err("starting".into()));
        monitor.update(|state| state.phase = Phase::Running);
        assert_eq!(monitor.state().readiness(), Ok(()));
        monitor.update(|state| state.fault = Some(KafkaFault::Unreachable { bootstrap: "a:1".into() }));
        assert!(monitor.state().readiness().unwrap_err().contains("a:1"));
    }

    #[test]
    fn lag_is_known_only_if_every_partition_knows() {
        let partition = |next_offset, high_watermark| PartitionState {
            topic: "t".into(),
            partition: 0,
            next_offset,
            high_watermark,
            lag_ms: None,
        };
        let mut state = ConsumerMonitor::new("g").state();
        assert_eq!(state.lag(), Some(0));
        state.partitions = vec![partition(Some(3), Some(5)), partition(Some(9), Some(8))];
        assert_eq!(state.lag(), Some(2));
        state.partitions.push(partition(None, Some(5)));
        assert_eq!(state.lag(), None);
    }
}
