//! What the documents must say: every dependency has its reason, every decision its date, and no file names
//! a directory of somebody's machine.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::layers::{dependencies, is_ours, packages, text};
use super::{Finding, SourceFile};

/// What fits a page.
const MAX_GUIDE_LINES: usize = 80;
/// Guides to a part of the platform, not to a pattern.
const REFERENCES: [&str; 2] = ["/activities.md", "/operation.md"];

const DEPENDENCIES: &str = "docs/dependencies.md";
const MANIFEST: &str = "Cargo.toml";

/// `docs/dependencies.md` has one row for each direct dependency, and none for others; neither has the
/// workspace's manifest an entry for others.
pub fn check_dependencies(metadata: &Value, repository: &Path) -> Result<Vec<Finding>> {
    let read = |name| std::fs::read_to_string(repository.join(name)).with_context(|| format!("read {name}"));
    let (page, manifest) = (read(DEPENDENCIES)?, read(MANIFEST)?);
    let mut used = BTreeSet::new();
    for package in packages(metadata)? {
        for dependency in dependencies(package)?.iter().filter(|dependency| !is_ours(dependency)) {
            used.insert(text(dependency, "name")?);
        }
    }
    let mut findings = compare(&used, &rows(&page));
    let unused = declared(&manifest).into_iter().filter(|name| !used.contains(name));
    findings
        .extend(unused.map(|name| Finding::new(MANIFEST, format!("declares `{name}`, which nothing uses"))));
    Ok(findings)
}

fn compare(used: &BTreeSet<&str>, explained: &BTreeSet<&str>) -> Vec<Finding> {
    let missing = used
        .difference(explained)
        .map(|name| Finding::new(DEPENDENCIES, format!("does not say why `{name}` is used")));
    let stale = explained
        .difference(used)
        .map(|name| Finding::new(DEPENDENCIES, format!("explains `{name}`, which nothing uses")));
    missing.chain(stale).collect()
}

/// The names in the first column of the page's tables: rows that begin with "| `name` |".
fn rows(page: &str) -> BTreeSet<&str> {
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(name, _)| name)
        .collect()
}

/// The names under `[workspace.dependencies]` that are not ours.
fn declared(manifest: &str) -> Vec<&str> {
    let section = manifest.split_once("[workspace.dependencies]\n").map_or("", |(_, section)| section);
    section
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.contains("path = "))
        .filter_map(|line| Some(line.split_once(" = ")?.0))
        .collect()
}

/// A decision record is a dated file: `docs/adr/2026-01-31-a-title.md`.
pub fn check_decision_names(files: &[SourceFile]) -> Vec<Finding> {
    let names = files.iter().filter_map(|file| Some((&file.path, file.path.strip_prefix("docs/adr/")?)));
    let undated = names.filter(|(_, name)| *name != "README.md" && !is_dated(name));
    undated.map(|(path, _)| Finding::new(path, "is not named YYYY-MM-DD-title.md")).collect()
}

fn is_dated(name: &str) -> bool {
    let shape = |text: &str| {
        text.bytes().map(|byte| if byte.is_ascii_digit() { b'9' } else { byte }).collect::<Vec<_>>()
    };
    let Some((date, title)) = name.split_at_checked(10) else { return false };
    shape(date) == b"9999-99-99"
        && title.starts_with('-')
        && title.ends_with(".md")
        && title.len() > "-.md".len()
}

/// A guide to a pattern fits a page and says when not to use it. The others are references.
pub fn check_guides(files: &[SourceFile]) -> Vec<Finding> {
    let is_guide =
        |path: &str| path.starts_with("docs/guides/") && !REFERENCES.iter().any(|name| path.ends_with(name));
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| is_guide(&file.path)) {
        let lines_count = file.text.lines().count();
        if lines_count > MAX_GUIDE_LINES {
            let problem = format!("has {lines_count} lines; a guide has {MAX_GUIDE_LINES} at most");
            findings.push(Finding::new(&file.path, problem));
        }
        if !file.text.contains("\n## When not to") {
            findings.push(Finding::new(&file.path, "does not say when not to use it"));
        }
    }
    findings
}

/// No file names a directory that exists on one machine only.
pub fn check_machine_paths(files: &[SourceFile], machine_paths: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(path) = machine_paths.iter().find(|path| line.contains(path.as_str())) {
                findings.push(Finding::new(
                    format!("{}:{}", file.path, index + 1),
                    format!("names this machine's {path}"),
                ));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guide_fits_a_page_and_says_when_not_to_use_it() {
        let check =
            |path: &str, text: String| check_guides(&[SourceFile { path: path.to_owned(), text }]).len();
        let good = "# A\n\n## When not to use it\n";
        assert_eq!(check("docs/guides/a.md", good.into()), 0);
        assert_eq!(check("docs/guides/a.md", "# A\n".repeat(90)), 2);
        assert_eq!(check("docs/guides/operation.md", "# A\n".repeat(90)), 0);
    }

    #[test]
    fn dependencies_and_their_reasons_must_match() {
        let page = "# Dependencies\n\n| crate | why |\n| --- | --- |\n| `tokio` | the runtime |\n| `gone` | no longer |\n";
        let findings = compare(&BTreeSet::from(["axum", "tokio"]), &rows(page));
        let texts: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "docs/dependencies.md: does not say why `axum` is used",
                "docs/dependencies.md: explains `gone`, which nothing uses"
            ]
        );
    }

    #[test]
    fn declarations_of_the_workspace_are_read() {
        let manifest = "[workspace]\nx = 1\n[workspace.dependencies]\n# Ours\na = { path = \"a\" }\nb = \"1\"\n\n[lints]\nc = \"1\"\n";
        assert_eq!(declared(manifest), ["b"]);
    }

    #[test]
    fn decisions_are_dated() {
        for (name, expected) in [
            ("2026-11-20-two-halves.md", true),
            ("two-halves.md", false),
            ("2026-11-20.md", false),
            ("2026-11-20-.md", false),
            ("2026-11-2-short.md", false),
        ] {
            assert_eq!(is_dated(name), expected, "{name}");
        }
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        let files =
            [SourceFile { path: "a.md".to_owned(), text: "fine\nsee /somewhere/mine/x\n".to_owned() }];
        let findings = check_machine_paths(&files, &["/somewhere/mine/".to_owned()]);
        assert_eq!(findings[0].to_string(), "a.md:2: names this machine's /somewhere/mine/");
    }
}
