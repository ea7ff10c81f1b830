//! Offsets in the database that the work goes to, in its transactions: effectively once, without transactions of the cluster.
//!
//! A member that gets a partition claims it: the store raises the partition's epoch and says where to go on. Every
//! transaction of a batch moves the offset under the epoch of its claim, so a member that was thought dead and wakes up writes
//! nothing any more. The group's own offsets are committed as well, for those who look at lag, and mean nothing here.

use std::collections::HashMap;

use rdkafka::consumer::BaseConsumer;
use thiserror::Error;

use super::{AtomicError, AtomicHandler, Batch, Beginnings};
use crate::consumer::handler::{HandlerError, Outcome};
use crate::consumer::membership::{Membership, PartitionKey};
use crate::record::ReceivedRecord;

/// What a claim of a partition gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Higher than that of any claim before.
    pub epoch: i64,
    /// Everything before it is in the store; `None` if nothing of the partition is.
    pub next_offset: Option<i64>,
}

/// How far a partition is with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position<'a> {
    /// The group.
    pub group: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The epoch of the claim under which it was worked on.
    pub epoch: i64,
    /// Everything before it is in the store with this transaction.
    pub next_offset: i64,
}

/// Why a transaction of a store did not come about.
#[derive(Debug, Error)]
pub enum StoredError<E> {
    /// The handler's own failure: nothing is in the store.
    #[error(transparent)]
    Handler(HandlerError),
    /// Somebody claimed the partition since: nothing is in the store.
    #[error("{topic}-{partition}: claimed by another member since epoch {epoch}")]
    Fenced {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The epoch that counts no more.
        epoch: i64,
    },
    /// The store failed. If that was at the commit, everything may be there or nothing: the runtime asks by a claim.
    #[error(transparent)]
    Store(#[from] E),
}

impl<E> StoredError<E> {
    /// That a position's claim counts no more.
    pub fn fenced(position: &Position<'_>) -> Self {
        let Position { topic, partition, epoch, .. } = *position;
        Self::Fenced { topic: topic.to_owned(), partition, epoch }
    }
}

/// A database that keeps offsets in the transactions of the work. Implementations for `rusqlite` and `postgres` are in
/// [`crate::stores`]; for another client these two calls are all there is to write.
///
/// ```
/// use tidings::consumer::{Claim, HandlerError, OffsetStore, Position, StoredError};
///
/// /// One partition's offset and results in memory.
/// #[derive(Default)]
/// struct Memory {
///     claim: Option<Claim>,
///     results: Vec<String>,
/// }
///
/// impl OffsetStore for Memory {
///     type Transaction<'a> = Vec<String>;
///     type Error = std::io::Error;
///
///     fn claim(&mut self, _group: &str, _topic: &str, _partition: i32) -> Result<Claim, Self::Error> {
///         let before = self.claim.unwrap_or(Claim { epoch: 0, next_offset: None });
///         Ok(*self.claim.insert(Claim { epoch: before.epoch + 1, ..before }))
///     }
///
///     fn transaction(
///         &mut self,
///         positions: &[Position<'_>],
///         work: &mut dyn FnMut(&mut Vec<String>) -> Result<(), HandlerError>,
///     ) -> Result<(), StoredError<Self::Error>> {
///         let mut results = self.results.clone();
///         work(&mut results).map_err(StoredError::Handler)?;
///         for position in positions {
///             match &mut self.claim {
///                 Some(claim) if claim.epoch == position.epoch => claim.next_offset = Some(position.next_offset),
///                 _ => return Err(StoredError::fenced(position)),
///             }
///         }
///         self.results = results;
///         Ok(())
///     }
/// }
///
/// let mut store = Memory::default();
/// assert_eq!(store.claim("billing", "orders", 0)?.next_offset, None);
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait OffsetStore: Send + 'static {
    /// What the handler writes with.
    type Transaction<'a>;
    /// Why the database fails.
    type Error: std::error::Error + 'static;

    /// Raises the epoch of a partition and answers where it is, in one transaction that is durable on return.
    fn claim(&mut self, group: &str, topic: &str, partition: i32) -> Result<Claim, Self::Error>;

