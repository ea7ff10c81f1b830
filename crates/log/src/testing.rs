//! A disk for tests that loses what was not synced, and fails on demand.
//!
//! Owns [`SimDisk`] and the small random numbers that its crashes are drawn from. Invariants: the same
//! seed gives the same outcome for the same state; nothing here is used outside tests.

#[cfg(test)]
pub(crate) mod logs;
mod random;
mod sim_disk;
mod sim_state;

pub use random::Random;
pub use sim_disk::{Captured, Operation, SimDisk};
pub use sim_state::Loss;
