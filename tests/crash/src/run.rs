//! One stretch of load: where the broker is, and whether the clients shall stop.
//!
//! Owns the flag, the pauses between attempts, and the patience of the cases. Invariants: a pause ends at once when the run is stopped.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tidings_tests::until_within;

/// How long a client waits before it tries again.
const PAUSE: Duration = Duration::from_millis(5);

/// How long the laboratory waits for anything: several cases share a machine that does much else.
const LONG: Duration = Duration::from_secs(180);

/// Asks again until `condition` answers something; panics when it takes too long.
#[track_caller]
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    until_within(LONG, what, condition)
}

/// Shared by the clients of a broker.
#[derive(Debug)]
pub struct Run {
    address: String,
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Run {
    /// A run against the broker at this address.
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), stopped: Mutex::new(false), changed: Condvar::new() }
    }

    /// Where the broker is, whenever there is one.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Lets the clients end.
    pub fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Whether the clients shall end.
    pub fn is_stopped(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client's pause before its next attempt.
    pub fn pause(&self) {
        self.pause_for(PAUSE);
    }

    /// Lets time pass, unless the run is stopped: the random moment of a crash.
    pub fn pause_for(&self, time: Duration) {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(stopped, time, |stopped| !*stopped);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}
