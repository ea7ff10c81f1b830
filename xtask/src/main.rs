//! Development tasks, run as `cargo xtask <task>`.
//!
//! Owns everything about developing Tidings that has logic: the gate (`test`), the rules that no compiler
//! knows (`tidy`), generated code (`codegen`) and measurements (`bench`). Each task is a module with one `run`.
//! Nothing here is linked into the product.

mod bench;
mod clients;
mod codegen;
mod fuzz;
mod oracle;
mod packages;
mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask <task>

  test [--only STEP]... [-- ARGUMENTS]
                    everything a change must pass, or only some of its steps: fmt, tidy, clients, codegen,
                    clippy, build, compat, tests; ARGUMENTS go to `cargo test`
  tidy [--update]   layering, module docs, sizes, dependency notes; --update lowers the ratchet to what the code needs
  compat [--only API]...
                    both brokers asked the same, Apache Kafka and ours: a table of APIs, versions and verdicts; fails on
                    a difference that is not on purpose
  oracle [ARGUMENTS]
                    the client programs and the SDK's tests against Apache Kafka itself; ARGUMENTS go to `cargo test`
  fuzz [TARGET]... [--seconds N] [-- ARGUMENTS]
                    damaged and random input for everything that reads bytes from outside; ARGUMENTS go to libFuzzer
  codegen [--check] Kafka's messages as Rust, from Kafka's own definitions; --check only compares
  bench [--quick] [--only NAME,...] [--peers NAME,...]
                    Tidings beside its peers on this machine: docs/benchmarks.md; `bench --help` says more";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one task and tells whether everything it checked was right.
fn run(arguments: &[String]) -> Result<bool> {
    let Some((task, rest)) = arguments.split_first() else { bail!("no task given\n\n{USAGE}") };
    match task.as_str() {
        "test" => test::run(&repository(), rest),
        "tidy" => tidy::run(&repository(), rest),
        "compat" => oracle::compat(&repository(), rest),
        "oracle" => oracle::run(&repository(), rest),
        "fuzz" => fuzz::run(&repository(), rest),
        "codegen" => codegen::run(rest).map(|()| true),
        "bench" => bench::run(&repository(), rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(true)
        }
        other => bail!("unknown task '{other}'\n\n{USAGE}"),
    }
}

/// The root of the work tree this program was built in.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository").to_path_buf()
}
