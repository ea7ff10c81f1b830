//! What the fuzz targets share: the fuzzer's bytes as choices, messages made from them, and a count of allocations.
//!
//! Owns no check: each target has its own, or takes the body of an ordinary test. The layouts of messages are those of the
//! wire crate's reference tests, which are generated and know nothing of the codec under test.

pub mod allocations;
pub mod choices;
pub mod reference;
