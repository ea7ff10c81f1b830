//! Resident memory of a broker: some seconds after its start, and at its worst while records go in and out.

use super::{Measured, Scenario};
use crate::figures::{IDLE_MEMORY, PEAK_MEMORY};
use crate::lab::{Contestant, Lab};
use crate::load::{self, Consumer, Shape};
use crate::peers::Server;
use anyhow::Result;
use std::time::Duration;

/// How long the server is left alone before its idle memory is read.
const IDLE: Duration = Duration::from_secs(5);
const PARTITIONS: i32 = 3;

/// Watches one server from start to load.
pub struct Memory;

impl Scenario for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn warms_up(&self) -> bool {
        false
    }

    fn measure(&self, lab: &Lab, contestant: &mut Contestant) -> Result<Measured> {
        let server = Server::start(contestant.peer.as_ref(), &lab.work_dir)?;
        std::thread::sleep(IDLE);
        let idle = server.process().resident_mb()?;
        let shape = Shape::of_bytes(lab.sizes.bytes, 1024, PARTITIONS);
        lab.with_topic(&server, PARTITIONS, |topic| {
            load::fill(server.address(), topic, shape)?;
            let mut consumer = Consumer::assigned(server.address(), topic, PARTITIONS)?;
            load::drain(&mut consumer, shape.records)
        })?;
        Ok(vec![(&IDLE_MEMORY, idle), (&PEAK_MEMORY, server.process().peak_resident_mb()?)])
    }
}
