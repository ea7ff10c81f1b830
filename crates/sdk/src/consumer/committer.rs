//! Offset commits: one in flight at a time, so that a retried older one can never overtake a newer one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};

use crate::native::CommitQueue;

/// How long a refused commit waits for the next attempt.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// A partition and the next offset the group should read there.
pub(super) type NextOffset = ((Arc<str>, i32), i64);

pub(super) struct Committer {
    queue: CommitQueue,
    in_flight: Option<Vec<NextOffset>>,
    /// Not before this time, unless it is the last one.
    next_at: Instant,
    interval: Duration,
}

/// The answer to a commit: what it held and whether the group has it now.
pub(super) struct Answered {
    pub(super) offsets: Vec<NextOffset>,
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
        offsets: Vec<NextOffset>,
    ) -> KafkaResult<()> {
        assert!(self.in_flight.is_none(), "one commit at a time");
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for ((topic, partition), next_offset) in &offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*next_offset))?;
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
