//! One transactional id: its producer and its current or last transaction.
//!
//! Owns Kafka's states and which may follow which. Does not decide: the requests do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Topic to partitions.
pub type TransactionPartitions = BTreeMap<Arc<str>, BTreeSet<i32>>;

/// Where a transaction stands, with Kafka's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum TransactionState {
    /// The producer has its id and no transaction yet.
    Empty = 0,
    /// There are partitions in the transaction.
    Ongoing = 1,
    /// The outcome is decided; commit markers are being written.
    PrepareCommit = 2,
    /// The outcome is decided; abort markers are being written.
    PrepareAbort = 3,
    /// Every partition has its commit marker.
    CompleteCommit = 4,
    /// Every partition has its abort marker.
    CompleteAbort = 5,
}

impl TransactionState {
    const ALL: [TransactionState; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// The state of this number.
    pub fn from_number(number: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as i8 == number)
    }

    /// The state of this name, as admin requests write it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// Whether the outcome is decided and markers are to be written.
    pub fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }

    /// Whether nothing is going on.
    pub fn is_idle(self) -> bool {
        matches!(self, Self::Empty | Self::CompleteCommit | Self::CompleteAbort)
    }

    pub(super) fn may_follow(self, before: Self) -> bool {
        match self {
            Self::Empty => before.is_idle(),
            Self::Ongoing => before == Self::Ongoing || before.is_idle(),
            Self::PrepareCommit => before == Self::Ongoing,
            // A client that writes nothing in its transaction may abort what the server never heard of (KIP-890).
            Self::PrepareAbort => before == Self::Ongoing || before.is_idle(),
            Self::CompleteCommit => before == Self::PrepareCommit,
            Self::CompleteAbort => before == Self::PrepareAbort,
        }
    }
}

impl fmt::Display for TransactionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is known of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The producer.
    pub producer_id: i64,
    /// The producer id before this one; -1 without.
    pub previous_producer_id: i64,
    /// The producer id that follows when the markers are written; -1 without.
    pub next_producer_id: i64,
    /// The producer's epoch; -1 before the first one was given.
    pub producer_epoch: i16,
    /// The epoch before that where a retry with it is to be understood; -1 without. Not in the log, as in Kafka.
    pub last_producer_epoch: i16,
    /// How long the producer lets a transaction take.
    pub timeout_ms: i32,
    /// Where the transaction stands.
    pub state: TransactionState,
    /// The partitions in it.
    pub partitions: TransactionPartitions,
    /// When it began; -1 without.
    pub start_ms: i64,
    /// When anything changed last.
    pub last_update_ms: i64,
    /// 2 where every transaction has its own epoch, less where not (KIP-890).
    pub client_version: i16,
}

impl Transaction {
    /// A transactional id that was never heard of.
    pub(super) fn unknown(producer_id: i64, now_ms: i64) -> Self {
        Self {
            producer_id,
            previous_producer_id: -1,
            next_producer_id: -1,
            producer_epoch: -1,
            last_producer_epoch: -1,
            timeout_ms: 0,
            state: TransactionState::Empty,
            partitions: TransactionPartitions::new(),
            start_ms: -1,
            last_update_ms: now_ms,
            client_version: 0,
        }
    }

    /// Whether the epoch cannot be raised any more for a client.
    pub(super) fn is_exhausted(&self) -> bool {
        self.producer_epoch >= super::LAST_EPOCH
    }

    /// Whether every transaction has an epoch of its own.
    pub fn bumps_epochs(&self) -> bool {
        self.client_version >= super::TRANSACTION_VERSION_2
    }

    /// Whether the partition is in the transaction.
    pub fn has_partition(&self, topic: &str, partition: i32) -> bool {
        self.partitions.get(topic).is_some_and(|partitions| partitions.contains(&partition))
    }
}
