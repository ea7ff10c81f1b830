//! Fetches that wait for data.
//!
//! Owns the list of a log's waiters. Invariants: a waiter is woken at most once per registration; a wake
//! before the wait is not lost; whoever waits for many bytes sleeps through news of fewer. The list is bounded by the
//! fetches under way: waiters that were dropped elsewhere are removed whenever it has doubled.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// One fetch that waits, on any number of partitions.
#[derive(Debug, Default)]
pub struct FetchWaiter {
    notify: Notify,
    /// Bytes that have to come before it is worth to wake up.
    missing: AtomicI64,
}

impl FetchWaiter {
    /// A waiter that nothing has woken yet, and any news will.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// From now on `missing` more bytes, of all its partitions together, have to come to wake it. To be called after the
    /// look at what there is: until then any news counts.
    pub fn expect(&self, missing: usize) {
        self.missing.store(i64::try_from(missing).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Waits until what it expects has come, or one of its logs is deleted.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }

    /// Whether that was enough to wake it.
    fn hears_of(&self, bytes: i64) -> bool {
        let is_enough = self.missing.fetch_sub(bytes, Ordering::SeqCst) <= bytes;
        if is_enough {
            self.notify.notify_one();
        }
        is_enough
    }
}

#[derive(Debug, Default)]
pub(super) struct FetchWaiters {
    list: Mutex<List>,
}

#[derive(Debug, Default)]
struct List {
    waiters: Vec<Weak<FetchWaiter>>,
    prune_at_count: usize,
}

const SMALLEST_PRUNE_COUNT: usize = 16;

impl FetchWaiters {
    pub fn add(&self, waiter: Arc<FetchWaiter>) {
        let mut list = self.list.lock();
        if list.waiters.len() >= list.prune_at_count.max(SMALLEST_PRUNE_COUNT) {
            // A waiter whose fetch was answered meanwhile is gone, however many partitions it was registered with.
            list.waiters.retain(|waiter| waiter.strong_count() > 0);
            list.prune_at_count = list.waiters.len() * 2;
        }
        list.waiters.push(Arc::downgrade(&waiter));
    }

    /// As many bytes can be read from now on that could not before.
    pub fn tell(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let still_waits =
            |waiter: &Weak<FetchWaiter>| waiter.upgrade().is_some_and(|waiter| !waiter.hears_of(bytes));
        self.list.lock().waiters.retain(still_waits);
    }

    pub fn wake_all(&self) {
        let waiters = std::mem::take(&mut self.list.lock().waiters);
        for waiter in waiters.iter().filter_map(Weak::upgrade) {
            waiter.notify.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    fn is_woken(waiter: &FetchWaiter) -> bool {
        pin!(waiter.woken()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn news_of_all_its_partitions_count_together() {
        let (orders, invoices) = (FetchWaiters::default(), FetchWaiters::default());
        let waiter = FetchWaiter::new();
        orders.add(waiter.clone());
        invoices.add(waiter.clone());
        waiter.expect(100);
        orders.tell(60);
        invoices.tell(39);
        assert!(!is_woken(&waiter));
        orders.tell(1);
        assert!(is_woken(&waiter));
        assert!(orders.list.lock().waiters.is_empty(), "woken once");
    }

    #[test]
    fn what_comes_before_it_knows_what_it_expects_wakes_it() {
        let orders = FetchWaiters::default();
        let waiter = FetchWaiter::new();
        orders.add(waiter.clone());
        orders.tell(1);
        waiter.expect(100);
        assert!(is_woken(&waiter));
    }

    #[test]
    fn a_deletion_wakes_whatever_is_expected() {
        let orders = FetchWaiters::default();
        let waiter = FetchWaiter::new();
        orders.add(waiter.clone());
        waiter.expect(usize::MAX);
        orders.tell(u64::MAX >> 1);
        orders.wake_all();
        assert!(is_woken(&waiter));
    }
}
