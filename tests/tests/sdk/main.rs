//! The SDK against our broker: producing, consuming, failures and administration. `sdk_on_apache_kafka` runs the same
//! scenarios on a cluster of Apache Kafka.

mod admin;
mod broker_kills;
mod broker_restarts;
mod buckets;
mod claim_check;
mod concurrency;
mod consumer;
mod crashes;
mod delayed;
mod events;
mod exactly_once;
mod failures;
mod key_order;
mod key_order_limits;
mod lost;
mod producer;
mod rebalances;
mod resilient;
mod stuck;
mod support;
mod unowned;

pub use tidings_tests::cluster_under_test;
