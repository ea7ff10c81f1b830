//! Activities through HTTP into the store: throughput, acknowledgement latency, processor time and memory.
//!
//! The load generator shares the machine with the platform, as the goal says. Each event is one step of a
//! synthetic flight, shaped and sized like the shipped data; ids are new on every run, so nothing is a duplicate.

use super::{Measured, Scenario};
use crate::figures::{ACTIVITIES, ACTIVITY_CPU, ACTIVITY_P50, ACTIVITY_P99, ACTIVITY_PEAK};
use crate::http_client::HttpClient;
use crate::lab::{Contestant, Lab};
use crate::peers::Peer;
use crate::platform::Platform;
use anyhow::{Context, Result, ensure};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Activities in one request.
const BATCH: usize = 100;
/// Concurrent connections of the load generator.
const CONNECTIONS: usize = 8;
/// How long the store may take to catch up after the last acknowledgement.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);

/// Batches over several connections until all of them are stored.
pub struct Activities;

impl Scenario for Activities {
    fn name(&self) -> &'static str {
        "activities"
    }

    fn warms_up(&self) -> bool {
        false
    }

    fn suits(&self, peer: &dyn Peer) -> bool {
        peer.platform().is_some()
    }

    fn measure(&self, lab: &Lab, contestant: &mut Contestant) -> Result<Measured> {
        let peer = contestant.peer.as_ref();
        let (platform, _) = Platform::start(peer, &lab.work_dir)?;
        let batches_each = lab.sizes.activities / BATCH / CONNECTIONS;
        let events = (batches_each * BATCH * CONNECTIONS) as f64;
        // One request outside the measurement: first use creates connections that every later one shares.
        post_batches(&platform.http, CONNECTIONS, 1)?;
        wait_stored(&platform, BATCH as f64)?;
        lab.settle();
        let before = platform.process().usage()?;
        let start = Instant::now();
        let mut acks_ms = post_all(&platform.http, batches_each)?;
        wait_stored(&platform, BATCH as f64 + events)?;
        let seconds = start.elapsed().as_secs_f64();
        acks_ms.sort_by(f64::total_cmp);
        let usage = platform.process().usage()? - before;
        Ok(vec![
            (&ACTIVITIES, events / seconds),
            (&ACTIVITY_P50, acks_ms[acks_ms.len() / 2]),
            (&ACTIVITY_P99, acks_ms[acks_ms.len() * 99 / 100]),
            (&ACTIVITY_CPU, usage.cpu_seconds / events * 1e6),
            (&ACTIVITY_PEAK, platform.process().peak_resident_mb()?),
        ])
    }
}

/// Stores about `count` activities.
pub(super) fn fill(platform: &Platform, count: usize) -> Result<()> {
    let batches_each = count / BATCH / CONNECTIONS;
    post_all(&platform.http, batches_each)?;
    wait_stored(platform, (batches_each * BATCH * CONNECTIONS) as f64)
}

/// Stores an activity at the beginning of each of so many months.
pub(super) fn fill_months(platform: &Platform, first_year: usize, months: usize) -> Result<()> {
    let mut client = HttpClient::connect(&platform.http)?;
    let activities = (0..months).map(|month| {
        let occurred_at = format!("{}-{:02}-01T00:00:00Z", first_year + month / 12, 1 + month % 12);
        serde_json::json!({"tenant": "months", "action": "month.begun", "occurred_at": occurred_at})
    });
    let body = serde_json::Value::from_iter(activities).to_string();
    let answer = client.post_json("/api/v1/activities", body.as_bytes())?;
    ensure!(answer.status == 200, "expected 200, found {}", answer.status);
    wait_stored(platform, months as f64)
}

/// The tenant of an activity by its number.
pub(super) fn tenant(number: usize) -> &'static str {
    ["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E"][number % 8]
}

fn post_all(http: &str, batches_each: usize) -> Result<Vec<f64>> {
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..CONNECTIONS)
            .map(|worker| scope.spawn(move || post_batches(http, worker, batches_each)))
            .collect();
        let mut acks_ms = Vec::new();
        for worker in workers {
            acks_ms.extend(worker.join().expect("a load thread panicked")?);
        }
        Ok(acks_ms)
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
        ensure!(
            answer.status == 200 || answer.status == 202,
            "expected 200, found {}: {text}",
            answer.status
        );
    }
    Ok(acks)
}

fn write_batch(body: &mut String, worker: usize, batch: usize) {
    body.clear();
    body.push('[');
    for n in 0..BATCH {
        let (minute, second) = (batch / 60 % 60, batch % 60);
        let tenant = tenant(worker + n);
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
fn metric(http: &str, name: &str) -> Result<f64> {
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

/// Waits until so many are stored since the start.
pub(super) fn wait_stored(platform: &Platform, expected: f64) -> Result<()> {
    let start = Instant::now();
    let mut last = stored(platform)?;
    while last < expected {
        ensure!(start.elapsed() < CATCH_UP_LIMIT, "stored {last} of {expected} within {CATCH_UP_LIMIT:?}");
        std::thread::sleep(Duration::from_millis(10));
        last = stored(platform)?;
    }
    Ok(())
}
