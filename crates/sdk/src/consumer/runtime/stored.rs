//! Going on where a store says, instead of where the group has committed; and what else is asked on behalf of new partitions
//! before their records are given out (`beginnings`).
//!
//! **Invariant:** a partition is sought only while the client reads it. librdkafka (2.12) that still asks where a partition
//! begins forgets a seek: half a second later it asks anew, and reads from there. So a partition waits until something of it
//! has come, its end at least.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::{BUSY_WAIT, Runtime};
use crate::consumer::handler::HandlerError;
use crate::consumer::membership::PartitionKey;
use crate::consumer::worker::Workshop;

/// How long the client may take to read from elsewhere.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

/// Where partitions go on, as far as that is known, in their order.
pub(super) type NextOffsets = Result<Vec<Option<i64>>, HandlerError>;

/// A claim under way, on a thread of its own: the group must not wait for a database that does not answer.
pub(super) struct Claiming {
    /// The partitions, and the assignments for which they are claimed.
    keys: Vec<(PartitionKey, Option<u64>)>,
    answer: Receiver<NextOffsets>,
}

impl Runtime {
    /// Claims new partitions in the store, if there is one, and reads on from where it is. Never waits. Answers those for which
    /// the group's commit decides: all without a store, else those that it has answered for and knows nothing of.
    pub(super) fn resume_stored(&mut self, mut unresumed: Vec<PartitionKey>) -> Vec<PartitionKey> {
        let is_stored = self.workshop.handler.stored().is_some();
        if !is_stored && !self.begins_in_transactions() {
            return unresumed;
        }
        if self.claiming.is_some() {
            return self.take_claimed();
        }
        {
            let scheduler = &self.board.lock().scheduler;
            unresumed.retain(|key| match is_stored {
                true => scheduler.is_read(key),
                false => scheduler.begins_at(key).is_some(),
            });
        }
        if unresumed.is_empty() || Instant::now() < self.next_claim {
            return Vec::new();
        }
        if !is_stored {
            return unresumed;
        }
        let keys = self.with_epochs(unresumed.clone());
        self.begin_claim(keys, move |workshop| {
            let handler = workshop.handler.atomic().expect("one with a store");
            // A batch may be with the store.
            handler.lock().claim(&workshop.consumer, &unresumed)
        });
        Vec::new()
    }

    /// Partitions with their assignments.
    pub(super) fn with_epochs(&self, keys: Vec<PartitionKey>) -> Vec<(PartitionKey, Option<u64>)> {
        let board = self.board.lock();
        let with_epoch = |key| {
            let epoch = board.scheduler.epoch_of(&key);
            (key, epoch)
        };
        keys.into_iter().map(with_epoch).collect()
    }

    /// Asks on a thread where these partitions go on; their records wait for the answer.
    pub(super) fn begin_claim(
        &mut self,
        keys: Vec<(PartitionKey, Option<u64>)>,
        ask: impl FnOnce(&Workshop) -> NextOffsets + Send + 'static,
    ) {
        let (answer_to, answer) = channel();
        let workshop = Arc::clone(&self.workshop);
        let claim = move || {
            let answered = ask(&workshop);
            // Whoever has the answer may rely on it that this thread holds nothing any more.
            drop(workshop);
            let _ = answer_to.send(answered);
        };
        let name = format!("claims {}", self.options.group);
        match std::thread::Builder::new().name(name).spawn(claim) {
            Ok(_) => self.claiming = Some(Claiming { keys, answer }),
            Err(error) => self.claim_later(&HandlerError::from_error(&error)),
        }
    }

    /// Goes on in the partitions that were answered for, if they were. Those of which a store knows nothing are answered.
    fn take_claimed(&mut self) -> Vec<PartitionKey> {
        let Some(Claiming { keys, answer }) = self.claiming.take() else { return Vec::new() };
        let answered = match answer.try_recv() {
            Ok(answered) => answered,
            Err(TryRecvError::Empty) => {
                self.claiming = Some(Claiming { keys, answer });
                return Vec::new();
            }
            Err(TryRecvError::Disconnected) => Err(HandlerError::transient("the claim panicked")),
        };
        let mut unknown = Vec::new();
        match answered {
            Ok(offsets) => {
                for ((key, epoch), next_offset) in keys.into_iter().zip(offsets) {
                    // One that was taken away meanwhile has to be claimed anew, should it have come back.
                    let is_same = self.board.lock().scheduler.epoch_of(&key) == epoch;
                    match next_offset {
                        _ if !is_same => {}
                        Some(next_offset) => self.go_on_at(&key, next_offset),
                        None => unknown.push(key),
                    }
                }
            }
            Err(error) => self.claim_later(&error),
        }
        unknown
    }

    fn claim_later(&mut self, error: &HandlerError) {
        self.next_claim = Instant::now() + self.options.backoff.initial.max(BUSY_WAIT);
        tracing::warn!(group = %self.options.group, %error, "partitions not claimed yet");
    }

    fn go_on_at(&mut self, key: &PartitionKey, next_offset: i64) {
        let is_stored = self.workshop.handler.stored().is_some();
        if is_stored && !self.board.lock().scheduler.is_held_from(key, next_offset) {
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
