//! Record batches from outside: the body of the log crate's `any_batch` test.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_fuzz::choices::Choices;

#[path = "../../crates/log/tests/log/any_batch.rs"]
mod any_batch;

fuzz_target!(|data: &[u8]| {
    let mut choices = Choices::new(data);
    any_batch::check(&mut |end| choices.below(end));
});
