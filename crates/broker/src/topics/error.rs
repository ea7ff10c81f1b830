//! Why a change of topics was refused, and what a client is told.
//!
//! Owns the one mapping from topic errors to Kafka's codes; the messages are for the people who read clients' logs.

use thiserror::Error;
use tidings_log::LowSpace;
use tidings_model::{ErrorCode, TopicId};

use crate::settings::SettingError;

/// Why a topic was not created, changed or deleted.
#[derive(Clone, Debug, Error)]
pub(crate) enum TopicError {
    #[error("{0}")]
    InvalidName(String),
    #[error("Topic '{name}' already exists.")]
    Exists { name: String },
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    Collides { name: String, existing: String },
    #[error("Number of partitions was set to an invalid non-positive value.")]
    PartitionCount,
    #[error("The topic {name} currently has {current} partition(s); {requested} would not be an increase.")]
    NoIncrease { name: String, current: i32, requested: i32 },
    #[error("Excessively large number of partitions per request.")]
    TooManyPartitions,
    #[error("Replication factor must be larger than 0, or -1 to use the default value.")]
    ReplicationFactorNotPositive,
    #[error(
        "Unable to replicate the partition {requested} time(s): The target replication factor of {requested} cannot be \
         reached because only 1 broker(s) are registered."
    )]
    ReplicationFactorTooLarge { requested: i16 },
    #[error("{0}")]
    Assignment(String),
    #[error("{0}")]
    Request(String),
    #[error("{0}")]
    Config(SettingError),
    #[error("Null value not supported for topic configs: {0}")]
    NullConfig(String),
    #[error("This server does not host this topic-partition.")]
    UnknownName,
    #[error("This server does not host this topic ID.")]
    UnknownId { id: TopicId },
    #[error("Topic deletion is disabled.")]
    DeletionDisabled,
    #[error("the change could not be stored: {0}")]
    Storage(String),
    #[error(
        "no topic can grow: {} bytes are free on the broker's disk, less than log.min.free.bytes = {}",
        .0.available_bytes, .0.min_free_bytes
    )]
    LowSpace(LowSpace),
}

impl TopicError {
    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            TopicError::InvalidName(_) | TopicError::Collides { .. } => ErrorCode::InvalidTopicException,
            TopicError::Exists { .. } => ErrorCode::TopicAlreadyExists,
            TopicError::PartitionCount | TopicError::NoIncrease { .. } => ErrorCode::InvalidPartitions,
            TopicError::TooManyPartitions => ErrorCode::PolicyViolation,
            TopicError::ReplicationFactorNotPositive | TopicError::ReplicationFactorTooLarge { .. } => {
                ErrorCode::InvalidReplicationFactor
            }
            TopicError::Assignment(_) => ErrorCode::InvalidReplicaAssignment,
            TopicError::Request(_) => ErrorCode::InvalidRequest,
            TopicError::Config(_) | TopicError::NullConfig(_) => ErrorCode::InvalidConfig,
            TopicError::UnknownName => ErrorCode::UnknownTopicOrPartition,
            TopicError::UnknownId { .. } => ErrorCode::UnknownTopicId,
            TopicError::DeletionDisabled => ErrorCode::TopicDeletionDisabled,
            TopicError::Storage(_) | TopicError::LowSpace(_) => ErrorCode::KafkaStorageError,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_kafkas() {
        let check = |error: TopicError, code: i16| assert_eq!(error.code().code(), code, "{error}");
        check(TopicError::InvalidName(String::new()), 17);
        check(TopicError::Exists { name: "a".into() }, 36);
        check(TopicError::PartitionCount, 37);
        check(TopicError::ReplicationFactorTooLarge { requested: 3 }, 38);
        check(TopicError::Assignment(String::new()), 39);
        check(TopicError::NullConfig(String::new()), 40);
        check(TopicError::Request(String::new()), 42);
        check(TopicError::UnknownName, 3);
        check(TopicError::UnknownId { id: TopicId::ZERO }, 100);
        check(TopicError::DeletionDisabled, 73);
        check(TopicError::Storage(String::new()), 56);
    }
}
