//! Any batch and any damage, by seeds: nothing panics, and nothing wrong is believed.
//!
//! `XTASK_SECONDS=600 cargo test -p tidings-log any_` looks for longer, from a seed of its own; a failure names its seed.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidings_log::testing::Random;

use crate::{any_batch, any_damage};

fn each_seed(name: &str, count: u64, check: fn(&mut dyn FnMut(usize) -> usize)) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let limit = number("XTASK_SECONDS").map(Duration::from_secs);
    let by_time = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    let first = number("XTASK_SEED").unwrap_or_else(|| if limit.is_some() { by_time() } else { 1 });
    let start = Instant::now();
    let mut seed = first;
    while limit.map_or(seed < first + count, |limit| start.elapsed() < limit) {
        let mut random = Random::new(seed);
        let outcome = catch_unwind(AssertUnwindSafe(|| check(&mut |end| random.below(end))));
        if let Err(panic) = outcome {
            eprintln!("{name} failed: XTASK_SEED={seed} repeats it");
            resume_unwind(panic);
        }
        seed += 1;
    }
    println!("{name}: seeds {first} to {}", seed - 1);
}

#[test]
fn any_damage_is_taken_or_refused_and_can_be_repaired() {
    each_seed("any_damage", 1500, any_damage::check);
}

#[test]
fn any_batch_is_refused_or_read_back() {
    each_seed("any_batch", 5000, any_batch::check);
}
