//! Damaged data directories: the body of the log crate's `any_damage` test.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_fuzz::choices::Choices;

#[path = "../../crates/log/tests/log/any_damage.rs"]
mod any_damage;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    any_damage::check(&mut |end| choices.below(end));
});
