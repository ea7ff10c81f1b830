//! The routes under `/api/v1/activities` and `/api/v1/erasures`.
//!
//! Owns status codes, limits on what is held at once, and the form of answers. Invariants: 200 on a POST means
//! durable; the bodies held at once, the streams read at once and the questions asked at once are bounded, so memory
//! does not grow with the number of connections. Parsing and rules are elsewhere (`submission`, `search::parse`), as
//! functions that need no server.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tidings_http::{Params, Problem};
use tokio::sync::Semaphore;

use crate::answers::Answers;
use crate::housekeeper::Housekeeper;
use crate::ingest::Ingest;
use crate::limits::{LIVE_CATCH_UPS, MAX_EXPORTS, MAX_NDJSON_STREAMS, MAX_QUERIES};
use crate::live::Live;
use crate::result_queue::ResultFiles;
use crate::store::Store;
use room::Room;

mod erasure;
mod export;
mod filter;
mod live;
mod onward;
mod outflow;
mod room;
mod search;
mod stream;
mod submit;

/// Whether the topics are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// Not yet; with the reason, if something failed.
    Pending(Option<String>),
    /// Created, or found.
    Ready,
}

/// What the handlers share.
pub(crate) struct Api {
    ingest: Ingest,
    store: Arc<dyn Store>,
    /// To requests with an `Idempotency-Key`.
    answers: Answers,
    room: Room,
    streams: Arc<Semaphore>,
    queries: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    live: Live,
    housekeeper: Housekeeper,
    catch_ups: Arc<Semaphore>,
    /// Where results wait for callers that do not read them yet.
    results: Arc<ResultFiles>,
}

/// The routes. Whoever serves them puts the Host and Origin guard in front.
pub(crate) fn router(
    ingest: Ingest,
    store: Arc<dyn Store>,
    live: Live,
    housekeeper: Housekeeper,
    results_folder: PathBuf,
) -> Router {
    let api = Arc::new(Api {
        room: Room::new(ingest.ack_timeout()),
        ingest,
        store,
        answers: Answers::default(),
        streams: Arc::new(Semaphore::new(MAX_NDJSON_STREAMS)),
        queries: Arc::new(Semaphore::new(MAX_QUERIES)),
        exports: Arc::new(Semaphore::new(MAX_EXPORTS)),
        live,
        housekeeper,
        catch_ups: Arc::new(Semaphore::new(LIVE_CATCH_UPS)),
        results: ResultFiles::new(results_folder),
    });
    Router::new()
        .route("/api/v1/activities", get(search::list).post(submit::post).fallback(method_not_allowed))
        .route("/api/v1/activities/export", get(export::export).fallback(method_not_allowed))
        .route("/api/v1/activities/live", get(live::live).fallback(method_not_allowed))
        .route("/api/v1/erasures", get(erasure::list).post(erasure::post).fallback(method_not_allowed))
        .route("/api/v1/erasures/{id}", get(erasure::one).fallback(method_not_allowed))
        .route("/api/v1/activities/{id}", get(search::one).fallback(method_not_allowed))
        .with_state(api)
}

async fn method_not_allowed() -> Response {
    let status = axum::http::StatusCode::METHOD_NOT_ALLOWED;
    Problem::new(
        status,
        "method-not-allowed",
        "Method not allowed",
        "the header `Allow` names the methods of this path",
    )
    .into_response()
}

/// A POST takes no parameters: one that is ignored would be a filter, a tenant or a flag that does nothing.
fn no_params(uri: &Uri) -> Result<(), Problem> {
    Params::parse(uri.query(), &[]).map(drop)
}

#[cfg(test)]
mod tests;
