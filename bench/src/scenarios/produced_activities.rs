//! The few activities a minute of a small business, as the producer of a Kafka stack sends them: to the topic `activities` at
//! the Kafka port, each a request of its own (`acks=all`), without HTTP.
//!
//! What the platform does for them is what that stack does: it makes them durable, reads them as a group, and stores them.

use super::activities::wait_stored;
use super::single_activities::{activity, trickle_cpu};
use super::{Measured, Scenario};
use crate::figures::{PRODUCED_CPU, PRODUCED_PEAK};
use crate::kafka_client::KafkaClient;
use crate::lab::{Contestant, Lab};
use crate::peers::Peer;
use crate::platform::Platform;
use anyhow::Result;
use bytes::Bytes;
use std::time::{Instant, SystemTime};
use tidings_log::batch::BatchBuilder;

/// The topic's partitions.
const PARTITIONS: i32 = 3;

/// Activities that are produced one by one.
pub struct ProducedActivities;

impl Scenario for ProducedActivities {
    fn name(&self) -> &'static str {
        "produced-activities"
    }

    fn warms_up(&self) -> bool {
        false
    }

    fn suits(&self, peer: &dyn Peer) -> bool {
        peer.platform().is_some()
    }

    fn measure(&self, lab: &Lab, contestant: &mut Contestant) -> Result<Measured> {
        let (platform, _) = Platform::start(contestant.peer.as_ref(), &lab.work_dir)?;
        let mut client = KafkaClient::connect(&platform.kafka)?;
        client.wait_topic("activities", false)?;
        // The writer has joined its group and read once.
        client.produce("activities", 0, event(0))?;
        wait_stored(&platform, 1.0)?;
        let mut sent = 1;
        let cpu = trickle_cpu(lab, &platform, |count, interval| {
            let start = Instant::now();
            for nth in 0..count {
                std::thread::sleep((start + interval * nth as u32).saturating_duration_since(Instant::now()));
                client.produce("activities", nth as i32 % PARTITIONS, event(sent))?;
                sent += 1;
            }
            Ok(())
        })?;
        wait_stored(&platform, sent as f64)?;
        Ok(vec![(&PRODUCED_CPU, cpu), (&PRODUCED_PEAK, platform.process().peak_resident_mb()?)])
    }
}

/// A batch of one activity, as a CloudEvent.
fn event(nth: usize) -> Bytes {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let value = format!(
        r#"{{"specversion":"1.0","id":"{nth}","source":"/shop","type":"order.placed","data":{}}}"#,
        activity(nth, nth)
    );
    BatchBuilder::new().record(now as i64, Some(b"shop"), Some(value.as_bytes()), &[]).build()
}
