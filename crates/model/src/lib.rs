//! The nouns every engine crate shares: offsets, topic-partitions, topic ids and Kafka's error codes.
//!
//! Owns names and small values only. Invariants: every type here is cheap to clone, and its `Display`
//! form is the one Kafka prints, because logs, file names and messages are read next to Kafka's own.
//! Does no I/O and knows neither the wire format nor the log format.

mod error_code;
mod topic_id;
mod topic_partition;

pub use error_code::ErrorCode;
pub use topic_id::{ParseTopicIdError, TopicId};
pub use topic_partition::{ParseTopicPartitionError, TopicPartition};

/// A position in a partition: the number of records ever assigned one before it.
pub type Offset = i64;

/// The producer id of a batch that no idempotent producer wrote.
pub const NO_PRODUCER_ID: i64 = -1;

/// The producer epoch of a batch that no idempotent producer wrote.
pub const NO_PRODUCER_EPOCH: i16 = -1;

/// The base sequence of a batch that carries none.
pub const NO_SEQUENCE: i32 = -1;

/// The timestamp of a record that carries none.
pub const NO_TIMESTAMP: i64 = -1;

/// The leader epoch where none is known.
pub const NO_LEADER_EPOCH: i32 = -1;

/// An offset that is not known or not valid.
pub const INVALID_OFFSET: Offset = -1;
