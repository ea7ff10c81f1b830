//! The demo.

pub mod dataset;
pub mod flights;
pub mod playback;
pub mod zones;
