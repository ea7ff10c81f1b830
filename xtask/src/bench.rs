//! `cargo xtask bench`: the benchmark (`bench/`) on a release build of this tree.
//!
//! Builds the program and the benchmark and passes every argument on; what is measured, against whom and how it is
//! shown is the benchmark's business.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::test;

/// Builds and measures; tells whether the benchmark ended well.
pub fn run(repository: &Path, arguments: &[String]) -> Result<bool> {
    let target = test::target_directory(repository)?;
    let cargo = |build: &[&str]| Command::new(env!("CARGO")).args(build).current_dir(repository).status();
    let built = cargo(&["build", "--release", "--locked", "-p", "tidings-cli", "-p", "tidings-bench"]);
    if !built.context("run cargo build")?.success() {
        bail!("the release build failed");
    }
    let mut bench = Command::new(target.join("release/tidings-bench"));
    bench.arg("--binary").arg(target.join("release/tidings")).arg("--work-dir").arg(target.join("bench"));
    let status = bench.args(arguments).current_dir(repository).status().context("run the benchmark")?;
    Ok(status.success())
}
