//! What has to be looked after while nobody asks.
//!
//! Owns the rounds in which idempotent producers that were silent for `producer.id.expiration.ms` are forgotten, so that
//! state per producer does not grow for ever. A producer that comes back after that begins with sequence 0, as in Kafka.
//! Owns the looks at the disk's free space, too: the log looks by itself only while it grows.

use std::sync::Arc;

use tidings_log::DataDir;

use crate::clock::Clock;
use crate::settings::BrokerSettings;

/// Time between two rounds (Kafka's `producer.id.expiration.check.interval.ms`).
const INTERVAL_MS: i64 = 600_000;

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
    loop {
        clock.sleep_until(clock.steady_ms().saturating_add(INTERVAL_MS)).await;
        let before_ms = clock.wall_ms().saturating_sub(expiration_ms);
        for log in data_dir.logs() {
            log.expire_producers(before_ms);
        }
    }
}
