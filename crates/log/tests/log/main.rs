//! The log from the outside: appends, reads, restarts.

mod append_and_read;
mod power_cut;
mod support;
