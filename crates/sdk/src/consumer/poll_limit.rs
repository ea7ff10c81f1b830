//! How long the polling thread may stay away: a member that has not polled for `max.poll.interval.ms` counts as stuck, leaves its
//! group, and what it works on comes again.

use std::time::Duration;

use rdkafka::ClientConfig;

/// librdkafka's default.
const DEFAULT_LIMIT: Duration = Duration::from_secs(300);
/// How long a question to the cluster may take, at most.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the broker holds a fetch for records; librdkafka's default.
const FETCH_WAIT: Duration = Duration::from_millis(500);
/// Waits between two polls, at most: each gets its share.
const SHARES: u32 = 4;

/// The group's patience with a member that does not poll.
#[derive(Debug, Clone, Copy)]
pub(super) struct PollLimit(Duration);

impl PollLimit {
    pub(super) fn of(config: &ClientConfig) -> Self {
        let limit_ms = config.get("max.poll.interval.ms").and_then(|text| text.parse().ok());
        Self(limit_ms.map_or(DEFAULT_LIMIT, Duration::from_millis))
    }

    /// As much of a wait as the polling thread can afford.
    pub(super) fn cap(self, wait: Duration) -> Duration {
        wait.min(self.0 / SHARES)
    }

    /// A fetch is held no longer than questions have patience: they are answered behind it, on the same connection.
    pub(super) fn hold_fetches(self, config: &mut ClientConfig) {
        let longest = self.cap(PROBE_TIMEOUT) / 2;
        if longest < FETCH_WAIT && config.get("fetch.wait.max.ms").is_none() {
            config.set("fetch.wait.max.ms", longest.as_millis().to_string());
        }
    }

    /// Whether that much time without a poll leaves too little for another wait.
    pub(super) fn is_near(self, elapsed: Duration) -> bool {
        elapsed > self.0 / SHARES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_fit_into_the_limit() {
        let mut config = ClientConfig::new();
        let second = Duration::from_secs(1);
        assert_eq!(PollLimit::of(&config).cap(second), second);
        config.set("max.poll.interval.ms", "500");
        let limit = PollLimit::of(&config);
        assert_eq!(limit.cap(second), second / 8);
        limit.hold_fetches(&mut config);
        assert_eq!(config.get("fetch.wait.max.ms"), Some("62"));
        assert_eq!((limit.is_near(second / 8), limit.is_near(second / 7)), (false, true));
    }
}
