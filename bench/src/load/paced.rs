//! Records at a fixed rate, each measured from the moment it was meant to be sent to the moment it was read.
//!
//! The schedule does not wait for the broker (an open loop): when the broker stalls, the records that should have been
//! sent meanwhile count their delay too.

use super::producer::Outgoing;
use super::{Batching, Consumer, Producer, noise};
use anyhow::{Result, ensure};
use rustix::thread::set_current_timer_slack;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Partitions of the topic, as everywhere.
const PARTITIONS: i32 = 3;
/// How long records may still come after the last was sent.
const TAIL_LIMIT: Duration = Duration::from_secs(20);

/// What was seen.
pub struct PacedOutcome {
    /// End-to-end latency of each record in milliseconds, in ascending order.
    pub latencies_ms: Vec<f64>,
}

impl PacedOutcome {
    /// The latency that `per_mille` of a thousand records did not exceed.
    pub fn percentile(&self, per_mille: usize) -> f64 {
        self.latencies_ms[(self.latencies_ms.len() * per_mille / 1000).min(self.latencies_ms.len() - 1)]
    }
}

/// Sends `records` records of `record_bytes` at `rate` per second to `topic`, one by one and without waiting for a batch
/// to fill, while a consumer reads them. `begun` is called when both are warm: what is measured around starts there.
pub fn run_paced(
    address: &str,
    topic: &str,
    record_bytes: usize,
    rate: usize,
    records: usize,
    begun: impl FnOnce() -> Result<()>,
) -> Result<PacedOutcome> {
    let producer = Producer::new(address, topic, Batching::OneByOne)?;
    let mut consumer = Consumer::assigned(address, topic, PARTITIONS)?;
    let warm_up = rate / 2;
    let base = Instant::now();
    pace(&producer, base, record_bytes, rate, warm_up)?;
    collect(&mut consumer, base, warm_up, &AtomicBool::new(true))?;
    begun()?;
    let sent = AtomicBool::new(false);
    let base = Instant::now() + Duration::from_millis(10);
    let mut latencies_ms = std::thread::scope(|scope| -> Result<Vec<f64>> {
        let reader = scope.spawn(|| collect(&mut consumer, base, records, &sent));
        let paced = pace(&producer, base, record_bytes, rate, records);
        sent.store(true, Ordering::Release);
        paced?;
        reader.join().expect("the reader panicked")
    })?;
    latencies_ms.sort_by(f64::total_cmp);
    Ok(PacedOutcome { latencies_ms })
}

/// Sends each record at its time; a late one at once. The intended time travels in the value.
fn pace(producer: &Producer, base: Instant, record_bytes: usize, rate: usize, records: usize) -> Result<()> {
    // The kernel may by default wake a thread 50 us late, to save power.
    set_current_timer_slack(NonZero::new(1))?;
    let mut value = noise(record_bytes.max(8));
    let mut partition = 0;
    for n in 0..records {
        let intended = Duration::from_nanos(n as u64 * 1_000_000_000 / rate as u64);
        if let Some(wait) = (base + intended).checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        value[..8].copy_from_slice(&u64::try_from(intended.as_nanos())?.to_le_bytes());
        producer.send(&[Outgoing { partition, value: &value }])?;
        partition = (partition + 1) % PARTITIONS;
    }
    producer.flush()
}

/// Reads `records` records and answers how late after its intended time each came, in milliseconds.
fn collect(consumer: &mut Consumer, base: Instant, records: usize, sent: &AtomicBool) -> Result<Vec<f64>> {
    let mut latencies_ms = Vec::with_capacity(records);
    let mut all_sent_at = None;
    while latencies_ms.len() < records {
        consumer.take_one(Duration::from_millis(100), |value| {
            let now = base.elapsed();
            let mut intended = [0; 8];
            intended.copy_from_slice(&value[..8]);
            let latency = now.saturating_sub(Duration::from_nanos(u64::from_le_bytes(intended)));
            latencies_ms.push(latency.as_secs_f64() * 1e3);
        })?;
        if all_sent_at.is_none() && sent.load(Ordering::Acquire) {
            all_sent_at = Some(Instant::now());
        }
        let waited = all_sent_at.map_or(Duration::ZERO, |at: Instant| at.elapsed());
        ensure!(waited < TAIL_LIMIT, "only {} of {records} records came", latencies_ms.len());
    }
    Ok(latencies_ms)
}
