//! Flushes that are due by time: `flush.ms` of topics, where the page cache counts as durable.
//!
//! Owns the waiting between two looks. With `durability = "power"` it is not started: every acknowledged record is flushed
//! already. `flush.messages` is the log's own business.

use std::sync::Arc;

use tidings_log::DataDir;

use crate::clock::Clock;

/// Works for as long as it is polled.
pub(crate) async fn run(data_dir: Arc<DataDir>, clock: Arc<dyn Clock>) {
    loop {
        let (flushed, ask_again_ms) = data_dir.flush_old(clock.wall_ms());
        // A failure stops all writes, and is reported where it happens.
        let _ = flushed.await;
        clock.sleep_until(clock.steady_ms().saturating_add(ask_again_ms)).await;
    }
}
