//! Benchmark drivers: start-up, memory, and activities through HTTP into the store.
//!
//! Measures a release build of `tidings` from the outside and prints one table with the goal beside each
//! figure. It never fails because a figure is missed: it fails when something does not work.

mod activity;
mod http_client;
mod kafka_client;
mod process;
mod startup;

use anyhow::{Result, ensure};
use clap::Parser;
use comfy_table::Table;
use std::path::{Path, PathBuf};

/// Measures `tidings`; start it with `cargo xtask bench`, which builds both.
#[derive(Parser)]
struct Arguments {
    /// The release build to measure.
    #[arg(long, default_value = "target/release/tidings")]
    binary: PathBuf,
    /// Where data directories are made; must be on a real disk for the durability figures to mean anything.
    #[arg(long, default_value = "target/bench")]
    work_dir: PathBuf,
    /// Rounds of each measurement; the median is shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Activities in one throughput round.
    #[arg(long, default_value_t = 200_000)]
    events: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(
        arguments.binary.exists(),
        "expected {}, found nothing: run cargo xtask bench",
        arguments.binary.display()
    );
    std::fs::create_dir_all(&arguments.work_dir)?;
    let mut table = Table::new();
    table.set_header(["figure", "median", "min", "max", "goal"]);
    startup_rows(&arguments, &mut table)?;
    activity_rows(&arguments, &mut table)?;
    println!("{table}");
    Ok(())
}

fn startup_rows(arguments: &Arguments, table: &mut Table) -> Result<()> {
    let (mut ready, mut first, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    let (mut up_ack, mut broker_ack) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        let figures = in_empty_dir(arguments, |dir| startup::platform(&arguments.binary, dir))?;
        ready.push(figures.ready_ms);
        first.push(figures.first_activity_ms);
        idle.push(figures.idle_mb);
        up_ack.push(in_empty_dir(arguments, |dir| startup::first_ack(&arguments.binary, "up", dir))?);
        broker_ack.push(in_empty_dir(arguments, |dir| startup::first_ack(&arguments.binary, "broker", dir))?);
    }
    row(table, "start to ready, ms", ready, "<= 150");
    row(table, "start to first durable ack at the Kafka port, ms (up)", up_ack, "<= 50");
    row(table, "start to first durable ack at the Kafka port, ms (broker)", broker_ack, "<= 50");
    row(table, "ready to first activity acknowledged, ms", first, "<= 150");
    row(table, "idle memory of the whole platform, MB", idle, "<= 40");
    Ok(())
}

fn activity_rows(arguments: &Arguments, table: &mut Table) -> Result<()> {
    let mut columns: [Vec<f64>; 5] = Default::default();
    for round in 0..arguments.rounds {
        let figures =
            in_empty_dir(arguments, |dir| activity::run(&arguments.binary, dir, arguments.events))?;
        eprintln!("activities, round {}: {} in {:.1} s", round + 1, figures.events, figures.seconds);
        let events = figures.events as f64;
        let values = [
            events / figures.seconds,
            figures.ack_p50_ms,
            figures.ack_p99_ms,
            figures.cpu_seconds / events * 1e6,
            figures.peak_mb,
        ];
        for (column, value) in columns.iter_mut().zip(values) {
            column.push(value);
        }
    }
    let [rate, p50, p99, cpu, peak] = columns;
    row(table, "activities stored per second, batches of 100", rate, ">= 20,000");
    row(table, "acknowledgement of a batch p50, ms", p50, "");
    row(table, "acknowledgement of a batch p99, ms", p99, "");
    row(table, "CPU of the platform per activity, us", cpu, "");
    row(table, "peak memory under load, MB", peak, "<= 128");
    Ok(())
}

fn in_empty_dir<T>(arguments: &Arguments, measure: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let parent = tempfile::tempdir_in(&arguments.work_dir)?;
    measure(&parent.path().join("data"))
}

fn row(table: &mut Table, name: &str, mut values: Vec<f64>, goal: &str) {
    values.sort_by(f64::total_cmp);
    let format = |value: f64| if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
    let (first, last) = (values[0], values[values.len() - 1]);
    table.add_row([name, &format(values[values.len() / 2]), &format(first), &format(last), goal]);
}
