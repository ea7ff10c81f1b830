//! End-to-end latency at fixed rates, and what one request costs the broker.

use super::{Measured, Scenario};
use crate::figures::{
    Figure, LATENCY_200_P50, LATENCY_200_P99, LATENCY_2000_P50, LATENCY_2000_P99, LATENCY_2000_P999,
    LATENCY_8000_P50, LATENCY_8000_P99, REQUEST_CPU, REQUEST_SWITCHES,
};
use crate::lab::{Contestant, Lab};
use crate::load::{PacedOutcome, run_paced};
use crate::peers::Server;
use crate::process::Usage;
use anyhow::{Context, Result};

const RECORD_BYTES: usize = 1024;
const PARTITIONS: i32 = 3;
/// The rate whose requests are accounted for.
const MAIN_RATE: usize = 2000;
/// What the goal for processor time counts: 17 seconds at the main rate.
const ACCOUNTED_REQUESTS: f64 = 34_000.0;
/// The other rates get a part of the time.
const SIDE_SHARE: usize = 3;

/// 200, 2,000 and 8,000 records a second, each its own request.
pub struct Latency;

impl Scenario for Latency {
    fn name(&self) -> &'static str {
        "latency"
    }

    fn measure(&self, lab: &Lab, contestant: &mut Contestant) -> Result<Measured> {
        let server = contestant.server(lab)?;
        let seconds = lab.sizes.paced_seconds;
        let (main, usage) = paced(lab, server, MAIN_RATE, seconds)?;
        let requests = (MAIN_RATE * seconds) as f64;
        let mut measured = vec![
            (&LATENCY_2000_P50, main.percentile(500)),
            (&LATENCY_2000_P99, main.percentile(990)),
            (&LATENCY_2000_P999, main.percentile(999)),
            (&REQUEST_CPU, usage.cpu_seconds / requests * ACCOUNTED_REQUESTS),
            (&REQUEST_SWITCHES, usage.context_switches / requests),
        ];
        let sides: [(usize, &'static Figure, &'static Figure); 2] =
            [(200, &LATENCY_200_P50, &LATENCY_200_P99), (8000, &LATENCY_8000_P50, &LATENCY_8000_P99)];
        for (rate, p50, p99) in sides {
            let (side, _) = paced(lab, server, rate, seconds.div_ceil(SIDE_SHARE))?;
            measured.push((p50, side.percentile(500)));
            measured.push((p99, side.percentile(990)));
        }
        Ok(measured)
    }
}

fn paced(lab: &Lab, server: &Server, rate: usize, seconds: usize) -> Result<(PacedOutcome, Usage)> {
    let mut before = None;
    let outcome = lab.with_topic(server, PARTITIONS, |topic| {
        run_paced(server.address(), topic, RECORD_BYTES, rate, rate * seconds, || {
            before = Some(server.process().usage()?);
            Ok(())
        })
    })?;
    let usage = server.process().usage()? - before.context("the measurement did not begin")?;
    Ok((outcome, usage))
}
