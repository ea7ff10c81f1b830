//! Fetches that wait for data.
//!
//! Owns the list of a log's waiters. Invariants: a waiter is woken at most once per registration; a wake
//! before the wait is not lost. The list is bounded by the fetches under way: waiters that were dropped
//! elsewhere are removed whenever it has doubled.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// One fetch that waits, on any number of partitions.
#[derive(Debug, Default)]
pub struct FetchWaiter {
    notify: Notify,
}

impl FetchWaiter {
    /// A waiter that nothing has woken yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Waits until a partition it was registered with has news.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }

    /// Wakes the waiter; a wake before the wait counts.
    pub fn wake(&self) {
        self.notify.notify_one();
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

    pub fn wake_all(&self) {
        let waiters = std::mem::take(&mut self.list.lock().waiters);
        waiters.iter().filter_map(Weak::upgrade).for_each(|waiter| waiter.wake());
    }
}
