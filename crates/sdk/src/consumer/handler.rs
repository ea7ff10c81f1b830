//! What an application writes: a handler for batches.

use thiserror::Error;

use crate::failure::Failure;
use crate::record::ReceivedRecord;

/// Works on batches of records. Called on the consumer's own thread, one batch at a time.
///
/// A batch holds records of any of the subscribed topics and partitions, in the order of each partition. A call
/// should take well under five minutes (`max.poll.interval.ms`), or the group takes the partitions away.
pub trait BatchHandler: Send {
    /// Works on a batch, durably: offsets are committed after it returns.
    ///
    /// Answers one [`Outcome`] for each record, or none at all if all are done. An error keeps the whole batch: the
    /// same records come again after a backoff, so a handler must cope with records it has partly worked on.
    fn handle(&mut self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError>;
}

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is worked on, or needs no work.
    Done,
    /// It can never be worked on as it is: into the failure inbox with it.
    Reject(Failure),
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
#[error("{}", self.text())]
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

    fn text(&self) -> String {
        let causes = self.failure.causes.iter();
        causes.fold(self.failure.error.clone(), |text, cause| format!("{text}: {cause}"))
    }
}
