//! The crash laboratory on the command line: a case, for as many rounds as wanted.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use tidings_crash::cases::{CASES, Case, Plan, case};

/// Hurts a broker and judges what is left.
#[derive(Parser)]
struct Arguments {
    /// The case; all of them if none is named
    #[arg(long)]
    case: Vec<String>,
    /// How often to hurt the broker, in each case [default: as in the tests]
    #[arg(long)]
    rounds: Option<u64>,
    /// Decides everything but the scheduling [default: the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Run the controls, which must find something broken
    #[arg(long)]
    control: bool,
    /// Name the cases
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        CASES
            .iter()
            .for_each(|case| println!("{:12} {}; control: {}", case.name, case.about, case.control_about));
        return ExitCode::SUCCESS;
    }
    use_program_beside_us();
    let mut chosen: Vec<&Case> = Vec::new();
    for name in &arguments.case {
        let Some(case) = case(name) else {
            eprintln!("no case is called {name}: try --list");
            return ExitCode::FAILURE;
        };
        chosen.push(case);
    }
    if chosen.is_empty() {
        chosen.extend(CASES);
    }
    let seed = arguments.seed.unwrap_or_else(|| {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        since.as_secs()
    });
    let mut passed = true;
    for case in chosen {
        passed &= run(case, seed, arguments.rounds, arguments.control);
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(case: &Case, seed: u64, rounds: Option<u64>, control: bool) -> bool {
    let (body, short) = if control { (case.control, case.short.1) } else { (case.run, case.short.0) };
    let plan = Plan { seed, rounds: rounds.unwrap_or(short) };
    let started = Instant::now();
    let kind = if control { "control" } else { "run" };
    println!("{} {kind}: seed {seed}, {} rounds", case.name, plan.rounds);
    match body(&plan) {
        Ok(tally) => {
            let as_expected = tally.findings.is_clean() != control;
            let verdict = if as_expected { "as expected" } else { "NOT AS EXPECTED" };
            println!("{} {kind}: {verdict} in {:.1?}: {tally}", case.name, started.elapsed());
            as_expected
        }
        Err(error) => {
            println!("{} {kind}: FAILED: {error:#}", case.name);
            false
        }
    }
}

/// The harness looks for `tidings` where tests find it; we lie beside it.
fn use_program_beside_us() {
    if std::env::var_os("XTASK_TIDINGS_BIN").is_some() {
        return;
    }
    let program: Option<PathBuf> = std::env::current_exe().ok().map(|path| path.with_file_name("tidings"));
    if let Some(program) = program.filter(|program| program.exists()) {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var("XTASK_TIDINGS_BIN", program) };
    }
}
