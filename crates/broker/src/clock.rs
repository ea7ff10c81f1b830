//! Time, behind a seam that tests can drive.
//!
//! Owns the two clocks the broker reads: wall time, which is written into records, and steady time, which deadlines are
//! measured in so that a clock set back or forward neither expires a group nor keeps a dead member.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// A future that ends when a deadline has passed.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What the broker knows about time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970, as the system has it now; may jump.
    fn wall_ms(&self) -> i64;

    /// Milliseconds that never go back: wall time at the start plus what has passed since.
    fn steady_ms(&self) -> i64;

    /// Ends when `steady_ms` has reached `deadline_ms`.
    fn sleep_until(&self, deadline_ms: i64) -> Sleep;
}

/// The clock of the machine.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    started_wall_ms: i64,
}

impl SystemClock {
    /// A clock whose steady time begins at the wall time of now.
    pub fn new() -> SystemClock {
        SystemClock { started: Instant::now(), started_wall_ms: wall_ms() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        wall_ms()
    }

    fn steady_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.started_wall_ms.saturating_add(elapsed)
    }

    fn sleep_until(&self, deadline_ms: i64) -> Sleep {
        let wait = u64::try_from(deadline_ms.saturating_sub(self.steady_ms())).unwrap_or(0);
        // Rounded up: waking a fraction of a millisecond early would only sleep again.
        Box::pin(tokio::time::sleep(Duration::from_millis(wait.saturating_add(1).min(MAX_SLEEP_MS))))
    }
}

/// The longest single sleep: the runtime's timer refuses far larger ones, and a loop sleeps again.
const MAX_SLEEP_MS: u64 = 24 * 3_600_000;

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    now: watch::Sender<i64>,
}

impl ManualClock {
    /// A clock that shows `now_ms`.
    pub fn new(now_ms: i64) -> ManualClock {
        ManualClock { now: watch::Sender::new(now_ms) }
    }

    /// Moves wall and steady time on and wakes the sleepers whose deadline has passed.
    pub fn advance(&self, by_ms: i64) {
        self.now.send_modify(|now| *now = now.saturating_add(by_ms));
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> i64 {
        *self.now.borrow()
    }

    fn steady_ms(&self) -> i64 {
        *self.now.borrow()
    }

    fn sleep_until(&self, deadline_ms: i64) -> Sleep {
        let mut now = self.now.subscribe();
        Box::pin(async move {
            if now.wait_for(|now| *now >= deadline_ms).await.is_err() {
                // The clock is gone: time has ended, so no deadline passes any more.
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_at_the_deadline_and_not_before() {
        let clock = ManualClock::new(1_000);
        let mut sleep = clock.sleep_until(1_500);
        clock.advance(499);
        let polled = sleep.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        assert!(polled.is_pending());
        clock.advance(1);
        sleep.await;
        assert_eq!((clock.wall_ms(), clock.steady_ms()), (1_500, 1_500));
    }
}
