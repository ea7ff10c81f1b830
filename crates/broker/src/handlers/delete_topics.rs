//! DeleteTopics, versions 0 to 6: topics go, with their records and the offsets that groups committed for them.
//!
//! The answer leaves when the deletion is durable. Version 5 has messages, 6 names topics by id too (KIP-516). Internal
//! topics cannot be deleted.

use tidings_model::{ErrorCode, TopicId};
use tidings_wire::messages::delete_topics_request::DeleteTopicsRequest;
use tidings_wire::messages::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponse};

use crate::handlers::Cx;
use crate::mentions::once_and_repeated;
use crate::topics::TopicRef;
use crate::topics::error::TopicError;

pub(crate) async fn handle(cx: &Cx<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let mut responses = Vec::new();
    let mut named: Vec<TopicRef> = request.topic_names.into_iter().map(TopicRef::Name).collect();
    for topic in request.topics {
        match (topic.name, topic.topic_id) {
            (Some(name), TopicId::ZERO) => named.push(TopicRef::Name(name)),
            (None, id) if id != TopicId::ZERO => named.push(TopicRef::Id(id)),
            (name, id) => {
                let why = if name.is_some() { BOTH } else { NEITHER };
                responses.push(DeletableTopicResult { name, ..refused(id, why) });
            }
        }
    }
    let (asked, repeated) = once_and_repeated(named);
    responses.extend(repeated.into_iter().map(|topic| match topic {
        TopicRef::Name(name) => DeletableTopicResult { name: Some(name), ..refused(TopicId::ZERO, REPEATED) },
        TopicRef::Id(id) => refused(id, REPEATED),
    }));
    let shared = cx.shared.clone();
    let forget = move |gone: &[&str]| {
        shared.groups.on_topics_deleted(gone);
        shared.metrics.topics_deleted(gone);
    };
    let results = cx.shared.topics.delete(asked.clone(), forget).await;
    responses.extend(asked.into_iter().zip(results).map(|(topic, result)| answer(topic, result)));
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

const BOTH: &str = "You may not specify both topic name and topic id.";
const NEITHER: &str = "Neither topic name nor id were specified.";
const REPEATED: &str = "Duplicate topic name or id.";

/// What is wrong with how a topic is named.
fn refused(topic_id: TopicId, why: &str) -> DeletableTopicResult {
    let error_message = Some(why.to_owned());
    let error_code = ErrorCode::InvalidRequest.code();
    DeletableTopicResult {
        name: None,
        topic_id,
        error_code,
        error_message,
        ..DeletableTopicResult::default()
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
            // The older versions, which librdkafka speaks, have no room for the reason.
            tracing::info!(?topic, %error, "a topic was not deleted");
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
