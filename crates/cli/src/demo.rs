//! The demo: real flights played through the platform as its users would, and checked in the store.
//!
//! Reading order: `dataset` (where the rows come from), `flights` and `zones` (a row becomes events), `playback` (the order
//! of their report), `player` (sending them), `progress`, `verify`, `summary`, `queries`.

pub mod dataset;
pub mod flights;
pub mod playback;
pub mod player;
pub mod progress;
pub mod queries;
pub mod summary;
pub mod verify;
pub mod zones;
