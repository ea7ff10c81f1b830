//! `POST /api/v1/activities`: one object or an array; NDJSON goes on to `stream`.
//!
//! 200 `{"results": [{"id": …, "via": "stream"}]}` after the durable ack, `via` telling whose; 400 for what is not JSON,
//! 413 over a limit, ours or the topic's, 415 for another media type, 422 for what is no activity (of an array nothing is taken then), 503 with
//! `Retry-After` if neither the cluster nor the fallback takes it in time, or there is no room for the body. With an
//! `Idempotency-Key`: a repeated request is answered as the first was, 409 while that is under way, 422 for another body of the same tenant.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tidings_http::{MediaType, Problem, read_body_into};

use super::onward::Onward;
use super::{Api, no_params, stream};
use crate::answers::Begun;
use crate::fallback::Via;
use crate::idempotency::IdempotencyKey;
use crate::ingest::NotAccepted;
use crate::limits::MAX_BODY_BYTES;
use crate::submission;
use crate::timestamp::Timestamp;

/// An answer to one activity.
#[derive(Debug, Serialize)]
pub(super) struct Accepted {
    /// The line of a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    pub id: String,
    /// How it was made durable.
    pub via: &'static str,
}

#[derive(Serialize)]
struct Results {
    results: Vec<Accepted>,
}

pub(super) async fn post(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    no_params(&uri)?;
    let key = IdempotencyKey::of(&headers)?;
    match MediaType::of(&headers)? {
        MediaType::Json => {
            post_json(&api, &headers, key.as_ref(), body).await.map(IntoResponse::into_response)
        }
        MediaType::Ndjson => stream::post(api, key, body).await,
    }
}

async fn post_json(
    api: &Api,
    headers: &HeaderMap,
    key: Option<&IdempotencyKey>,
    body: Body,
) -> Result<Json<Results>, Problem> {
    let mut held = api.room.for_body();
    let body = read_body_into(&mut held, headers, body, MAX_BODY_BYTES).await?;
    let room = api.room.for_records(&body).await?;
    let (ids, records, begun) = read(api, key, &body)?;
    drop((body, held));
    let claim = match begun {
        Some(Begun::Repeated(via)) => return Ok(results(ids, &via)),
        Some(Begun::First(claim)) => Some(claim),
        None => None,
    };
    let ingest = api.ingest.clone();
    // A caller who hangs up ends the request, not this: what was taken in is brought to an end, and counts for the breaker.
    let accept = Onward::new(async move {
        let accepted = ingest.accept(&records).await.into_iter();
        let via = accepted.collect::<Result<Vec<Via>, NotAccepted>>();
        if let (Ok(via), Some(claim)) = (&via, claim) {
            claim.accepted(via.iter().copied());
        }
        drop((records, room));
        via
    });
    let via = accept.await.map_err(|error| not_accepted(&error, key))?;
    Ok(results(ids, &via))
}

/// The activities' ids and records, and with a key what is known of it.
type Read = (Vec<String>, Vec<tidings::Record>, Option<Begun>);

fn read(api: &Api, key: Option<&IdempotencyKey>, body: &Bytes) -> Result<Read, Problem> {
    let activities = submission::read_body(body, Timestamp::now(), key).inspect_err(|problem| {
        api.ingest.metrics().refused.inc_by(problem.errors.len().max(1) as u64);
    })?;
    let tenants = activities.iter().map(|activity| activity.tenant.as_str());
    let begun = key.map(|key| api.answers.begin(key, tenants, body)).transpose()?;
    let records = match begun {
        Some(Begun::Repeated(_)) => Vec::new(),
        _ => activities.iter().map(|activity| api.ingest.record(activity)).collect(),
    };
    Ok((activities.into_iter().map(|activity| activity.id.to_string()).collect(), records, begun))
}

fn results(ids: Vec<String>, via: &[Via]) -> Json<Results> {
    let accepted = ids.into_iter().zip(via).map(|(id, via)| Accepted { line: None, id, via: via.as_str() });
    Json(Results { results: accepted.collect() })
}

/// The problem when nothing takes it.
pub(super) fn not_accepted(error: &NotAccepted, key: Option<&IdempotencyKey>) -> Problem {
    if error.is_too_large() {
        let detail = format!(
            "{error}: an activity is larger than the topic's max.message.bytes; what else the request had may be written"
        );
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail);
    }
    let written = match (error.may_be_written(), key) {
        (true, None) => "; it may be written all the same: send it again with the same id",
        (true, Some(_)) => "; it may be written all the same: send it again with the same key",
        (false, _) => "",
    };
    let seconds = error.retry_after().as_secs_f64().ceil() as u32;
    Problem::unavailable(format!("{error}{written}"), seconds.max(1))
}
