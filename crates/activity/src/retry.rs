//! Trying again for as long as it takes, and telling of it without filling the log.

use std::time::{Duration, Instant};

/// After the first failure.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Between two attempts, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(4);
/// How often the same is told again.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Between two looks whether waiting is over.
const LOOK: Duration = Duration::from_millis(100);

/// What failed how often, and when that was told.
pub struct Retry {
    wait: Duration,
    told: Option<(String, Instant)>,
}

impl Retry {
    /// Nothing has failed yet.
    pub fn new() -> Self {
        Self { wait: FIRST_WAIT, told: None }
    }

    /// Whether this failure is to be told now: it is another one, or the last word of it was long ago. Numbers do not make another
    /// one: how much of a disk is free changes all the time.
    pub fn is_news(&mut self, why: &str, now: Instant) -> bool {
        let kind: String = why.chars().filter(|letter| !letter.is_ascii_digit()).collect();
        let is_known =
            |(before, at): &(String, Instant)| *before == kind && now.duration_since(*at) < TELL_AGAIN;
        let is_news = !self.told.as_ref().is_some_and(is_known);
        if is_news {
            self.told = Some((kind, now));
        }
        is_news
    }

    /// Waits until the next attempt, longer each time, or until it is over.
    pub fn wait(&mut self, is_over: impl Fn() -> bool) {
        let until = Instant::now() + self.wait;
        self.wait = (2 * self.wait).min(LONGEST_WAIT);
        while Instant::now() < until && !is_over() {
            std::thread::sleep(LOOK.min(until.saturating_duration_since(Instant::now())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_a_minute() {
        let (mut retry, start) = (Retry::new(), Instant::now());
        let mut check = |why: &str, seconds: u64, is_news: bool| {
            assert_eq!(
                retry.is_news(why, start + Duration::from_secs(seconds)),
                is_news,
                "{why} at {seconds} s"
            );
        };
        check("17 bytes are free", 0, true);
        check("18 bytes are free", 1, false);
        check("no answer", 2, true);
        check("no answer", 61, false);
        check("no answer", 62, true);
        check("17 bytes are free", 63, true);
    }

    #[test]
    fn waits_grow_and_end() {
        let mut retry = Retry::new();
        let begun = Instant::now();
        for _ in 0..9 {
            retry.wait(|| true);
        }
        assert!(begun.elapsed() < FIRST_WAIT);
        assert_eq!(retry.wait, LONGEST_WAIT);
    }
}
