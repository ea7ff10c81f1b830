//! Records in, as fast as they are acknowledged.

use super::{Measured, Scenario, metered};
use crate::figures::{Figure, PRODUCE_1K, PRODUCE_1K_CPU, PRODUCE_100B, PRODUCE_100B_CPU};
use crate::lab::{Contestant, Lab};
use crate::load::{self, Shape};
use anyhow::Result;

const PARTITIONS: i32 = 3;

/// One size of records.
pub struct Produce {
    name: &'static str,
    record_bytes: usize,
    cpu: &'static Figure,
}

impl Produce {
    /// Records of 1 KiB, where bytes count.
    pub fn one_kib() -> Self {
        Self { name: "produce-1k", record_bytes: 1024, cpu: &PRODUCE_1K_CPU }
    }

    /// Records of 100 B, where their number counts.
    pub fn hundred_bytes() -> Self {
        Self { name: "produce-100b", record_bytes: 100, cpu: &PRODUCE_100B_CPU }
    }
}

impl Scenario for Produce {
    fn name(&self) -> &'static str {
        self.name
    }

    fn measure(&self, lab: &Lab, contestant: &mut Contestant) -> Result<Measured> {
        let small = self.record_bytes < 1024;
        let bytes = if small { lab.sizes.small_bytes } else { lab.sizes.bytes };
        let shape = Shape::of_bytes(bytes, self.record_bytes, PARTITIONS);
        let server = contestant.server(lab)?;
        let (seconds, usage) = lab.with_topic(server, PARTITIONS, |topic| {
            metered(server, || load::produce(server.address(), topic, shape))
        })?;
        let rate = if small {
            (&PRODUCE_100B, shape.records as f64 / seconds / 1e3)
        } else {
            (&PRODUCE_1K, shape.bytes() / seconds / 1e6)
        };
        Ok(vec![rate, (self.cpu, usage.cpu_seconds / (shape.bytes() / 1e9))])
    }
}
