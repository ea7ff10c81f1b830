//! `cargo xtask test`: everything a change must pass, and the whole of what CI runs.
//!
//! Runs the steps in order and counts what they checked; a step that is not `cargo test` counts as one check.
//! A step that later ones build on ends the run when it fails, the others don't. Whatever happens, the last
//! line is `N passed, N failed`, and what failed is shown once more before it. Nothing is skipped in silence: tests
//! marked `#[ignore]` run as well.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

use crate::{clients, codegen, oracle, packages, tidy};

/// What a step or the whole run has found.
#[derive(Debug, Default, PartialEq, Clone, Copy)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    fn of_one(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed) }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// What the steps need to know.
struct Gate<'a> {
    repository: &'a Path,
    target: PathBuf,
    /// Passed on to `cargo test`.
    test_arguments: &'a [String],
}

struct Step {
    name: &'static str,
    run: fn(&Gate<'_>) -> Result<Tally>,
    /// The steps after it have no meaning when this one failed.
    needed_by_the_rest: bool,
}

const STEPS: &[Step] = &[
    Step { name: "fmt", run: fmt, needed_by_the_rest: false },
    Step { name: "tidy", run: tidy, needed_by_the_rest: false },
    Step { name: "clients", run: install_clients, needed_by_the_rest: true },
    Step { name: "codegen", run: codegen, needed_by_the_rest: false },
    Step { name: "clippy", run: clippy, needed_by_the_rest: false },
    Step { name: "build", run: build, needed_by_the_rest: true },
    Step { name: "compat", run: compat, needed_by_the_rest: false },
    Step { name: "tests", run: tests, needed_by_the_rest: false },
];

/// Runs the chosen steps and tells whether all passed.
pub fn run(repository: &Path, arguments: &[String]) -> Result<bool> {
    let (chosen, test_arguments) = parse(arguments)?;
    let gate = Gate { repository, target: target_directory(repository)?, test_arguments };
    let started = Instant::now();
    let mut total = Tally::default();
    for step in STEPS.iter().filter(|step| chosen.is_empty() || chosen.contains(&step.name)) {
        let tally = run_step(step, &gate);
        total.add(tally);
        if tally.failed > 0 && step.needed_by_the_rest {
            println!("stopped: the steps after {} need it", step.name);
            break;
        }
    }
    println!("\nthe whole took {:.0} s", started.elapsed().as_secs_f64());
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(total.failed == 0)
}

/// Reads `[--only STEP]... [-- ARGUMENTS]`.
fn parse(arguments: &[String]) -> Result<(Vec<&str>, &[String])> {
    let mut chosen = Vec::new();
    let mut rest = arguments;
    loop {
        match rest {
            [] => return Ok((chosen, rest)),
            [dashes, tail @ ..] if dashes == "--" => return Ok((chosen, tail)),
            [only, step, tail @ ..] if only == "--only" => {
                if !STEPS.iter().any(|known| known.name == step) {
                    let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
                    bail!("no step is called '{step}', there are: {}", names.join(", "));
                }
                chosen.push(step.as_str());
                rest = tail;
            }
            [other, ..] => {
                bail!("unexpected '{other}': test takes --only STEP, then -- and arguments of cargo test")
            }
        }
    }
}

fn run_step(step: &Step, gate: &Gate<'_>) -> Tally {
    println!("\n== {}", step.name);
    let started = Instant::now();
    let tally = (step.run)(gate).unwrap_or_else(|error| {
        println!("{error:#}");
        Tally::of_one(false)
    });
    let verdict = if tally.failed == 0 { "ok" } else { "FAILED" };
    println!("== {}: {verdict}, {:.1} s", step.name, started.elapsed().as_secs_f64());
    tally
}

fn fmt(gate: &Gate<'_>) -> Result<Tally> {
    cargo_passes(gate, &["fmt", "--all", "--check"])
}

fn tidy(gate: &Gate<'_>) -> Result<Tally> {
    tidy::run(gate.repository, &[]).map(Tally::of_one)
}

fn install_clients(gate: &Gate<'_>) -> Result<Tally> {
    packages::install_missing()?;
    clients::install(gate.repository, &gate.target)?;
    Ok(Tally::of_one(true))
}

/// The committed messages are what the generator writes.
fn codegen(_: &Gate<'_>) -> Result<Tally> {
    codegen::run(&["--check".to_owned()]).map(|()| Tally::of_one(true))
}

fn clippy(gate: &Gate<'_>) -> Result<Tally> {
    cargo_passes(
        gate,
        &["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"],
    )
}

/// The programs that the tests start, and the tests themselves, so that `tests` only runs.
fn build(gate: &Gate<'_>) -> Result<Tally> {
    let programs = cargo_passes(gate, &["build", "--quiet", "--locked", "--workspace", "--bins"])?;
    if programs.failed > 0 {
        return Ok(programs);
    }
    cargo_passes(gate, &["test", "--quiet", "--locked", "--workspace", "--no-run"])
}

/// Both brokers answer alike: Apache Kafka's and ours.
fn compat(gate: &Gate<'_>) -> Result<Tally> {
    oracle::compare(gate.repository, &gate.target, &[]).map(Tally::of_one)
}

/// Test programs that mostly wait, for servers that start, stop and are killed: each row runs beside the others and beside the rest.
const BESIDE: [(&str, &[&str]); 2] =
    [("platform | ", &["platform", "platform_on_apache_kafka"]), ("sdk | ", &["sdk", "sdk_on_apache_kafka"])];

/// All tests of all crates, those of `tests/` and their client programs included. Tests that are ignored by default
/// need something that only this command installs: they run in a second round, and none is left out.
fn tests(gate: &Gate<'_>) -> Result<Tally> {
    if !gate.test_arguments.is_empty() {
        let arguments: Vec<&str> = gate.test_arguments.iter().map(String::as_str).collect();
        return cargo_test(gate, "", &arguments).map(|results| results.tally);
    }
    let all_programs = test_programs(gate.repository)?;
    let mut others: Vec<&str> = all_programs.iter().map(String::as_str).collect();
    others.retain(|name| !BESIDE.iter().any(|(_, programs)| programs.contains(name)));
    let all = std::thread::scope(|scope| -> Result<TestResults> {
        let run = |prefix: &str, first: &[&str], programs: &[&str]| {
            let chosen = programs.iter().flat_map(|name| ["--test", name]);
            cargo_test(gate, prefix, &first.iter().copied().chain(chosen).collect::<Vec<_>>())
        };
        let beside =
            BESIDE.map(|(prefix, programs)| scope.spawn(move || run(prefix, &["--workspace"], programs)));
        let mut all = run("", &["--workspace", "--lib", "--bins"], &others)?;
        all.add(run("", &["--workspace", "--doc"], &[])?);
        for running in beside {
            all.add(running.join().map_err(|_| anyhow!("a thread of the tests beside panicked"))??);
        }
        Ok(all)
    })?;
    let ignored = cargo_test(gate, "", &["--workspace", "--tests", "--", "--ignored"])?;
    all.show_failures();
    ignored.show_failures();
    let mut tally = all.tally;
    tally.add(ignored.tally);
    let left_out = all.ignored.saturating_sub(ignored.tally.passed + ignored.tally.failed);
    if left_out > 0 {
        println!("{left_out} ignored tests were not run at all, and count as failed");
    }
    tally.add(Tally { passed: 0, failed: left_out });
    Ok(tally)
}

/// The names of all test programs of the workspace.
fn test_programs(repository: &Path) -> Result<BTreeSet<String>> {
    let metadata = tidy::cargo_metadata(repository)?;
    let packages = metadata["packages"].as_array().context("cargo metadata names no packages")?;
    let targets = packages.iter().filter_map(|package| package["targets"].as_array()).flatten();
    let tests = targets.filter(|target| target["kind"][0] == "test");
    Ok(tests.filter_map(|target| target["name"].as_str().map(str::to_owned)).collect())
}

/// What test programs have printed.
#[derive(Debug, Default, PartialEq)]
struct TestResults {
    tally: Tally,
    ignored: u64,
    /// What they said of the tests that failed.
    failures: Vec<String>,
}

impl TestResults {
    fn add(&mut self, other: Self) {
        self.tally.add(other.tally);
        self.ignored += other.ignored;
        self.failures.extend(other.failures);
    }

