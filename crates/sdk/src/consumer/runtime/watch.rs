//! What others see of a consumer: state, lag, and whether the cluster is there.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::Runtime;
use crate::consumer::membership::{PartitionKey, Progress};
use crate::consumer::options::StartAt;
use crate::consumer::state::{PartitionState, Phase};
use crate::error::KafkaFault;
use crate::native;
use crate::reader::offsets_at;

/// How often the state that others see is brought up to date while records flow.
const REFRESH_INTERVAL: Duration = Duration::from_millis(250);
/// How often the cluster is asked where polling alone does not tell.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// How often it is asked whether it is still there: a cluster that hangs raises no error.
const ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long such a question may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

impl Runtime {
    /// Brings commits, watermarks and the state that others see up to date, each at its own pace.
    pub(super) fn refresh(&mut self) {
        self.membership().commit_due(self.consumer.client());
        if Instant::now() < self.next_refresh {
            return;
        }
        self.next_refresh = Instant::now() + REFRESH_INTERVAL;
        for ((topic, partition), _) in self.membership().owned() {
            let high_watermark = native::cached_high_watermark(&self.consumer, &topic, partition);
            self.membership().learn(&(topic, partition), None, high_watermark);
        }
        self.probe();
        self.metrics.commits.inc_by(self.membership().take_commits_count());
        let partition_state = |((topic, partition), progress): (PartitionKey, Progress)| {
            let (next_offset, high_watermark) = (progress.next_offset, progress.high_watermark);
            PartitionState { topic, partition, next_offset, high_watermark }
        };
        let partitions: Vec<_> = self.membership().owned().into_iter().map(partition_state).collect();
        for partition in &partitions {
            self.metrics.set_lag(partition);
        }
        let fault = self.membership().fault();
        self.monitor.update(|state| {
            state.partitions = partitions;
            state.fault = fault;
        });
    }

    /// Asks the cluster for what fetching does not tell: offsets of partitions without records, ends while paused, and
    /// whether a fault is over.
    fn probe(&mut self) {
        let owned = self.membership().owned();
        let is_unknown = owned.iter().any(|(_, p)| p.next_offset.is_none() || p.high_watermark.is_none());
        let is_paused = matches!(self.monitor.state().phase, Phase::Paused { .. });
        let is_urgent = is_unknown || is_paused || self.membership().fault().is_some();
        let since_heard = self.heard_at.elapsed();
        if Instant::now() < self.next_probe || !(is_urgent || since_heard > ALIVE_INTERVAL) {
            return;
        }
        self.next_probe = Instant::now() + PROBE_INTERVAL;
        self.heard_at = Instant::now();
        let result = self.probe_offsets(&owned);
        let fault = |error| KafkaFault::from_kafka(&error, self.cluster.bootstrap(), PROBE_TIMEOUT);
        self.membership().set_fault(result.err().map(fault));
    }

    fn probe_offsets(&self, owned: &[(PartitionKey, Progress)]) -> Result<(), KafkaError> {
        let at = |offset: Offset| -> Result<TopicPartitionList, KafkaError> {
            let mut list = TopicPartitionList::with_capacity(owned.len());
            for ((topic, partition), _) in owned {
                list.add_partition_offset(topic, *partition, offset)?;
            }
            Ok(list)
        };
        if owned.is_empty() {
            // Nothing to ask about; any answer proves that the cluster is there.
            return self.consumer.fetch_metadata(Some(&self.options.topics[0]), PROBE_TIMEOUT).map(drop);
        }
        let ends = offsets_at(&self.consumer, &at(Offset::End)?, PROBE_TIMEOUT)?;
        let starts = match self.options.start_at {
            StartAt::Earliest => offsets_at(&self.consumer, &at(Offset::Beginning)?, PROBE_TIMEOUT)?,
            StartAt::Latest => ends.clone(),
        };
        let committed = self.consumer.committed_offsets(at(Offset::Invalid)?, PROBE_TIMEOUT)?;
        for element in committed.elements() {
            let name = (element.topic().to_string(), element.partition());
            let begin = match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => starts.get(&name).copied(),
            };
            self.membership().learn(&(name.0.as_str().into(), name.1), begin, ends.get(&name).copied());
        }
        Ok(())
    }
}
