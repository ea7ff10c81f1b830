//! What an application writes: a handler for records or for batches, and what it answers.

use std::time::Duration;

use parking_lot::Mutex;
use thiserror::Error;

use super::atomic::AtomicHandler;
use crate::failure::Failure;
use crate::record::ReceivedRecord;

/// Works on one record. Called by many threads at once, in the order that [`super::Ordering`] promises.
///
/// Closures are handlers. For `async` code see [`super::async_handler`].
///
/// ```
/// use std::time::Duration;
/// use tidings::ReceivedRecord;
/// use tidings::consumer::{Outcome, RecordHandler};
/// use tidings::failure::Failure;
///
/// fn is_handler(_: &impl RecordHandler) {}
///
/// let charge = |record: &ReceivedRecord| match record.value.as_deref() {
///     None => Outcome::Reject(Failure::new("no value")),
///     Some(b"busy") => Outcome::retry_after(Duration::from_secs(5), Failure::new("the bank asks for patience")),
///     Some(_) => Outcome::Done,
/// };
/// is_handler(&charge);
/// ```
pub trait RecordHandler: Send + Sync {
    /// Works on a record, durably: its offset is committed after it returns.
    fn handle(&self, record: &ReceivedRecord) -> Outcome;
}

impl<F: Fn(&ReceivedRecord) -> Outcome + Send + Sync> RecordHandler for F {
    fn handle(&self, record: &ReceivedRecord) -> Outcome {
        self(record)
    }
}

/// Works on batches of records, one batch at a time.
///
/// A batch holds records of any of the subscribed topics and partitions, in the order of each partition.
///
/// ```
/// use std::fs::File;
/// use std::io::Write;
/// use tidings::ReceivedRecord;
/// use tidings::consumer::{BatchHandler, HandlerError, Outcome};
///
/// struct Archive(File);
///
/// impl BatchHandler for Archive {
///     fn handle(&mut self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
///         let values = batch.iter().filter_map(|record| record.value.as_deref());
///         let mut written = values.map(|value| self.0.write_all(value));
///         written
///             .try_for_each(|result| result)
///             .and_then(|()| self.0.sync_data())
///             .map_err(|error| HandlerError::from_error(&error).caused_by("the disk may be full"))?;
///         Ok(Vec::new()) // all done
///     }
/// }
/// ```
pub trait BatchHandler: Send {
    /// Works on a batch, durably: offsets are committed after it returns.
    ///
    /// Answers one [`Outcome`] for each record, or none at all if all are done. An error keeps the whole batch: the
    /// same records come again after a backoff, so a handler must cope with records it has partly worked on.
    fn handle(&mut self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError>;
}

/// Works on batches of records, several at the same time.
///
/// Batches that are worked on at the same time have no key (or no partition) in common, as [`super::Ordering`] says.
///
/// ```
/// use tidings::ReceivedRecord;
/// use tidings::consumer::{HandlerError, Outcome, SharedBatchHandler};
///
/// struct Index;
///
/// impl SharedBatchHandler for Index {
///     fn handle(&self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
///         if batch.iter().any(|record| record.value.is_none()) {
///             return Err(HandlerError::transient("the index is closed").caused_by("maintenance"));
///         }
///         Ok(Vec::new()) // all done
///     }
/// }
/// ```
pub trait SharedBatchHandler: Send + Sync {
    /// As [`BatchHandler::handle`]. An error keeps the records of this batch; others go on.
    fn handle(&self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError>;
}

/// What became of one record.
///
/// ```
/// use std::time::Duration;
/// use tidings::consumer::Outcome;
/// use tidings::failure::Failure;
///
/// /// What an answer of the bank means for the order that was charged.
/// fn outcome(status: u16) -> Outcome {
///     match status {
///         200..300 => Outcome::Done,
///         429 => Outcome::retry_after(Duration::from_secs(30), Failure::new("the bank asks for patience")),
///         500.. => Outcome::retry(Failure::new("the bank is down")),
///         _ => Outcome::Reject(Failure::new(format!("the bank answers {status}"))),
///     }
/// }
/// # assert_eq!(outcome(204), Outcome::Done);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is worked on, or needs no work.
    Done,
    /// Not now: it comes again, and later records of its key (or partition) behind it. Others go on.
    Retry {
        /// Why.
        failure: Failure,
        /// How long to wait; `None` for the consumer's backoff.
        after: Option<Duration>,
    },
    /// It can never be worked on as it is: into the failure inbox with it.
    Reject(Failure),
    /// Nothing may go on before somebody has looked: the consumer stops, with this record and what is behind it not done.
    Fail(Failure),
}

impl Outcome {
    /// Again, after the consumer's backoff.
    pub fn retry(failure: Failure) -> Self {
        Self::Retry { failure, after: None }
    }

