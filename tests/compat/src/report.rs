//! The table for people: one row for the versions of an API that share a verdict, and what nobody has explained.
//!
//! Owns the layout. Equal differences in many versions or requests are told once, with their number.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::verdict::{Judged, Judgement, Unexplained, Verdict};

/// How many unexplained differences are told in full.
const MAX_TOLD: usize = 400;
/// Where a value is cut.
const MAX_VALUE_CHARS: usize = 300;

/// Consecutive versions of an API with one verdict.
struct Line<'a> {
    api: &'a str,
    versions: (i16, i16),
    verdict: Verdict,
    scenarios: usize,
    requests: usize,
    reason: &'a str,
}

/// The table as Markdown.
pub fn table(judgement: &Judgement) -> String {
    let mut text = String::from(
        "| API | versions | verdict | scenarios | requests | |\n| --- | --- | --- | ---: | ---: | --- |\n",
    );
    for line in lines(judgement) {
        let versions = match line.versions {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let verdict = match line.verdict {
            Verdict::Same => "same",
            Verdict::OnPurpose => "differs on purpose",
            Verdict::NotServed => "not served",
            Verdict::OnlyHere => "only here",
            Verdict::Unexplained => "UNEXPLAINED",
        };
        let count = |number: usize| if number == 0 { String::new() } else { number.to_string() };
        let (scenarios, requests) = (count(line.scenarios), count(line.requests));
        writeln!(
            text,
            "| {} | {versions} | {verdict} | {scenarios} | {requests} | {} |",
            line.api, line.reason
        )
        .expect("write to a text");
    }
    text
}

fn lines(judgement: &Judgement) -> Vec<Line<'_>> {
    let mut lines: Vec<Line<'_>> = Vec::new();
    for ((api, version), judged) in &judgement.rows {
        let line = line(api, *version, judged);
        match lines.last_mut() {
            Some(last)
                if last.api == line.api && last.verdict == line.verdict && last.reason == line.reason =>
            {
                last.versions.1 = *version;
                last.requests += line.requests;
                last.scenarios = last.scenarios.max(line.scenarios);
            }
            _ => lines.push(line),
        }
    }
    lines
}

fn line<'a>(api: &'a str, version: i16, judged: &'a Judged) -> Line<'a> {
    Line {
        api,
        versions: (version, version),
        verdict: judged.verdict(),
        scenarios: judged.scenarios.len(),
        requests: judged.requests,
        reason: match (judged.verdict(), judged.requests) {
            (Verdict::Unexplained, 0) => "nothing was asked, and no reason is given",
            _ => judged.reason.as_deref().unwrap_or_default(),
        },
    }
}

/// What nobody has explained.
pub fn unexplained(judgement: &Judgement) -> String {
    let mut groups: BTreeMap<(&str, String, &str, &str), Vec<&Unexplained>> = BTreeMap::new();
    for found in &judgement.unexplained {
        let difference = &found.difference;
        let field = without_elements(&difference.field);
        let key = (&*found.row.0, field, &*difference.kafka, &*difference.tidings);
        groups.entry(key).or_default().push(found);
    }
    let mut text = String::new();
    for ((api, _, kafka, tidings), found) in groups.iter().take(MAX_TOLD) {
        let (first, rest) = (found[0], found.len() - 1);
        let versions: Vec<i16> = found.iter().map(|found| found.row.1).collect();
        let (oldest, newest) = (versions.iter().min().unwrap_or(&0), versions.iter().max().unwrap_or(&0));
        let more = if rest == 0 { String::new() } else { format!(" and {rest} more like it") };
        let (kafka, tidings) = (cut(kafka), cut(tidings));
        writeln!(
            text,
            "{api} {oldest}-{newest}: {}\n    {}{more}\n    kafka:   {kafka}\n    tidings: {tidings}",
            first.difference.field, first.place
        )
        .expect("write to a text");
    }
    if groups.len() > MAX_TOLD {
        writeln!(text, "… and {} kinds more", groups.len() - MAX_TOLD).expect("write to a text");
    }
    text
}

/// A place without the elements of arrays on the way.
fn without_elements(field: &str) -> String {
    let mut depth = 0;
    let keep = |letter: &char| {
        depth += i32::from(*letter == '[') - i32::from(*letter == ']');
        depth == 0
    };
    field.chars().filter(keep).collect()
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_VALUE_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
