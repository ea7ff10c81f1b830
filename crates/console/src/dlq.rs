//! The failure inbox over HTTP: `/api/v1/dlq/{source topic}` lists, shows, redrives and discards dead letters, and
//! tells which keys wait for which.
//!
//! Invariants: at most [`MAX_CALLS`] calls talk to the cluster at a time, for each opens connections of its own; at most
//! [`MAX_INBOXES`] inboxes are remembered. What a call means is the SDK's business.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{RawQuery, Request, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tidings::failure::{
    FailureInbox, InboxError, Letter, LetterId, Pace, Queue, Selection, StatusFilter, Summary,
};
use tidings::{Cluster, ClusterError, Producer, ProducerOptions};
use tidings_http::{FieldError, MediaType, Params, PathParams, Problem, parse_object, read_body};
use tokio::sync::Semaphore;

/// Calls that talk to the cluster at a time; more wait.
pub const MAX_CALLS: usize = 4;
/// Inboxes remembered. One remembers what it read about its letters, so that the next call is quick.
pub const MAX_INBOXES: usize = 64;

/// How long a redrive at a pace may keep its caller waiting, who calls again for the rest (`more`).
const MAX_PACED_REDRIVE: Duration = Duration::from_secs(10);
const MAX_BODY_BYTES: usize = 1024 * 1024;
const MAX_TOPIC_NAME_BYTES: usize = 249;
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;
/// Who redrives and discards, as far as HTTP without credentials can tell.
const BY: &str = "http";

