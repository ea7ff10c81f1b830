//! The activity stream: who did what, when.
//!
//! Activities come in over HTTP, go durably through a topic as CloudEvents, are stored once each by the group
//! `activity-writer`, and are found again by query. Owns the model, its rules and its wire form, the way in, the
//! writer, the stores and the routes. Invariant: what a caller was told is accepted is in the topic, synced, or, while the
//! cluster takes nothing, in the store or the spool, from where the topic gets it later; what is in the topic is stored
//! once, or lies in the failure inbox with the reason. It knows nothing of the broker behind the
//! address it is given.

mod columns;
mod object;

pub mod activity;
mod alive;
mod answers;
mod api;
mod background;
pub mod cloud_event;
mod csv;
pub mod cursor;
pub mod diagnose;
pub mod erasure;
pub mod fallback;
mod fill;
mod housekeeper;
pub mod idempotency;
pub mod ingest;
mod instance;
pub mod limits;
pub mod lines;
pub mod live;
pub mod metrics;
mod only_instance;
pub mod postgres;
pub mod publisher;
pub mod query;
mod result_queue;
pub mod retention;
mod retry;
pub mod rules;
pub mod service;
pub mod spool;
pub mod sqlite;
pub mod store;
mod store_options;
pub mod submission;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod text;
pub mod timestamp;
pub mod writer;

pub use activity::{Activity, Context, Draft, Entity, Metadata};
pub use instance::INSTANCE_FILE;
pub use metrics::ActivityMetrics;
pub use only_instance::OnlyInstanceError;
pub use retention::Retention;
pub use service::{ActivityCopier, ActivityOptions, ActivityService, StartError};
pub use store::Store;
pub use store_options::StoreOptions;
pub use timestamp::Timestamp;
