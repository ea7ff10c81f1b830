//! `POST /api/v1/erasures`, `GET /api/v1/erasures?tenant=` and `GET /api/v1/erasures/{id}?tenant=`.
//!
//! The list takes `limit` and `cursor` besides, and answers `{"items": […], "next_cursor": …}`, newest first.
//!
//! The body is `{"tenant", "actor", "requested_by"}`, all required. 200 with the record when everything is gone, 202 with
//! what is gone so far if that takes longer than a few seconds: it goes on, also after a restart. 503 if the store does not
//! take the request; nothing has happened then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tidings_http::{FieldError, MediaType, Params, PathParams, Problem, parse_object, read_body};
use uuid::Uuid;

use super::filter::{only_tenant, path_id, tenant};
use super::search::{ask, cursor_key, json, limit};
use super::{Api, no_params};
use crate::cursor::{CursorError, CursorKey};
use crate::erasure::{Erasure, ErasurePosition, ErasureRequest};
use crate::limits::{MAX_ENTITY_ID_CHARS, MAX_TENANT_CHARS, SMALL_BODY_BYTES};
use crate::rules::check_text;
use crate::timestamp::Timestamp;

/// How long a request waits for the end of its erasure.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks whether it has ended.
const POLL: Duration = Duration::from_millis(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    tenant: String,
    actor: String,
    requested_by: String,
}

#[derive(Serialize)]
struct List {
    items: Vec<Erasure>,
    next_cursor: Option<String>,
}

/// One page's worth of a tenant's erasures.
struct Listing {
    tenant: String,
    after: Option<ErasurePosition>,
    limit: usize,
}

pub(super) async fn post(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    no_params(&uri)?;
    MediaType::one_of(&[MediaType::Json], &headers)?;
    let body = read_body(&headers, body, SMALL_BODY_BYTES).await?;
    let request = read(&body)?;
    let (tenant, id) = (request.tenant.clone(), request.id.clone());
    ask(&api, move |store| store.begin_erasure(&request)).await?;
    api.housekeeper.ring();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let record = record(&api, &tenant, id.clone()).await?;
        if record.finished_at.is_some() {
            return json(&record);
        }
        if Instant::now() > deadline {
            return Ok((StatusCode::ACCEPTED, json(&record)?).into_response());
        }
        tokio::time::sleep(POLL).await;
    }
}

pub(super) async fn list(State(api): State<Arc<Api>>, uri: Uri) -> Result<Response, Problem> {
    let key = cursor_key(&api)?;
    let Listing { tenant, after, limit } = parse(uri.query(), &key)?;
    let mut items = ask(&api, {
        let tenant = tenant.clone();
        // One more, to know whether there is a next page.
        move |store| store.erasures(&tenant, after.as_ref(), limit + 1)
    })
    .await?;
    let has_next = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| has_next);
    let next_cursor = last.map(|last| key.encode_erasure(&tenant, &last.position()));
    json(&List { items, next_cursor })
}

/// The page that a query string asks for, or 400 with every parameter that is wrong.
fn parse(query: Option<&str>, key: &CursorKey) -> Result<Listing, Problem> {
    let params = Params::parse(query, &["tenant", "limit", "cursor"])?;
    match (tenant(&params), limit(params.get("limit"))) {
        (Ok(tenant), Ok(limit)) => {
            let after = params.get("cursor").map(|cursor| key.decode_erasure(&tenant, cursor)).transpose();
            let wrong = |error: CursorError| {
                Problem::bad_parameters(vec![FieldError::new("cursor", error.to_string())])
            };
            Ok(Listing { after: after.map_err(wrong)?, tenant, limit })
        }
        (tenant, limit) => {
            Err(Problem::bad_parameters([tenant.err(), limit.err()].into_iter().flatten().collect()))
        }
    }
}

pub(super) async fn one(
    State(api): State<Arc<Api>>,
    id: PathParams<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    let id = path_id(id)?;
    let tenant = only_tenant(&uri)?;
    json(&record(&api, &tenant, id).await?)
}

async fn record(api: &Api, tenant: &str, id: String) -> Result<Erasure, Problem> {
    let found = ask(api, {
        let id = id.clone();
        move |store| store.erasure(&id)
    });
    // One tenant's ids say nothing to another.
    let found = found.await?.filter(|record| record.tenant == tenant);
    found.ok_or_else(|| Problem::not_found(format!("tenant {tenant:?} has no erasure {id:?}")))
}

fn read(body: &[u8]) -> Result<ErasureRequest, Problem> {
    let Request { tenant, actor, requested_by } = parse_object(body)?;
    let texts = [
        ("tenant", &tenant, MAX_TENANT_CHARS),
        ("actor", &actor, MAX_ENTITY_ID_CHARS),
        ("requested_by", &requested_by, MAX_ENTITY_ID_CHARS),
    ];
    let errors: Vec<FieldError> = texts
        .into_iter()
        .filter_map(|(field, text, max_chars)| {
            Some(FieldError::new(field, check_text(text, max_chars).err()?))
        })
        .collect();
    if !errors.is_empty() {
        return Err(Problem::unprocessable(errors));
    }
    let id = Uuid::now_v7().to_string();
    Ok(ErasureRequest { id, tenant, actor, requested_by, requested_at: Timestamp::now() })
}
