//! What happens to batches before they are appended: checks, and the changes that a topic's settings ask for.
//!
//! Owns the order of both. Invariants: batches that are right and that the settings leave alone are not copied; nothing here
//! knows a partition, takes a lock or touches a file. Packing anew takes memory for one request of each thread that appends.

use bytes::{Bytes, BytesMut};

use super::{AppendOptions, Origin};
use crate::batch::{
    Batch, BatchError, BatchHeader, BatchLimits, Compression, TimestampType, decompress, recompress, stamp,
    unstamp, validate,
};
use crate::config::LogConfig;

/// Checks batches and makes of them what is stored; returns their headers as well: at least one.
pub(super) fn prepare(
    records: Bytes,
    config: &LogConfig,
    options: &AppendOptions,
) -> Result<(Bytes, Vec<BatchHeader>), BatchError> {
    let limits = limits(config, options);
    let mut headers = validate(&records, &limits)?;
    let mut records = records;
    if options.origin != Origin::Coordinator
        && let Some(codec) = config.compression
        && headers.iter().any(|header| header.compression() != Ok(codec))
    {
        records = repack(records, &mut headers, codec, &limits)?;
    }
    if config.timestamp_type == TimestampType::LogAppendTime {
        records = stamp(&records, &mut headers, options.now_ms);
    } else if options.origin != Origin::Coordinator {
        records = unstamp(records, &mut headers);
    }
    Ok((records, headers))
}

/// The same batches, which are valid, in another codec.
fn repack(
    mut records: Bytes,
    headers: &mut [BatchHeader],
    codec: Compression,
    limits: &BatchLimits,
) -> Result<Bytes, BatchError> {
    let mut repacked = BytesMut::new();
    for (index, header) in headers.iter_mut().enumerate() {
        let bytes = records.split_to(header.size_bytes());
        let old = header.compression().map_err(|found| BatchError::Codec { index, found })?;
        if old == codec {
            repacked.extend_from_slice(&bytes);
            continue;
        }
        let packed = |what: String| BatchError::Packed { index, what };
        let payload = Batch { header: *header, bytes }.payload();
        let payload = decompress(old, payload).map_err(|error| packed(error.to_string()))?;
        let (changed, bytes) =
            recompress(header, payload, codec).map_err(|error| packed(error.to_string()))?;
        if bytes.len() > limits.max_batch_bytes {
            let max_bytes = limits.max_batch_bytes;
            return Err(BatchError::TooLarge { index, found: bytes.len(), max_bytes });
        }
        *header = changed;
        repacked.extend_from_slice(&bytes);
    }
    Ok(repacked.freeze())
}

fn limits(config: &LogConfig, options: &AppendOptions) -> BatchLimits {
    let trusted = options.origin == Origin::Coordinator;
    let stamped = config.timestamp_type == TimestampType::LogAppendTime;
    let (earliest_timestamp, latest_timestamp) = if trusted || stamped {
        (i64::MIN, i64::MAX)
    } else {
        let earliest = options.now_ms.saturating_sub(config.timestamp_before_max_ms);
        (earliest, options.now_ms.saturating_add(config.timestamp_after_max_ms))
    };
    let max_batch_bytes = if trusted { usize::MAX } else { config.max_message_bytes as usize };
    BatchLimits {
        max_batch_bytes,
        earliest_timestamp,
        latest_timestamp,
        control_allowed: trusted,
        empty_allowed: false,
        compacted_allowed: false,
        keys_required: config.cleanup.compact && !trusted,
    }
}
