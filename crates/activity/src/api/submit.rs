//! `POST /api/v1/activities`: one object or an array; NDJSON goes on to `stream`.
//!
//! 200 `{"results": [{"id": …, "via": "stream"}]}` after the durable ack, `via` telling whose; 400 for what is not JSON,
//! 413 over a limit, 415 for another media type, 422 for what is no activity (of an array nothing is taken then), 503 with
//! `Retry-After` if neither the cluster nor the fallback takes it in time.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tidings_http::{MediaType, Problem, read_body};

use super::{Api, no_params, stream};
use crate::ingest::NotAccepted;
use crate::limits::{BODY_TIMEOUT, MAX_BODY_BYTES, SMALL_BODY_BYTES};
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
    match MediaType::of(&headers)? {
        MediaType::Json => post_json(&api, &headers, body).await.map(IntoResponse::into_response),
        MediaType::Ndjson => stream::post(api, body).await,
    }
}

async fn post_json(api: &Api, headers: &HeaderMap, body: Body) -> Result<Json<Results>, Problem> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let held_bytes = declared.unwrap_or(MAX_BODY_BYTES).min(MAX_BODY_BYTES);
    // Held until the answer: the records which the body becomes are about as long as the body.
    let room = if held_bytes <= SMALL_BODY_BYTES { &api.small_bodies } else { &api.bodies };
    let _held = room.acquire_many(held_bytes.div_ceil(1024) as u32).await;
    let body = within(BODY_TIMEOUT, read_body(headers, body, MAX_BODY_BYTES)).await?;
    let (ids, records) = read(api, &body)?;
    drop(body);
    let accepted = ids.into_iter().zip(api.ingest.accept(&records).await).map(|(id, result)| {
        let via = result.map_err(|error| unavailable(&error))?.as_str();
        Ok(Accepted { line: None, id, via })
    });
    Ok(Json(Results { results: accepted.collect::<Result<_, Problem>>()? }))
}

fn read(api: &Api, body: &Bytes) -> Result<(Vec<String>, Vec<tidings::Record>), Problem> {
    let activities = submission::read_body(body, Timestamp::now()).inspect_err(|problem| {
        api.ingest.metrics().refused.inc_by(problem.errors.len().max(1) as u64);
    })?;
    let records = activities.iter().map(|activity| api.ingest.record(activity)).collect();
    Ok((activities.into_iter().map(|activity| activity.id.to_string()).collect(), records))
}

async fn within<T>(limit: Duration, read: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    tokio::time::timeout(limit, read).await.unwrap_or_else(|_| {
        let detail = format!("the body did not arrive within {} s", limit.as_secs());
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "Request timeout", detail))
    })
}

/// The problem when nothing takes it.
pub(super) fn unavailable(error: &NotAccepted) -> Problem {
    let written = if error.may_be_written() {
        "; it may be written all the same: send it again with the same id"
    } else {
        ""
    };
    Problem::unavailable(format!("{error}{written}"), 1)
}
