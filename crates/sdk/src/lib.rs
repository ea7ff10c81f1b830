//! The Tidings SDK: producing, consuming and handling failures on any Kafka cluster.
//!
//! What is here: [`Cluster`] (how to reach it) and its [`Security`], [`Producer`] (success or failure as a value, never past a
//! deadline), [`ResilientProducer`] (the same behind a circuit [`breaker`]), [`consumer`] (a runtime around a handler
//! that commits only what is done), [`failure`] (the dead letter topic as an inbox that can be listed, redriven and
//! discarded), [`claim_check`] (large values beside the cluster), [`event`] (typed events in CloudEvents' form), [`admin`]
//! (topics and groups) and [`reader`] (reading a topic without a group). With the feature `testing` there is `testing`,
//! too: a real broker in the process of a test.
//!
//! **Invariant:** nothing here knows which broker is behind the address. **Invariant:** only
//! [`Producer::send`], [`Producer::send_batch`] and the `async` functions beside them may be called from
//! async code; everything else blocks its thread for at most the timeout it was given, so call it through
//! `tokio::task::spawn_blocking`.
//!
//! What is not here: an HTTP API (the `tidings-console` crate) and, but for `testing`, the broker.

mod cluster;
mod drop_later;
mod error;
mod native;
mod outsider;
mod record;
mod security;
#[cfg(test)]
mod until;

pub mod admin;
pub mod breaker;
pub mod claim_check;
pub mod consumer;
pub mod event;
pub mod failure;
pub mod producer;
pub mod reader;
pub mod resilient;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub mod stores;
#[cfg(feature = "testing")]
pub mod testing;

pub use cluster::{Cluster, ClusterError};
pub use error::{KafkaFault, TlsProblem};
pub use producer::{Delivered, Producer, ProducerMetrics, ProducerOptions, SendError};
pub use record::{HeaderIter, Headers, ReceivedRecord, Record, now_ms};
pub use resilient::{ResilientOptions, ResilientProducer};
pub use security::{Mechanism, Security};

/// The programs in the guides compile, and those that need no cluster of others run.
#[cfg(all(doctest, feature = "postgres", feature = "s3", feature = "sqlite", feature = "testing"))]
mod guides {
    #[doc = include_str!("../../../docs/guides/claim-check.md")]
    struct ClaimCheck;

    #[doc = include_str!("../../../docs/guides/consumer-runtime.md")]
    struct ConsumerRuntime;

    #[doc = include_str!("../../../docs/guides/delayed-delivery.md")]
    struct DelayedDelivery;

    #[doc = include_str!("../../../docs/guides/events.md")]
    struct Events;

    #[doc = include_str!("../../../docs/guides/exactly-once.md")]
    struct ExactlyOnce;

    #[doc = include_str!("../../../docs/guides/failure-inbox.md")]
    struct FailureInbox;

    #[doc = include_str!("../../../docs/guides/security.md")]
    struct Security;

    #[doc = include_str!("../../../docs/guides/testing.md")]
    struct Testing;
}
