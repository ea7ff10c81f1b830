//! Removing records on demand: Kafka's DeleteRecords.
//!
//! Owns the checks. Invariants: on return the new starts are durable; partitions are judged one by one, and
//! those that pass share one write. Whole segments go at once, the rest of a segment with its last record.

use std::io;
use std::sync::Arc;

use tidings_model::{ErrorCode, TopicPartition};

use crate::data_dir::DataDir;
use crate::partition_log::PartitionLog;

/// Why records were not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteRecordsError {
    /// There is no such log.
    #[error("{topic_partition} does not exist")]
    Unknown {
        /// The partition.
        topic_partition: TopicPartition,
    },
    /// The offset is negative or above the high watermark.
    #[error("{topic_partition}: offset {offset} is outside 0..={high_watermark}")]
    OffsetOutOfRange {
        /// The partition.
        topic_partition: TopicPartition,
        /// The offset asked for.
        offset: i64,
        /// Where consumers' reads end.
        high_watermark: i64,
    },
    /// The log is compacted and nothing else.
    #[error("{topic_partition}: cleanup.policy is compact, which forbids deleting records by offset")]
    Policy {
        /// The partition.
        topic_partition: TopicPartition,
    },
    /// The new start could not be written.
    #[error("{topic_partition}: writing the new start failed: {source}")]
    Io {
        /// The partition.
        topic_partition: TopicPartition,
        /// What the disk said.
        source: Arc<io::Error>,
    },
    /// A sync failed earlier: no writes until a restart.
    #[error("{topic_partition}: writes have stopped: {why}")]
    StorageFailed {
        /// The partition.
        topic_partition: TopicPartition,
        /// What failed.
        why: Arc<str>,
    },
}

impl DeleteRecordsError {
    /// Kafka's code for an admin client.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            Self::Unknown { .. } => ErrorCode::UnknownTopicOrPartition,
            Self::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Self::Policy { .. } => ErrorCode::PolicyViolation,
            Self::Io { .. } | Self::StorageFailed { .. } => ErrorCode::KafkaStorageError,
        }
    }
}

impl DataDir {
    /// Moves the starts of logs to the offsets given, or to the high watermark where none is, and removes
    /// the segments that lie below. Answers each log's start, durable on return. An offset below the start
    /// changes nothing. Blocks for a sync.
    pub fn delete_records(
        &self,
        wanted: &[(TopicPartition, Option<i64>)],
        now_ms: i64,
    ) -> Vec<Result<i64, DeleteRecordsError>> {
        let judged: Vec<_> =
            wanted.iter().map(|(topic_partition, offset)| self.judge(topic_partition, *offset)).collect();
        let moves: Vec<(Arc<PartitionLog>, i64)> = judged.iter().flatten().cloned().collect();
        let failure = self.keeper.starts.raise(&moves).err().map(Arc::new);
        if failure.is_none() {
            let logs: Vec<_> = moves.into_iter().map(|(log, _)| log).collect();
            self.keeper.remove_deleted_records(&logs, now_ms);
        }
        let answer = |judged: Result<(Arc<PartitionLog>, i64), _>| {
            let (log, _) = judged?;
            match &failure {
                Some(source) => Err(DeleteRecordsError::Io {
                    topic_partition: log.topic_partition().clone(),
                    source: source.clone(),
                }),
                None => Ok(log.log_start_offset()),
            }
        };
        judged.into_iter().map(answer).collect()
    }

    fn judge(
        &self,
        topic_partition: &TopicPartition,
        offset: Option<i64>,
    ) -> Result<(Arc<PartitionLog>, i64), DeleteRecordsError> {
        let topic_partition = topic_partition.clone();
        let Some(log) = self.log(&topic_partition) else {
            return Err(DeleteRecordsError::Unknown { topic_partition });
        };
        if let Some(why) = self.storage.health.failure() {
            return Err(DeleteRecordsError::StorageFailed { topic_partition, why: why.clone() });
        }
        let cleanup = log.config().cleanup;
        if cleanup.compact && !cleanup.delete {
            return Err(DeleteRecordsError::Policy { topic_partition });
        }
        let high_watermark = log.high_watermark();
        let offset = offset.unwrap_or(high_watermark);
        if !(0..=high_watermark).contains(&offset) {
            return Err(DeleteRecordsError::OffsetOutOfRange { topic_partition, offset, high_watermark });
        }
        Ok((log, offset))
    }
}