    /// Calls `work` in a transaction, moves each position in the same transaction if its epoch is still the highest, and
    /// commits. With an error other than [`StoredError::Store`] nothing is changed.
    fn transaction(
        &mut self,
        positions: &[Position<'_>],
        work: &mut dyn FnMut(&mut Self::Transaction<'_>) -> Result<(), HandlerError>,
    ) -> Result<(), StoredError<Self::Error>>;
}

/// Works on batches within a store's transactions.
///
/// ```
/// # #[cfg(feature = "sqlite")] mod example {
/// use tidings::ReceivedRecord;
/// use tidings::consumer::{HandlerError, Outcome, StoredHandler};
/// use tidings::failure::Failure;
/// use tidings::stores::SqliteStore;
///
/// struct Orders;
///
/// impl StoredHandler<SqliteStore> for Orders {
///     fn handle(
///         &mut self,
///         batch: &[ReceivedRecord],
///         transaction: &mut rusqlite::Transaction<'_>,
///     ) -> Result<Vec<Outcome>, HandlerError> {
///         let mut outcomes = Vec::with_capacity(batch.len());
///         for order in batch {
///             let Some(value) = &order.value else {
///                 outcomes.push(Outcome::Reject(Failure::new("an order without a value")));
///                 continue;
///             };
///             let inserted = transaction.execute("INSERT INTO orders VALUES (?1)", [value]);
///             inserted.map_err(|error| HandlerError::from_error(&error))?;
///             outcomes.push(Outcome::Done);
///         }
///         Ok(outcomes)
///     }
/// }
/// # }
/// ```
pub trait StoredHandler<S: OffsetStore>: Send {
    /// Writes what a batch comes to. Answers one [`Outcome`] for each record, or none at all if all are done; rejected
    /// records become letters before the transaction commits. An error, or [`Outcome::Retry`] for any record, rolls the batch
    /// back, and it comes again.
    fn handle(
        &mut self,
        batch: &[ReceivedRecord],
        transaction: &mut S::Transaction<'_>,
    ) -> Result<Vec<Outcome>, HandlerError>;
}

impl<S: OffsetStore, F> StoredHandler<S> for F
where
    F: FnMut(&[ReceivedRecord], &mut S::Transaction<'_>) -> Result<Vec<Outcome>, HandlerError> + Send,
{
    fn handle(
        &mut self,
        batch: &[ReceivedRecord],
        transaction: &mut S::Transaction<'_>,
    ) -> Result<Vec<Outcome>, HandlerError> {
        self(batch, transaction)
    }
}

pub(in crate::consumer) struct Stored<S: OffsetStore, H> {
    group: String,
    store: S,
    handler: H,
    epochs: HashMap<PartitionKey, i64>,
}

impl<S: OffsetStore, H: StoredHandler<S>> Stored<S, H> {
    pub(in crate::consumer) fn new(group: &str, store: S, handler: H) -> Self {
        Self { group: group.to_string(), store, handler, epochs: HashMap::new() }
    }

    fn claim_one(&mut self, (topic, partition): &PartitionKey) -> Result<Claim, HandlerError> {
        self.store.claim(&self.group, topic, *partition).map_err(|error| {
            HandlerError::from_error(&error)
                .caused_by(format!("cannot claim {topic}-{partition} in the store"))
        })
    }
}

impl<S: OffsetStore, H: StoredHandler<S>> AtomicHandler for Stored<S, H> {
    fn prepare(&mut self) -> Result<(), AtomicError> {
        Ok(())
    }

    fn claim(
        &mut self,
        _: &BaseConsumer<Membership>,
        keys: &[PartitionKey],
    ) -> Result<Vec<Option<i64>>, HandlerError> {
        let mut offsets = Vec::with_capacity(keys.len());
        for key in keys {
            let claim = self.claim_one(key)?;
            self.epochs.insert(key.clone(), claim.epoch);
            offsets.push(claim.next_offset);
        }
        Ok(offsets)
    }

    fn begin(&mut self, _: &BaseConsumer<Membership>, _: &Beginnings<'_>) -> Result<(), AtomicError> {
        unreachable!("its group commits them by itself")
    }

    fn handle(&mut self, _: &BaseConsumer<Membership>, batch: &Batch<'_>) -> Result<usize, AtomicError> {
        let mut positions = Vec::with_capacity(batch.next_offsets.len());
        for (key, next_offset) in &batch.next_offsets {
            let (topic, partition) = (&*key.0, key.1);
            let epoch = *self.epochs.get(key).ok_or_else(|| AtomicError::NotOurs("not claimed".into()))?;
            positions.push(Position {
                group: &self.group,
                topic,
                partition,
                epoch,
                next_offset: *next_offset,
            });
        }
        let (handler, mut rejected_count, mut refused) = (&mut self.handler, 0, None);
        let result = self.store.transaction(&positions, &mut |transaction| {
            match settle_outcomes(batch, handler.handle(batch.records, transaction)?) {
                Ok(_) if !(batch.is_ours)() => {
                    refused = Some(AtomicError::NotOurs("the partitions were taken away".into()));
                }
                Ok(count) => rejected_count = count,
                Err(error) => refused = Some(error),
            }
            // Whatever it says, an error rolls back.
            refused.as_ref().map_or(Ok(()), |_| Err(HandlerError::transient("rolled back")))
        });
        match result {
            Ok(()) => Ok(rejected_count),
            Err(StoredError::Handler(error)) => Err(refused.unwrap_or(AtomicError::Again(error))),
            Err(error @ StoredError::Fenced { .. }) => Err(AtomicError::NotOurs(error.to_string())),
            Err(StoredError::Store(error)) => Err(AtomicError::Again(HandlerError::from_error(&error))),
        }
    }
}

/// Parks what was rejected. Answers how many that are, or why the batch has to come again.
fn settle_outcomes(batch: &Batch<'_>, outcomes: Vec<Outcome>) -> Result<usize, AtomicError> {
    if !outcomes.is_empty() && outcomes.len() != batch.records.len() {
        let (found, expected) = (outcomes.len(), batch.records.len());
        let reason = format!("the handler answered {found} outcomes for {expected} records");
        return Err(AtomicError::Again(HandlerError::transient(reason)));
    }
    let mut letters = Vec::new();
    for (record, outcome) in batch.records.iter().zip(outcomes) {
        match outcome {
            Outcome::Done => {}
            Outcome::Retry { failure, .. } => {
                return Err(AtomicError::Again(HandlerError::from_failure(failure)));
            }
            Outcome::Reject(failure) => letters.push((batch.letter)(record, &failure)),
            Outcome::Fail(failure) => {
                return Err(AtomicError::Fatal(format!("{}: {}", record.position(), failure.chain())));
            }
        }
    }
    (batch.park)(&letters).map_err(|reason| AtomicError::Again(HandlerError::transient(reason)))?;
    Ok(letters.len())
}
