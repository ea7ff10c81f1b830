//! Waiting for conditions, the only place in the tests that lets time pass.

use std::time::{Duration, Instant};

/// The patience of [`until`]: long enough for a busy machine, short enough for a person.
pub const LONG: Duration = Duration::from_secs(60);

/// Asks again until `condition` answers something; panics after [`LONG`].
#[track_caller]
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    until_within(LONG, what, condition)
}

/// Asks again until `condition` answers something; panics after `limit`.
#[track_caller]
pub fn until_within<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(2);
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(Instant::now() < deadline, "gave up after {limit:?} waiting until {what}");
        std::thread::sleep(pause);
        // A condition may cost the very machine that is to fulfil it.
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
