//! The clock of a test's broker: it goes as the machine's does, and can be set ahead.
//!
//! It does not stand still, because clients of a real broker keep their own time: heartbeats, timeouts and backoffs of
//! theirs go on, and must find a broker whose time does, too.

use std::sync::Arc;
use std::time::Duration;

use tidings_broker::{Clock, Sleep, SystemClock};
use tokio::sync::watch;

/// Drives the time of a broker. Clones drive the same one.
///
/// It moves all that the broker measures in hours to milliseconds by itself: retention, cleaning and the expiry of
/// producers, sessions and rebalances of groups, timeouts of transactions, the expiry of committed offsets,
/// `LogAppendTime` timestamps. It moves neither how long a fetch waits for records nor how long a silent
/// connection is kept, and nothing in clients: members of a group that live do not notice a jump beyond their session
/// timeout before their next heartbeat, and join again.
///
/// What is due after a jump is done right after it, on the broker's threads: wait for its effect.
///
/// ```
/// use std::time::Duration;
/// use tidings::testing::{Broker, TestClock};
///
/// let broker = Broker::start()?;
/// let clock: TestClock = broker.clock()?;
/// let before_ms = clock.now_ms();
/// clock.advance(Duration::from_secs(3_600));
/// assert!(clock.now_ms() >= before_ms + 3_600_000);
/// # Ok::<(), tidings::testing::TestingError>(())
/// ```
#[derive(Debug, Clone)]
pub struct TestClock {
    system: Arc<SystemClock>,
    ahead_ms: Arc<watch::Sender<i64>>,
}

impl TestClock {
    pub(super) fn new() -> Self {
        Self { system: Arc::new(SystemClock::new()), ahead_ms: Arc::new(watch::Sender::new(0)) }
    }

    /// Sets the clock ahead and wakes what is due.
    pub fn advance(&self, by: Duration) {
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.ahead_ms.send_modify(|ahead_ms| *ahead_ms = ahead_ms.saturating_add(by_ms));
    }

    /// What the broker takes for now, in milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.wall_ms()
    }
}

impl Clock for TestClock {
    fn wall_ms(&self) -> i64 {
        self.system.wall_ms().saturating_add(*self.ahead_ms.borrow())
    }

    fn steady_ms(&self) -> i64 {
        self.system.steady_ms().saturating_add(*self.ahead_ms.borrow())
    }

    fn sleep_until(&self, deadline_ms: i64) -> Sleep {
        let (clock, mut jumps) = (self.clone(), self.ahead_ms.subscribe());
        Box::pin(async move {
            loop {
                let ahead_ms = *jumps.borrow_and_update();
                let passes = clock.system.sleep_until(deadline_ms.saturating_sub(ahead_ms));
                tokio::select! {
                    () = passes => return,
                    // The sender lives in `clock`.
                    _ = jumps.changed() => {}
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_jump_wakes_what_is_due_and_nothing_else() {
        let clock = TestClock::new();
        let begun = Instant::now();
        let (soon, late) = (clock.steady_ms() + 3_600_000, clock.steady_ms() + 9_000_000);
        let (mut soon, mut late) = (clock.sleep_until(soon), clock.sleep_until(late));
        let noop = &mut std::task::Context::from_waker(std::task::Waker::noop());
        assert!(soon.as_mut().poll(noop).is_pending());
        clock.advance(Duration::from_secs(3_600));
        soon.await;
        assert!(late.as_mut().poll(noop).is_pending());
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert!(clock.wall_ms() >= clock.system.wall_ms() + 3_600_000);
    }
}
