//! `/healthz`: the process answers. `/readyz`: every part can do its work.
//!
//! A part that is not ready makes `/readyz` answer 503 and say which part and why; it never makes `/healthz` fail, for a
//! restart would not bring back a full disk or a far cluster.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use serde::Serialize;

/// A part's say in `/readyz`.
#[derive(Clone)]
pub struct HealthCheck {
    name: &'static str,
    check: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    checks: Vec<Outcome>,
}

#[derive(Serialize)]
struct Outcome {
    name: &'static str,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl HealthCheck {
    /// A check named after the part; `check` answers at once (it must not wait), with the reason when the part is not ready.
    pub fn new(
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> HealthCheck {
        HealthCheck { name, check: Arc::new(check) }
    }
}

pub(crate) fn router(checks: Vec<HealthCheck>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(checks))
}

async fn readyz(State(checks): State<Arc<Vec<HealthCheck>>>) -> (StatusCode, Json<Readiness>) {
    let checks: Vec<Outcome> = checks
        .iter()
        .map(|HealthCheck { name, check }| {
            let why = check().err();
            Outcome { name, ready: why.is_none(), why }
        })
        .collect();
    let ready = checks.iter().all(|outcome| outcome.ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, checks }))
}
