//! Takes out of the store what is past its retention, and what belongs to actors who are erased.
//!
//! Owns one thread, which works in short steps, so that writers and questions hardly wait for it, and sleeps otherwise.
//! Invariant: what a kill interrupts goes on after the next start: an erasure is not finished before its record says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::limits::RETENTION_INTERVAL;
use crate::metrics::ActivityMetrics;
use crate::retention::{Expired, Retention};
use crate::retry::Retry;
use crate::store::{Store, StoreError};
use crate::timestamp::Timestamp;

/// By how much the clocks of several instances may differ.
const CLOCK_TOLERANCE_MICROS: i64 = 60_000_000;
/// After a failure of the store.
const RETRY: Duration = Duration::from_secs(1);

/// Wakes and ends the thread, which ends with the last one, too. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Housekeeper {
    retention: Arc<Mutex<Retention>>,
    bell: SyncSender<()>,
    stopping: Arc<AtomicBool>,
}

struct Run {
    store: Arc<dyn Store>,
    retention: Arc<Mutex<Retention>>,
    metrics: ActivityMetrics,
    bell: Receiver<()>,
    stopping: Arc<AtomicBool>,
}

impl Housekeeper {
    /// Starts the thread.
    pub fn start(
        store: Arc<dyn Store>,
        retention: Retention,
        metrics: ActivityMetrics,
    ) -> std::io::Result<Self> {
        let (ring, bell) = sync_channel(1);
        let stopping = Arc::new(AtomicBool::new(false));
        let retention = Arc::new(Mutex::new(retention));
        let run =
            Run { store, retention: Arc::clone(&retention), metrics, bell, stopping: Arc::clone(&stopping) };
        std::thread::Builder::new().name("activity housekeeper".to_owned()).spawn(move || run.run())?;
        Ok(Self { retention, bell: ring, stopping })
    }

    /// From now on activities are kept for this long.
    pub fn set_retention(&self, retention: Retention) {
        *self.retention.lock() = retention;
        self.ring();
    }

    /// There is an actor to erase.
    pub fn ring(&self) {
        // One that waits already is enough.
        let _ = self.bell.try_send(());
    }

    /// Asks the thread to end after its step.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.ring();
    }
}

impl Run {
    fn run(self) {
        let mut failures = Retry::new();
        while !self.stopping.load(Ordering::Relaxed) {
            let pause = match self.work() {
                Ok(()) => RETENTION_INTERVAL,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    if failures.is_news(&error.to_string(), Instant::now()) {
                        tracing::warn!(error, "activities that are to go cannot be taken out yet");
                    }
                    RETRY
                }
            };
            if self.bell.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    /// To take out what is too old may take hours the first time: whoever asked for an erasure does not wait for that.
    fn work(&self) -> Result<(), StoreError> {
        self.warn_of_the_clock()?;
        self.steps(|| {
            self.steps(|| self.erase())?;
            self.expire()
        })
    }

    /// What is received now counts as received before such an erasure.
    fn warn_of_the_clock(&self) -> Result<(), StoreError> {
        let now = Timestamp::now();
        let is_to_come = |last: &Timestamp| last.as_micros() - now.as_micros() > CLOCK_TOLERANCE_MICROS;
        if let Some(last) = self.store.last_erasure()?.filter(is_to_come) {
            tracing::warn!(
                requested_at = %last,
                %now,
                "an erasure is recorded for a time to come: the clock was ahead then, or is behind now. What its actor does before \
                 that time is not stored; set the clock right"
            );
        }
        Ok(())
    }

    fn erase(&self) -> Result<Expired, StoreError> {
        let erased = self.store.continue_erasures()?;
        self.metrics.erased.inc_by(erased.activities);
        Ok(erased)
    }

    fn expire(&self) -> Result<Expired, StoreError> {
        let cutoffs = self.retention.lock().cutoffs(Timestamp::now());
        let expired = self.store.expire(&cutoffs)?;
        self.metrics.expired.inc_by(expired.activities);
        Ok(expired)
    }

    fn steps(&self, step: impl Fn() -> Result<Expired, StoreError>) -> Result<(), StoreError> {
        while !self.stopping.load(Ordering::Relaxed) {
            if step()?.is_done {
                break;
            }
        }
        Ok(())
    }
}
