//! ListOffsets, versions 0 to 11: from timestamps, and from "earliest" and "latest", to offsets.
//!
//! Version 0 answers a list of offsets, newest first; 2 has the isolation level (KIP-98), 4 leader epochs (KIP-320), 7
//! the largest timestamp (-3, KIP-734), 8 the local log's start (-4, KIP-405), 9 the tiered one's end (-5, KIP-1005), 11
//! the first offset not uploaded (-6, KIP-1023): without tiered storage the last two are unknown. Only durable records
//! are told.

use std::collections::HashSet;
use std::sync::Arc;

use tidings_log::{PartitionLog, TimestampedOffset};
use tidings_model::ErrorCode;
use tidings_wire::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use tidings_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};

use crate::decompress::find_record;
use crate::handlers::Cx;
use crate::handlers::fetch::check_leader_epoch;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;
const LEADER_EPOCH: i32 = 0;

/// The only version that answers lists of offsets.
const OLD_STYLE: i16 = 0;
const WITH_LEADER_EPOCH: i16 = 4;

/// What a special timestamp asks for needs at least this version.
const SPECIAL_SINCE: [(i64, i16); 4] =
    [(MAX_TIMESTAMP, 7), (EARLIEST_LOCAL, 8), (LATEST_TIERED, 9), (EARLIEST_PENDING_UPLOAD, 11)];

pub(crate) async fn handle(cx: &Cx<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let isolation_level = request.isolation_level;
    let repeated = repeated(&request.topics);
    let answer = |topic: ListOffsetsTopic| {
        let refused = |wanted: &ListOffsetsPartition| match isolation_level {
            // Kafka has no better word for a level that there is not.
            level if !(READ_UNCOMMITTED..=READ_COMMITTED).contains(&level) => {
                Some(ErrorCode::UnknownServerError)
            }
            _ if repeated.contains(&(topic.name.clone(), wanted.partition_index)) => {
                Some(ErrorCode::InvalidRequest)
            }
            _ => None,
        };
        let known = cx.shared.topics.by_name(&topic.name);
        let answer = |wanted: &ListOffsetsPartition| {
            let log = known.as_ref().and_then(|known| known.partition(wanted.partition_index));
            let log = refused(wanted).map_or(log.ok_or(ErrorCode::UnknownTopicOrPartition), Err);
            match log.and_then(|log| find(cx, wanted, log, isolation_level == READ_COMMITTED)) {
                Ok(found) => show(wanted, found, cx.version),
                Err(error) => failed(wanted.partition_index, error),
            }
        };
        let partitions = topic.partitions.iter().map(answer).collect();
        ListOffsetsTopicResponse { partitions, name: topic.name, ..ListOffsetsTopicResponse::default() }
    };
    // A topic of which nothing is asked is not answered.
    let topics =
        request.topics.into_iter().filter(|topic| !topic.partitions.is_empty()).map(answer).collect();
    ListOffsetsResponse { topics, ..ListOffsetsResponse::default() }
}

/// The partitions that are asked for more than once.
fn repeated(topics: &[ListOffsetsTopic]) -> HashSet<(String, i32)> {
    let mut seen = HashSet::new();
    let all = topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (topic.name.as_str(), partition.partition_index))
    });
    all.filter(|asked| !seen.insert(*asked)).map(|(topic, partition)| (topic.to_owned(), partition)).collect()
}

fn failed(partition_index: i32, error: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse {
        partition_index,
        error_code: error.code(),
        timestamp: -1,
        offset: -1,
        leader_epoch: -1,
        ..ListOffsetsPartitionResponse::default()
    }
}

struct FoundOffset {
    offset: i64,
    timestamp: i64,
    leader_epoch: i32,
    /// Of version 0: all offsets that fit, newest first.
    old_style: Vec<i64>,
}

fn find(
    cx: &Cx<'_>,
    wanted: &ListOffsetsPartition,
    log: &Arc<PartitionLog>,
    read_committed: bool,
) -> Result<FoundOffset, ErrorCode> {
    check_leader_epoch(wanted.current_leader_epoch)?;
    if SPECIAL_SINCE.iter().any(|(timestamp, since)| *timestamp == wanted.timestamp && cx.version < *since) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let at =
        |offset| FoundOffset { offset, timestamp: -1, leader_epoch: LEADER_EPOCH, old_style: vec![offset] };
    let end = if read_committed { log.last_stable_offset() } else { log.high_watermark() };
    let record = match wanted.timestamp {
        LATEST => {
            let start = log.log_start_offset();
            let both = wanted.max_num_offsets > 1 && start < end;
            let old_style = if both { vec![end, start] } else { vec![end] };
            return Ok(FoundOffset { old_style, ..at(end) });
        }
        EARLIEST | EARLIEST_LOCAL => return Ok(at(log.log_start_offset())),
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => None,
        MAX_TIMESTAMP => {
            let found = log.max_timestamp().map_err(|error| error.error_code())?;
            let largest = found.as_ref().map_or(0, |found| found.timestamp_ms);
            found.map(|found| exact(found, largest)).transpose()?
        }
        timestamp if timestamp < 0 => return Err(ErrorCode::UnsupportedVersion),
        timestamp => {
            let found = log.offset_for_timestamp(timestamp).map_err(|error| error.error_code())?;
            found.map(|found| exact(found, timestamp)).transpose()?
        }
    };
    let unknown = FoundOffset { offset: -1, timestamp: -1, leader_epoch: -1, old_style: Vec::new() };
    Ok(record.filter(|record| record.offset < end).map_or(unknown, FoundOffset::from))
}

/// The record itself, where the log could only name the compressed batch that holds it.
fn exact(found: TimestampedOffset, timestamp_ms: i64) -> Result<TimestampedOffset, ErrorCode> {
    let Some(batch) = &found.compressed else { return Ok(found) };
    let batch = batch.read().map_err(|error| {
        tracing::error!(%error, "read failed");
        ErrorCode::KafkaStorageError
    })?;
    match find_record(batch, |record| record.timestamp_ms >= timestamp_ms) {
        Ok(Some(record)) => Ok(TimestampedOffset {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            compressed: None,
            ..found
        }),
        Ok(None) => Ok(found),
        Err(error) => {
            // Only its producer knows what it wrote; the batch as a whole is still a right answer, if a coarse one.
            tracing::debug!(%error, "cannot look into a batch");
            Ok(found)
        }
    }
}

impl From<TimestampedOffset> for FoundOffset {
    fn from(record: TimestampedOffset) -> FoundOffset {
        FoundOffset {
            offset: record.offset,
            timestamp: record.timestamp_ms,
            leader_epoch: record.leader_epoch,
            old_style: vec![record.offset],
        }
    }
}

fn show(wanted: &ListOffsetsPartition, found: FoundOffset, version: i16) -> ListOffsetsPartitionResponse {
    let answer = ListOffsetsPartitionResponse {
        partition_index: wanted.partition_index,
        timestamp: -1,
        offset: -1,
        leader_epoch: -1,
        ..ListOffsetsPartitionResponse::default()
    };
    if version == OLD_STYLE {
        return ListOffsetsPartitionResponse { old_style_offsets: found.old_style, ..answer };
    }
    ListOffsetsPartitionResponse {
        timestamp: found.timestamp,
        offset: found.offset,
        leader_epoch: if version < WITH_LEADER_EPOCH { -1 } else { found.leader_epoch },
        ..answer
    }
}
