//! The log from the outside: appends, reads, restarts.

mod any_batch;
mod any_damage;
mod any_input;
mod append_and_read;
mod concurrency;
mod damage;
mod failures;
mod kafka_tools;
mod model;
mod offline;
mod power_cut;
mod producers;
mod reading;
mod support;
