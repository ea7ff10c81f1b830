//! What differs on purpose: the one list (`on-purpose.toml`), and which found differences it explains.
//!
//! Invariants: every entry cites words of `docs/compat.md`, so that the list and the page for people agree; an entry that
//! explains nothing in a whole run is an error, so that the list does not outlive what it tells of.

use std::cell::Cell;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::compare::Difference;
use crate::definitions::Versions;

/// The list, beside this crate's manifest.
const LIST: &str = "on-purpose.toml";
/// The page for people, from there.
const PAGE: &str = "../../docs/compat.md";

/// The list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purpose {
    /// The page for people.
    #[serde(skip)]
    page: String,
    /// Answers that differ.
    #[serde(rename = "difference", default)]
    differences: Vec<Intended>,
    /// APIs and versions that Kafka serves and Tidings does not.
    #[serde(default)]
    not_served: Vec<Missing>,
    /// Versions that Tidings serves and Kafka does not.
    #[serde(default)]
    only_here: Vec<Missing>,
}

/// A difference in answers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Intended {
    /// The API, or `*`.
    api: String,
    /// The versions of the API, in Kafka's notation.
    #[serde(default = "all_versions")]
    versions: String,
    /// The place, with `*` for anything.
    field: String,
    /// The scenario or what is asked in it, with `*` for anything.
    #[serde(default = "anything")]
    scenario: String,
    /// What Kafka says, with `*` for anything.
    #[serde(default = "anything")]
    kafka: String,
    /// What Tidings says, with `*` for anything.
    #[serde(default = "anything")]
    tidings: String,
    /// Words of the page that say so.
    page: String,
    #[serde(skip)]
    used: Cell<bool>,
}

/// APIs, or versions of one, that only one of the two serves.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Missing {
    apis: Vec<String>,
    #[serde(default = "all_versions")]
    versions: String,
    /// Why.
    reason: String,
    /// Words of the page that say so.
    page: String,
    #[serde(skip)]
    used: Cell<bool>,
}

fn anything() -> String {
    "*".to_owned()
}

fn all_versions() -> String {
    "0+".to_owned()
}

/// Where a difference was found.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The API.
    pub api: &'a str,
    /// Its version.
    pub version: i16,
    /// The scenario.
    pub scenario: &'a str,
    /// What was asked.
    pub what: &'a str,
}

impl Purpose {
    /// Reads the list.
    pub fn read() -> Result<Self> {
        let read = |name: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        let purpose: Self = toml::from_str(&read(LIST)?).context("read on-purpose.toml")?;
        Ok(Self { page: plain(&read(PAGE)?), ..purpose })
    }

    /// Whether a difference is meant to be.
    pub fn explains(&self, place: Place<'_>, difference: &Difference) -> bool {
        let found = self.differences.iter().find(|intended| intended.covers(place, difference));
        found.inspect(|intended| intended.used.set(true)).is_some()
    }

    /// Why Kafka serves this and Tidings does not.
    pub fn not_served(&self, api: &str, version: i16) -> Option<&str> {
        reason(&self.not_served, api, version)
    }

    /// Why Tidings serves this and Kafka does not.
    pub fn only_here(&self, api: &str, version: i16) -> Option<&str> {
        reason(&self.only_here, api, version)
    }

    /// What is wrong with the list itself; entries that explained nothing only if the run was `whole`.
    pub fn problems(&self, whole: bool) -> Vec<String> {
        let missing = self.not_served.iter().chain(&self.only_here);
        let entries: Vec<(String, &str, bool)> = missing
            .map(|entry| (entry.apis.join(", "), &*entry.page, entry.used.get()))
            .chain(self.differences.iter().map(|entry| (entry.name(), &*entry.page, entry.used.get())))
            .collect();
        let unknown = entries
            .iter()
            .filter(|(_, words, _)| !self.page.contains(&plain(words)))
            .map(|(entry, words, _)| format!("{entry}: docs/compat.md does not say: {words}"));
        let stale = entries
            .iter()
            .filter(|(_, _, used)| whole && !used)
            .map(|(entry, _, _)| format!("{entry}: explains nothing any more"));
        unknown.chain(stale).collect()
    }
}

/// Text without what a page's layout decides: line breaks and runs of spaces.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn reason<'a>(entries: &'a [Missing], api: &str, version: i16) -> Option<&'a str> {
    let covers =
        |entry: &&Missing| entry.apis.iter().any(|name| name == api) && in_range(&entry.versions, version);
    entries.iter().find(covers).inspect(|entry| entry.used.set(true)).map(|entry| &*entry.reason)
}

fn in_range(versions: &str, version: i16) -> bool {
    Versions::parse(versions).is_ok_and(|versions| versions.contains(version))
}

impl Intended {
    fn name(&self) -> String {
        format!("{} {} {}", self.api, self.versions, self.field)
    }

    fn covers(&self, place: Place<'_>, difference: &Difference) -> bool {
        glob(&self.api, place.api)
            && in_range(&self.versions, place.version)
            && (glob(&self.scenario, place.scenario) || glob(&self.scenario, place.what))
            && glob(&self.field, &difference.field)
            && glob(&self.kafka, &difference.kafka)
            && glob(&self.tidings, &difference.tidings)
    }
}

/// Whether `text` is as `pattern` says, where `*` stands for anything.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == text };
    let Some(rest) = text.strip_prefix(head) else { return false };
    (0..=rest.len()).any(|at| rest.is_char_boundary(at) && glob(tail, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_anything() {
        let check = |pattern: &str, text: &str, expected| {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}")
        };
        check("topics[*].errorCode", "topics[a b].errorCode", true);
        check("topics[*].errorCode", "topics[a].errorMessage", false);
        check("*", "", true);
        check("a", "ab", false);
        check("a*b*c", "a-b-b-c", true);
    }

    #[test]
    fn the_list_can_be_read_and_the_page_says_the_same() {
        assert_eq!(Purpose::read().unwrap().problems(false), Vec::<String>::new());
    }
}
