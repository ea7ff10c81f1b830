//! The broker seen from a socket, with the wire crate as the client.

mod admin;
<<<<<<< HEAD
mod consumer_groups;
mod fetch_sessions;
=======
mod any_request;
>>>>>>> logops
mod groups;
mod harness;
mod lifecycle;
mod malformed;
mod memory;
mod produce_fetch;
<<<<<<< HEAD
mod retention;
=======
mod reference;
>>>>>>> logops
mod storage;
mod transactions;
mod versions;
