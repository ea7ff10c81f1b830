//! The coordinator through its public interface: rules per API, scenarios over time, and random histories.

mod support;

mod join;
mod sync_and_leave;
