//! What others see of a consumer: state, lag, and whether the cluster is there.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::Runtime;
use crate::consumer::membership::PartitionKey;
use crate::consumer::options::StartAt;
use crate::consumer::poll_limit::PROBE_TIMEOUT;
use crate::consumer::random::jitter;
use crate::consumer::scheduler::Progress;
use crate::consumer::state::{PartitionState, Phase};
use crate::error::KafkaFault;
use crate::native;
use crate::reader::offsets_at;
use crate::record::now_ms;

/// How often the state that others see is brought up to date while records flow.
const REFRESH_INTERVAL: Duration = Duration::from_millis(250);
/// How often the cluster is asked where polling alone does not tell, at least.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How often it is asked whether it is still there: a cluster that hangs raises no error.
const ALIVE_INTERVAL: Duration = Duration::from_secs(5);

impl Runtime {
    /// Brings commits, watermarks and the state that others see up to date, each at its own pace.
    pub(super) fn refresh(&mut self) {
        self.membership().commit_due(self.consumer.client());
        if Instant::now() < self.next_refresh {
            return;
        }
        self.next_refresh = Instant::now() + REFRESH_INTERVAL;
        for (key, _) in self.membership().owned() {
            let watermarks = native::cached_watermarks(&self.consumer, &key.0, key.1);
            self.board.lock().scheduler.learn(&key, None, watermarks.high);
        }
        self.probe();
        self.metrics.commits.inc_by(self.membership().take_commits_count());
        let owned = self.membership().owned();
        self.look_for_ends(&owned);
        let now_ms = now_ms();
        let partition_state = |((topic, partition), progress): (PartitionKey, Progress)| {
            let Progress { next_offset, high_watermark, timestamp_ms, .. } = progress;
            let mut state = PartitionState { topic, partition, next_offset, high_watermark, lag_ms: None };
            state.lag_ms = match state.lag() {
                Some(0) => Some(0),
                _ => timestamp_ms.map(|timestamp_ms| (now_ms - timestamp_ms).max(0)),
            };
            state
        };
        let partitions: Vec<_> = owned.into_iter().map(partition_state).collect();
        for partition in &partitions {
            self.metrics.set_lag(partition);
        }
        let fault = self.membership().fault();
        let (buffered, in_flight, retrying) = {
            let board = self.board.lock();
            let (buffered, in_flight) = board.scheduler.in_hand_counts();
            (buffered, in_flight, board.scheduler.retrying_count())
        };
        self.metrics.buffered.set(buffered as i64);
        self.metrics.in_flight.set(in_flight as i64);
        self.monitor.update(|state| {
            state.partitions = partitions;
            state.fault = fault;
            (state.buffered, state.in_flight, state.retrying) = (buffered, in_flight, retrying);
        });
    }

    /// Asks the cluster for what fetching does not tell: offsets of partitions without records, ends while paused, and
    /// whether a fault is over.
    fn probe(&mut self) {
        let owned = self.membership().owned();
        let is_unknown = owned.iter().any(|(_, p)| p.next_offset.is_none() || p.high_watermark.is_none());
        let is_paused = matches!(self.monitor.state().phase, Phase::Paused { .. })
            || self.board.lock().scheduler.has_paused();
        let is_urgent = is_unknown || is_paused || self.membership().fault().is_some();
        let since_heard = self.heard_at.elapsed();
        if Instant::now() < self.next_probe || !(is_urgent || since_heard > ALIVE_INTERVAL) {
            return;
        }
        // Not in step with what such a question may have to wait for, a fetch that is held for more records.
        self.next_probe = Instant::now() + PROBE_INTERVAL.mul_f64(1.0 - jitter() / 2.0);
        self.heard_at = Instant::now();
        let timeout = self.poll_limit.cap(PROBE_TIMEOUT);
        let result = self.probe_offsets(&owned, timeout);
        let fault = |error| KafkaFault::from_kafka(&error, self.cluster.bootstrap(), timeout);
        self.membership().set_fault(result.err().map(fault));
    }

    fn probe_offsets(&self, owned: &[(PartitionKey, Progress)], timeout: Duration) -> Result<(), KafkaError> {
        let at = |offset: Offset| -> Result<TopicPartitionList, KafkaError> {
            let mut list = TopicPartitionList::with_capacity(owned.len());
            for ((topic, partition), _) in owned {
                list.add_partition_offset(topic, *partition, offset)?;
            }
            Ok(list)
        };
        if owned.is_empty() {
            // Nothing to ask about; any answer proves that the cluster is there.
            return self.consumer.fetch_metadata(Some(&self.sources[0]), timeout).map(drop);
        }
        let ends = offsets_at(&self.consumer, &at(Offset::End)?, timeout)?;
        let starts = offsets_at(&self.consumer, &at(Offset::Beginning)?, timeout)?;
        let committed = self.consumer.committed_offsets(at(Offset::Invalid)?, timeout)?;
        for element in committed.elements() {
            let name = (element.topic().to_string(), element.partition());
            let begins_late = self.options.start_at == StartAt::Latest
                && self.sources.iter().any(|source| **source == *name.0);
            let begin = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ if begins_late => ends.get(&name).copied(),
                _ => starts.get(&name).copied(),
            };
            let end = ends.get(&name).copied();
            self.board.lock().scheduler.learn(&(name.0.into(), name.1), begin, end);
        }
        Ok(())
    }
}
