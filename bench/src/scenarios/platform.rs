//! The whole platform from nothing: ready, first record, first activity, and its memory when nothing happens.

use super::start::one_record;
use super::{Measured, Scenario};
use crate::figures::{FIRST_ACK_UP, FIRST_ACTIVITY, PLATFORM_IDLE, READY};
use crate::http_client::HttpClient;
use crate::kafka_client::KafkaClient;
use crate::lab::{Contestant, Lab};
use crate::peers::Peer;
use crate::platform;
use anyhow::{Result, ensure};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the server may take to open its Kafka port.
const LIMIT: Duration = Duration::from_secs(30);
/// How long the platform is left alone before its idle memory is read.
const IDLE: Duration = Duration::from_secs(5);
const ACTIVITY: &[u8] =
    br#"{"tenant":"UA","action":"flight.departed","targets":[{"type":"flight","id":"UA1"}]}"#;

/// Starts it twice: once for HTTP, once for the Kafka port.
pub struct Platform;

impl Scenario for Platform {
    fn name(&self) -> &'static str {
        "platform"
    }

    fn warms_up(&self) -> bool {
        false
    }

    fn suits(&self, peer: &dyn Peer) -> bool {
        peer.platform().is_some()
    }

    fn measure(&self, lab: &Lab, contestant: &mut Contestant) -> Result<Measured> {
        let peer = contestant.peer.as_ref();
        lab.settle();
        let mut measured = http(peer, &lab.work_dir)?;
        measured.push((&FIRST_ACK_UP, first_ack_ms(peer, &lab.work_dir)?));
        Ok(measured)
    }
}

fn http(peer: &dyn Peer, work_dir: &Path) -> Result<Measured> {
    let (platform, ready_after) = platform::Platform::start(peer, work_dir)?;
    let ready = Instant::now();
    let answer = HttpClient::connect(&platform.http)?.post_json("/api/v1/activities", ACTIVITY)?;
    let first_activity = ready.elapsed();
    ensure!(answer.status < 300, "expected success, found {}", answer.status);
    std::thread::sleep(IDLE);
    Ok(vec![
        (&READY, millis(ready_after)),
        (&FIRST_ACTIVITY, millis(first_activity)),
        (&PLATFORM_IDLE, platform.process().resident_mb()?),
    ])
}

fn first_ack_ms(peer: &dyn Peer, work_dir: &Path) -> Result<f64> {
    let platform = platform::Platform::launch(peer, work_dir)?;
    let mut client = KafkaClient::connect_when_up(&platform.kafka, LIMIT)?;
    client.wait_topic("first", true)?;
    client.produce("first", 0, one_record())?;
    Ok(millis(platform.started().elapsed()))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
