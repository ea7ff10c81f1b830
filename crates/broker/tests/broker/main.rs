//! The broker seen from a socket, with the wire crate as the client.

mod admin;
mod any_request;
mod consumer_groups;
mod fetch_sessions;
mod groups;
mod harness;
mod lifecycle;
mod malformed;
mod memory;
mod produce_fetch;
mod reference;
mod retention;
mod storage;
mod transactions;
mod versions;
