//! Work and offsets that are one: both count, or neither does.
//!
//! Two ways lead there. [`exactly_once`] writes records and the offsets of what they were made of in one transaction of the
//! cluster; `stored` keeps the offsets where the work goes, in a database. To the runtime they are the same: batches one after the
//! other, and after a failure the question what counts already.
//!
//! **Invariant:** nothing is worked on again before it is known that it does not count: an answer that got lost is settled
//! first. **Invariant:** a batch counts only if its partitions were this member's all the time.

mod exactly_once;
mod stored;
mod work;

use rdkafka::consumer::BaseConsumer;

use super::handler::HandlerError;
use super::membership::{Membership, PartitionKey};
use crate::failure::Failure;
use crate::record::{ReceivedRecord, Record};
pub(super) use exactly_once::ExactlyOnce;
pub use exactly_once::{ExactlyOnceHandler, Output};
pub(super) use stored::Stored;
pub use stored::{Claim, OffsetStore, Position, StoredError, StoredHandler};

/// A batch, and where it leads.
pub(super) struct Batch<'a> {
    pub(super) records: &'a [ReceivedRecord],
    /// The next offset of each of its partitions, when it is done.
    pub(super) next_offsets: Vec<(PartitionKey, i64)>,
    /// Whether its partitions are still this member's. Asked right before it is made to count.
    pub(super) is_ours: &'a dyn Fn() -> bool,
    /// Makes the letter of a rejected record.
    pub(super) letter: &'a dyn Fn(&ReceivedRecord, &Failure) -> Record,
    /// Writes letters that cannot be part of the work; an error says why not.
    pub(super) park: &'a dyn Fn(&[Record]) -> Result<(), String>,
}

impl<'a> Batch<'a> {
    /// Where records of these partitions lead, taken in order.
    pub(super) fn next_offsets(records: &[ReceivedRecord]) -> Vec<(PartitionKey, i64)> {
        let mut next: Vec<(PartitionKey, i64)> = Vec::new();
        for record in records {
            let found = next
                .iter_mut()
                .find(|((topic, partition), _)| *topic == record.topic && *partition == record.partition);
            match found {
                Some((_, offset)) => *offset = record.offset + 1,
                None => next.push(((record.topic.clone(), record.partition), record.offset + 1)),
            }
        }
        next
    }
}

/// Where partitions begin in which the group has committed nothing.
pub(super) struct Beginnings<'a> {
    pub(super) offsets: &'a [(PartitionKey, i64)],
    /// Whether all of them are still this member's, as when that was looked at.
    pub(super) is_ours: &'a dyn Fn() -> bool,
}

/// Why a batch does not count, as far as is known.
#[derive(Debug)]
pub(super) enum AtomicError {
    /// It comes again, once it is settled what counts.
    Again(HandlerError),
    /// Somebody else has its partitions, or will have.
    NotOurs(String),
    /// Waiting does not heal it.
    Fatal(String),
}

/// Has batches worked on so that their work and their offsets are one.
pub(super) trait AtomicHandler: Send {
    /// Gets ready before the member joins.
    fn prepare(&mut self) -> Result<(), AtomicError>;

    /// The next offset that counts in each of these partitions, `None` where nothing does. From now on it is this member's
    /// work that counts there, and nobody's before it.
    fn claim(
        &mut self,
        consumer: &BaseConsumer<Membership>,
        keys: &[PartitionKey],
    ) -> Result<Vec<Option<i64>>, HandlerError>;

    /// Commits where partitions begin. Only for those that have the group's offsets in transactions.
    fn begin(
        &mut self,
        consumer: &BaseConsumer<Membership>,
        beginnings: &Beginnings<'_>,
    ) -> Result<(), AtomicError>;

    /// Works on a batch. Answers how many of its records were rejected.
    fn handle(
        &mut self,
        consumer: &BaseConsumer<Membership>,
        batch: &Batch<'_>,
    ) -> Result<usize, AtomicError>;
}
