//! DescribeTopicPartitions, version 0: topics and their partitions, page by page (KIP-966).
//!
//! Topics come in the order of their names, as many partitions as the client and [`MAX_PARTITIONS`] allow, and a cursor
//! where there are more. There is one replica, so nobody else could become leader.

use std::collections::BTreeSet;

use tidings_model::ErrorCode;
use tidings_wire::messages::describe_topic_partitions_request::DescribeTopicPartitionsRequest;
use tidings_wire::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};

use crate::handlers::Cx;
use crate::operations;
use crate::topics::image::Topic;
use crate::topics::names::check_name;

/// The most partitions in an answer (the default of Kafka's `max.request.partition.size.limit`).
const MAX_PARTITIONS: i32 = 2000;

pub(crate) async fn handle(
    cx: &Cx<'_>,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let (from, from_partition) = match &request.cursor {
        Some(cursor) => (cursor.topic_name.as_str(), cursor.partition_index),
        None => ("", 0),
    };
    let asks_for_all = request.topics.is_empty();
    let names: BTreeSet<String> = if asks_for_all {
        cx.shared.topics.all().iter().map(|topic| topic.name.to_string()).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.clone()).collect()
    };
    let names: BTreeSet<String> = names.into_iter().filter(|name| name.as_str() >= from).collect();
    let is_lost = request.cursor.is_some() && !asks_for_all && !names.contains(from);
    if is_lost || from_partition < 0 {
        return refused(request, ErrorCode::InvalidRequest);
    }
    let mut room = request.response_partition_limit.clamp(1, MAX_PARTITIONS);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names {
        if room == 0 {
            response.next_cursor = Some(Cursor { topic_name: name, partition_index: 0, ..Cursor::default() });
            break;
        }
        let Some(topic) = cx.shared.topics.by_name(&name) else {
            if !asks_for_all {
                response.topics.push(unknown(name));
            }
            continue;
        };
        let first = if *name == *from { from_partition } else { 0 };
        let end = topic.partition_count().min(first.saturating_add(room));
        response.topics.push(describe(cx, &topic, first..end));
        if end < topic.partition_count() {
            response.next_cursor =
                Some(Cursor { topic_name: name, partition_index: end, ..Cursor::default() });
            break;
        }
        room -= end.saturating_sub(first).max(0);
    }
    response
}

fn describe(
    cx: &Cx<'_>,
    topic: &Topic,
    partitions: std::ops::Range<i32>,
) -> DescribeTopicPartitionsResponseTopic {
    let node_id = cx.shared.node_id;
    let partition = |partition_index: i32| DescribeTopicPartitionsResponsePartition {
        partition_index,
        leader_id: node_id,
        leader_epoch: 0,
        replica_nodes: vec![node_id],
        isr_nodes: vec![node_id],
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        ..DescribeTopicPartitionsResponsePartition::default()
    };
    DescribeTopicPartitionsResponseTopic {
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.map(partition).collect(),
        topic_authorized_operations: operations::TOPIC,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn unknown(name: String) -> DescribeTopicPartitionsResponseTopic {
    let error = match check_name(&name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    };
    refused_topic(name, error, operations::TOPIC)
}

/// A request that is wrong as a whole has no other place to say so than each topic.
fn refused(request: DescribeTopicPartitionsRequest, error: ErrorCode) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.into_iter();
    DescribeTopicPartitionsResponse {
        topics: topics.map(|topic| refused_topic(topic.name, error, operations::NOT_ASKED)).collect(),
        ..DescribeTopicPartitionsResponse::default()
    }
}

fn refused_topic(name: String, error: ErrorCode, operations: i32) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(name),
        topic_authorized_operations: operations,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}
