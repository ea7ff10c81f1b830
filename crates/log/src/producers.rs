//! What is known of idempotent and transactional producers (KIP-98).
//!
//! Owns the last five batches of each producer id, the open transactions, and the check of sequences
//! against them. Invariants: the state is a function of the log's batches; it changes only in
//! [`Producers::apply`], for appends and replay alike. What is not in the log is [`Awaited`]'s. Does no I/O.

mod awaited;
mod snapshot;
mod transactions;

pub(crate) use awaited::Awaited;
pub(crate) use snapshot::Snapshot;
pub(crate) use transactions::EndedTransaction;
pub use transactions::{ActiveProducer, OpenTransaction};

use std::collections::{BTreeSet, HashMap, VecDeque};

use tidings_model::{NO_PRODUCER_EPOCH, NO_SEQUENCE};

use crate::batch::{BatchHeader, EndTxnMarker, increment_sequence};
use crate::cleaner::{LastBatch, LastBatches};
use crate::partition_log::Origin;

/// How many batches a producer may have in flight, and so how many can come twice.
const REMEMBERED_BATCHES: usize = 5;

/// Why a batch of an idempotent producer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// A batch is missing before this one, or it is too old to be told from a new one.
    #[error("producer {producer_id} epoch {producer_epoch}: expected sequence {expected}, found {found}")]
    OutOfOrder {
        /// The producer.
        producer_id: i64,
        /// The batch's epoch.
        producer_epoch: i16,
        /// The sequence that comes next.
        expected: i32,
        /// The batch's base sequence.
        found: i32,
    },
    /// A newer incarnation of the producer has written.
    #[error("producer {producer_id}: expected epoch {expected} or newer, found {found}")]
    Fenced {
        /// The producer.
        producer_id: i64,
        /// The newest epoch.
        expected: i16,
        /// The batch's epoch.
        found: i16,
    },
    /// A newer transaction coordinator has written markers for the producer.
    #[error("producer {producer_id}: expected coordinator epoch {expected} or newer, found {found}")]
    CoordinatorFenced {
        /// The producer.
        producer_id: i64,
        /// The newest coordinator epoch.
        expected: i32,
        /// The marker's coordinator epoch.
        found: i32,
    },
    /// The producer has an open transaction here, and this batch does not belong to it.
    #[error("producer {producer_id} epoch {producer_epoch}: expected a transactional batch")]
    NotTransactional {
        /// The producer.
        producer_id: i64,
        /// The batch's epoch.
        producer_epoch: i16,
    },
    /// A transactional batch would open a transaction here that the coordinator was not asked about.
    #[error(
        "producer {producer_id} epoch {producer_epoch}: the partition is not part of an open transaction"
    )]
    NotVerified {
        /// The producer.
        producer_id: i64,
        /// The batch's epoch.
        producer_epoch: i16,
    },
}

/// A batch that was appended before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Duplicate {
    pub base_offset: i64,
    pub last_offset: i64,
    pub timestamp: i64,
}

/// What is kept of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BatchMark {
    last_sequence: i32,
    last_offset: i64,
    offset_delta: i32,
    timestamp: i64,
}

impl BatchMark {
    fn base_sequence(&self) -> i32 {
        // Sequences wrap around to 0 behind i32::MAX, and so they do on the way back.
        ((i64::from(self.last_sequence) - i64::from(self.offset_delta)) & i64::from(i32::MAX)) as i32
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    /// Oldest first; empty after an epoch began with a transaction marker.
    batches: VecDeque<BatchMark>,
    last_timestamp: i64,
    coordinator_epoch: i32,
    txn_first_offset: Option<i64>,
}

impl Producer {
    fn new(epoch: i16) -> Self {
        Self {
            epoch,
            batches: VecDeque::new(),
            last_timestamp: -1,
            coordinator_epoch: -1,
            txn_first_offset: None,
        }
    }

    fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }
}

/// All producers of one partition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    by_id: HashMap<i64, Producer>,
    open_txns: BTreeSet<i64>,
}