/// A page of dead letters.
#[derive(Serialize)]
struct ListAnswer {
    items: Vec<Letter>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectionBody {
    #[serde(default)]
    ids: Option<Vec<String>>,
    #[serde(default)]
    all: bool,
    #[serde(default)]
    dry_run: bool,
    /// A redrive's pace.
    #[serde(default)]
    max_per_second: Option<NonZeroU32>,
}

/// The keys whose records wait for each other.
#[derive(Serialize)]
struct QueuesAnswer {
    items: Vec<Queue>,
}

struct Inboxes {
    cluster: Cluster,
    /// Made by the first call: most servers never see one.
    producer: Mutex<Option<Producer>>,
    by_topic: Mutex<BTreeMap<String, Arc<FailureInbox>>>,
    calls: Semaphore,
}

/// The routes, over the inboxes of this cluster.
pub fn router(cluster: Cluster) -> Router {
    let inboxes = Inboxes {
        cluster,
        producer: Mutex::default(),
        by_topic: Mutex::default(),
        calls: Semaphore::new(MAX_CALLS),
    };
    Router::new()
        .route("/api/v1/dlq/{topic}", get(list))
        .route("/api/v1/dlq/{topic}/{id}", get(show))
        .route("/api/v1/dlq/{topic}/queues", get(queues))
        .route("/api/v1/dlq/{topic}/redrive", post(redrive))
        .route("/api/v1/dlq/{topic}/discard", post(discard))
        .with_state(Arc::new(inboxes))
}

async fn list(
    State(inboxes): State<Arc<Inboxes>>,
    PathParams(topic): PathParams<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<ListAnswer>, Problem> {
    let params = Params::parse(query.as_deref(), &["limit", "cursor", "status"])?;
    let mut errors = Vec::new();
    let limit = limit(&params, &mut errors);
    let filter = match params.get("status") {
        None | Some("parked") => StatusFilter::Parked,
        Some("resolved") => StatusFilter::Resolved,
        Some("all") => StatusFilter::Any,
        Some(_) => {
            errors.push(FieldError::new("status", "must be parked, resolved or all"));
            StatusFilter::Parked
        }
    };
    if !errors.is_empty() {
        return Err(Problem::bad_parameters(errors));
    }
    let cursor = params.get("cursor").map(str::to_owned);
    let page = inboxes.call(topic, move |inbox| inbox.list(filter, cursor.as_deref(), limit)).await?;
    Ok(Json(ListAnswer { items: page.items, next_cursor: page.next_cursor }))
}

fn limit(params: &Params, errors: &mut Vec<FieldError>) -> usize {
    let limit = params.get("limit").map_or(Some(DEFAULT_LIMIT), |text| text.parse().ok());
    limit.filter(|limit| (1..=MAX_LIMIT).contains(limit)).unwrap_or_else(|| {
        errors.push(FieldError::new("limit", format!("must be a number from 1 to {MAX_LIMIT}")));
        DEFAULT_LIMIT
    })
}

/// Which keys wait, how many of their records, and behind which letter.
async fn queues(
    State(inboxes): State<Arc<Inboxes>>,
    PathParams(topic): PathParams<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<QueuesAnswer>, Problem> {
    let params = Params::parse(query.as_deref(), &["limit"])?;
    let mut errors = Vec::new();
    let limit = limit(&params, &mut errors);
    if !errors.is_empty() {
        return Err(Problem::bad_parameters(errors));
    }
    let items = inboxes.call(topic, move |inbox| inbox.queues(limit)).await?;
    Ok(Json(QueuesAnswer { items }))
}

async fn show(
    State(inboxes): State<Arc<Inboxes>>,
    PathParams((topic, id)): PathParams<(String, String)>,
) -> Result<Json<Letter>, Problem> {
    let id: LetterId = id.parse().map_err(|error| Problem::bad_request(format!("{error}")))?;
    Ok(Json(inboxes.call(topic, move |inbox| inbox.get(id)).await?))
}

async fn redrive(
    State(inboxes): State<Arc<Inboxes>>,
    PathParams(topic): PathParams<String>,
    request: Request,
) -> Result<Json<Summary>, Problem> {
    let Decision { selection, dry_run, max_per_second } = decision(request).await?;
    let redrive = move |inbox: &FailureInbox| match max_per_second.filter(|_| !dry_run) {
        Some(max_per_second) => {
            let pace = Pace::per_second(max_per_second).at_most(MAX_PACED_REDRIVE);
            inbox.redrive_slowly(&selection, BY, pace)
        }
        None => inbox.redrive(&selection, BY, dry_run),
    };
    Ok(Json(inboxes.call(topic, redrive).await?))
}

async fn discard(
    State(inboxes): State<Arc<Inboxes>>,
    PathParams(topic): PathParams<String>,
    request: Request,
) -> Result<Json<Summary>, Problem> {
    let Decision { selection, dry_run, max_per_second } = decision(request).await?;
    if max_per_second.is_some() {
        let error = FieldError::new("max_per_second", "is for redrives only");
        return Err(Problem::unprocessable(vec![error]));
    }
    Ok(Json(inboxes.call(topic, move |inbox| inbox.discard(&selection, BY, dry_run)).await?))
}

/// What a request wants to be done.
struct Decision {
    selection: Selection,
    dry_run: bool,
    max_per_second: Option<NonZeroU32>,
}

/// `{"ids": ["0-1", …]}` or `{"all": true}`, exactly one of the two, so that a typing error never means everything; either with
/// `"dry_run": true` or, for a redrive, `"max_per_second": 20`.
async fn decision(request: Request) -> Result<Decision, Problem> {
    let (parts, body) = request.into_parts();
    MediaType::one_of(&[MediaType::Json], &parts.headers)?;
    let body = read_body(&parts.headers, body, MAX_BODY_BYTES).await?;
    let SelectionBody { ids, all, dry_run, max_per_second } = parse_object(&body)?;
    let selection = match (ids, all) {
        (Some(ids), false) => Selection::Ids(parse_ids(&ids)?),
        (None, true) => Selection::All,
        _ => {
            let error = FieldError::new("ids", "expected either ids or \"all\": true");
            return Err(Problem::unprocessable(vec![error]));
        }
    };
    Ok(Decision { selection, dry_run, max_per_second })
}

fn parse_ids(ids: &[String]) -> Result<Vec<LetterId>, Problem> {
    let mut parsed = Vec::with_capacity(ids.len());
    let mut errors = Vec::new();
    for (index, id) in ids.iter().enumerate() {
        match id.parse() {
            Ok(id) => parsed.push(id),
            Err(error) => errors.push(FieldError::new(format!("ids[{index}]"), format!("{error}"))),
        }
    }
    if errors.is_empty() { Ok(parsed) } else { Err(Problem::unprocessable(errors)) }
}

impl Inboxes {
    /// Makes a blocking call on the inbox of a topic.
    async fn call<T: Send + 'static>(
        &self,
        topic: String,
        call: impl FnOnce(&FailureInbox) -> Result<T, InboxError> + Send + 'static,
    ) -> Result<T, Problem> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if topic.is_empty() || topic.len() > MAX_TOPIC_NAME_BYTES || !topic.bytes().all(legal) {
            return Err(Problem::bad_request(format!("{topic:?} is not a topic name")));
        }
        let _slot = self.calls.acquire().await.map_err(|_| Problem::internal("the server is stopping"))?;
        let inbox = self.inbox(topic).map_err(|error| Problem::internal(error.to_string()))?;
        match tokio::task::spawn_blocking(move || call(&inbox)).await {
            Ok(result) => result.map_err(problem),
            Err(error) => {
                tracing::error!(%error, "a call on a failure inbox panicked");
                Err(Problem::internal("the call failed"))
            }
        }
    }

    fn inbox(&self, topic: String) -> Result<Arc<FailureInbox>, ClusterError> {
        let mut by_topic = self.by_topic.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inbox) = by_topic.get(&topic) {
            return Ok(Arc::clone(inbox));
        }
        if by_topic.len() >= MAX_INBOXES {
            by_topic.pop_first();
        }
        let inbox = Arc::new(FailureInbox::new(&self.cluster, self.producer()?, &topic));
        by_topic.insert(topic, Arc::clone(&inbox));
        Ok(inbox)
    }

    fn producer(&self) -> Result<Producer, ClusterError> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*producer {
            return Ok(producer.clone());
        }
        let made = Producer::new(&self.cluster, ProducerOptions::default())?;
        *producer = Some(made.clone());
        Ok(made)
    }
}

fn problem(error: InboxError) -> Problem {
    let detail = error.to_string();
    match error {
        InboxError::NoInbox { .. } | InboxError::UnknownLetter { .. } => Problem::not_found(detail),
        InboxError::BadCursor(_) => Problem::bad_parameters(vec![FieldError::new("cursor", detail)]),
        InboxError::TooManyIds { .. } => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-many-ids", "Too many ids", detail)
        }
        InboxError::TimedOut { .. }
        | InboxError::Read(_)
        | InboxError::Admin(_)
        | InboxError::Transaction { .. }
        | InboxError::Overtaken { .. }
        | InboxError::Send { .. } => Problem::unavailable(detail, 1),
    }
}
