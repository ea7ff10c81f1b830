//! What can go wrong with an append, and Kafka's code for each.

use std::io;
use std::sync::Arc;

use tidings_model::{ErrorCode, TopicPartition};

use crate::batch::BatchError;
use crate::producers::SequenceError;
use crate::space::LowSpace;

/// Why nothing was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The batches are not acceptable.
    #[error("{topic_partition}: {source}")]
    Invalid {
        /// The partition.
        topic_partition: TopicPartition,
        /// What is wrong.
        source: BatchError,
    },
    /// An idempotent producer's batch does not continue its sequence.
    #[error("{topic_partition}: {source}")]
    Sequence {
        /// The partition.
        topic_partition: TopicPartition,
        /// What is wrong.
        source: SequenceError,
    },
    /// The batches don't fit in an empty segment.
    #[error("{topic_partition}: {found} bytes are more than segment.bytes = {segment_bytes}")]
    LargerThanSegment {
        /// The partition.
        topic_partition: TopicPartition,
        /// Size of the append.
        found: usize,
        /// Size of a segment.
        segment_bytes: u32,
    },
    /// The write failed and was cut back.
    #[error("{topic_partition}: {what} failed at offset {offset}: {source}")]
    Storage {
        /// The partition.
        topic_partition: TopicPartition,
        /// The operation and the file.
        what: String,
        /// Where the append would have begun.
        offset: i64,
        /// What the disk said.
        source: io::Error,
    },
    /// The disk is almost full; what is left is kept for the broker's own records.
    #[error(
        "{topic_partition}: {} bytes are free, less than log.min.free.bytes = {}",
        low.available_bytes, low.min_free_bytes
    )]
    LowSpace {
        /// The partition.
        topic_partition: TopicPartition,
        /// How little.
        low: LowSpace,
    },
    /// The active segment can't be read.
    #[error("{topic_partition}: {what}")]
    Damaged {
        /// The partition.
        topic_partition: TopicPartition,
        /// Where and how.
        what: String,
    },
    /// A sync failed earlier: no writes until a restart.
    #[error("{topic_partition}: writes have stopped: {why}")]
    StorageFailed {
        /// The partition.
        topic_partition: TopicPartition,
        /// What failed.
        why: Arc<str>,
    },
    /// The data directory was closed.
    #[error("{topic_partition}: the data directory is closed")]
    Closed {
        /// The partition.
        topic_partition: TopicPartition,
    },
    /// The partition was deleted.
    #[error("{topic_partition} was deleted")]
    Deleted {
        /// The partition.
        topic_partition: TopicPartition,
    },
}

impl AppendError {
    /// Kafka's code for a producer.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::Invalid { source, .. } => match source {
                BatchError::Short { .. } | BatchError::Length { .. } | BatchError::Crc { .. } => {
                    ErrorCode::CorruptMessage
                }
                BatchError::UnsupportedMagic { .. } => ErrorCode::UnsupportedForMessageFormat,
                BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
                BatchError::Timestamp { .. } => ErrorCode::InvalidTimestamp,
                BatchError::Codec { .. } => ErrorCode::UnsupportedCompressionType,
                BatchError::Empty
                | BatchError::Count { .. }
                | BatchError::Producer { .. }
                | BatchError::Control { .. }
                | BatchError::NoKey { .. }
                | BatchError::Packed { .. }
                | BatchError::Record { .. } => ErrorCode::InvalidRecord,
            },
            Self::Sequence { source, .. } => match source {
                SequenceError::OutOfOrder { .. } => ErrorCode::OutOfOrderSequenceNumber,
                SequenceError::Fenced { .. } => ErrorCode::InvalidProducerEpoch,
                SequenceError::CoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
                SequenceError::NotTransactional { .. } | SequenceError::NotVerified { .. } => {
                    ErrorCode::InvalidTxnState
                }
            },
            Self::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
            Self::Storage { .. }
            | Self::LowSpace { .. }
            | Self::Damaged { .. }
            | Self::StorageFailed { .. } => ErrorCode::KafkaStorageError,
            Self::Closed { .. } => ErrorCode::NotLeaderOrFollower,
            Self::Deleted { .. } => ErrorCode::UnknownTopicOrPartition,
        }
    }
}
