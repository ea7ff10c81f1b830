//! Offset commits: one in flight at a time, so that a retried older one can never overtake a newer one.

use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};

use super::scheduler::Due;
use crate::native::CommitQueue;

/// How long a refused commit waits for the next attempt.
const RETRY_AFTER: Duration = Duration::from_millis(500);

pub(super) struct Committer {
    queue: CommitQueue,
    in_flight: Option<Vec<Due>>,
    /// Not before this time, unless it is the last one.
    next_at: Instant,
    interval: Duration,
}

/// The answer to a commit: what it held and whether the group has it now.
pub(super) struct Answered {
    pub(super) offsets: Vec<Due>,
    pub(super) result: KafkaResult<()>,
}

impl Committer {
    pub(super) fn new<C: ConsumerContext>(client: &Client<C>, interval: Duration) -> Self {
        Self { queue: CommitQueue::new(client), in_flight: None, next_at: Instant::now(), interval }
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// When the next commit may be sent.
    pub(super) fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Sends a commit; none may be in flight.
    pub(super) fn send<C: ConsumerContext>(
        &mut self,
        client: &Client<C>,
        offsets: Vec<Due>,
    ) -> KafkaResult<()> {
        assert!(self.in_flight.is_none(), "one commit at a time");
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for Due { key: (topic, partition), next_offset, metadata, .. } in &offsets {
            let mut element = list.add_partition(topic, *partition);
            element.set_offset(Offset::Offset(*next_offset))?;
            if !metadata.is_empty() {
                element.set_metadata(metadata);
            }
        }
        self.next_at = Instant::now() + self.interval;
        self.queue.commit(client, &list)?;
        self.in_flight = Some(offsets);
        Ok(())
    }

    /// Waits for the answer to the commit in flight.
    pub(super) fn poll(&mut self, timeout: Duration) -> Option<Answered> {
        self.in_flight.as_ref()?;
        let result = self.queue.poll(timeout)?;
        if let Err(KafkaError::ConsumerCommit(_)) = &result {
            self.next_at = Instant::now() + RETRY_AFTER;
        }
        let offsets = self.in_flight.take().unwrap_or_default();
        Some(Answered { offsets, result })
    }
}
