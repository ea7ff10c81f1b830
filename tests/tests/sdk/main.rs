//! The SDK against a broker: producing, consuming, failures and administration.
//!
//! The same tests pass on Apache Kafka: `XTASK_CLUSTER=host:port cargo test -p tidings-tests --test sdk`.

mod admin;
mod concurrency;
mod consumer;
mod failures;
mod producer;
mod resilient;
mod support;
