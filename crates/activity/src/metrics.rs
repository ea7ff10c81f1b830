//! What the activity stream counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
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
    /// Activities that were not accepted, because nothing took them in time.
    pub failed: Counter,
    /// Activities that the fallback put into the store.
    pub fallback: Counter,
    /// Activities that the fallback put into the spool.
    pub spooled: Counter,
    /// Activities of the fallback that are on the topic now.
    pub published: Counter,
    /// Activities of the fallback that the topic does not take, because they are too large: they stay in the store only.
    pub unpublishable: Counter,
    /// Activities in the store that are not on the topic yet.
    pub unpublished: Gauge,
    /// Bytes of the spool that are neither in the store nor on the topic.
    pub spool_bytes: Gauge,
    /// Rows stored.
    pub stored: Counter,
    /// Records whose activity was stored before.
    pub duplicates: Counter,
    /// Activities deleted because they are past their retention.
    pub expired: Counter,
    /// Activities of erased actors that were deleted, or came again and were not stored.
    pub erased: Counter,
    /// Records given to the failure inbox.
    pub dead_letters: Counter,
    /// From having read a request, or a chunk of a stream, to its durable ack, by whichever way.
    pub ack_seconds: Histogram,
}

impl Default for ActivityMetrics {
    fn default() -> Self {
        Self {
            accepted: Counter::default(),
            refused: Counter::default(),
            failed: Counter::default(),
            fallback: Counter::default(),
            spooled: Counter::default(),
            published: Counter::default(),
            unpublishable: Counter::default(),
            unpublished: Gauge::default(),
            spool_bytes: Gauge::default(),
            stored: Counter::default(),
            duplicates: Counter::default(),
            expired: Counter::default(),
            erased: Counter::default(),
            dead_letters: Counter::default(),
            ack_seconds: Histogram::new(ACK_SECONDS_BUCKETS),
        }
    }
}

impl ActivityMetrics {
    /// Adds `tidings_activity_{accepted,refused,failed,fallback,spooled,published,unpublishable,stored,duplicates,expired,erased,dead_letters}_total`,
    /// `tidings_activity_unpublished`, `tidings_activity_spool_bytes` and `tidings_activity_ack_seconds`.
    pub fn register(&self, registry: &mut Registry) {
        let mut counter =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("tidings_activity_accepted", "Activities acknowledged as durable", &self.accepted);
        counter("tidings_activity_refused", "Activities refused as invalid", &self.refused);
        counter("tidings_activity_failed", "Activities that nothing took in time", &self.failed);
        counter("tidings_activity_fallback", "Activities stored past the topic", &self.fallback);
        counter("tidings_activity_spooled", "Activities put into the spool", &self.spooled);
        counter("tidings_activity_published", "Activities of the fallback published later", &self.published);
        counter(
            "tidings_activity_unpublishable",
            "Activities of the fallback that are too large for the topic",
            &self.unpublishable,
        );
        counter("tidings_activity_stored", "Activities stored", &self.stored);
        counter("tidings_activity_duplicates", "Records whose activity was stored before", &self.duplicates);
        counter("tidings_activity_expired", "Activities past their retention and deleted", &self.expired);
        counter("tidings_activity_erased", "Activities of erased actors, deleted or kept out", &self.erased);
        counter("tidings_activity_dead_letters", "Records given to the failure inbox", &self.dead_letters);
        let unpublished = "Activities in the store that are not on the topic yet";
        registry.register("tidings_activity_unpublished", unpublished, self.unpublished.clone());
        let spool = "Bytes in the spool that are neither in the store nor on the topic";
        registry.register("tidings_activity_spool_bytes", spool, self.spool_bytes.clone());
        registry.register(
            "tidings_activity_ack_seconds",
            "Time from reading a request to its durable acknowledgement",
            self.ack_seconds.clone(),
        );
    }
}
