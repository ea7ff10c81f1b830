//! `cargo xtask tidy`: the rules of this repository that neither the compiler nor clippy knows.
//!
//! Owns the list of checks; each check is a module that answers [`Finding`]s and changes nothing. The one
//! exception is `--update`, which lowers the ratchet ([`ratchet`]). It does not format and does not lint.

mod documents;
mod examples;
mod layers;
mod ratchet;
mod sources;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use ratchet::Ratchet;

/// One broken rule: where, and what is wrong.
pub struct Finding {
    place: String,
    problem: String,
}

impl Finding {
    fn new(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { place: place.into(), problem: problem.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

/// A file of the repository: known to git, or new and not ignored.
pub struct SourceFile {
    /// Relative to the repository, with `/`.
    pub path: String,
    pub text: String,
}

/// Runs every check, prints what it found and tells whether that was nothing.
pub fn run(repository: &Path, arguments: &[String]) -> Result<bool> {
    let update = match arguments {
        [] => false,
        [flag] if flag == "--update" => true,
        other => bail!("unknown arguments {other:?}: tidy takes --update or nothing"),
    };
    let findings = check(repository, update)?;
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} problems", findings.len());
    Ok(findings.is_empty())
}

fn check(repository: &Path, update: bool) -> Result<Vec<Finding>> {
    let files = text_files(repository)?;
    let metadata = cargo_metadata(repository)?;
    let ratchet = Ratchet::load(repository)?;
    let sizes = sources::sizes(&files);
    if update {
        ratchet.lowered(&sizes).save(repository)?;
    }
    let ratchet = if update { Ratchet::load(repository)? } else { ratchet };
    let mut findings = layers::check(&metadata)?;
    findings.extend(sources::check_module_docs(&files));
    findings.extend(examples::check(&files));
    findings.extend(ratchet.check(&sizes));
    findings.extend(documents::check_dependencies(&metadata, repository)?);
    findings.extend(documents::check_decision_names(&files));
    findings.extend(documents::check_guides(&files));
    findings.extend(documents::check_machine_paths(&files, &machine_paths(repository)));
    Ok(findings)
}

/// Directories that exist on this machine only: where the work tree lies, and the home of who works in it.
fn machine_paths(repository: &Path) -> Vec<String> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    [Some(repository.to_path_buf()), home]
        .into_iter()
        .flatten()
        .filter(|path| path.components().count() > 1)
        .map(|path| format!("{}/", path.display()))
        .collect()
}

pub fn cargo_metadata(repository: &Path) -> Result<serde_json::Value> {
    let arguments = ["metadata", "--format-version", "1", "--no-deps"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(repository).output();
    let output = output.context("run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("read the answer of cargo metadata")
}

fn text_files(repository: &Path) -> Result<Vec<SourceFile>> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
    let output =
        Command::new("git").args(arguments).current_dir(repository).output().context("run git ls-files")?;
    if !output.status.success() {
        bail!("git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let listing = String::from_utf8(output.stdout).context("file names are UTF-8")?;
    let mut files = Vec::new();
    for path in listing.split_terminator('\0') {
        // A file may be listed and gone (deleted, not yet committed), or hold no text (compressed data).
        let Ok(bytes) = std::fs::read(repository.join(path)) else { continue };
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(SourceFile { path: path.to_owned(), text });
        }
    }
    Ok(files)
}