impl Producers {
    /// Checks the batches of one append, before offsets are assigned. Answers the earlier append when
    /// all of them are there already; a mixture of old and new is out of order. Client batches of a transaction need
    /// [`Origin::Transaction`] where they open it in this partition.
    pub fn check(
        &self,
        headers: &[BatchHeader],
        origin: Origin,
        awaited: &Awaited,
    ) -> Result<Option<Duplicate>, SequenceError> {
        // What the earlier batches of this very append would leave behind.
        let mut ahead: Vec<(i64, i16, i32)> = Vec::new();
        let mut found: Option<Duplicate> = None;
        for (index, header) in headers.iter().enumerate().filter(|(_, header)| header.has_producer_id()) {
            if let Some(mark) = self.duplicate_of(header) {
                let base_offset = mark.last_offset - i64::from(mark.offset_delta);
                if index == 0 || found.is_some() {
                    let base_offset = found.map_or(base_offset, |first| first.base_offset);
                    let (last_offset, timestamp) = (mark.last_offset, mark.timestamp);
                    found = Some(Duplicate { base_offset, last_offset, timestamp });
                    continue;
                }
            }
            if found.is_some() {
                return Err(out_of_order(header, header.base_sequence));
            }
            let id = header.producer_id;
            let known = ahead.iter().rev().find(|(producer_id, ..)| *producer_id == id);
            let known = known
                .map(|&(_, epoch, sequence)| (epoch, sequence))
                .or_else(|| self.by_id.get(&id).map(|producer| (producer.epoch, producer.last_sequence())));
            match known {
                Some(known) => check_sequence(header, known)?,
                None => awaited.check(header)?,
            }
            if origin != Origin::Coordinator {
                self.check_transaction(header, origin == Origin::Transaction)?;
            }
            ahead.push((id, header.producer_epoch, header.last_sequence()));
        }
        Ok(found)
    }

    fn duplicate_of(&self, header: &BatchHeader) -> Option<BatchMark> {
        let producer = self.by_id.get(&header.producer_id)?;
        if producer.epoch != header.producer_epoch || header.base_sequence < 0 {
            return None;
        }
        // A producer ends a transaction after it knows what became of each batch, and never sends one of them again. A
        // sequence of an ended transaction that comes again was given to another record: librdkafka does so with those
        // of records it has given up in an abort, which may be here all the same. Refused, it is sent anew.
        let first_offset = match header.is_transactional() {
            true => producer.txn_first_offset.unwrap_or(i64::MAX),
            false => 0,
        };
        let same = |mark: &&BatchMark| {
            mark.base_sequence() == header.base_sequence
                && mark.last_sequence == header.last_sequence()
                && mark.last_offset >= first_offset
        };
        producer.batches.iter().find(same).copied()
    }

    /// Takes a batch of the log into the state; its offsets are assigned. A control batch comes with its marker, if it
    /// is one. Tells which transaction has ended.
    pub fn apply(&mut self, header: &BatchHeader, marker: Option<&EndTxnMarker>) -> Option<EndedTransaction> {
        if !header.has_producer_id() {
            return None;
        }
        let producer =
            self.by_id.entry(header.producer_id).or_insert_with(|| Producer::new(header.producer_epoch));
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        producer.last_timestamp = header.max_timestamp;
        if header.is_control() {
            return self.end_transaction(header, marker?);
        }
        // A coordinator's batch on behalf of the producer has no sequence.
        if header.base_sequence >= 0 {
            if producer.batches.len() == REMEMBERED_BATCHES {
                producer.batches.pop_front();
            }
            producer.batches.push_back(BatchMark {
                last_sequence: header.last_sequence(),
                last_offset: header.last_offset(),
                offset_delta: header.last_offset_delta,
                timestamp: header.max_timestamp,
            });
        }
        if header.is_transactional() && producer.txn_first_offset.is_none() {
            producer.txn_first_offset = Some(header.base_offset);
            self.open_txns.insert(header.base_offset);
        }
        None
    }

    /// The first offset of the oldest open transaction.
    pub fn first_unstable_offset(&self) -> Option<i64> {
        self.open_txns.first().copied()
    }

    /// The last thing that each producer has written.
    pub fn last_batches(&self) -> LastBatches {
        let last = |(id, producer): (&i64, &Producer)| {
            let last_offset = producer.batches.back().map(|batch| batch.last_offset);
            (*id, LastBatch { producer_epoch: producer.epoch, last_offset })
        };
        self.by_id.iter().map(last).collect()
    }

    /// Forgets producers whose last batch is older than `before_ms`, unless a transaction is open.
    pub fn expire(&mut self, before_ms: i64) {
        self.by_id.retain(|_, producer| {
            producer.txn_first_offset.is_some() || producer.last_timestamp >= before_ms
        });
    }
}

fn out_of_order(header: &BatchHeader, expected: i32) -> SequenceError {
    SequenceError::OutOfOrder {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        expected,
        found: header.base_sequence,
    }
}

/// KIP-98: a new epoch starts at 0, and within an epoch sequences have no holes.
fn check_sequence(header: &BatchHeader, (epoch, last_sequence): (i16, i32)) -> Result<(), SequenceError> {
    if header.producer_epoch < epoch {
        let BatchHeader { producer_id, producer_epoch: found, .. } = *header;
        return Err(SequenceError::Fenced { producer_id, expected: epoch, found });
    }
    if header.base_sequence < 0 || epoch == NO_PRODUCER_EPOCH {
        return Ok(());
    }
    let expected = match header.producer_epoch == epoch && last_sequence != NO_SEQUENCE {
        true => increment_sequence(last_sequence, 1),
        false => 0,
    };
    if header.base_sequence == expected { Ok(()) } else { Err(out_of_order(header, expected)) }
}

#[cfg(test)]
mod tests;