    /// Shows what failed once more: in the long output of all programs it is hard to find.
    fn show_failures(&self) {
        if !self.failures.is_empty() {
            println!("\nfailed, as said above:\n{}", self.failures.join("\n"));
        }
    }
}

/// Runs `cargo test`; each line of its output is shown behind `prefix`.
fn cargo_test(gate: &Gate<'_>, prefix: &str, arguments: &[&str]) -> Result<TestResults> {
    let mut command = cargo(gate, &["test", "--locked", "--no-fail-fast"]);
    command.args(arguments);
    let clients = gate.target.join("clients");
    command.env("XTASK_TIDINGS_BIN", gate.target.join("debug/tidings")).env("XTASK_CLIENTS", &clients);
    command.env("XTASK_KAFKA_LIBS", clients.join("java/jars"));
    let mut child = command.stdout(Stdio::piped()).spawn().context("run cargo test")?;
    let output = child.stdout.take().expect("the output is piped");
    let mut results = read_results(BufReader::new(output).lines(), prefix)?;
    let status = child.wait().context("wait for cargo test")?;
    if !status.success() && results.tally.failed == 0 {
        // Something other than a test failed: compilation, or a test program that crashed.
        results.tally.failed = 1;
    }
    Ok(results)
}

fn read_results(lines: impl Iterator<Item = io::Result<String>>, prefix: &str) -> Result<TestResults> {
    let mut results = TestResults::default();
    let mut is_of_failures = false;
    for line in lines {
        let line = line.context("read the output of cargo test")?;
        println!("{prefix}{line}");
        is_of_failures |= line == "failures:";
        if let Some(of_program) = test_result(&line) {
            results.add(of_program);
            is_of_failures = false;
        }
        if is_of_failures {
            results.failures.push(line);
        }
    }
    Ok(results)
}

/// Reads `test result: ok. 3 passed; 0 failed; 0 ignored; …`.
fn test_result(line: &str) -> Option<TestResults> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut results = TestResults::default();
    for part in counts.split("; ") {
        match part.split_once(' ') {
            Some((count, "passed")) => results.tally.passed += count.parse::<u64>().ok()?,
            Some((count, "failed")) => results.tally.failed += count.parse::<u64>().ok()?,
            Some((count, "ignored")) => results.ignored += count.parse::<u64>().ok()?,
            _ => {}
        }
    }
    Some(results)
}

