//! The order of measurements: rounds are interleaved, so that what changes on the machine meanwhile hits every peer.

use crate::lab::{Contestant, Lab};
use crate::limits;
use crate::results::{LIMIT, Results, number};
use crate::scenarios::{Measured, Scenario};
use anyhow::{Context, Result};

/// Runs everything and answers all values.
pub fn run(
    lab: &Lab,
    with_limits: bool,
    scenarios: &[Box<dyn Scenario>],
    contestants: &mut [Contestant],
) -> Result<Results> {
    let mut results = Results::default();
    for round in 0..if with_limits { lab.sizes.rounds } else { 0 } {
        record(&mut results, "limits", LIMIT, round, limits::measure(lab).context("measure the limits")?);
    }
    for scenario in scenarios {
        if scenario.warms_up() {
            for contestant in suitable(scenario.as_ref(), contestants) {
                measure(scenario.as_ref(), lab, contestant)?;
            }
        }
        for round in 0..lab.sizes.rounds {
            let mut order: Vec<&mut Contestant> = suitable(scenario.as_ref(), contestants).collect();
            if !order.is_empty() {
                // Nobody is always the one who comes after the same other.
                let first = round % order.len();
                order.rotate_left(first);
            }
            for contestant in order {
                let measured = measure(scenario.as_ref(), lab, contestant)?;
                record(&mut results, scenario.name(), contestant.peer.name(), round, measured);
            }
        }
    }
    Ok(results)
}

fn suitable<'a>(
    scenario: &'a dyn Scenario,
    contestants: &'a mut [Contestant],
) -> impl Iterator<Item = &'a mut Contestant> {
    contestants.iter_mut().filter(move |contestant| scenario.suits(contestant.peer.as_ref()))
}

fn measure(scenario: &dyn Scenario, lab: &Lab, contestant: &mut Contestant) -> Result<Measured> {
    let name = contestant.peer.name();
    scenario.measure(lab, contestant).with_context(|| format!("measure {} of {name}", scenario.name()))
}

fn record(results: &mut Results, scenario: &str, peer: &'static str, round: usize, measured: Measured) {
    let values: Vec<String> = measured
        .iter()
        .map(|(figure, value)| format!("{} {} {}", figure.id, number(*value), figure.unit))
        .collect();
    eprintln!("{scenario}, {peer}, round {}: {}", round + 1, values.join(", "));
    for (figure, value) in measured {
        results.record(figure, peer, value);
    }
}
