//! The short form of every case, and of its control. `TIDINGS_CRASH_SEED` sets the seed.

use tidings_crash::cases::{CASES, Plan, case};

fn seed() -> u64 {
    std::env::var("TIDINGS_CRASH_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn check(name: &str) {
    let case = case(name).unwrap();
    let seed = seed();
    let rerun = |kind: &str, rounds: u64| {
        format!("cargo run -p tidings-crash -- --case {name} --seed {seed} --rounds {rounds}{kind}")
    };
    let (rounds, control_rounds) = case.short;
    let tally =
        (case.run)(&Plan { seed, rounds }).unwrap_or_else(|error| panic!("{}: {error:#}", rerun("", rounds)));
    println!("{name}, seed {seed}: {tally}");
    assert!(tally.findings.is_clean(), "{}: {tally}", rerun("", rounds));
    let plan = Plan { seed, rounds: control_rounds };
    let rerun = rerun(" --control", control_rounds);
    let tally = (case.control)(&plan).unwrap_or_else(|error| panic!("{rerun}: {error:#}"));
    println!("{name}, control ({}), seed {seed}: {tally}", case.control_about);
    assert!(!tally.findings.is_clean(), "the control is not seen to break anything: {rerun}: {tally}");
}

macro_rules! short {
    ($($test:ident: $name:literal;)*) => {
        const SHORT: &[&str] = &[$($name),*];
        $(#[test] fn $test() { check($name); })*
    };
}

short! {
    kills: "kill";
    kills_at_file_operations: "kill-points";
    power_cuts: "power";
    power_cuts_at_file_operations: "power-points";
    torn_tails: "tails";
    flipped_bits: "flips";
    failing_syncs: "sync-fails";
    failing_writes: "write-fails";
    a_full_disk: "full";
    no_descriptors: "files";
    a_read_only_file_system: "read-only";
    a_jumping_clock: "clock";
    kills_and_transactions: "txn-kill";
    kills_at_file_operations_and_transactions: "txn-kill-points";
    power_cuts_and_transactions: "txn-power";
    power_cuts_at_file_operations_and_transactions: "txn-power-points";
    flipped_bits_and_transactions: "txn-flips";
}

/// A case that is not in the list above would hold up nothing.
#[test]
fn every_case_is_here() {
    assert_eq!(CASES.len(), SHORT.len());
    assert!(CASES.iter().all(|case| SHORT.contains(&case.name)));
}
