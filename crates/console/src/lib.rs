//! The console's HTTP server: one address for every service's API, metrics and health.
//!
//! Owns the listener, the guard in front of every route, `/metrics`, `/healthz`, `/readyz` and the failure inbox's API
//! under `/api/v1/dlq`. **Invariant:** no request reaches a route without passing the Host and Origin guard.
//!
//! It knows neither the broker nor a service: they hand in routes, metrics and health checks.

pub mod dlq;
pub mod health;
pub mod metrics;
pub mod server;

pub use health::HealthCheck;
pub use server::{Limits, Server, ServerError, ServerHandle, ServerOptions};
