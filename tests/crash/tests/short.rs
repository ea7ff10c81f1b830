//! The short form of the case with kills, and of its control. `TIDINGS_CRASH_SEED` sets the seed.

use tidings_crash::cases::{Plan, case};

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
    ($($test:ident: $name:literal;)*) => { $(#[test] fn $test() { check($name); })* };
}

// The other cases still have findings of their own or of their controls to be told apart (docs/durability.md): until
// they are, `tidings-crash --case NAME` runs them, and a change is not held up by them.
short! {
    kills: "kill";
}
