//! Records who did what in an HTTP service as activities of a Tidings platform.
//!
//! A [`Recorder`] brings activities to the platform in the background; an [`ActivityLayer`] makes one of each request
//! of a `tower` service (axum, tonic, hyper). No request waits for the platform or fails with it.
//!
//! ```no_run
//! use axum::{Router, extract::MatchedPath, routing::post};
//! use tidings_tower::{Activity, ActivityLayer, Recorder, RecorderOptions, RequestHead};
//!
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! let recorder = Recorder::start("http://127.0.0.1:8080", RecorderOptions::default())?;
//! let describe = |request: RequestHead<'_>| {
//!     let route = request.extensions.get::<MatchedPath>().map(MatchedPath::as_str);
//!     let activity = Activity::new("acme", &request.action(route));
//!     // Requests of nobody are recorded, too.
//!     let user = request.headers.get("x-user").and_then(|user| user.to_str().ok());
//!     Some(activity.actor("user", user.unwrap_or_default()))
//! };
//! let app = Router::<()>::new()
//!     .route("/orders/{order}/pay", post(|| async { "paid" }))
//!     .layer(ActivityLayer::new(recorder.clone(), describe));
//! # let _ = app;
//! // After the server has ended:
//! recorder.close(std::time::Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```

mod activity;
mod layer;
mod recorder;
mod redact;
mod worker;

pub use activity::Activity;
pub use layer::{ActivityLayer, ActivityService, RecordedFuture, RequestHead};
pub use recorder::{BadAddress, Counts, Recorder, RecorderOptions};
pub use redact::REDACTED;
