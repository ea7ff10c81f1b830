//! HTTP server, metrics, health and the failure inbox API.
