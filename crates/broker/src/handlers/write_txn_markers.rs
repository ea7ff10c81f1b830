//! WriteTxnMarkers, versions 1 and 2: ends a producer's transaction in these partitions.
//!
//! What coordinators of a cluster send to partition leaders, and operators to end a transaction that hangs (KIP-664). The
//! answer leaves when the markers are durable. Version 2 tells which generation of the protocol the transaction belongs to
//! (KIP-890).

use tidings_coordinator::TRANSACTION_VERSION_2;
use tidings_log::batch::{EndTxnMarker, TransactionResult};
use tidings_log::{AppendError, AppendOptions, CommitTicket, Origin};
use tidings_model::ErrorCode;
use tidings_wire::messages::write_txn_markers_request::{WritableTxnMarker, WriteTxnMarkersRequest};
use tidings_wire::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
    WriteTxnMarkersResponse,
};

use crate::handlers::Cx;
use crate::topics::names::OFFSETS_TOPIC;

pub(crate) async fn handle(cx: &Cx<'_>, request: WriteTxnMarkersRequest) -> WriteTxnMarkersResponse {
    let mut commit = CommitTicket::ready();
    let mut markers: Vec<_> =
        request.markers.into_iter().map(|marker| write(cx, &marker, &mut commit)).collect();
    if commit.await.is_err() {
        let topics = markers.iter_mut().flat_map(|marker| marker.topics.iter_mut());
        for partition in topics.flat_map(|topic| topic.partitions.iter_mut()) {
            if partition.error_code == ErrorCode::None.code() {
                partition.error_code = ErrorCode::KafkaStorageError.code();
            }
        }
    }
    WriteTxnMarkersResponse { markers, ..WriteTxnMarkersResponse::default() }
}

fn write(cx: &Cx<'_>, marker: &WritableTxnMarker, commit: &mut CommitTicket) -> WritableTxnMarkerResult {
    let mut topics = Vec::with_capacity(marker.topics.len());
    for topic in &marker.topics {
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in &topic.partition_indexes {
            let error = match write_one(cx, marker, &topic.name, *index) {
                Ok(ticket) => {
                    let newest = std::mem::replace(commit, CommitTicket::ready());
                    *commit = newest.newest(ticket);
                    ErrorCode::None
                }
                Err(error) => error,
            };
            partitions.push(WritableTxnMarkerPartitionResult {
                partition_index: *index,
                error_code: error.code(),
                ..WritableTxnMarkerPartitionResult::default()
            });
        }
        let name = topic.name.clone();
        topics.push(WritableTxnMarkerTopicResult {
            name,
            partitions,
            ..WritableTxnMarkerTopicResult::default()
        });
    }
    let producer_id = marker.producer_id;
    WritableTxnMarkerResult { producer_id, topics, ..WritableTxnMarkerResult::default() }
}

fn write_one(
    cx: &Cx<'_>,
    marker: &WritableTxnMarker,
    topic: &str,
    index: i32,
) -> Result<CommitTicket, ErrorCode> {
    let producer = (marker.producer_id, marker.producer_epoch);
    let is_epoch_bumped = i16::from(marker.transaction_version) >= TRANSACTION_VERSION_2;
    let result = if marker.transaction_result { TransactionResult::Commit } else { TransactionResult::Abort };
    let end = EndTxnMarker { result, coordinator_epoch: marker.coordinator_epoch };
    let known = cx.shared.topics.by_name(topic);
    let log = known.as_ref().and_then(|known| known.partition(index));
    let log = log.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if producer.0 < 0 {
        return Err(ErrorCode::InvalidRequest);
    }
    if producer.1 < 0 {
        return Err(ErrorCode::InvalidProducerEpoch);
    }
    let written = if topic == OFFSETS_TOPIC {
        cx.shared.groups.end_transaction(index, producer, end, is_epoch_bumped)
    } else {
        let now_ms = cx.shared.clock.wall_ms();
        let options = AppendOptions { origin: Origin::Coordinator, leader_epoch: 0, now_ms };
        log.append_marker(producer, end, is_epoch_bumped, options).map(|appended| appended.commit)
    };
    written.map_err(|error: AppendError| error.error_code())
}
