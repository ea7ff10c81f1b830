//! The log from the outside: appends, reads, restarts.

mod any_batch;
mod any_damage;
mod any_input;
mod append_and_read;
mod checkpoints;
mod compaction;
mod concurrency;
mod damage;
mod failures;
mod flushes;
mod kafka_tools;
mod keeping;
mod lead;
mod model;
mod offline;
mod power_cut;
mod producers;
mod reading;
mod retention;
mod snapshot;
mod support;
mod tails;
mod transactions;
