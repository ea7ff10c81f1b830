//! Wakes the keeper and tells it the time.
//!
//! Owns what is to be done next. Invariants: work asked for while a round runs is done by the next one; what
//! is asked twice is done once.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::{Condvar, Mutex};

/// What a round of the keeper is to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chores {
    /// Remove old segments (`log.retention.check.interval.ms` is its interval).
    pub retention: bool,
    /// Compact what has become dirty (`log.cleaner.backoff.ms`).
    pub cleaning: bool,
}

impl Chores {
    /// Everything.
    pub const ALL: Self = Self { retention: true, cleaning: true };

    fn and(self, other: Self) -> Self {
        Self { retention: self.retention || other.retention, cleaning: self.cleaning || other.cleaning }
    }
}

#[derive(Debug, Default)]
pub(crate) struct KeeperBell {
    rung: Mutex<Option<(i64, Chores)>>,
    wake: Condvar,
    closed: AtomicBool,
}

impl KeeperBell {
    pub fn ring(&self, now_ms: i64, chores: Chores) {
        let mut rung = self.rung.lock();
        let before = rung.map_or(Chores::default(), |(_, chores)| chores);
        *rung = Some((now_ms, chores.and(before)));
        self.wake.notify_one();
    }

    pub fn close(&self) {
        // Under the lock: the thread must not miss it between its look and its wait.
        let _rung = self.rung.lock();
        self.closed.store(true, Relaxed);
        self.wake.notify_one();
    }

    /// Takes over retention that was asked for meanwhile, as of when.
    pub fn take_retention(&self) -> Option<i64> {
        let mut rung = self.rung.lock();
        let (now_ms, chores) = rung.as_mut()?;
        std::mem::take(&mut chores.retention).then_some(*now_ms)
    }

    /// Whether a round under way should end.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }

    /// Waits for work; none when it is time to end.
    pub fn wait(&self) -> Option<(i64, Chores)> {
        let mut rung = self.rung.lock();
        loop {
            if self.is_closed() {
                return None;
            }
            if let Some(work) = rung.take() {
                return Some(work);
            }
            self.wake.wait(&mut rung);
        }
    }
}
