//! What is measured: one file for each scenario, all behind one trait.
//!
//! A scenario does one round on one peer and answers figures. Which rounds, in which order and after which warm-up is
//! the runner's business, so that it is the same for all.

mod activities;
mod connections;
mod consume;
mod fan_out;
mod latency;
mod memory;
mod partitions;
mod platform;
mod produce;
mod produced_activities;
mod single_activities;
mod start;
mod stored_activities;
mod stored_rows;

use crate::figures::Figure;
use crate::lab::{Contestant, Lab};
use crate::peers::{Peer, Server};
use crate::process::Usage;
use anyhow::Result;

/// What one round showed.
pub type Measured = Vec<(&'static Figure, f64)>;

/// A measurement that any peer can go through.
pub trait Scenario {
    /// Its name for `--only`.
    fn name(&self) -> &'static str;

    /// Whether a round is thrown away first, so that nobody is measured cold. False where starting is what is measured.
    fn warms_up(&self) -> bool {
        true
    }

    /// Whether `peer` can go through it.
    fn suits(&self, _peer: &dyn Peer) -> bool {
        true
    }

    /// Does one round.
    fn measure(&self, lab: &Lab, contestant: &mut Contestant) -> Result<Measured>;
}

/// Every scenario, in the order in which they run: cold ones first, while no other server is up.
pub fn all() -> Vec<Box<dyn Scenario>> {
    vec![
        Box::new(start::Start),
        Box::new(memory::Memory),
        Box::new(platform::Platform),
        Box::new(activities::Activities),
        Box::new(single_activities::SingleActivities),
        Box::new(produced_activities::ProducedActivities),
        Box::new(produce::Produce::one_kib()),
        Box::new(produce::Produce::hundred_bytes()),
        Box::new(consume::Consume),
        Box::new(fan_out::FanOut),
        Box::new(latency::Latency),
        Box::new(partitions::Partitions),
        Box::new(connections::Connections),
        Box::new(stored_activities::StoredActivities::default()),
    ]
}

/// Runs `work` and answers with its result what the server used meanwhile.
fn metered<T>(server: &Server, work: impl FnOnce() -> Result<T>) -> Result<(T, Usage)> {
    let before = server.process().usage()?;
    let done = work()?;
    Ok((done, server.process().usage()? - before))
}
