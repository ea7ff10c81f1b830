//! The scenarios of `sdk` on a cluster of three nodes of Apache Kafka, and what only a cluster can show: brokers that die
//! while others go on.

#[path = "../sdk/admin.rs"]
mod admin;
mod broker_deaths;
#[path = "../sdk/broker_kills.rs"]
mod broker_kills;
#[path = "../sdk/claim_check.rs"]
mod claim_check;
#[path = "../sdk/concurrency.rs"]
mod concurrency;
#[path = "../sdk/consumer.rs"]
mod consumer;
#[path = "../sdk/crashes.rs"]
mod crashes;
#[path = "../sdk/delayed.rs"]
mod delayed;
#[path = "../sdk/events.rs"]
mod events;
#[path = "../sdk/exactly_once.rs"]
mod exactly_once;
#[path = "../sdk/failures.rs"]
mod failures;
#[path = "../sdk/key_order.rs"]
mod key_order;
#[path = "../sdk/key_order_limits.rs"]
mod key_order_limits;
#[path = "../sdk/lost.rs"]
mod lost;
#[path = "../sdk/producer.rs"]
mod producer;
#[path = "../sdk/rebalances.rs"]
mod rebalances;
mod security;
#[path = "../sdk/stuck.rs"]
mod stuck;
#[path = "../sdk/support.rs"]
mod support;
#[path = "../sdk/unowned.rs"]
mod unowned;

use tempfile::TempDir;
use tidings_tests::{Tidings, shared_apache_cluster};

/// The cluster that all tests here share.
#[track_caller]
pub fn cluster_under_test() -> (String, Option<(Tidings, TempDir)>) {
    (shared_apache_cluster(), None)
}
