//! As fast as it goes: records in, and records out.

use super::producer::Outgoing;
use super::{Batching, Consumer, Producer, Shape, noise};
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// Records handed to librdkafka in one call.
const CALL: usize = 1000;
/// How long a consumer waits for records before it looks at the clock.
const TAKE_WAIT: Duration = Duration::from_millis(200);
/// How long records may stay away before the run fails.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// What a consumer saw.
pub struct Drained {
    /// When the first record came.
    pub first: Instant,
    /// When the last one came.
    pub last: Instant,
    /// Bytes of all values after the first record.
    pub bytes: f64,
}

/// Sends `shape` to `topic` and answers the seconds from the first record's sending to the last acknowledgement.
/// Connections and metadata are made before.
pub fn produce(address: &str, topic: &str, shape: Shape) -> Result<f64> {
    let producer = Producer::new(address, topic, Batching::Large)?;
    let value = noise(shape.record_bytes);
    let opening: Vec<Outgoing> =
        (0..shape.partitions).map(|partition| Outgoing { partition, value: &value }).collect();
    producer.send(&opening)?;
    producer.flush()?;
    let start = Instant::now();
    send_all(&producer, shape)?;
    let seconds = start.elapsed().as_secs_f64();
    let expected = shape.records + opening.len();
    ensure!(
        producer.acknowledged() == expected,
        "expected {expected} acknowledgements, found {}",
        producer.acknowledged()
    );
    Ok(seconds)
}

/// Sends `shape` to `topic` and nothing else.
pub fn fill(address: &str, topic: &str, shape: Shape) -> Result<()> {
    send_all(&Producer::new(address, topic, Batching::Large)?, shape)
}

fn send_all(producer: &Producer, shape: Shape) -> Result<()> {
    // Values overlap in one buffer: different bytes for each record, without a copy of our own.
    let noise = noise(shape.record_bytes + CALL);
    let mut partition = 0;
    let mut call = Vec::with_capacity(CALL);
    let mut left = shape.records;
    while left > 0 {
        call.clear();
        for n in 0..CALL.min(left) {
            call.push(Outgoing { partition, value: &noise[n..n + shape.record_bytes] });
            partition = (partition + 1) % shape.partitions;
        }
        producer.send(&call)?;
        left -= call.len();
    }
    producer.flush()
}

/// Reads until `records` records have come.
pub fn drain(consumer: &mut Consumer, records: usize) -> Result<Drained> {
    let mut bytes = 0;
    let mut silent_since = Instant::now();
    while !consumer.take_one(TAKE_WAIT, |_| {})? {
        ensure!(silent_since.elapsed() < SILENCE_LIMIT, "the first record did not come");
    }
    let first = Instant::now();
    let mut seen = 1;
    while seen < records {
        let count = consumer.take(records - seen, TAKE_WAIT, |value| bytes += value.len())?;
        seen += count;
        if count > 0 {
            silent_since = Instant::now();
        }
        ensure!(silent_since.elapsed() < SILENCE_LIMIT, "only {seen} of {records} records came");
    }
    Ok(Drained { first, last: Instant::now(), bytes: bytes as f64 })
}
