//! DescribeProducers, version 0: which producers a partition knows, and where their transactions began (KIP-664).

use tidings_model::ErrorCode;
use tidings_wire::messages::describe_producers_request::{DescribeProducersRequest, TopicRequest};
use tidings_wire::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};

use crate::handlers::Cx;
use crate::mentions::MentionedPartitions;
use crate::topics::names::check_name;

pub(crate) async fn handle(cx: &Cx<'_>, request: DescribeProducersRequest) -> DescribeProducersResponse {
    let mut mentioned = MentionedPartitions::default();
    let new = |mut topic: TopicRequest| {
        mentioned.keep_new(&topic.name, &mut topic.partition_indexes);
        describe(cx, topic)
    };
    let topics = request.topics.into_iter().map(new).collect();
    DescribeProducersResponse { topics, ..DescribeProducersResponse::default() }
}

fn describe(cx: &Cx<'_>, topic: TopicRequest) -> TopicResponse {
    let known = cx.shared.topics.by_name(&topic.name);
    let partition = |partition_index: i32| {
        let log = known.as_ref().and_then(|known| known.partition(partition_index));
        let error = match log {
            Some(_) => ErrorCode::None,
            None if check_name(&topic.name).is_err() => ErrorCode::InvalidTopicException,
            None => ErrorCode::UnknownTopicOrPartition,
        };
        PartitionResponse {
            partition_index,
            error_code: error.code(),
            active_producers: log.map_or_else(Vec::new, |log| {
                let mut producers = log.active_producers();
                producers.sort_by_key(|producer| producer.producer_id);
                producers.into_iter().map(show).collect()
            }),
            ..PartitionResponse::default()
        }
    };
    let partitions = topic.partition_indexes.into_iter().map(partition).collect();
    TopicResponse { name: topic.name, partitions, ..TopicResponse::default() }
}

fn show(producer: tidings_log::ActiveProducer) -> ProducerState {
    ProducerState {
        producer_id: producer.producer_id,
        producer_epoch: i32::from(producer.producer_epoch),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp_ms,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.txn_start_offset,
        ..ProducerState::default()
    }
}
