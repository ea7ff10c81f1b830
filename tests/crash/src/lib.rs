//! The crash laboratory: what the broker promised, held against kills, power cuts, flipped bits, failing disks and
//! jumping clocks.
//!
//! Owns the cases ([`cases`]), the clients that load the broker while it is hurt ([`producer`], [`reader`],
//! [`librdkafka`]), the tools that hurt it ([`volume`], [`supervisor`]), and the judge ([`history`]). Invariants: every
//! case has a control in which the same judge sees the same harm succeed; every run prints its seed, and the seed
//! decides everything but the scheduling. Knows the broker from outside only: its program, its port, its files.

pub mod cases;
pub mod client;
pub mod history;
pub mod librdkafka;
pub mod producer;
pub mod reader;
pub mod run;
pub mod server;
pub mod supervisor;
pub mod transactional;
pub mod volume;
