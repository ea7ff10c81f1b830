//! What was measured: every value of every round, and what follows from them.
//!
//! Owns medians, spreads and the comparison with goals. Keeps figures and peers in the order they were first seen.

use crate::figures::{Figure, Goal};

/// The name under which physical limits are kept.
pub const LIMIT: &str = "limit";
/// The peer that the goals are for.
pub const OURS: &str = "tidings";

/// All values so far.
#[derive(Default)]
pub struct Results {
    series: Vec<Series>,
}

/// The values of one figure and one peer, one for each round.
pub struct Series {
    /// What was measured.
    pub figure: &'static Figure,
    /// Whom.
    pub peer: &'static str,
    /// In the order of the rounds.
    pub values: Vec<f64>,
}

/// The comparison of a median with one goal.
pub struct Verdict {
    /// The goal in words.
    pub goal: String,
    /// Whether it was reached; none where what it compares with was not measured.
    pub reached: Option<bool>,
}

impl Results {
    /// Adds one round's value.
    pub fn record(&mut self, figure: &'static Figure, peer: &'static str, value: f64) {
        match self.series.iter_mut().find(|series| series.figure == figure && series.peer == peer) {
            Some(series) => series.values.push(value),
            None => self.series.push(Series { figure, peer, values: vec![value] }),
        }
    }

    /// Everything, in order.
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// The values of one figure and one peer.
    pub fn find(&self, figure: &Figure, peer: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.figure == figure && series.peer == peer)
    }

    /// The figures measured on peers, in order.
    pub fn figures(&self) -> Vec<&'static Figure> {
        let mut figures: Vec<&'static Figure> = Vec::new();
        for series in self.series.iter().filter(|series| series.peer != LIMIT) {
            if !figures.contains(&series.figure) {
                figures.push(series.figure);
            }
        }
        figures
    }

    /// The peers measured, in order.
    pub fn peers(&self) -> Vec<&'static str> {
        let mut peers = Vec::new();
        for series in self.series.iter().filter(|series| series.peer != LIMIT) {
            if !peers.contains(&series.peer) {
                peers.push(series.peer);
            }
        }
        peers
    }

    /// How our median stands against each goal of a figure.
    pub fn verdicts(&self, figure: &'static Figure) -> Vec<Verdict> {
        let ours = self.find(figure, OURS).map(Series::median);
        figure.goals.iter().filter_map(|&goal| self.verdict(figure, goal, ours)).collect()
    }

    fn verdict(&self, figure: &'static Figure, goal: Goal, ours: Option<f64>) -> Option<Verdict> {
        let sign = if figure.more_is_better { ">=" } else { "<=" };
        let (text, bound) = match goal {
            Goal::Value(value) => (format!("{sign} {}", number(value)), Some(value)),
            Goal::TimesPeer(factor, peer) => {
                let bound = self.find(figure, peer)?.median() * factor;
                (format!("{sign} {factor}x {peer}"), Some(bound))
            }
            Goal::TimesLimit(factor, limit) => {
                let bound = self.find(limit, LIMIT).map(|series| series.median() * factor);
                (format!("{sign} {factor}x disk"), bound)
            }
        };
        let reached = ours.zip(bound).map(
            |(ours, bound)| {
                if figure.more_is_better { ours >= bound } else { ours <= bound }
            },
        );
        Some(Verdict { goal: text, reached })
    }
}

impl Series {
    /// The middle value, or the mean of the two middle ones.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
    }

    /// The lowest value.
    pub fn min(&self) -> f64 {
        self.sorted()[0]
    }

    /// The highest value.
    pub fn max(&self) -> f64 {
        self.sorted()[self.values.len() - 1]
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// A value with three significant digits, which is more than a benchmark can tell.
pub fn number(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude >= 1000.0 => thousands(value),
        magnitude if magnitude >= 100.0 => format!("{value:.0}"),
        magnitude if magnitude >= 10.0 => format!("{value:.1}"),
        magnitude if magnitude >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{DISK, PRODUCE_1K, PRODUCE_1K_CPU};

    fn results(values: &[(&'static Figure, &'static str, f64)]) -> Results {
        let mut results = Results::default();
        for &(figure, peer, value) in values {
            results.record(figure, peer, value);
        }
        results
    }

    fn reached(results: &Results, figure: &'static Figure) -> Vec<(String, Option<bool>)> {
        results.verdicts(figure).into_iter().map(|verdict| (verdict.goal, verdict.reached)).collect()
    }

    #[test]
    fn a_ratio_compares_medians_and_only_with_peers_that_ran() {
        let kafka =
            [(&PRODUCE_1K, "kafka", 90.0), (&PRODUCE_1K, "kafka", 100.0), (&PRODUCE_1K, "kafka", 400.0)];
        let ours = [(&PRODUCE_1K, "tidings", 131.0), (&DISK, LIMIT, 200.0)];
        let results = results(&[kafka.as_slice(), ours.as_slice()].concat());
        let expected = [(">= 1.3x kafka".to_owned(), Some(true)), (">= 0.8x disk".to_owned(), Some(false))];
        assert_eq!(reached(&results, &PRODUCE_1K), expected);
    }

    #[test]
    fn a_goal_for_a_cost_is_an_upper_bound() {
        let results = results(&[(&PRODUCE_1K_CPU, "tidings", 0.4)]);
        assert_eq!(reached(&results, &PRODUCE_1K_CPU), [("<= 0.500".to_owned(), Some(true))]);
    }

    #[test]
    fn without_us_nothing_is_reached_or_missed() {
        let results = results(&[(&PRODUCE_1K, "kafka", 90.0)]);
        let expected = [(">= 1.3x kafka".to_owned(), None), (">= 0.8x disk".to_owned(), None)];
        assert_eq!(reached(&results, &PRODUCE_1K), expected);
    }

    #[test]
    fn numbers_have_three_significant_digits() {
        let texts = [0.0314, 2.514, 31.4, 475.2, 20_000.0, 1_520_000.4].map(number);
        assert_eq!(texts, ["0.031", "2.51", "31.4", "475", "20,000", "1,520,000"]);
    }
}
