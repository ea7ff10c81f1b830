//! What the comparison comes to: a verdict for each API and version.
//!
//! Owns the rules. A version that both serve is the same, differs on purpose, or differs unexplained; one that no scenario
//! has touched is a gap, and so is a version that only one of the two serves without a reason.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::Broker;
use crate::compare::{Difference, differences};
use crate::play::Played;
use crate::purpose::{Place, Purpose};

/// An API in one version.
pub type Row = (String, i16);

/// What is known of an API in one version.
#[derive(Debug, Default)]
pub struct Judged {
    /// How many requests were compared.
    pub requests: usize,
    /// The scenarios they belong to.
    pub scenarios: BTreeSet<&'static str>,
    /// Differences on purpose.
    pub intended: usize,
    /// Differences nobody has explained.
    pub unexplained: usize,
    /// Why only one of the two serves it.
    pub reason: Option<String>,
    /// Who serves it.
    pub kafka: bool,
    /// Who serves it.
    pub tidings: bool,
}

/// The verdict on an API in one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Every answer was the same.
    Same,
    /// What differs is meant to.
    OnPurpose,
    /// Kafka alone serves it, for a reason.
    NotServed,
    /// Tidings alone serves it, for a reason.
    OnlyHere,
    /// Something differs, or nothing was asked.
    Unexplained,
}

/// A difference that nobody has explained.
#[derive(Debug)]
pub struct Unexplained {
    /// The API and its version.
    pub row: Row,
    /// The scenario and what was asked.
    pub place: String,
    /// The difference.
    pub difference: Difference,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub struct Judgement {
    /// By API and version.
    pub rows: BTreeMap<Row, Judged>,
    /// In the order of the scenarios.
    pub unexplained: Vec<Unexplained>,
    /// Which of what was played they were found in.
    pub doubtful: Vec<usize>,
}

impl Judged {
    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        match (self.kafka, self.tidings) {
            (true, true) if self.unexplained > 0 || self.requests == 0 => Verdict::Unexplained,
            (true, true) if self.intended > 0 => Verdict::OnPurpose,
            (true, true) => Verdict::Same,
            _ if self.reason.is_none() => Verdict::Unexplained,
            (true, false) => Verdict::NotServed,
            _ => Verdict::OnlyHere,
        }
    }
}

/// Compares what was played on both; an `api` of interest limits the rows of the table.
pub fn judge(
    kafka: (&Broker, &[Played]),
    tidings: (&Broker, &[Played]),
    purpose: &Purpose,
    wanted: impl Fn(&str) -> bool,
) -> Judgement {
    let mut judgement = Judgement::default();
    let mut serves = |broker: &Broker, mark: fn(&mut Judged)| {
        for (api, versions) in broker.served.iter().filter(|(api, _)| wanted(api)) {
            for version in versions.first..=versions.last {
                mark(judgement.rows.entry((api.clone(), version)).or_default());
            }
        }
    };
    serves(kafka.0, |judged| judged.kafka = true);
    serves(tidings.0, |judged| judged.tidings = true);
    for ((api, version), judged) in &mut judgement.rows {
        let reason = match (judged.kafka, judged.tidings) {
            (true, false) => purpose.not_served(api, *version),
            (false, true) => purpose.only_here(api, *version),
            _ => None,
        };
        judged.reason = reason.map(str::to_owned);
    }
    for (index, (kafka, tidings)) in kafka.1.iter().zip(tidings.1).enumerate() {
        let before = judgement.unexplained.len();
        judgement.compare(kafka, tidings, purpose);
        if judgement.unexplained.len() > before {
            judgement.doubtful.push(index);
        }
    }
    judgement
}

impl Judgement {
    fn compare(&mut self, kafka: &Played, tidings: &Played, purpose: &Purpose) {
        let name = kafka.scenario.name;
        for (at, left) in kafka.exchanges.iter().enumerate() {
            let row = (left.api.clone(), left.version);
            let found = match tidings.exchanges.get(at) {
                Some(right) if right.api == left.api && right.what == left.what => {
                    differences(&left.outcome, &right.outcome)
                }
                _ => vec![other_way()],
            };
            let place = Place { api: &left.api, version: left.version, scenario: name, what: &left.what };
            let (intended, unexplained): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|difference| purpose.explains(place, difference));
            // What a scenario of another API touches outside the rows of interest is compared, too.
            let judged = self.rows.entry(row.clone()).or_insert_with(|| Judged {
                kafka: true,
                tidings: true,
                ..Judged::default()
            });
            judged.requests += 1;
            judged.scenarios.insert(name);
            judged.intended += intended.len();
            judged.unexplained += unexplained.len();
            let place = format!("{name} (v{}): {}", kafka.version, left.what);
            self.unexplained.extend(unexplained.into_iter().map(|difference| Unexplained {
                row: row.clone(),
                place: place.clone(),
                difference,
            }));
        }
        if tidings.exchanges.len() > kafka.exchanges.len() {
            let row = (kafka.scenario.api.to_owned(), kafka.version);
            self.rows.entry(row.clone()).or_default().unexplained += 1;
            self.unexplained.push(Unexplained { row, place: name.to_owned(), difference: other_way() });
        }
    }
}

/// Answers that differ may lead a scenario another way; what follows cannot be compared.
fn other_way() -> Difference {
    let (kafka, tidings) = ("goes on".to_owned(), "goes another way".to_owned());
    Difference { field: "the scenario".to_owned(), kafka, tidings }
}
