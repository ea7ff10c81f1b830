//! CreatePartitions, versions 0 to 3: more partitions for a topic (KIP-195); existing records stay where they are.

use std::collections::HashSet;

use tidings_wire::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use tidings_wire::messages::create_partitions_response::{
    CreatePartitionsResponse, CreatePartitionsTopicResult,
};

use crate::handlers::Cx;
use crate::topics::Growth;
use crate::topics::error::TopicError;

pub(crate) async fn handle(cx: &Cx<'_>, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut seen = HashSet::new();
    let repeated: HashSet<String> = request
        .topics
        .iter()
        .filter(|topic| !seen.insert(&topic.name))
        .map(|topic| topic.name.clone())
        .collect();
    let unique: Vec<_> = request.topics.into_iter().filter(|topic| !repeated.contains(&topic.name)).collect();
    let names: Vec<String> = unique.iter().map(|topic| topic.name.clone()).collect();
    let grown = cx.shared.topics.grow(unique.into_iter().map(growth).collect(), request.validate_only).await;
    let duplicate = |name| (name, Err(TopicError::Request("Duplicate topic in request.".to_owned())));
    let results =
        repeated.into_iter().map(duplicate).chain(names.into_iter().zip(grown)).map(answer).collect();
    CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() }
}

fn growth(topic: CreatePartitionsTopic) -> Growth {
    let assignments =
        topic.assignments.map(|assigned| assigned.into_iter().map(|one| one.broker_ids).collect());
    Growth { name: topic.name, count: topic.count, assignments }
}

fn answer((name, result): (String, Result<(), TopicError>)) -> CreatePartitionsTopicResult {
    match result {
        Ok(()) => CreatePartitionsTopicResult { name, ..CreatePartitionsTopicResult::default() },
        Err(error) => CreatePartitionsTopicResult {
            name,
            error_code: error.code().code(),
            error_message: Some(error.to_string()),
            ..CreatePartitionsTopicResult::default()
        },
    }
}
