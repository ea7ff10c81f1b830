//! Single activities through HTTP: as many as there can be at once, at a fixed rate, and the few a minute that a small
//! business has.
//!
//! At a fixed rate a post counts from the moment at which it was meant to be sent (an open loop): what a pause delays,
//! counts its delay too.

use super::{Measured, Scenario};
use crate::awake::Awake;
use crate::figures::{
    PACED_ACTIVITY_P50, PACED_ACTIVITY_P99, SINGLE_ACTIVITIES, SINGLE_ACTIVITY_CPU, SINGLE_ACTIVITY_P99,
    TRICKLE_CPU, TRICKLE_CPU_AWAKE, TRICKLE_PEAK,
};
use crate::http_client::HttpClient;
use crate::lab::{Contestant, Lab};
use crate::peers::Peer;
use crate::platform::Platform;
use anyhow::{Result, ensure};
use std::time::{Duration, Instant};

/// Connections that post as fast as they are answered.
const CONNECTIONS: usize = 64;
/// Connections that share a fixed rate.
const PACED_CONNECTIONS: usize = 16;
/// Posts a second at the fixed rate.
const PACED_RATE: usize = 1_000;
/// Activities a minute of a small business.
const TRICKLE_PER_MINUTE: usize = 3_000;

/// Posts of one activity each.
pub struct SingleActivities;

impl Scenario for SingleActivities {
    fn name(&self) -> &'static str {
        "single-activities"
    }

    fn warms_up(&self) -> bool {
        false
    }

    fn suits(&self, peer: &dyn Peer) -> bool {
        peer.platform().is_some()
    }

    fn measure(&self, lab: &Lab, contestant: &mut Contestant) -> Result<Measured> {
        let peer = contestant.peer.as_ref();
        let mut measured = trickle(lab, &Platform::start(peer, &lab.work_dir)?.0)?;
        let (platform, _) = Platform::start(peer, &lab.work_dir)?;
        // The first use creates connections that every later one shares.
        post_each(&platform.http, CONNECTIONS, 1, None)?;
        measured.extend(at_once(lab, &platform)?);
        measured.extend(paced(lab, &platform)?);
        Ok(measured)
    }
}

fn at_once(lab: &Lab, platform: &Platform) -> Result<Measured> {
    let each = lab.sizes.single_activities / CONNECTIONS;
    lab.settle();
    let before = platform.process().usage()?;
    let start = Instant::now();
    let latencies_ms = post_each(&platform.http, CONNECTIONS, each, None)?;
    let seconds = start.elapsed().as_secs_f64();
    let (usage, count) = (platform.process().usage()? - before, latencies_ms.len() as f64);
    Ok(vec![
        (&SINGLE_ACTIVITIES, count / seconds),
        (&SINGLE_ACTIVITY_P99, percentile(&latencies_ms, 99)),
        (&SINGLE_ACTIVITY_CPU, usage.cpu_seconds / count * 1e6),
    ])
}

fn paced(lab: &Lab, platform: &Platform) -> Result<Measured> {
    let each = lab.sizes.paced_seconds * PACED_RATE / PACED_CONNECTIONS;
    lab.settle();
    let interval = Duration::from_secs(1) / PACED_RATE as u32;
    let latencies_ms = post_each(&platform.http, PACED_CONNECTIONS, each, Some(interval))?;
    Ok(vec![
        (&PACED_ACTIVITY_P50, percentile(&latencies_ms, 50)),
        (&PACED_ACTIVITY_P99, percentile(&latencies_ms, 99)),
    ])
}

fn trickle(lab: &Lab, platform: &Platform) -> Result<Measured> {
    let post = |count, interval| post_each(&platform.http, 1, count, Some(interval)).map(drop);
    let alone = trickle_cpu(lab, platform, post)?;
    let awake = Awake::start()?;
    let cpu_awake = trickle_cpu(lab, platform, post)?;
    drop(awake);
    let peak = platform.process().peak_resident_mb()?;
    Ok(vec![(&TRICKLE_CPU, alone), (&TRICKLE_CPU_AWAKE, cpu_awake), (&TRICKLE_PEAK, peak)])
}

/// What the platform uses while so many activities are sent, one per interval, in percent of a core.
pub(super) fn trickle_cpu(
    lab: &Lab,
    platform: &Platform,
    send: impl FnOnce(usize, Duration) -> Result<()>,
) -> Result<f64> {
    let interval = Duration::from_secs(60) / TRICKLE_PER_MINUTE as u32;
    let count = lab.sizes.paced_seconds * TRICKLE_PER_MINUTE / 60;
    lab.settle();
    let before = platform.process().usage()?;
    let start = Instant::now();
    send(count, interval)?;
    let usage = platform.process().usage()? - before;
    Ok(usage.cpu_seconds / start.elapsed().as_secs_f64() * 100.0)
}

/// Posts `each` activities on every connection, all together one per `interval` if there is one; the latencies in
/// milliseconds, in ascending order.
fn post_each(http: &str, connections: usize, each: usize, interval: Option<Duration>) -> Result<Vec<f64>> {
    // Everybody is connected when the first post is due.
    let start = Instant::now() + Duration::from_millis(100);
    let mut latencies_ms = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..connections)
            .map(|worker| {
                scope.spawn(move || {
                    let due = |nth: usize| Some(start + interval? * (nth * connections + worker) as u32);
                    post_one_by_one(http, worker, each, due)
                })
            })
            .collect();
        let mut latencies_ms = Vec::new();
        for worker in workers {
            latencies_ms.extend(worker.join().expect("a load thread panicked")?);
        }
        anyhow::Ok(latencies_ms)
    })?;
    latencies_ms.sort_by(f64::total_cmp);
    Ok(latencies_ms)
}

fn post_one_by_one(
    http: &str,
    worker: usize,
    count: usize,
    due: impl Fn(usize) -> Option<Instant>,
) -> Result<Vec<f64>> {
    let mut client = HttpClient::connect(http)?;
    let mut latencies_ms = Vec::with_capacity(count);
    for nth in 0..count {
        let begun = due(nth);
        if let Some(due) = begun {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let begun = begun.unwrap_or_else(Instant::now);
        let answer = client.post_json("/api/v1/activities", activity(worker, nth).as_bytes())?;
        latencies_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 200, "expected 200, found {}: {text}", answer.status);
    }
    Ok(latencies_ms)
}

/// What somebody did.
pub(super) fn activity(worker: usize, nth: usize) -> String {
    format!(
        r#"{{"tenant":"shop-{}","actor":{{"type":"user","id":"user-{}","name":"Somebody"}},"action":"order.placed","targets":[{{"type":"order","id":"order-{worker}-{nth}"}}],"context":{{"ip":"192.0.2.7","user_agent":"bench"}},"metadata":{{"items":3,"total_cents":4990,"currency":"EUR"}}}}"#,
        worker % 8,
        nth % 500,
    )
}

fn percentile(ascending: &[f64], percent: usize) -> f64 {
    ascending[(ascending.len() * percent / 100).min(ascending.len() - 1)]
}
