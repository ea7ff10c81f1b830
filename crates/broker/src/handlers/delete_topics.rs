//! DeleteTopics, versions 0 to 6: topics go, with their records and the offsets that groups committed for them.
//!
//! The answer leaves when the deletion is durable. Version 5 has messages, 6 names topics by id too (KIP-516). Internal
//! topics cannot be deleted.

use tidings_model::TopicId;
use tidings_wire::messages::delete_topics_request::DeleteTopicsRequest;
use tidings_wire::messages::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponse};

use crate::handlers::Cx;
use crate::topics::TopicRef;
use crate::topics::error::TopicError;

pub(crate) async fn handle(cx: &Cx<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let named = request.topic_names.into_iter().map(TopicRef::Name);
    let either = request.topics.into_iter().map(|topic| match topic.name {
        Some(name) => TopicRef::Name(name),
        None => TopicRef::Id(topic.topic_id),
    });
    let mut asked: Vec<TopicRef> = Vec::new();
    for topic in named.chain(either) {
        if !asked.iter().any(|known| is_same(known, &topic)) {
            asked.push(topic);
        }
    }
    let results = cx.shared.topics.delete(asked.clone()).await;
    let gone: Vec<&str> = results.iter().flatten().map(|(name, _)| &**name).collect();
    if !gone.is_empty() {
        cx.shared.groups.on_topics_deleted(&gone);
        cx.shared.metrics.topics_deleted(&gone);
    }
    let responses = asked.into_iter().zip(results).map(|(topic, result)| answer(topic, result)).collect();
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

fn is_same(a: &TopicRef, b: &TopicRef) -> bool {
    match (a, b) {
        (TopicRef::Name(a), TopicRef::Name(b)) => a == b,
        (TopicRef::Id(a), TopicRef::Id(b)) => a == b,
        _ => false,
    }
}

fn answer(
    topic: TopicRef,
    result: Result<(std::sync::Arc<str>, TopicId), TopicError>,
) -> DeletableTopicResult {
    match result {
        Ok((name, topic_id)) => {
            DeletableTopicResult { name: Some(name.to_string()), topic_id, ..DeletableTopicResult::default() }
        }
        Err(error) => {
            let (name, topic_id) = match topic {
                TopicRef::Name(name) => (Some(name), TopicId::ZERO),
                TopicRef::Id(id) => (None, id),
            };
            DeletableTopicResult {
                name,
                topic_id,
                error_code: error.code().code(),
                error_message: Some(error.to_string()),
                ..DeletableTopicResult::default()
            }
        }
    }
}
