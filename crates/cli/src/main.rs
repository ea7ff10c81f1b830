//! The `tidings` executable.
mod args;
mod config;
mod demo;
fn main() {}
