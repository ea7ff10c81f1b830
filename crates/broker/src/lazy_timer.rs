//! A timer for deadlines that are rarely reached.
//!
//! Owns one entry in the runtime's timer wheel and leaves it there: a deadline later than the entry's is noticed when
//! that one is over. Putting an entry in may cost a write to the runtime's eventfd and a turn of its poll, and taking it
//! out a lock; a long poll that is answered two thousand times a second would pay both each time. Invariant: it never
//! rings early.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// One timer, made at the first use.
#[derive(Debug, Default)]
pub(crate) struct LazyTimer {
    entry: Option<Pin<Box<Sleep>>>,
}

impl LazyTimer {
    /// Waits until `deadline`. May be dropped while waiting.
    pub(crate) async fn until(&mut self, deadline: Instant) {
        let entry = self.entry.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if entry.deadline() > deadline {
            entry.as_mut().reset(deadline);
        }
        loop {
            entry.as_mut().await;
            if Instant::now() >= deadline {
                return;
            }
            entry.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn it_never_rings_early_whatever_was_waited_for_before() {
        let mut timer = LazyTimer::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for (given_up_ms, ms) in [(5, 7), (2000, 9), (9, 20), (20, 20), (5000, 25)] {
            tokio::select! {
                biased;
                () = timer.until(at(given_up_ms)) => assert!(Instant::now() >= at(given_up_ms)),
                () = std::future::ready(()) => {}
            }
            timer.until(at(ms)).await;
            assert!(Instant::now() >= at(ms));
        }
    }
}
