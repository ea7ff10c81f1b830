//! One producer and three consumer groups that read along: each record is delivered three times.

use super::{Measured, Scenario, metered};
use crate::figures::{FAN_OUT, FAN_OUT_CPU};
use crate::lab::{Contestant, Lab};
use crate::load::{self, Consumer, Drained, Shape};
use anyhow::Result;
use std::time::Instant;

const GROUPS: usize = 3;
const PARTITIONS: i32 = 3;

/// Produces at full speed while the groups read.
pub struct FanOut;

impl Scenario for FanOut {
    fn name(&self) -> &'static str {
        "fan-out"
    }

    fn measure(&self, lab: &Lab, contestant: &mut Contestant) -> Result<Measured> {
        let shape = Shape::of_bytes(lab.sizes.bytes / 2, 1024, PARTITIONS);
        let opening = Shape { records: PARTITIONS.unsigned_abs() as usize, ..shape };
        let server = contestant.server(lab)?;
        let (seconds, usage) = lab.with_topic(server, PARTITIONS, |topic| {
            let mut consumers = Vec::new();
            for _ in 0..GROUPS {
                consumers.push(Consumer::subscribed(server.address(), topic, &lab.new_name("group"))?);
            }
            // Whoever has read a record of each partition has joined its group and is at work.
            load::fill(server.address(), topic, opening)?;
            for consumer in &mut consumers {
                load::drain(consumer, opening.records)?;
            }
            metered(server, || deliver(server.address(), topic, shape, &mut consumers))
        })?;
        let delivered = shape.bytes() * GROUPS as f64;
        Ok(vec![(&FAN_OUT, delivered / seconds / 1e6), (&FAN_OUT_CPU, usage.cpu_seconds / (delivered / 1e9))])
    }
}

/// Seconds from the first record sent to the last one read by the last group.
fn deliver(address: &str, topic: &str, shape: Shape, consumers: &mut [Consumer]) -> Result<f64> {
    let start = Instant::now();
    let drained = std::thread::scope(|scope| -> Result<Vec<Drained>> {
        let readers: Vec<_> = consumers
            .iter_mut()
            .map(|consumer| scope.spawn(move || load::drain(consumer, shape.records)))
            .collect();
        load::fill(address, topic, shape)?;
        readers.into_iter().map(|reader| reader.join().expect("a reader panicked")).collect()
    })?;
    let last = drained.iter().map(|drained| drained.last).max().unwrap_or(start);
    Ok(last.duration_since(start).as_secs_f64())
}
