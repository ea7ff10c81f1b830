//! Log lines that a stranger could cause without end: one per interval, with the number left out.
//!
//! Owns the decision only; the caller writes the line.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Admits one event per interval.
#[derive(Debug)]
pub(crate) struct RateLimit {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl RateLimit {
    pub(crate) fn new(interval: Duration) -> RateLimit {
        RateLimit { interval, state: Mutex::new(State { last: None, suppressed: 0 }) }
    }

    /// Whether to write a line now; if so, how many were left out since the last one.
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        if state.last.is_some_and(|last| now.duration_since(last) < self.interval) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_interval_with_the_number_left_out() {
        let limit = RateLimit::new(Duration::from_secs(5));
        let start = Instant::now();
        assert_eq!(limit.admit_at(start), Some(0));
        assert_eq!(limit.admit_at(start + Duration::from_secs(1)), None);
        assert_eq!(limit.admit_at(start + Duration::from_secs(4)), None);
        assert_eq!(limit.admit_at(start + Duration::from_secs(6)), Some(2));
        assert_eq!(limit.admit_at(start + Duration::from_secs(12)), Some(0));
    }
}
