//! OffsetForLeaderEpoch, versions 0 to 4: where a leader epoch ended, so that a consumer notices a log that was cut
//! (KIP-101, KIP-320).
//!
//! Version 1 answers the epoch found, 2 checks the current one, 3 names the replica, 4 has tagged fields. There is one
//! epoch, whose end is the high watermark.

use tidings_model::ErrorCode;
use tidings_wire::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use tidings_wire::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

use crate::handlers::Cx;
use crate::handlers::fetch::check_leader_epoch;

const WITH_LEADER_EPOCH: i16 = 1;

/// The epoch that is in force.
const LEADER_EPOCH: i32 = 0;

pub(crate) async fn handle(
    cx: &Cx<'_>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request.topics.into_iter().map(|topic| answer_topic(cx, topic)).collect();
    OffsetForLeaderEpochResponse { topics, ..OffsetForLeaderEpochResponse::default() }
}

fn answer_topic(cx: &Cx<'_>, topic: OffsetForLeaderTopic) -> OffsetForLeaderTopicResult {
    let known = cx.shared.topics.by_name(&topic.topic);
    let answer = |wanted: OffsetForLeaderPartition| {
        let log = known.as_ref().and_then(|known| known.partition(wanted.partition));
        let found = log.ok_or(ErrorCode::UnknownTopicOrPartition).and_then(|log| {
            check_leader_epoch(wanted.current_leader_epoch)?;
            if wanted.leader_epoch == LEADER_EPOCH {
                // Also of a log that nobody has written to.
                return Ok((LEADER_EPOCH, log.high_watermark()));
            }
            let end = log.end_of_leader_epoch(wanted.leader_epoch);
            // What is not durable yet is not told.
            Ok(end.map_or((-1, -1), |(epoch, offset)| (epoch, offset.min(log.high_watermark()))))
        });
        let (leader_epoch, end_offset) = found.unwrap_or((-1, -1));
        EpochEndOffset {
            error_code: found.err().unwrap_or_default().code(),
            partition: wanted.partition,
            leader_epoch: if cx.version < WITH_LEADER_EPOCH { -1 } else { leader_epoch },
            end_offset,
            ..EpochEndOffset::default()
        }
    };
    OffsetForLeaderTopicResult {
        partitions: topic.partitions.into_iter().map(answer).collect(),
        topic: topic.topic,
        ..OffsetForLeaderTopicResult::default()
    }
}
