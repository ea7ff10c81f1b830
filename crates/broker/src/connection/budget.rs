//! How much memory the requests of all connections may take together (`queued.max.request.bytes`).
//!
//! Owns the accounts, not the memory: a large frame reserves its whole length before its body is read and gives it back
//! once it has been handled. Invariants: reservations never exceed the budget, but for one frame larger than all of it,
//! which counts as the whole; whoever waits is served in the order of asking, so a large frame is not passed over for
//! ever. Read buffers that are kept for the next large frame are counted apart, and few: an idle connection must not
//! keep others from reserving. Does not know frames.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Large read buffers that may be kept for their connections' next frames, by all connections together.
const MAX_RETAINED_BUFFERS: usize = 16;

/// The budget of one broker.
#[derive(Debug)]
pub(crate) struct RequestBudget {
    total_bytes: usize,
    free: Arc<Semaphore>,
    retained: Arc<Semaphore>,
}

/// A part of the budget, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// The right to keep one large buffer, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Retention(#[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

impl RequestBudget {
    /// A budget of this many bytes; unlimited, as in Kafka, where that is not positive.
    pub(crate) fn new(total_bytes: i64) -> RequestBudget {
        let limited = usize::try_from(total_bytes).ok().filter(|bytes| *bytes > 0);
        let total_bytes = limited.unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        RequestBudget {
            total_bytes,
            free: Arc::new(Semaphore::new(total_bytes)),
            retained: Arc::new(Semaphore::new(MAX_RETAINED_BUFFERS)),
        }
    }

    /// Waits until this many bytes, or the whole budget if that is less, are free. Dropping the future gives the place in
    /// the queue up.
    pub(crate) fn reserve(&self, bytes: usize) -> impl Future<Output = Reservation> + Send + use<> {
        let permits = u32::try_from(bytes.min(self.total_bytes)).unwrap_or(u32::MAX);
        let free = self.free.clone();
        async move {
            match free.acquire_many_owned(permits).await {
                Ok(permit) => Reservation(permit),
                // The semaphore is never closed.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Leave to keep a buffer between frames, if not too many are kept already.
    pub(crate) fn retain(&self) -> Option<Retention> {
        self.retained.clone().try_acquire_owned().ok().map(Retention)
    }

    /// What is reserved now.
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.total_bytes - self.free.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn reservations_wait_in_turn_and_come_back() {
        let budget = RequestBudget::new(100);
        let first = budget.reserve(60).await;
        let mut large = pin!(budget.reserve(80));
        assert!(poll(large.as_mut()).is_pending());
        // It would fit, but somebody asked before.
        let mut small = pin!(budget.reserve(10));
        assert!(poll(small.as_mut()).is_pending());
        drop(first);
        let large = large.await;
        let small = small.await;
        assert_eq!(budget.reserved_bytes(), 90);
        drop((large, small));
        assert_eq!(budget.reserved_bytes(), 0);
    }

    #[tokio::test]
    async fn what_exceeds_the_budget_goes_alone() {
        let budget = RequestBudget::new(100);
        let other = budget.reserve(1).await;
        let mut huge = pin!(budget.reserve(1 << 31));
        assert!(poll(huge.as_mut()).is_pending());
        drop(other);
        let _huge = huge.await;
        assert!(poll(pin!(budget.reserve(1)).as_mut()).is_pending());
    }

    #[tokio::test]
    async fn minus_one_is_no_limit() {
        let budget = RequestBudget::new(-1);
        let mut held = Vec::new();
        for _ in 0..1000 {
            held.push(budget.reserve(i32::MAX as usize).await);
        }
        assert_eq!(budget.reserved_bytes(), 1000 * i32::MAX as usize);
    }

    #[test]
    fn only_so_many_buffers_are_kept() {
        let budget = RequestBudget::new(100);
        let kept: Vec<_> = std::iter::from_fn(|| budget.retain()).collect();
        assert_eq!(kept.len(), MAX_RETAINED_BUFFERS);
        drop(kept);
        assert!(budget.retain().is_some());
    }
}
