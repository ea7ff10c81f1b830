//! What is done to the broker, one module for each kind of harm, and the list of all.
//!
//! Owns what a case is: a run in which every promise must hold, and a control in which one must be seen broken.

pub mod clock;
mod cuts;
pub mod faults;
pub mod flips;
pub mod kill;
mod load;
pub mod power;
pub mod resources;
pub mod tails;
pub mod transactions;
pub mod txn_flips;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};

use crate::history::Findings;

/// When a broker is hurt.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Moment,
    /// Before a file operation.
    Operation,
}

/// How much of a case to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides everything but the scheduling.
    pub seed: u64,
    /// How often to hurt the broker.
    pub rounds: u64,
}

impl Plan {
    /// The rounds of a run.
    pub fn each_round(&self, mut round: impl FnMut(u64, &mut Tally) -> Result<()>) -> Result<Tally> {
        let mut tally = Tally::default();
        for at in 0..self.rounds {
            let seed = self.seed.wrapping_add(at);
            round(seed, &mut tally).with_context(|| format!("round with seed {seed}"))?;
            tally.rounds += 1;
        }
        Ok(tally)
    }

    /// The rounds of a run in groups of at most so many, each on what the one before it in its group has left. `group` is
    /// given its seed and its number of rounds, and counts them.
    pub fn in_groups(
        &self,
        most: u64,
        what: &str,
        mut group: impl FnMut(u64, u64, &mut Tally) -> Result<()>,
    ) -> Result<Tally> {
        let mut tally = Tally::default();
        for at in 0.. {
            let left = self.rounds - tally.rounds;
            if left == 0 {
                break;
            }
            let seed = self.seed.wrapping_add(at);
            group(seed, left.min(most), &mut tally).with_context(|| format!("{what} with seed {seed}"))?;
        }
        Ok(tally)
    }

    /// The rounds of a control: as many as planned, and then on until harm is seen, within a limit. What one round takes
    /// away may be nothing that was promised yet; many that find nothing say that the judge is blind.
    pub fn until_harm(&self, mut round: impl FnMut(u64, &mut Tally) -> Result<()>) -> Result<Tally> {
        let mut tally = Tally::default();
        for at in 0..self.rounds.max(MOST_CONTROL_ROUNDS) {
            if at >= self.rounds && !tally.findings.is_clean() {
                break;
            }
            let seed = self.seed.wrapping_add(at);
            round(seed, &mut tally).with_context(|| format!("control round with seed {seed}"))?;
            tally.rounds += 1;
        }
        Ok(tally)
    }
}

/// A control that has done no harm in so many rounds does none.
const MOST_CONTROL_ROUNDS: u64 = 20;

/// What came out.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How often the broker was hurt.
    pub rounds: u64,
    /// What the judge says.
    pub findings: Findings,
    /// What else was counted.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// Counts something.
    pub fn count(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rounds {}; {}", self.rounds, self.findings)?;
        self.counts.iter().try_for_each(|(what, times)| write!(f, "\n  {what}: {times}"))
    }
}

/// A kind of harm.
#[derive(Clone, Copy)]
pub struct Case {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What is done.
    pub about: &'static str,
    /// Rounds of the short form, and of its control, which goes on until it sees harm.
    pub short: (u64, u64),
    /// Must find nothing broken.
    pub run: fn(&Plan) -> Result<Tally>,
    /// Must find something broken.
    pub control: fn(&Plan) -> Result<Tally>,
    /// What the control leaves out, or does on purpose.
    pub control_about: &'static str,
}

/// Every case.
pub const CASES: &[Case] = &[
    kill::RANDOM,
    kill::POINTS,
    power::RANDOM,
    power::POINTS,
    tails::TAILS,
    flips::FLIPS,
    faults::SYNC,
    faults::WRITE,
    resources::FULL,
    resources::FILES,
    resources::READ_ONLY,
    clock::CLOCK,
    transactions::KILL,
    transactions::KILL_POINTS,
    transactions::POWER,
    transactions::POWER_POINTS,
    txn_flips::FLIPS,
];

/// The case of this name.
pub fn case(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}
