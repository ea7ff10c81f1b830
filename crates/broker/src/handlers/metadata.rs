//! Metadata, versions 0 to 13: the broker, its cluster id, topics and who leads their partitions.
//!
//! Unknown topics are created when `auto.create.topics.enable` and the request (version 4 on) allow it, and are in the
//! answer already; else they get UNKNOWN_TOPIC_OR_PARTITION. Version 1 tells "all" (null) from "none" (empty) topics;
//! 8 to 10 can ask for authorized operations: without an authorizer all that a resource knows; 10 answers topic ids,
//! 12 asks by them (KIP-516); 13 has a top-level error code (KIP-1102), never set here.

use std::sync::Arc;

use tidings_model::{ErrorCode, TopicId};
use tidings_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use tidings_wire::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};

use crate::handlers::Cx;
use crate::mentions::first_of_each;
use crate::operations;
use crate::topics::image::Topic;
use crate::topics::names::check_name;
use crate::topics::plan::NewTopic;

/// The first version in which an empty list of topics means none.
const EMPTY_IS_NONE: i16 = 1;
/// The first version that asks by topic id.
const BY_ID: i16 = 12;

pub(crate) async fn handle(cx: &Cx<'_>, request: MetadataRequest) -> MetadataResponse {
    let with_operations = request.include_topic_authorized_operations;
    let may_create =
        request.allow_auto_topic_creation && cx.shared.settings.flag("auto.create.topics.enable");
    let topics = match request.topics {
        Some(topics) if !topics.is_empty() || cx.version >= EMPTY_IS_NONE => {
            if may_create {
                create_missing(cx, &topics).await;
            }
            let topics = first_of_each(topics, |topic| (topic.name.clone(), topic.topic_id));
            topics.iter().map(|topic| named(cx, topic, with_operations)).collect()
        }
        _ => cx.shared.topics.all().iter().map(|topic| describe(cx, topic, with_operations)).collect(),
    };
    let (host, port) = cx.shared.advertised(cx.client);
    let node_id = cx.shared.node_id;
    MetadataResponse {
        brokers: vec![MetadataResponseBroker { node_id, host, port, ..MetadataResponseBroker::default() }],
        cluster_id: Some(cx.shared.cluster_id.clone()),
        controller_id: node_id,
        topics,
        cluster_authorized_operations: operations::when(
            request.include_cluster_authorized_operations,
            operations::CLUSTER,
        ),
        ..MetadataResponse::default()
    }
}

async fn create_missing(cx: &Cx<'_>, topics: &[MetadataRequestTopic]) {
    let missing = |topic: &&str| cx.shared.topics.by_name(topic).is_none() && check_name(topic).is_ok();
    let mut new: Vec<&str> =
        topics.iter().filter_map(|topic| topic.name.as_deref()).filter(missing).collect();
    new.sort_unstable();
    new.dedup();
    if !new.is_empty() {
        // What could not be created is missing in the answer, with the code for that.
        let new = new.into_iter().map(NewTopic::with_defaults).collect();
        for error in cx.shared.topics.create(new, false).await.into_iter().filter_map(Result::err) {
            tracing::debug!(%error, "automatic topic creation");
        }
    }
}

fn named(cx: &Cx<'_>, asked: &MetadataRequestTopic, with_operations: bool) -> MetadataResponseTopic {
    // Where there is an id, the name does not count: Java's clients leave it empty instead of null.
    let name = asked.name.as_ref().filter(|_| asked.topic_id == TopicId::ZERO);
    let error = |error: ErrorCode| MetadataResponseTopic {
        error_code: error.code(),
        // Before version 12 the name cannot be null.
        name: name.cloned().or_else(|| (cx.version < BY_ID).then(String::new)),
        topic_id: asked.topic_id,
        topic_authorized_operations: operations::NOT_ASKED,
        ..MetadataResponseTopic::default()
    };
    let found = match name {
        Some(name) => match check_name(name) {
            Ok(()) => cx.shared.topics.by_name(name).ok_or(ErrorCode::UnknownTopicOrPartition),
            Err(_) => Err(ErrorCode::InvalidTopicException),
        },
        None if asked.topic_id == TopicId::ZERO => Err(ErrorCode::UnknownTopicOrPartition),
        None => cx.shared.topics.by_id(asked.topic_id).ok_or(ErrorCode::UnknownTopicId),
    };
    found.map_or_else(error, |topic| describe(cx, &topic, with_operations))
}

fn describe(cx: &Cx<'_>, topic: &Arc<Topic>, with_operations: bool) -> MetadataResponseTopic {
    let node_id = cx.shared.node_id;
    let partitions = (0..topic.partition_count())
        .map(|partition_index| MetadataResponsePartition {
            partition_index,
            leader_id: node_id,
            leader_epoch: 0,
            replica_nodes: vec![node_id],
            isr_nodes: vec![node_id],
            ..MetadataResponsePartition::default()
        })
        .collect();
    MetadataResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(topic.name.to_string()),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions,
        topic_authorized_operations: operations::when(with_operations, operations::TOPIC),
        ..MetadataResponseTopic::default()
    }
}
