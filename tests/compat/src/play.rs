//! All scenarios on one broker.
//!
//! Owns the order: by scenario, then by version. A scenario that panics is an outcome like any other, so that one broker's
//! failure is shown as a difference.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::broker::Broker;
use crate::definitions::Definitions;
use crate::run::{Exchange, Run, Scenario};

/// What happened in one scenario in one version.
#[derive(Debug)]
pub struct Played {
    /// The scenario.
    pub scenario: Scenario,
    /// The version of its API.
    pub version: i16,
    /// What was asked and answered.
    pub exchanges: Vec<Exchange>,
}

/// Plays `scenarios` on `broker`, in every version that `other` serves as well.
pub fn play(
    scenarios: &[Scenario],
    broker: &Broker,
    other: &Broker,
    definitions: &Definitions,
) -> Vec<Played> {
    let mut played = Vec::new();
    for (number, scenario) in scenarios.iter().enumerate() {
        for version in versions_of_both(scenario.api, broker, other) {
            played.push(play_one(scenario, number, version, broker, other, definitions));
        }
    }
    played
}

/// Plays one scenario in one version; `number` makes its names its own.
pub fn play_one(
    scenario: &Scenario,
    number: usize,
    version: i16,
    broker: &Broker,
    other: &Broker,
    definitions: &Definitions,
) -> Played {
    let mut run = Run::new(scenario, number, version, broker, other, definitions);
    let ended = catch_unwind(AssertUnwindSafe(|| (scenario.body)(&mut run)));
    if let Err(panic) = ended {
        run.broke(&message(&*panic));
    }
    Played { scenario: *scenario, version, exchanges: run.finish() }
}

/// The versions of an API that both serve.
pub fn versions_of_both(api: &str, one: &Broker, other: &Broker) -> impl Iterator<Item = i16> {
    let both = one.served.get(api).zip(other.served.get(api));
    let range = both.map(|(one, other)| one.first.max(other.first)..=one.last.min(other.last));
    range.into_iter().flatten()
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}
