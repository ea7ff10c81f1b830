//! What an append gets to wait for: its commit round.
//!
//! Owns a round's outcome and those who wait for it. Invariants: a round ends once; whoever asks
//! afterwards gets the answer without a lock. One round is shared by every append in it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex};

use crate::storage::Storage;

/// Why an append did not become durable. It may or may not be found there after a restart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// A sync failed; all writes are refused until a restart.
    #[error("not durable: {why}")]
    Storage {
        /// What failed.
        why: Arc<str>,
    },
    /// The data directory was closed.
    #[error("not durable: the data directory was closed")]
    Closed,
}

/// One group of appends that become durable together.
#[derive(Debug)]
pub(crate) struct Round {
    id: u64,
    outcome: OnceLock<Result<(), CommitError>>,
    wakers: Mutex<Vec<Waker>>,
    finished: Condvar,
}

impl Round {
    pub fn new(id: u64) -> Self {
        Self { id, outcome: OnceLock::new(), wakers: Mutex::default(), finished: Condvar::new() }
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    /// Ends the round and wakes everyone who waits for it.
    pub fn finish(&self, outcome: Result<(), CommitError>) {
        let wakers = {
            let mut wakers = self.wakers.lock();
            self.outcome.set(outcome).expect("a round ends once");
            std::mem::take(&mut *wakers)
        };
        self.finished.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Ready when its append is durable. Dropping it cancels nothing.
#[derive(Debug)]
#[must_use = "an append is acknowledged after its ticket is ready"]
pub struct CommitTicket {
    state: State,
    /// Where in the round's list our waker is.
    slot: Option<usize>,
    /// Whose committer may have to be woken first: the append said that more would follow.
    held: Option<Arc<Storage>>,
}

#[derive(Debug, Clone)]
enum State {
    Ready(Result<(), CommitError>),
    Waiting(Arc<Round>),
}

impl Clone for CommitTicket {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), slot: None, held: self.held.clone() }
    }
}

impl CommitTicket {
    pub(crate) fn of(round: Arc<Round>, held: Option<Arc<Storage>>) -> Self {
        Self { state: State::Waiting(round), slot: None, held }
    }

    pub(crate) fn failed(error: CommitError) -> Self {
        Self { state: State::Ready(Err(error)), slot: None, held: None }
    }

    /// A ticket that waits for nothing: the start value for [`CommitTicket::newest`].
    pub fn ready() -> Self {
        Self { state: State::Ready(Ok(())), slot: None, held: None }
    }

    /// The ticket to wait for in place of both: rounds end in order, and when one fails, so do all later
    /// ones.
    pub fn newest(mut self, mut other: Self) -> Self {
        // The one that goes must not begin the commit on its way out.
        let held = self.held.take().or(other.held.take());
        let mut newest = match (&self.state, &other.state) {
            (State::Ready(Err(_)), _) | (_, State::Ready(Ok(()))) => self,
            (State::Waiting(a), State::Waiting(b)) if a.id >= b.id => self,
            _ => other,
        };
        newest.held = held;
        newest
    }

    /// Lets the commit begin now, where [`crate::PartitionLog::append_with_more`] has put it off. Waiting
    /// and dropping do it as well.
    pub fn begin(&self) {
        if let Some(storage) = &self.held {
            storage.committer.begin();
        }
    }

    /// Gives up waiting and leaves the commit to whatever is appended next: for records that need not be durable before
    /// something that builds on them is.
    pub fn leave(mut self) {
        self.held = None;
    }

    /// Commits here and now, on this thread, where [`crate::PartitionLog::append_with_more`] has put it off
    /// and nobody else has work for the committer (see [`crate::CommitHere`]); otherwise the same as
    /// [`CommitTicket::begin`]. Blocks for one sync.
    pub fn commit_here(&mut self) {
        if let (Some(storage), State::Waiting(round)) = (self.held.take(), &self.state) {
            storage.committer.lead(&storage, round);
        }
    }

    /// The outcome, if it is known by now.
    pub fn outcome(&self) -> Option<Result<(), CommitError>> {
        match &self.state {
            State::Ready(outcome) => Some(outcome.clone()),
            State::Waiting(round) => round.outcome.get().cloned(),
        }
    }

    /// Blocks the thread until the append is durable.
    pub fn wait_blocking(&self) -> Result<(), CommitError> {
        let State::Waiting(round) = &self.state else { return self.outcome().unwrap_or(Ok(())) };
        self.begin();
        let mut wakers = round.wakers.lock();
        loop {
            if let Some(outcome) = round.outcome.get() {
                return outcome.clone();
            }
            round.finished.wait(&mut wakers);
        }
    }
}

impl Drop for CommitTicket {
    fn drop(&mut self) {
        self.begin();
    }
}

impl Future for CommitTicket {
    type Output = Result<(), CommitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = self.outcome() {
            return Poll::Ready(outcome);
        }
        if let Some(storage) = self.held.take() {
            storage.committer.begin();
        }
        let slot = self.slot;
        let State::Waiting(round) = &self.state else { return Poll::Ready(Ok(())) };
        let mut wakers = round.wakers.lock();
        // The round may have ended before we got its lock, and would not see our waker any more.
        if let Some(outcome) = round.outcome.get() {
            return Poll::Ready(outcome.clone());
        }
        let slot = match slot {
            Some(slot) => {
                wakers[slot].clone_from(context.waker());
                slot
            }
            None => {
                wakers.push(context.waker().clone());
                wakers.len() - 1
            }
        };
        drop(wakers);
        self.slot = Some(slot);
        Poll::Pending
    }
}
