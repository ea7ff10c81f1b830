//! `cargo xtask fuzz`: builds the fuzz targets and runs them one after the other.
//!
//! Needs no nightly compiler and no other tool: libFuzzer comes with its crate, and what it needs to see of the code is
//! asked for by flags that the stable compiler takes. Owns those flags and the folders: `fuzz/seeds/TARGET` holds
//! inputs that once found something, in the repository; `fuzz/target/corpus/TARGET` what a run has come across.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

const TARGETS: &[&str] = &["wire", "batches", "records", "damage"];
const SECONDS_PER_TARGET: u64 = 60;
/// Named, so that build scripts are built without the flags below.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// Edges with counters, a table of their places, and the operands of comparisons.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Runs `[TARGET]... [--seconds N] [-- ARGUMENTS]` and tells whether nothing was found.
pub fn run(repository: &Path, arguments: &[String]) -> Result<bool> {
    let mut targets: Vec<&str> = Vec::new();
    let mut seconds = SECONDS_PER_TARGET;
    let mut rest = arguments;
    loop {
        match rest {
            [] => break,
            [dashes, tail @ ..] if dashes == "--" => {
                rest = tail;
                break;
            }
            [flag, count, tail @ ..] if flag == "--seconds" => {
                seconds = count.parse().context("--seconds takes a number")?;
                rest = tail;
            }
            [name, tail @ ..] => {
                let Some(target) = TARGETS.iter().find(|target| *target == name) else {
                    bail!("no target is called '{name}', there are: {}", TARGETS.join(", "));
                };
                targets.push(target);
                rest = tail;
            }
        }
    }
    if targets.is_empty() {
        targets = TARGETS.to_vec();
    }
    build(repository, &targets)?;
    let mut nothing_found = true;
    for target in targets {
        nothing_found &= fuzz(repository, target, seconds, rest)?;
    }
    Ok(nothing_found)
}

fn build(repository: &Path, targets: &[&str]) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "--locked", "--target", TRIPLE]).current_dir(repository.join("fuzz"));
    command.args(targets.iter().flat_map(|target| ["--bin", target])).env("RUSTFLAGS", FLAGS);
    if !command.status().context("run cargo build")?.success() {
        bail!("the fuzz targets do not build");
    }
    Ok(())
}

fn fuzz(repository: &Path, target: &str, seconds: u64, arguments: &[String]) -> Result<bool> {
    let folder = repository.join("fuzz");
    let (corpus, seeds) = (folder.join("target/corpus").join(target), folder.join("seeds").join(target));
    let artifacts = folder.join("target/artifacts").join(target);
    for path in [&corpus, &seeds, &artifacts] {
        fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
    }
    println!("== fuzz {target} for {seconds} s");
    let mut command = Command::new(folder.join("target").join(TRIPLE).join("release").join(target));
    command.arg(&corpus).arg(&seeds).current_dir(&folder);
    command.arg(format!("-max_total_time={seconds}")).arg("-timeout=60").arg("-rss_limit_mb=1024");
    command.arg("-print_final_stats=1").arg(format!("-artifact_prefix={}/", artifacts.display()));
    command.args(arguments);
    Ok(command.status().with_context(|| format!("run the fuzz target {target}"))?.success())
}