fn cargo_passes(gate: &Gate<'_>, arguments: &[&str]) -> Result<Tally> {
    println!("cargo {}", arguments.join(" "));
    let status = cargo(gate, arguments).status().context("run cargo")?;
    Ok(Tally::of_one(status.success()))
}

fn cargo(gate: &Gate<'_>, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(gate.repository);
    command
}

/// Where cargo builds: `target/`, unless the developer's settings say otherwise.
pub fn target_directory(repository: &Path) -> Result<PathBuf> {
    let metadata = tidy::cargo_metadata(repository)?;
    let path = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn results_of_test_programs_are_added_up() {
        let line = "test result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.5s";
        let expected =
            TestResults { tally: Tally { passed: 12, failed: 2 }, ignored: 1, failures: Vec::new() };
        assert_eq!(test_result(line), Some(expected));
        assert_eq!(test_result("test log::tests::recovers ... ok"), None);
    }

    #[test]
    fn what_programs_say_of_failures_is_kept() {
        let output = "running 2 tests\ntest a ... FAILED\ntest b ... ok\n\nfailures:\n\n---- a stdout ----\n2 is not 3\n\n\
                      failures:\n    a\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\n\nrunning 0 tests\n";
        let results = read_results(output.lines().map(|line| Ok(line.to_owned())), "").unwrap();
        assert_eq!(results.tally, Tally { passed: 1, failed: 1 });
        let kept = results.failures.join("\n");
        assert!(
            kept.contains("2 is not 3") && !kept.contains("test b") && !kept.contains("running"),
            "{kept}"
        );
    }

    #[test]
    fn steps_are_chosen_by_name() {
        let given = arguments("--only tidy --only tests -- -p tidings-log");
        let (chosen, rest) = parse(&given).unwrap();
        assert_eq!((chosen, rest), (vec!["tidy", "tests"], &given[5..]));
        assert!(parse(&arguments("--only lint")).is_err());
        assert!(parse(&arguments("tidy")).is_err());
    }
}
