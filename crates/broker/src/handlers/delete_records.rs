//! DeleteRecords, versions 0 to 2: everything below an offset goes (KIP-107).
//!
//! The answer leaves when the new start of the log is durable, and tells it. An offset of -1 stands for the high
//! watermark. Internal topics and topics that are only compacted are refused. Version 2 has tagged fields.

use tidings_model::{ErrorCode, TopicPartition};
use tidings_wire::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsRequest};
use tidings_wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};

use crate::handlers::Cx;

const HIGH_WATERMARK: i64 = -1;
const INVALID_LOW_WATERMARK: i64 = -1;

pub(crate) async fn handle(cx: &Cx<'_>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut wanted = Vec::new();
    let mut topics: Vec<DeleteRecordsTopicResult> = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let refusal = refuse(cx, &topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for DeleteRecordsPartition { partition_index, offset, .. } in topic.partitions {
            partitions.push(result(partition_index, Err(refusal.unwrap_or_default())));
            if refusal.is_none() {
                let offset = (offset != HIGH_WATERMARK).then_some(offset);
                let place = (topics.len(), partitions.len() - 1);
                wanted.push((place, (TopicPartition::new(topic.name.as_str(), partition_index), offset)));
            }
        }
        topics.push(DeleteRecordsTopicResult {
            name: topic.name,
            partitions,
            ..DeleteRecordsTopicResult::default()
        });
    }
    let (places, wanted): (Vec<_>, Vec<_>) = wanted.into_iter().unzip();
    let answers = cx.shared.topics.delete_records(wanted, cx.shared.clock.wall_ms()).await;
    for ((topic, partition), answer) in places.into_iter().zip(answers) {
        let place = &mut topics[topic].partitions[partition];
        *place = result(place.partition_index, answer);
    }
    DeleteRecordsResponse { topics, ..DeleteRecordsResponse::default() }
}

fn refuse(cx: &Cx<'_>, topic: &str) -> Option<ErrorCode> {
    match cx.shared.topics.by_name(topic) {
        None => Some(ErrorCode::UnknownTopicOrPartition),
        // The coordinators' state is rebuilt from it.
        Some(topic) if topic.is_internal() => Some(ErrorCode::InvalidTopicException),
        Some(_) => None,
    }
}

fn result(partition_index: i32, answer: Result<i64, ErrorCode>) -> DeleteRecordsPartitionResult {
    DeleteRecordsPartitionResult {
        partition_index,
        low_watermark: answer.unwrap_or(INVALID_LOW_WATERMARK),
        error_code: answer.err().unwrap_or_default().code(),
        ..DeleteRecordsPartitionResult::default()
    }
}
