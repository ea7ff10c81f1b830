//! What happens to batches before they are appended: checks, and the changes that a topic's settings ask for.
//!
//! Owns the order of both. Invariants: batches that the settings leave alone are not copied, and compressed ones
//! are not looked into; nothing here knows a partition, takes a lock or touches a file. Unpacking takes memory
//! for one request of each thread that appends.

use bytes::{Bytes, BytesMut};

use super::{AppendOptions, Origin};
use crate::batch::{
    Batch, BatchError, BatchHeader, BatchLimits, Batches, Compression, TimestampType, check_records,
    decompress, recompress, stamp, unstamp, validate,
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
    if options.origin != Origin::Coordinator {
        if config.cleanup.compact {
            check_keys(&records)?;
        }
        if let Some(codec) = config.compression
            && headers.iter().any(|header| header.compression() != Ok(codec))
        {
            (records, headers) = repack(&records, codec, &limits)?;
        }
    }
    if config.timestamp_type == TimestampType::LogAppendTime {
        records = stamp(&records, &mut headers, options.now_ms);
    } else if options.origin != Origin::Coordinator {
        records = unstamp(records, &mut headers);
    }
    Ok((records, headers))
}

/// Without a key a record of a compacted topic could neither be replaced nor kept.
fn check_keys(records: &Bytes) -> Result<(), BatchError> {
    for (index, batch) in Batches::new(records.clone()).enumerate() {
        let batch = batch?;
        let packed = |what: String| BatchError::Packed { index, what };
        let unpacked = batch.unpacked_records().map_err(|error| packed(error.to_string()))?;
        for (record, found) in unpacked.enumerate() {
            if found.map_err(|source| BatchError::Record { index, source })?.key.is_none() {
                return Err(BatchError::NoKey { index, record });
            }
        }
    }
    Ok(())
}

/// The same batches in another codec.
fn repack(
    records: &Bytes,
    codec: Compression,
    limits: &BatchLimits,
) -> Result<(Bytes, Vec<BatchHeader>), BatchError> {
    let mut headers = Vec::with_capacity(1);
    let mut repacked = BytesMut::new();
    for (index, batch) in Batches::new(records.clone()).enumerate() {
        let Batch { header, bytes } = batch?;
        if header.compression() == Ok(codec) {
            headers.push(header);
            repacked.extend_from_slice(&bytes);
            continue;
        }
        let packed = |what: String| BatchError::Packed { index, what };
        let old = header.compression().map_err(|found| BatchError::Codec { index, found })?;
        let payload = Batch { header, bytes }.payload();
        let payload = decompress(old, payload).map_err(|error| packed(error.to_string()))?;
        check_records(&header, &payload, false).map_err(|source| BatchError::Record { index, source })?;
        let (header, bytes) =
            recompress(&header, payload, codec).map_err(|error| packed(error.to_string()))?;
        if bytes.len() > limits.max_batch_bytes {
            let max_bytes = limits.max_batch_bytes;
            return Err(BatchError::TooLarge { index, found: bytes.len(), max_bytes });
        }
        headers.push(header);
        repacked.extend_from_slice(&bytes);
    }
    Ok((repacked.freeze(), headers))
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
    }
}
