//! The same bytes over 1,000 partitions and over 3: what a partition costs.

use super::{Measured, Scenario};
use crate::figures::{PARTITIONS_1000, PARTITIONS_FACTOR};
use crate::lab::{Contestant, Lab};
use crate::load::{self, Shape};
use anyhow::Result;

const FEW: i32 = 3;
const MANY: i32 = 1000;

/// Produces 1 KiB records evenly.
pub struct Partitions;

impl Scenario for Partitions {
    fn name(&self) -> &'static str {
        "partitions"
    }

    fn measure(&self, lab: &Lab, contestant: &mut Contestant) -> Result<Measured> {
        let server = contestant.server(lab)?;
        let seconds = |partitions| {
            let shape = Shape::of_bytes(lab.sizes.spread_bytes, 1024, partitions);
            lab.with_topic(server, partitions, |topic| load::produce(server.address(), topic, shape))
        };
        let (few, many) = (seconds(FEW)?, seconds(MANY)?);
        let megabytes = Shape::of_bytes(lab.sizes.spread_bytes, 1024, MANY).bytes() / 1e6;
        Ok(vec![(&PARTITIONS_1000, megabytes / many), (&PARTITIONS_FACTOR, many / few)])
    }
}
