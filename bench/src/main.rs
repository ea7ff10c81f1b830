//! The benchmark: Tidings beside its peers, through the same load generator, on the same machine, in one run.
//!
//! Prints one table with the goal beside each figure and writes the same as JSON and as a chart. It never fails because a
//! goal is missed: it fails when something does not work, or when a record is lost.

mod awake;
mod figures;
mod http_client;
mod kafka_client;
mod lab;
mod limits;
mod load;
mod machine;
mod peers;
mod platform;
mod process;
mod report;
mod results;
mod runner;
mod scenarios;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use lab::{Contestant, Lab, Sizes};
use scenarios::Scenario;
use std::path::PathBuf;

/// Measures Tidings beside its peers; start it with `cargo xtask bench`, which builds what it needs.
#[derive(Parser)]
struct Arguments {
    /// The release build to measure.
    #[arg(long, default_value = "target/release/tidings")]
    binary: PathBuf,
    /// Another release build, for the peer tidings-before: to see what a change has changed, in one run.
    #[arg(long, default_value = "target/before/tidings")]
    before: PathBuf,
    /// Where data, artifacts and results go; must be on a real disk for the durability figures to mean anything.
    #[arg(long, default_value = "target/bench")]
    work_dir: PathBuf,
    /// Only these scenarios: limits, start, memory, platform, activities, produce-1k, produce-100b, consume-1k, fan-out,
    /// latency, partitions, connections.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Who is measured: tidings, tidings-process (page cache as durable, as Kafka has it), tidings-copy (no `sendfile`),
    /// tidings-before (`--before`), tidings-postgres (activities in PostgreSQL), kafka, kafka-flush.
    #[arg(long, value_delimiter = ',', default_value = "tidings,kafka,kafka-flush")]
    peers: Vec<String>,
    /// Small sizes and three rounds: to see in minutes whether something changed a lot.
    #[arg(long)]
    quick: bool,
    /// Rounds of each scenario; the median is shown.
    #[arg(long)]
    rounds: Option<usize>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut sizes = if arguments.quick { Sizes::QUICK } else { Sizes::FULL };
    if let Some(rounds) = arguments.rounds {
        ensure!(rounds > 0, "expected at least one round");
        sizes.rounds = rounds;
    }
    let load_before = machine::load_before()?;
    machine::raise_file_limit()?;
    std::fs::create_dir_all(&arguments.work_dir)?;
    let work_dir = arguments.work_dir.canonicalize()?;
    let (limits, scenarios) = chosen_scenarios(&arguments.only)?;
    let mut contestants = chosen_peers(&arguments, &work_dir)?;
    let mut descriptions = Vec::new();
    for contestant in &contestants {
        descriptions.push((contestant.peer.name(), contestant.peer.describe()?));
    }
    let lab = Lab::new(sizes, work_dir.clone());
    let results = runner::run(&lab, limits, &scenarios, &mut contestants)?;
    let facts = machine::facts(&work_dir, load_before, &descriptions)?;
    println!("{}", report::table(&results, &facts));
    report::write(&results, &facts, &work_dir)
}

/// The scenarios that `--only` names, all if it names none, and whether the physical limits are among them.
fn chosen_scenarios(only: &[String]) -> Result<(bool, Vec<Box<dyn Scenario>>)> {
    let mut scenarios = scenarios::all();
    let known = |name: &String| name == "limits" || scenarios.iter().any(|scenario| scenario.name() == name);
    if let Some(unknown) = only.iter().find(|&name| !known(name)) {
        bail!("unknown scenario '{unknown}': --help lists them");
    }
    let chosen = |name: &str| only.is_empty() || only.iter().any(|wanted| wanted == name);
    scenarios.retain(|scenario| chosen(scenario.name()));
    Ok((chosen("limits"), scenarios))
}

fn chosen_peers(arguments: &Arguments, work_dir: &std::path::Path) -> Result<Vec<Contestant>> {
    let mut peers = peers::all(&arguments.binary, &arguments.before, work_dir);
    let mut contestants = Vec::new();
    for name in &arguments.peers {
        let position = peers.iter().position(|peer| peer.name() == name);
        let peer = peers.swap_remove(position.with_context(|| format!("unknown or repeated peer '{name}'"))?);
        let binary = if name == "tidings-before" { &arguments.before } else { &arguments.binary };
        ensure!(
            !name.starts_with("tidings") || binary.exists(),
            "expected {}, found nothing: run cargo xtask bench",
            binary.display()
        );
        contestants.push(Contestant::new(peer));
    }
    ensure!(!contestants.is_empty(), "no peer to measure");
    Ok(contestants)
}
