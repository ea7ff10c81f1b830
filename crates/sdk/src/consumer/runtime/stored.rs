//! Going on where a store says, instead of where the group has committed.
//!
//! **Invariant:** a partition is sought only while the client reads it. librdkafka (2.12) that still asks where a partition
//! begins forgets a seek: half a second later it asks anew, and reads from there. So a partition waits until something of it
//! has come, its end at least.

use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::{BUSY_WAIT, Runtime};
use crate::consumer::membership::PartitionKey;

/// How long the client may take to read from elsewhere.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

impl Runtime {
    /// Claims new partitions in the store, if there is one, and reads on from where it is. Answers those for which the group's
    /// commit decides: all without a store, else those that it knows nothing of.
    pub(super) fn resume_stored(&mut self, mut unresumed: Vec<PartitionKey>) -> Vec<PartitionKey> {
        let Some(handler) = self.workshop.handler.stored() else { return unresumed };
        {
            let board = self.board.lock();
            unresumed.retain(|key| board.scheduler.is_read(key));
        }
        if unresumed.is_empty() || Instant::now() < self.next_claim {
            return Vec::new();
        }
        // A batch is with the store; the members of the group must not wait for it.
        let Some(mut handler) = handler.try_lock() else { return Vec::new() };
        let claimed = handler.claim(&self.consumer, &unresumed);
        drop(handler);
        let mut unknown = Vec::new();
        match claimed {
            Ok(offsets) => {
                for (key, next_offset) in unresumed.into_iter().zip(offsets) {
                    match next_offset {
                        Some(next_offset) => self.go_on_at(&key, next_offset),
                        None => unknown.push(key),
                    }
                }
            }
            Err(error) => {
                self.next_claim = Instant::now() + self.options.backoff.initial.max(BUSY_WAIT);
                tracing::warn!(group = %self.options.group, %error, "partitions not claimed yet");
            }
        }
        unknown
    }

    fn go_on_at(&mut self, key: &PartitionKey, next_offset: i64) {
        if !self.board.lock().scheduler.is_held_from(key, next_offset) {
            if let Err(error) = self.seek(key, next_offset) {
                // The next claim tries again.
                tracing::debug!(%error, topic = &*key.0, partition = key.1, "not read from the stored offset yet");
                return;
            }
            self.board.lock().scheduler.drop_held(key);
        }
        self.board.resume(key, Some(next_offset), b"");
    }

    /// Leads partitions back to where they are. What else comes from before it leads back again.
    pub(super) fn seek_rewound(&mut self) {
        let rewound = self.board.lock().scheduler.take_rewound();
        for (key, position) in rewound {
            let (topic, partition) = (&*key.0, key.1);
            tracing::debug!(topic, partition, position, "the client has forgotten its place");
            if let Err(error) = self.seek(&key, position) {
                tracing::debug!(%error, topic, partition, position, "not read from its place yet");
            }
        }
    }

    fn seek(&self, key: &PartitionKey, offset: i64) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&key.0, key.1, Offset::Offset(offset))?;
        let sought = self.consumer.seek_partitions(list, SEEK_TIMEOUT)?;
        sought.elements().iter().try_for_each(|element| element.error())
    }
}
