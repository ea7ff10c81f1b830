//! CreateTopics, versions 0 to 7: new topics, each made or refused on its own.
//!
//! Partitions and replication factor of -1 mean the broker's defaults (version 4 on, KIP-464, served in all); the only
//! replication factor is 1. Version 1 can only check, 5 answers with the configs (KIP-525), 7 with the topic id.

use std::collections::HashSet;

use tidings_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use tidings_wire::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};

use crate::handlers::Cx;
use crate::mentions::once_and_repeated;
use crate::settings::topic::{TOPIC_DEFINITIONS, effective};
use crate::topics::CreatedTopic;
use crate::topics::error::TopicError;
use crate::topics::plan::NewTopic;

pub(crate) async fn handle(cx: &Cx<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let names: Vec<String> = request.topics.iter().map(|topic| topic.name.clone()).collect();
    let (names, duplicates) = once_and_repeated(names);
    let repeated: HashSet<&String> = duplicates.iter().collect();
    let unique: Vec<CreatableTopic> =
        request.topics.into_iter().filter(|topic| !repeated.contains(&topic.name)).collect();
    let results =
        cx.shared.topics.create(unique.into_iter().map(new_topic).collect(), request.validate_only).await;
    let repeated = |name| refused(name, &TopicError::Request("Duplicate topic name.".to_owned()));
    let mut topics: Vec<_> = duplicates.into_iter().map(repeated).collect();
    for (name, result) in names.into_iter().zip(results) {
        topics.push(match result {
            Ok(created) => accepted(cx, name, created),
            Err(error) => refused(name, &error),
        });
    }
    CreateTopicsResponse { topics, ..CreateTopicsResponse::default() }
}

fn new_topic(topic: CreatableTopic) -> NewTopic {
    let assignments =
        topic.assignments.into_iter().map(|assigned| (assigned.partition_index, assigned.broker_ids));
    NewTopic {
        name: topic.name,
        partition_count: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: assignments.collect(),
        configs: topic.configs.into_iter().map(|config| (config.name, config.value)).collect(),
    }
}

fn accepted(cx: &Cx<'_>, name: String, created: CreatedTopic) -> CreatableTopicResult {
    let configs = TOPIC_DEFINITIONS
        .iter()
        .map(|definition| {
            let (value, source) = effective(definition, &created.overrides, &cx.shared.settings);
            CreatableTopicConfigs {
                name: definition.name.to_owned(),
                value: Some(value.into_owned()),
                read_only: false,
                config_source: source.code(),
                is_sensitive: false,
                ..CreatableTopicConfigs::default()
            }
        })
        .collect();
    CreatableTopicResult {
        name,
        topic_id: created.id,
        error_message: None,
        num_partitions: created.partition_count,
        replication_factor: 1,
        configs: Some(configs),
        ..CreatableTopicResult::default()
    }
}

fn refused(name: String, error: &TopicError) -> CreatableTopicResult {
    CreatableTopicResult {
        name,
        error_code: error.code().code(),
        error_message: Some(error.to_string()),
        ..CreatableTopicResult::default()
    }
}
