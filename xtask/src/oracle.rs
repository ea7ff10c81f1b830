//! `cargo xtask compat` and `cargo xtask oracle`: Apache Kafka itself as the judge of compatibility.
//!
//! `compat` asks both brokers the same and compares their answers, field by field. `oracle` runs
//! the client programs and the SDK's tests on Apache Kafka: what fails there is wrong in the test, not in the broker. Owns
//! only the preparation and the calls: `tests/compat` does the work.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{clients, packages, test};

const TESTS: [&str; 4] = ["clients", "rust", "streams", "sdk"];

/// Installs and builds what it needs, then compares the brokers, with `arguments` for the comparison; tells whether nothing
/// is left unexplained.
pub fn compat(repository: &Path, arguments: &[String]) -> Result<bool> {
    let target = prepare(repository)?;
    build(repository)?;
    compare(repository, &target, arguments)
}

/// Compares the brokers with what is installed and built already.
pub fn compare(repository: &Path, target: &Path, arguments: &[String]) -> Result<bool> {
    let table = target.join("compat.md");
    let mut command = program(repository, target);
    command.arg("--markdown").arg(&table).args(arguments);
    let passed = command.status().context("run the comparison")?.success();
    println!("the table is in {}", table.display());
    Ok(passed)
}

/// Runs the tests, with `arguments` for `cargo test`; tells whether all passed.
pub fn run(repository: &Path, arguments: &[String]) -> Result<bool> {
    let target = prepare(repository)?;
    build(repository)?;
    let mut command = program(repository, &target);
    command.args(["with-kafka", env!("CARGO"), "test", "--locked", "--no-fail-fast", "--workspace"]);
    command.args(TESTS.iter().flat_map(|name| ["--test", name])).args(arguments);
    Ok(command.status().context("run the tests")?.success())
}

/// Builds both programs as `cargo xtask test` does: another selection of packages would build their dependencies anew.
fn build(repository: &Path) -> Result<()> {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--locked", "--workspace", "--bins"]).current_dir(repository);
    anyhow::ensure!(build.status().context("run cargo build")?.success(), "the programs were not built");
    Ok(())
}

/// The program that compares.
fn program(repository: &Path, target: &Path) -> Command {
    let mut command = Command::new(target.join("debug/tidings-compat"));
    command.current_dir(repository);
    command
        .env("XTASK_TIDINGS_BIN", target.join("debug/tidings"))
        .env("XTASK_CLIENTS", target.join("clients"));
    command
}

fn prepare(repository: &Path) -> Result<PathBuf> {
    let target = test::target_directory(repository)?;
    packages::install_missing()?;
    clients::install(repository, &target)?;
    Ok(target)
}
