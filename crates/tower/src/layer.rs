//! The `tower` layer.
//!
//! Owns when a request is recorded: once its response has a head, or when it was given up before. Does not look at
//! bodies.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{Extensions, HeaderMap, Method, Request, Response, Uri};
use pin_project_lite::pin_project;
use serde_json::Value;
use tower_layer::Layer;
use tower_service::Service;

use crate::activity::Activity;
use crate::recorder::Recorder;
use crate::redact::redact_query;

/// What is known of a request before it is served.
///
/// ```
/// use http::{Extensions, HeaderMap, Method, Uri};
/// use tidings_tower::RequestHead;
///
/// let (uri, headers) = (Uri::from_static("/orders/17/pay"), HeaderMap::new());
/// let request =
///     RequestHead { method: &Method::POST, uri: &uri, headers: &headers, extensions: &Extensions::new() };
/// assert_eq!(request.action(Some("/orders/{order}/pay")), "POST /orders/{order}/pay");
/// assert_eq!(request.action(None), "POST (no route)");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its address.
    pub uri: &'a Uri,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// What layers further out have found: who is logged in, which route it is.
    pub extensions: &'a Extensions,
}

impl RequestHead<'_> {
    /// The method and the route, as [`Activity::new`] takes it, for example `POST /orders/{order}`. Without a route (no route
    /// takes the request, or something refuses it before) the path is left out: it is its sender's choice.
    pub fn action(&self, route: Option<&str>) -> String {
        format!("{} {}", self.method, route.unwrap_or("(no route)"))
    }
}

type Describe = dyn Fn(RequestHead<'_>) -> Option<Activity> + Send + Sync;

/// Records the requests of a service; cheap to clone.
///
/// ```
/// use axum::{Router, routing::get};
/// use tidings_tower::{Activity, ActivityLayer, Recorder, RecorderOptions, RequestHead};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let recorder = Recorder::start("http://127.0.0.1:8080", RecorderOptions::default())?;
/// let describe = |request: RequestHead<'_>| {
///     let is_of_interest = request.uri.path() != "/healthz";
///     is_of_interest.then(|| Activity::new("acme", &request.action(Some("/orders"))))
/// };
/// // All failures, and one success in ten.
/// let layer = ActivityLayer::new(recorder, describe).sample(0.1);
/// let app = Router::<()>::new().route("/orders", get(|| async { "none" })).layer(layer);
/// # drop(app);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ActivityLayer {
    recorder: Recorder,
    describe: Arc<Describe>,
    sample: f64,
    successes: Arc<AtomicU64>,
}

impl ActivityLayer {
    /// Records each request that `describe` makes an activity of. The layer adds method, path, query, status, outcome
    /// (`success`, `failure`, `aborted`) and duration to its metadata, and to its context what headers say.
    pub fn new(
        recorder: Recorder,
        describe: impl Fn(RequestHead<'_>) -> Option<Activity> + Send + Sync + 'static,
    ) -> Self {
        Self { recorder, describe: Arc::new(describe), sample: 1.0, successes: Arc::default() }
    }

    /// Records only this part, from 0 to 1, of the requests that succeed, evenly; all others still.
    pub fn sample(mut self, part: f64) -> Self {
        self.sample = part;
        self
    }

    /// Whether the next success is one of those that are recorded.
    fn takes_success(&self) -> bool {
        // The multiples of the golden ratio spread evenly, so that no pattern of requests is always left out.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let position = self.successes.fetch_add(1, Relaxed).wrapping_mul(STEP);
        (position as f64) < self.sample * u64::MAX as f64
    }

    fn begin<B>(&self, request: &Request<B>) -> Option<Unfinished> {
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        let head = RequestHead { method, uri, headers, extensions: request.extensions() };
        // Whatever is wrong with a description, the request is none the worse for it.
        let described = catch_unwind(AssertUnwindSafe(|| (self.describe)(head)));
        let mut activity = described.unwrap_or_else(|_| {
            self.recorder.drop_one("its description panicked");
            None
        })?;
        for (name, header) in [
            ("user_agent", "user-agent"),
            ("request_id", "x-request-id"),
            ("correlation_id", "x-correlation-id"),
        ] {
            let value = headers.get(header).and_then(|value| value.to_str().ok());
            if let Some(value) = value.filter(|_| !activity.has_context(name)) {
                activity = activity.context(name, value);
            }
        }
        activity = activity.metadata("method", method.as_str()).metadata("path", uri.path());
        if let Some(query) = uri.query() {
            activity = activity.metadata("query", Value::Object(redact_query(query)));
        }
        Some(Unfinished { layer: self.clone(), activity: Some(activity), started: Instant::now() })
    }
}

impl std::fmt::Debug for ActivityLayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActivityLayer").field("recorder", &self.recorder).finish_non_exhaustive()
    }
}

impl<S> Layer<S> for ActivityLayer {
    type Service = ActivityService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ActivityService { inner, layer: self.clone() }
    }
}

/// A service whose requests are recorded.
///
/// ```
/// use http::{Request, Response};
/// use tidings_tower::{ActivityService, RecordedFuture};
/// use tower_service::Service;
///
/// /// For a service that wraps this one: the types of what it holds and answers.
/// fn call<S>(service: &mut ActivityService<S>, request: Request<String>) -> RecordedFuture<S::Future>
/// where
///     S: Service<Request<String>, Response = Response<String>>,
/// {
///     service.call(request)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct ActivityService<S> {
    inner: S,
    layer: ActivityLayer,
}

impl<S, B, C> Service<Request<B>> for ActivityService<S>
where
    S: Service<Request<B>, Response = Response<C>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = RecordedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let unfinished = self.layer.begin(&request);
        RecordedFuture { inner: self.inner.call(request), unfinished }
    }
}

pin_project! {
    /// A response to come, which is recorded when it has.
    #[derive(Debug)]
    pub struct RecordedFuture<F> {
        #[pin]
        inner: F,
        unfinished: Option<Unfinished>,
    }
}

impl<F, C, E> Future for RecordedFuture<F>
where
    F: Future<Output = Result<Response<C>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(context));
        if let Some(unfinished) = this.unfinished.take() {
            unfinished.end(result.as_ref().ok().map(|response| response.status().as_u16()));
        }
        Poll::Ready(result)
    }
}

/// A request without a response. Dropped, it was given up: the client is gone.
#[derive(Debug)]
struct Unfinished {
    layer: ActivityLayer,
    activity: Option<Activity>,
    started: Instant,
}

impl Unfinished {
    fn end(mut self, status: Option<u16>) {
        let is_success = status.is_some_and(|status| status < 400);
        if is_success && !self.layer.takes_success() {
            self.activity = None;
            return;
        }
        self.record(if is_success { "success" } else { "failure" }, status);
    }

    fn record(&mut self, outcome: &str, status: Option<u16>) {
        let Some(mut activity) = self.activity.take() else { return };
        if let Some(status) = status {
            activity = activity.metadata("status", status);
        }
        let milliseconds = self.started.elapsed().as_micros() as f64 / 1000.0;
        self.layer
            .recorder
            .record(activity.metadata("outcome", outcome).metadata("duration_ms", milliseconds));
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.record("aborted", None);
    }
}
