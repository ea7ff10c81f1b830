//! What has to be looked after while nobody asks.
//!
//! Owns when: idempotent producers that were silent for `producer.id.expiration.ms` are forgotten, so that state per
//! producer does not grow for ever (one that comes back after that begins with sequence 0, as in Kafka); old segments are
//! removed every `log.retention.check.interval.ms`, compacted logs are looked at every `log.cleaner.backoff.ms`. Both are
//! work of the log's own thread, which is told the time here. Invariant: a clock that is set changes neither interval.
//! Owns the looks at the disk's free space, too: the log looks by itself only while it grows.

use std::sync::Arc;

use tidings_log::{Chores, DataDir};

use crate::clock::Clock;
use crate::settings::BrokerSettings;

/// Time between two looks at producers (Kafka's `producer.id.expiration.check.interval.ms`).
const PRODUCERS_INTERVAL_MS: i64 = 600_000;

/// Compacted logs are not looked at more often, whatever `log.cleaner.backoff.ms` says.
const SHORTEST_CLEANING_INTERVAL_MS: i64 = 100;

/// Time between two looks at the free space.
const SPACE_INTERVAL_MS: i64 = 1000;

/// Looks at the disk's free space for as long as it is polled, so that writes go on when there is some again.
pub(crate) async fn watch_space(data_dir: Arc<DataDir>, clock: Arc<dyn Clock>) {
    loop {
        clock.sleep_until(clock.steady_ms().saturating_add(SPACE_INTERVAL_MS)).await;
        // Some microseconds on a local file system.
        let _ = data_dir.check_space();
    }
}

/// Works for as long as it is polled.
pub(crate) async fn run(data_dir: Arc<DataDir>, settings: Arc<BrokerSettings>, clock: Arc<dyn Clock>) {
    let expiration_ms = settings.long("producer.id.expiration.ms");
    let cleaning_ms = settings.long("log.cleaner.backoff.ms").max(SHORTEST_CLEANING_INTERVAL_MS);
    let now_ms = clock.steady_ms();
    let mut producers = Interval::new(now_ms, PRODUCERS_INTERVAL_MS);
    let mut retention = Interval::new(now_ms, settings.long("log.retention.check.interval.ms"));
    let mut cleaning = Interval::new(now_ms, cleaning_ms);
    loop {
        clock.sleep_until(producers.due_ms.min(retention.due_ms).min(cleaning.due_ms)).await;
        let now_ms = clock.steady_ms();
        if producers.is_due(now_ms) {
            let before_ms = clock.wall_ms().saturating_sub(expiration_ms);
            data_dir.logs().iter().for_each(|log| log.expire_producers(before_ms));
        }
        let chores = Chores { retention: retention.is_due(now_ms), cleaning: cleaning.is_due(now_ms) };
        if chores != Chores::default() {
            data_dir.wake_keeper(clock.wall_ms(), chores);
        }
    }
}

struct Interval {
    length_ms: i64,
    due_ms: i64,
}

impl Interval {
    fn new(now_ms: i64, length_ms: i64) -> Interval {
        Interval { length_ms, due_ms: now_ms.saturating_add(length_ms) }
    }

    /// Whether it has passed; the next one begins then.
    fn is_due(&mut self, now_ms: i64) -> bool {
        let due = now_ms >= self.due_ms;
        if due {
            self.due_ms = now_ms.saturating_add(self.length_ms);
        }
        due
    }
}