    /// Again, after this time.
    pub fn retry_after(after: Duration, failure: Failure) -> Self {
        Self::Retry { failure, after: Some(after) }
    }
}

impl From<HandlerError> for Outcome {
    fn from(error: HandlerError) -> Self {
        Self::retry(error.failure)
    }
}

/// A failure that waiting may heal, such as a store that is down. For a bad record use [`Outcome::Reject`].
///
/// ```
/// use tidings::consumer::HandlerError;
///
/// let error = HandlerError::transient("store unavailable").caused_by("connection refused");
/// assert_eq!(error.to_string(), "store unavailable: connection refused");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", self.failure.chain())]
pub struct HandlerError {
    failure: Failure,
}

impl HandlerError {
    /// A transient failure.
    pub fn transient(reason: impl Into<String>) -> Self {
        Self { failure: Failure::new(reason) }
    }

    /// A transient failure from an error and the chain of its sources.
    pub fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        Self { failure: Failure::from_error(error) }
    }

    /// Appends a cause.
    pub fn caused_by(mut self, cause: impl Into<String>) -> Self {
        self.failure = self.failure.caused_by(cause);
        self
    }

    pub(super) fn from_failure(failure: Failure) -> Self {
        Self { failure }
    }

    pub(super) fn into_failure(self) -> Failure {
        self.failure
    }
}

/// Where the offsets of an atomic handler are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OffsetsIn {
    /// In the group, by the transactions of the work.
    Group,
    /// In a store of its own.
    Store,
}

/// A handler of any kind.
pub(super) enum Handler {
    Record(Box<dyn RecordHandler>),
    /// Locked while it works; there is one worker.
    Batch(Mutex<Box<dyn BatchHandler>>),
    SharedBatch(Box<dyn SharedBatchHandler>),
    /// Its work and its offsets are one. Locked while it works; there is one worker.
    Atomic(Mutex<Box<dyn AtomicHandler>>, OffsetsIn),
}

impl Handler {
    /// One outcome for each record, or why the batch failed as a whole.
    pub(super) fn handle(&self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
        let outcomes = match self {
            Self::Record(handler) => return Ok(batch.iter().map(|record| handler.handle(record)).collect()),
            Self::Batch(handler) => handler.lock().handle(batch)?,
            Self::SharedBatch(handler) => handler.handle(batch)?,
            Self::Atomic(..) => unreachable!("its batches take another way"),
        };
        if outcomes.is_empty() {
            return Ok(vec![Outcome::Done; batch.len()]);
        }
        if outcomes.len() != batch.len() {
            let (found, expected) = (outcomes.len(), batch.len());
            return Err(HandlerError::transient(format!(
                "the handler answered {found} outcomes for {expected} records"
            )));
        }
        Ok(outcomes)
    }

    pub(super) fn takes_batches(&self) -> bool {
        !matches!(self, Self::Record(_))
    }

    /// Whether a failed batch is a reason to give nothing else out.
    pub(super) fn is_exclusive(&self) -> bool {
        matches!(self, Self::Batch(_) | Self::Atomic(..))
    }

    /// One whose work and offsets are one.
    pub(super) fn atomic(&self) -> Option<&Mutex<Box<dyn AtomicHandler>>> {
        match self {
            Self::Atomic(handler, _) => Some(handler),
            _ => None,
        }
    }

    /// One that keeps offsets where the work goes.
    pub(super) fn stored(&self) -> Option<&Mutex<Box<dyn AtomicHandler>>> {
        match self {
            Self::Atomic(handler, OffsetsIn::Store) => Some(handler),
            _ => None,
        }
    }

    /// Whether the group has the offsets of what is done without further commits.
    pub(super) fn commits_itself(&self) -> bool {
        matches!(self, Self::Atomic(_, OffsetsIn::Group))
    }
}

/// A handler of `async` code: each record's future is driven by the worker it was given to, on this runtime.
///
/// ```no_run
/// use std::time::Duration;
/// use tidings::consumer::{Consumer, ConsumerOptions, Outcome, async_handler};
/// use tidings::{Cluster, Producer, ProducerOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let handler = async_handler(tokio::runtime::Handle::current(), |record| async move {
///     tokio::time::sleep(Duration::from_millis(record.offset as u64 % 3)).await;
///     Outcome::Done
/// });
/// let cluster = Cluster::new("localhost:9092");
/// let producer = Producer::new(&cluster, ProducerOptions::default())?;
/// let consumer = Consumer::for_each(&cluster, producer, ConsumerOptions::new("billing", ["orders"]), handler)?;
/// # drop(consumer);
/// # Ok(())
/// # }
/// ```
pub fn async_handler<F, W>(runtime: tokio::runtime::Handle, work: F) -> impl RecordHandler
where
    F: Fn(ReceivedRecord) -> W + Send + Sync,
    W: Future<Output = Outcome>,
{
    move |record: &ReceivedRecord| runtime.block_on(work(record.clone()))
}
