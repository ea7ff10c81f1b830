//! Polling: the consumer's events first, then records by the hundred.
//!
//! **Invariant:** what is polled is handed over before the next event is served: a rebalance finds all records of a
//! partition with the scheduler, or still with the client, which drops them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::message::Message;

use super::{Fatal, Runtime};
use crate::consumer::failures::Parking;
use crate::error::KafkaFault;
use crate::native;
use crate::record::ReceivedRecord;

/// Records that are taken at once, at most: bounds the time until the next look at events.
const MAX_POLLED_RECORDS: usize = 1_000;
/// What a record is taken to have, before the first one came.
pub(super) const FIRST_RECORD_BYTES: usize = 16 * 1024;

/// A topic, and the one in which its keys have their order.
pub(super) struct TopicName {
    topic: Arc<str>,
    source: Arc<str>,
}

impl Runtime {
    /// Polls once, and hands over what came. Rebalances happen inside. Answers how many records came.
    pub(super) fn poll(&mut self, wait: Duration) -> Result<usize, Fatal> {
        let by_event = self.serve_events()?;
        self.note_resets();
        let wait = if by_event > 0 { Duration::ZERO } else { wait };
        let max = self.board.lock().scheduler.room(self.record_bytes).clamp(1, MAX_POLLED_RECORDS);
        let (names, parking) = (&mut self.topic_names, &self.workshop.parking);
        let mut runs: Vec<Vec<ReceivedRecord>> = Vec::new();
        let (mut ends, mut errors) = (Vec::new(), Vec::new());
        let mut topic_handle = None;
        let count = self.records.poll(wait, max, |message| {
            if message.is_end() {
                let key = (interned(names, &message.topic(), parking), message.partition());
                return ends.push((key, message.offset()));
            }
            if let Some(error) = message.error() {
                return errors.push(error);
            }
            let is_same_topic = topic_handle.replace(message.topic_handle()) == Some(message.topic_handle());
            let last = runs.last_mut().filter(|_| is_same_topic);
            let topic = match &last {
                Some(run) => Arc::clone(&run[0].topic),
                None => interned(names, &message.topic(), parking),
            };
            let record = message.to_received(topic);
            match last.filter(|run| run[0].partition == record.partition) {
                Some(run) => run.push(record),
                None => runs.push(vec![record]),
            }
        });
        self.polled_at = Instant::now();
        if !runs.is_empty() {
            self.heard_at = self.polled_at;
            // Slowly less: one large record announces others.
            let largest = runs.iter().flatten().map(ReceivedRecord::size_bytes).max().unwrap_or(0);
            self.record_bytes = largest.max(self.record_bytes - self.record_bytes / 8);
        }
        runs.into_iter().for_each(|run| self.push(run));
        for (key, end_offset) in ends {
            self.lost.note_end(&key, end_offset);
            self.board.lock().scheduler.mark_read(&key, Some(end_offset));
        }
        self.seek_rewound();
        self.tell_lost();
        errors.into_iter().try_for_each(|error| self.take_error(error))?;
        Ok(by_event + count)
    }

    /// Serves what is not a record. Answers how many records came that way: partitions whose queue was not ours when they were
    /// first fetched.
    fn serve_events(&mut self) -> Result<usize, Fatal> {
        loop {
            let polled = self.consumer.poll(Duration::ZERO).map(|polled| {
                polled.map(|message| {
                    let topic = interned(&mut self.topic_names, message.topic(), &self.workshop.parking);
                    native::to_received(&message, topic)
                })
            });
            for (topic, partition) in self.membership().take_revoked() {
                self.metrics.forget_lag(&topic, partition);
                self.lost.forget(&(topic, partition));
            }
            match polled {
                Some(Ok(record)) => {
                    self.heard_at = Instant::now();
                    self.push(vec![record]);
                    return Ok(1);
                }
                // It does not say of which topic. Too early for another one costs a look at what comes.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    let mut board = self.board.lock();
                    for key in board.scheduler.unresumed().iter().filter(|key| key.1 == partition) {
                        board.scheduler.mark_read(key, None);
                    }
                }
                Some(Err(error)) => self.take_error(error)?,
                None => {}
            }
            if !self.records.has_events() {
                return Ok(0);
            }
        }
    }

    fn take_error(&mut self, error: KafkaError) -> Result<(), Fatal> {
        let bootstrap = self.cluster.bootstrap();
        if let KafkaError::MessageConsumptionFatal(code) = error {
            let fault = KafkaFault::from_code(code, bootstrap, Duration::ZERO);
            return Err(Fatal { reason: format!("{fault}; {}", fault.hint()), is_member: false });
        }
        let fault = self.membership().explain(KafkaFault::from_kafka(&error, bootstrap, Duration::ZERO));
        match fault {
            KafkaFault::PolledTooLate => {
                tracing::warn!(group = %self.options.group, %fault, hint = fault.hint(), "records come again");
            }
            _ => tracing::debug!(group = %self.options.group, %fault, "consumer fault"),
        }
        self.membership().set_fault(Some(fault));
        Ok(())
    }

    fn push(&mut self, run: Vec<ReceivedRecord>) {
        self.lost.note_run(&run);
        let topic = &run[0].topic;
        let source = self.topic_names.iter().find(|name| Arc::ptr_eq(&name.topic, topic));
        let source = Arc::clone(source.map_or(topic, |name| &name.source));
        let (is_over, missing_workers) = self.board.push(source, run);
        if is_over {
            self.adjust();
        }
        self.hire(missing_workers);
    }
}

/// One `Arc` for each topic instead of one for each record.
fn interned(names: &mut Vec<TopicName>, topic: &str, parking: &Parking) -> Arc<str> {
    if let Some(name) = names.iter().find(|name| *name.topic == *topic) {
        return Arc::clone(&name.topic);
    }
    let topic: Arc<str> = topic.into();
    names.push(TopicName { topic: Arc::clone(&topic), source: parking.source_of(&topic) });
    topic
}
