//! Records out of the page cache, as fast as one consumer takes them, from the moment it has the first one.

use super::{Measured, Scenario, metered};
use crate::figures::{CONSUME_1K, CONSUME_1K_CPU};
use crate::lab::{Contestant, Lab};
use crate::load::{self, Consumer, Shape};
use anyhow::Result;

const PARTITIONS: i32 = 3;

/// Reads a topic of 1 KiB records that was filled before.
pub struct Consume;

impl Scenario for Consume {
    fn name(&self) -> &'static str {
        "consume-1k"
    }

    fn measure(&self, lab: &Lab, contestant: &mut Contestant) -> Result<Measured> {
        let shape = Shape::of_bytes(lab.sizes.bytes, 1024, PARTITIONS);
        let server = contestant.server(lab)?;
        let (drained, usage) = lab.with_topic(server, PARTITIONS, |topic| {
            load::fill(server.address(), topic, shape)?;
            lab.settle();
            metered(server, || {
                let mut consumer = Consumer::assigned(server.address(), topic, PARTITIONS)?;
                load::drain(&mut consumer, shape.records)
            })
        })?;
        let seconds = drained.last.duration_since(drained.first).as_secs_f64();
        Ok(vec![
            (&CONSUME_1K, drained.bytes / seconds / 1e6),
            (&CONSUME_1K_CPU, usage.cpu_seconds / (shape.bytes() / 1e9)),
        ])
    }
}
