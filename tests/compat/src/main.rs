//! Apache Kafka as the oracle: the same raw-protocol scenarios on both brokers, answers compared field by field.
//!
//! `tidings-compat` starts Apache Kafka and Tidings, plays all scenarios on both, prints the table of APIs, versions and
//! verdicts, and fails on a difference that nobody has explained. `tidings-compat with-kafka COMMAND` starts Apache Kafka
//! alone and runs a command that finds its address in `XTASK_CLUSTER`. What the programs are made of is installed by
//! `cargo xtask`, which calls this.

mod broker;
mod codec;
mod compare;
mod connection;
mod definitions;
mod mutate;
mod normal;
mod play;
mod purpose;
mod records;
mod report;
mod run;
mod scenarios;
mod verdict;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tidings_tests::{ApacheKafka, Launch, installed};

use broker::Broker;
use definitions::Definitions;
use play::{Played, play, play_one};
use purpose::Purpose;
use run::Scenario;

const USAGE: &str = "\
usage: tidings-compat [--only API]... [--markdown FILE]
       tidings-compat with-kafka COMMAND...";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let passed = match arguments.split_first() {
        Some((first, command)) if first == "with-kafka" => with_kafka(command),
        _ => Options::parse(&arguments).and_then(|options| compare_brokers(&options)),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Kafka computes a group's assignment a second after the last one, and in another thread, so what a member is told would
/// depend on the time.
const KAFKA_SETTINGS: &str =
    "group.consumer.assignment.interval.ms=0\ngroup.consumer.assignor.offload.enable=false\n";

/// How often a scenario that differs is played again: a difference that does not come back is one of timing, of a Kafka that
/// still loads something or of a machine that is busy.
const REPLAYS: usize = 2;

/// What to compare and where to write.
#[derive(Debug, Default)]
struct Options {
    /// The APIs whose scenarios are played; all if none.
    only: Vec<String>,
    /// Where the table is written as Markdown.
    markdown: Option<PathBuf>,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let value = || rest.clone().next().with_context(|| format!("{argument} needs a value\n{USAGE}"));
            match argument.as_str() {
                "--only" => options.only.push(value()?.clone()),
                "--markdown" => options.markdown = Some(value()?.into()),
                other => bail!("unexpected '{other}'\n{USAGE}"),
            }
            rest.next();
        }
        Ok(options)
    }

    fn wants(&self, api: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == api)
    }
}

/// Runs a command beside Apache Kafka; tells whether it succeeded.
fn with_kafka(command: &[String]) -> Result<bool> {
    let (program, arguments) = command.split_first().context(USAGE)?;
    let kafka = ApacheKafka::start(&installed("java/jars"), "");
    println!("Apache Kafka answers at {}", kafka.address());
    let mut command = Command::new(program);
    command.args(arguments).env("XTASK_CLUSTER", kafka.address());
    Ok(command.status().with_context(|| format!("run {program}"))?.success())
}

/// Plays the scenarios on both brokers; tells whether nothing is left unexplained.
fn compare_brokers(options: &Options) -> Result<bool> {
    let jars = installed("java/jars");
    let scratch = tempfile::tempdir().context("make a directory")?;
    let definitions = Definitions::from_jars(&jars, scratch.path())?;
    let scenarios: Vec<Scenario> =
        scenarios::all().into_iter().filter(|scenario| options.wants(scenario.api)).collect();
    // Both are started by this thread, which outlives them.
    let tidings_node = Launch::broker(&scratch.path().join("tidings")).start();
    let kafka_node = ApacheKafka::start(&jars, KAFKA_SETTINGS);
    let kafka = Broker::meet(kafka_node.address(), &definitions).context("meet Apache Kafka")?;
    let tidings = Broker::meet(&tidings_node.bootstrap(), &definitions).context("meet Tidings")?;
    let started = Instant::now();
    let (mut on_kafka, mut on_tidings) = std::thread::scope(|scope| {
        let kafka_side = scope.spawn(|| play(&scenarios, &kafka, &tidings, &definitions));
        let on_tidings = play(&scenarios, &tidings, &kafka, &definitions);
        (kafka_side.join().expect("scenarios catch their panics"), on_tidings)
    });
    let purpose = Purpose::read()?;
    let judge = |on_kafka: &[Played], on_tidings: &[Played]| {
        verdict::judge((&kafka, on_kafka), (&tidings, on_tidings), &purpose, |api| options.wants(api))
    };
    let mut judgement = judge(&on_kafka, &on_tidings);
    for again in 1..=REPLAYS {
        for index in std::mem::take(&mut judgement.doubtful) {
            let Played { scenario, version, .. } = on_kafka[index];
            println!("again: {} (v{version})", scenario.name);
            let number = again * scenarios.len() + index;
            on_kafka[index] = play_one(&scenario, number, version, &kafka, &tidings, &definitions);
            on_tidings[index] = play_one(&scenario, number, version, &tidings, &kafka, &definitions);
        }
        judgement = judge(&on_kafka, &on_tidings);
    }
    report_all(options, &judgement, &purpose.problems(options.only.is_empty()), started)
}

fn report_all(
    options: &Options,
    judgement: &verdict::Judgement,
    problems: &[String],
    started: Instant,
) -> Result<bool> {
    let table = report::table(judgement);
    println!("{table}");
    if let Some(path) = &options.markdown {
        std::fs::write(path, &table).with_context(|| format!("write {}", path.display()))?;
    }
    print!("{}", report::unexplained(judgement));
    problems.iter().for_each(|problem| println!("on-purpose.toml: {problem}"));
    let bad = |judged: &&verdict::Judged| judged.verdict() == verdict::Verdict::Unexplained;
    let (rows, failed) = (judgement.rows.len(), judgement.rows.values().filter(bad).count());
    let requests: usize = judgement.rows.values().map(|judged| judged.requests).sum();
    println!("{requests} requests compared in {:.0} s", started.elapsed().as_secs_f64());
    println!("compat: {} passed, {} failed", rows - failed, failed + problems.len());
    Ok(failed + problems.len() == 0)
}
