//! Reading an internal log from its first record to its last, once, at start.
//!
//! Owns the loop from segments to records. Invariant: records come in offset order and none is left out, but for those that
//! the cleaner has taken out of a compacted log; what cannot be
//! read or does not match its checksum is an error, never skipped nor believed: below its recovery point the log itself
//! trusts its files, and here the broker is the consumer. What a record means is the caller's business.

use thiserror::Error;
use tidings_log::batch::{Batch, BatchError, BatchHeader, BatchLimits, Record, RecordError, validate};
use tidings_log::{PartitionLog, ReadError, UpTo};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Why an internal log cannot be replayed.
#[derive(Debug, Error)]
pub enum ReplayLogError {
    /// The log refused the read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file could not be read.
    #[error("{log}: cannot read at offset {offset}: {source}")]
    Io {
        /// The topic-partition.
        log: String,
        /// The offset being read.
        offset: i64,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes at an offset are not a batch that this broker writes.
    #[error("{log}: expected an uncompressed record batch at offset {offset}, found something else")]
    Batch {
        /// The topic-partition.
        log: String,
        /// The offset being read.
        offset: i64,
    },
    /// The batch at an offset is not the one that was written.
    #[error("{log}: the batch at offset {offset} is damaged: {source}")]
    Damaged {
        /// The topic-partition.
        log: String,
        /// The offset being read.
        offset: i64,
        /// What is wrong with the batch.
        source: BatchError,
    },
    /// A record within a batch cannot be decoded.
    #[error("{log}: batch at offset {offset}: {source}")]
    Record {
        /// The topic-partition.
        log: String,
        /// The batch's base offset.
        offset: i64,
        /// What is wrong with the record.
        source: RecordError,
    },
}

impl ReplayLogError {
    /// The topic-partition whose log is damaged, where that is the reason.
    pub(crate) fn damaged_log(&self) -> Option<String> {
        match self {
            ReplayLogError::Batch { log, .. }
            | ReplayLogError::Damaged { log, .. }
            | ReplayLogError::Record { log, .. } => Some(log.clone()),
            ReplayLogError::Read(ReadError::Damaged { topic_partition, .. }) => {
                Some(topic_partition.to_string())
            }
            ReplayLogError::Read(_) | ReplayLogError::Io { .. } => None,
        }
    }
}

/// Hands every record of the log to `handle`; control records are left out.
pub(crate) fn for_each_record<E: From<ReplayLogError>>(
    log: &PartitionLog,
    mut handle: impl FnMut(Record) -> Result<(), E>,
) -> Result<(), E> {
    for_each_batch(log, |batch, records| {
        if batch.header.is_control() { Ok(()) } else { records.into_iter().try_for_each(&mut handle) }
    })
}

/// Hands every batch of the log to `handle`, with its records from the log's start on.
pub(crate) fn for_each_batch<E: From<ReplayLogError>>(
    log: &PartitionLog,
    mut handle: impl FnMut(&Batch, Vec<Record>) -> Result<(), E>,
) -> Result<(), E> {
    let compacted = log.config().cleanup.compact;
    let mut offset = log.log_start_offset();
    while offset < log.log_end_offset() {
        let fetched = log.read(offset, CHUNK_BYTES, UpTo::LogEnd, true).map_err(ReplayLogError::from)?;
        let name = || log.topic_partition().to_string();
        let mut bytes =
            fetched.slice.read().map_err(|source| ReplayLogError::Io { log: name(), offset, source })?;
        let before = offset;
        while !bytes.is_empty() {
            let unexpected = || ReplayLogError::Batch { log: name(), offset };
            let header = BatchHeader::parse(&bytes).ok_or_else(unexpected)?;
            if header.size_bytes() > bytes.len() {
                // A batch that the read cut in two comes whole with the next one.
                break;
            }
            let batch = Batch { header, bytes: bytes.split_to(header.size_bytes()) };
            let limits = BatchLimits {
                control_allowed: true,
                empty_allowed: true,
                compacted_allowed: compacted,
                ..BatchLimits::default()
            };
            validate(&batch.bytes, &limits).map_err(|source| ReplayLogError::Damaged {
                log: name(),
                offset,
                source,
            })?;
            // The checksum does not cover the base offset.
            let hole = compacted && header.base_offset > offset;
            if !hole && !(header.base_offset..header.next_offset()).contains(&offset) {
                return Err(unexpected().into());
            }
            let records: Result<Vec<_>, _> = batch.records().ok_or_else(unexpected)?.collect();
            let mut records =
                records.map_err(|source| ReplayLogError::Record { log: name(), offset, source })?;
            records.retain(|record| record.offset >= offset);
            handle(&batch, records)?;
            offset = header.next_offset();
        }
        if offset == before {
            return Err(ReplayLogError::Batch { log: name(), offset }.into());
        }
    }
    Ok(())
}
