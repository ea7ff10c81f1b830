//! The sizes that files may have, and the exceptions, which may only shrink.
//!
//! `xtask/tidy-ratchet.toml` lists what is over the bound today with its exact size. A file that grew is a
//! finding, and so is one that shrank: the entry must follow it down (`cargo xtask tidy --update`), so that
//! nothing won is lost again. `--update` never adds an entry and never raises one; that takes an edit by
//! hand, which a reviewer sees.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Finding;
use super::sources::Sizes;

const MAX_LINES: usize = 600;
const MAX_LONG_FUNCTIONS: usize = 0;
const HEADER: &str = "\
# What is over the bounds of `cargo xtask tidy`, with its size today. Entries may only shrink or go:
# `cargo xtask tidy --update` lowers them.
";

#[derive(Debug, Default, PartialEq)]
pub struct Ratchet {
    lines: BTreeMap<String, usize>,
    long_functions: BTreeMap<String, usize>,
}

impl Ratchet {
    pub fn load(repository: &Path) -> Result<Self> {
        let path = file(repository);
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("read {}", path.display()))
    }

    pub fn save(&self, repository: &Path) -> Result<()> {
        let path = file(repository);
        std::fs::write(&path, self.to_toml()).with_context(|| format!("write {}", path.display()))
    }

    /// Compares what is with what is allowed.
    pub fn check(&self, sizes: &Sizes) -> Vec<Finding> {
        let mut findings = compare(&sizes.lines, &self.lines, MAX_LINES, "lines without tests");
        findings.extend(compare(
            &sizes.long_functions,
            &self.long_functions,
            MAX_LONG_FUNCTIONS,
            "waived function lengths",
        ));
        findings
    }

    /// The same ratchet with every entry brought down to what is needed.
    pub fn lowered(&self, sizes: &Sizes) -> Self {
        Self {
            lines: lower(&self.lines, &sizes.lines, MAX_LINES),
            long_functions: lower(&self.long_functions, &sizes.long_functions, MAX_LONG_FUNCTIONS),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let mut ratchet = Self::default();
        let mut section = None;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            match (line, line.split_once(" = ")) {
                ("" | "[lines]", _) => section = if line.is_empty() { section } else { Some("lines") },
                ("[long_functions]", _) => section = Some("long_functions"),
                (comment, _) if comment.starts_with('#') => {}
                (_, Some((path, size))) => {
                    let entries = match section {
                        Some("lines") => &mut ratchet.lines,
                        Some(_) => &mut ratchet.long_functions,
                        None => bail!("line {}: an entry before any section", index + 1),
                    };
                    let size =
                        size.parse().with_context(|| format!("line {}: '{size}' is no size", index + 1))?;
                    entries.insert(path.trim_matches('"').to_owned(), size);
                }
                _ => bail!("line {}: expected `\"path\" = size`, found '{line}'", index + 1),
            }
        }
        Ok(ratchet)
    }

    fn to_toml(&self) -> String {
        let mut text = HEADER.to_owned();
        for (section, entries) in [("lines", &self.lines), ("long_functions", &self.long_functions)] {
            let _ = write!(text, "\n[{section}]\n");
            for (path, size) in entries {
                let _ = writeln!(text, "\"{path}\" = {size}");
            }
        }
        text
    }
}

fn file(repository: &Path) -> PathBuf {
    repository.join("xtask/tidy-ratchet.toml")
}

fn compare(
    found: &BTreeMap<String, usize>,
    allowed: &BTreeMap<String, usize>,
    max: usize,
    unit: &str,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, &size) in found {
        match allowed.get(path) {
            None if size > max => {
                findings.push(Finding::new(path, format!("{size} {unit}, at most {max} allowed")))
            }
            Some(&entry) if size > entry => {
                findings.push(Finding::new(
                    path,
                    format!("grew to {size} {unit}, the ratchet holds it at {entry}"),
                ));
            }
            Some(&entry) if size < entry => {
                findings.push(Finding::new(
                    path,
                    format!("shrank to {size} {unit} from {entry}: run cargo xtask tidy --update"),
                ));
            }
            _ => {}
        }
    }
    for path in allowed.keys().filter(|path| !found.contains_key(*path)) {
        findings.push(Finding::new(path, "is in the ratchet and gone: run cargo xtask tidy --update"));
    }
    findings
}

fn lower(
    allowed: &BTreeMap<String, usize>,
    found: &BTreeMap<String, usize>,
    max: usize,
) -> BTreeMap<String, usize> {
    let lowered =
        allowed.iter().filter_map(|(path, &entry)| Some((path.clone(), entry.min(*found.get(path)?))));
    lowered.filter(|(_, size)| *size > max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(lines: &[(&str, usize)]) -> Sizes {
        Sizes {
            lines: lines.iter().map(|(path, size)| ((*path).to_owned(), *size)).collect(),
            ..Sizes::default()
        }
    }

    fn ratchet() -> Ratchet {
        Ratchet::parse("# why\n\n[lines]\n\"a.rs\" = 700\n\n[long_functions]\n").unwrap()
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        assert_eq!(Ratchet::parse(&ratchet().to_toml()).unwrap(), ratchet());
        assert!(Ratchet::parse("\"a.rs\" = 700\n").is_err());
        assert!(Ratchet::parse("[lines]\n\"a.rs\" = many\n").is_err());
    }

    #[test]
    fn an_exception_may_neither_grow_nor_silently_shrink() {
        let count = |size| ratchet().check(&sizes(&[("a.rs", size)])).len();
        assert_eq!((count(700), count(701), count(699), count(100)), (0, 1, 1, 1));
        assert_eq!(ratchet().check(&sizes(&[])).len(), 1);
    }

    #[test]
    fn a_file_without_exception_stops_at_the_bound() {
        let count = |size| ratchet().check(&sizes(&[("a.rs", 700), ("b.rs", size)])).len();
        assert_eq!((count(600), count(601)), (0, 1));
    }

    #[test]
    fn lowering_never_raises_and_never_adds() {
        let lowered = |size| ratchet().lowered(&sizes(&[("a.rs", size), ("b.rs", 900)])).lines;
        assert_eq!(lowered(650).into_iter().collect::<Vec<_>>(), [("a.rs".to_owned(), 650)]);
        assert_eq!(lowered(800).into_iter().collect::<Vec<_>>(), [("a.rs".to_owned(), 700)]);
        assert!(lowered(600).is_empty());
    }
}
