//! The log from the outside: appends, reads, restarts.

mod append_and_read;
mod support;
