//! What both brokers are asked.
//!
//! Owns the list; one file per API or group of APIs that belong together. A scenario asks by Kafka's field names and gives
//! every field that any version may need: what a version does not have is not sent.

mod acls;
mod configs;
mod connection;
mod consumer_groups;
mod fetch;
mod fetch_sessions;
mod groups;
mod list_offsets;
mod metadata;
mod offsets;
mod produce;
mod producers;
mod topics;
mod transactions;

use crate::run::Scenario;

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    [
        connection::ALL,
        metadata::ALL,
        topics::ALL,
        configs::ALL,
        acls::ALL,
        produce::ALL,
        fetch::ALL,
        fetch_sessions::ALL,
        list_offsets::ALL,
        producers::ALL,
        groups::ALL,
        offsets::ALL,
        transactions::ALL,
        consumer_groups::ALL,
    ]
    .concat()
}
