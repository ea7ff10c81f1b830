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
    // Kafka trips over a level that it does not know.
    let read_committed = match request.isolation_level {
        READ_UNCOMMITTED => Ok(false),
        READ_COMMITTED => Ok(true),
        _ => Err(ErrorCode::UnknownServerError),
    };
    let repeated = repeated_partitions(&request);
    let answer = |topic| answer_topic(cx, topic, &repeated, read_committed);
    // A topic of which nothing is asked is not answered.
    let topics =
        request.topics.into_iter().filter(|topic| !topic.partitions.is_empty()).map(answer).collect();
    ListOffsetsResponse { topics, ..ListOffsetsResponse::default() }
}

/// Partitions that a request names more than once: none of their answers would be the right one.
fn repeated_partitions(request: &ListOffsetsRequest) -> HashSet<(String, i32)> {
    let mut seen = HashSet::new();
    let mut repeated = HashSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            if !seen.insert((&*topic.name, partition.partition_index)) {
                repeated.insert((topic.name.clone(), partition.partition_index));
            }
        }
    }
    repeated
}

fn answer_topic(
    cx: &Cx<'_>,
    topic: ListOffsetsTopic,
    repeated: &HashSet<(String, i32)>,
    read_committed: Result<bool, ErrorCode>,
) -> ListOffsetsTopicResponse {
    let known = cx.shared.topics.by_name(&topic.name);
    let answer = |wanted: ListOffsetsPartition| {
        let log = known.as_ref().and_then(|known| known.partition(wanted.partition_index));
        let log = log.ok_or(ErrorCode::UnknownTopicOrPartition);
        let is_repeated =
            !repeated.is_empty() && repeated.contains(&(topic.name.clone(), wanted.partition_index));
        let log = if is_repeated { Err(ErrorCode::InvalidRequest) } else { log };
        let found = read_committed.and_then(|read_committed| find(cx, &wanted, log?, read_committed));
        match found {
            Ok(found) => show(&wanted, found, cx.version),
            Err(error) => ListOffsetsPartitionResponse {
                partition_index: wanted.partition_index,
                error_code: error.code(),
                timestamp: -1,
                offset: -1,
                leader_epoch: -1,
                ..ListOffsetsPartitionResponse::default()
            },
        }
    };
    ListOffsetsTopicResponse {
        partitions: topic.partitions.into_iter().map(answer).collect(),
        name: topic.name,
        ..ListOffsetsTopicResponse::default()
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
        MAX_TIMESTAMP => log.max_timestamp().map_err(|error| error.error_code())?,
        timestamp if timestamp < 0 => return Err(ErrorCode::UnsupportedVersion),
        timestamp => log.offset_for_timestamp(timestamp).map_err(|error| error.error_code())?,
    };
    let unknown = FoundOffset { offset: -1, timestamp: -1, leader_epoch: -1, old_style: Vec::new() };
    Ok(record.filter(|record| record.offset < end).map_or(unknown, FoundOffset::from))
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
