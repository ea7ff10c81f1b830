//! The coordinator through its public interface: rules per API, scenarios over time, and random histories.

mod support;

mod admin;
mod consumer;
mod consumer_random;
mod durability;
mod expiry;
mod join;
mod migration;
mod offsets;
mod random;
mod scenarios;
mod static_members;
mod sync_and_leave;
mod transactions;
mod txn_offsets;
