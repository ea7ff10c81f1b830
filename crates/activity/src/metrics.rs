//! What the activity stream counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds of the latency histogram in seconds: from one flush of a fast disk to a caller's patience.
const ACK_SECONDS_BUCKETS: [f64; 12] =
    [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Counters of one activity service; clones share them.
#[derive(Debug, Clone)]
pub struct ActivityMetrics {
    /// Activities acknowledged as durable.
    pub accepted: Counter,
    /// Activities refused, because they are wrong.
    pub refused: Counter,
    /// Activities that were not acknowledged by their deadline.
    pub failed: Counter,
    /// Rows stored.
    pub stored: Counter,
    /// Records whose activity was stored before.
    pub duplicates: Counter,
    /// Records given to the failure inbox.
    pub dead_letters: Counter,
    /// From having read a request, or a chunk of a stream, to its durable ack.
    pub ack_seconds: Histogram,
}

impl Default for ActivityMetrics {
    fn default() -> Self {
        Self {
            accepted: Counter::default(),
            refused: Counter::default(),
            failed: Counter::default(),
            stored: Counter::default(),
            duplicates: Counter::default(),
            dead_letters: Counter::default(),
            ack_seconds: Histogram::new(ACK_SECONDS_BUCKETS),
        }
    }
}

impl ActivityMetrics {
    /// Adds `tidings_activity_{accepted,refused,failed,stored,duplicates,dead_letters}_total` and
    /// `tidings_activity_ack_seconds`.
    pub fn register(&self, registry: &mut Registry) {
        let mut counter =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("tidings_activity_accepted", "Activities acknowledged as durable", &self.accepted);
        counter("tidings_activity_refused", "Activities refused as invalid", &self.refused);
        counter("tidings_activity_failed", "Activities not acknowledged by their deadline", &self.failed);
        counter("tidings_activity_stored", "Activities stored", &self.stored);
        counter("tidings_activity_duplicates", "Records whose activity was stored before", &self.duplicates);
        counter("tidings_activity_dead_letters", "Records given to the failure inbox", &self.dead_letters);
        registry.register(
            "tidings_activity_ack_seconds",
            "Time from reading a request to its durable acknowledgement",
            self.ack_seconds.clone(),
        );
    }
}
