//! Activities through HTTP into the store: throughput, acknowledgement latency, processor time and memory.
//!
//! The load generator shares the machine with the platform, as the goal says. Each event is one step of a
//! synthetic flight, shaped and sized like the shipped data; ids are new on every run, so nothing is a duplicate.

use crate::http_client::HttpClient;
use crate::process::Platform;
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Activities in one request.
const BATCH: usize = 100;
/// Concurrent connections of the load generator.
const CONNECTIONS: usize = 8;
/// How long the store may take to catch up after the last acknowledgement.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);

/// What one run showed.
pub struct ActivityFigures {
    /// Events sent, acknowledged and stored.
    pub events: usize,
    /// From the first request to the last row in the store.
    pub seconds: f64,
    /// Time from request to durable acknowledgement of a batch, in milliseconds.
    pub ack_p50_ms: f64,
    /// The same, 99th percentile.
    pub ack_p99_ms: f64,
    /// CPU seconds of the platform.
    pub cpu_seconds: f64,
    /// Peak resident memory of the platform.
    pub peak_mb: f64,
}

/// Sends `events` activities in batches over several connections and waits until all are stored.
pub fn run(binary: &Path, data_dir: &Path, events: usize) -> Result<ActivityFigures> {
    let platform = Platform::start(binary, "up", data_dir)?;
    let batches_each = events / BATCH / CONNECTIONS;
    let events = batches_each * BATCH * CONNECTIONS;
    // One request outside the measurement: first use creates connections that every later one shares.
    post_batches(&platform.http, CONNECTIONS, 1)?;
    let (stored_before, cpu_before) = (stored(&platform)?, platform.cpu_seconds()?);
    let start = Instant::now();
    let mut acks = std::thread::scope(|scope| -> Result<Vec<f64>> {
        let http = platform.http.as_str();
        let workers: Vec<_> = (0..CONNECTIONS)
            .map(|worker| scope.spawn(move || post_batches(http, worker, batches_each)))
            .collect();
        let mut acks = Vec::new();
        for worker in workers {
            acks.extend(worker.join().expect("a load thread panicked")?);
        }
        Ok(acks)
    })?;
    wait_stored(&platform, stored_before + events as f64, start)?;
    let seconds = start.elapsed().as_secs_f64();
    acks.sort_by(f64::total_cmp);
    Ok(ActivityFigures {
        events,
        seconds,
        ack_p50_ms: acks[acks.len() / 2],
        ack_p99_ms: acks[acks.len() * 99 / 100],
        cpu_seconds: platform.cpu_seconds()? - cpu_before,
        peak_mb: platform.peak_resident_mb()?,
    })
}

fn post_batches(http: &str, worker: usize, count: usize) -> Result<Vec<f64>> {
    let mut client = HttpClient::connect(http)?;
    let mut acks = Vec::with_capacity(count);
    let mut body = String::new();
    for batch in 0..count {
        write_batch(&mut body, worker, batch);
        let sent = Instant::now();
        let answer = client.post_json("/api/v1/activities", body.as_bytes())?;
        acks.push(sent.elapsed().as_secs_f64() * 1e3);
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 200 || answer.status == 202, "expected 200, found {}: {text}", answer.status);
    }
    Ok(acks)
}

fn write_batch(body: &mut String, worker: usize, batch: usize) {
    body.clear();
    body.push('[');
    for n in 0..BATCH {
        let (minute, second) = (batch / 60 % 60, batch % 60);
        let tenant = ["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E"][(worker + n) % 8];
        let flight = batch * BATCH + n;
        write!(
            body,
            r#"{}{{"id":"bench-{worker}-{batch}-{n}","tenant":"{tenant}","actor":{{"type":"aircraft","id":"N{flight}"}},"action":"flight.departed","targets":[{{"type":"flight","id":"{tenant}{flight}-2013-01-01-JFK","name":"{tenant} {flight} JFK-LAX"}}],"metadata":{{"origin":"JFK","dest":"LAX","dep_delay":{n},"distance":2475}},"occurred_at":"2013-01-01T10:{minute:02}:{second:02}Z"}}"#,
            if n == 0 { "" } else { "," }
        )
        .expect("writing to a string cannot fail");
    }
    body.push(']');
}

/// Sums a Prometheus metric over its labels.
pub fn metric(http: &str, name: &str) -> Result<f64> {
    let answer = HttpClient::connect(http)?.get("/metrics")?;
    let text = String::from_utf8(answer.body)?;
    let values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        (series.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok()).flatten()
    });
    let values: Vec<f64> = values.collect();
    ensure!(!values.is_empty(), "expected the metric {name}, found none");
    Ok(values.iter().sum())
}

fn stored(platform: &Platform) -> Result<f64> {
    metric(&platform.http, "tidings_activity_stored_total").context("read the stored count")
}

fn wait_stored(platform: &Platform, expected: f64, start: Instant) -> Result<()> {
    let mut last = stored(platform)?;
    while last < expected {
        ensure!(start.elapsed() < CATCH_UP_LIMIT, "stored {last} of {expected} within {CATCH_UP_LIMIT:?}");
        std::thread::sleep(Duration::from_millis(10));
        last = stored(platform)?;
    }
    Ok(())
}
