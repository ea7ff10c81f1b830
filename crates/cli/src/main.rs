//! The `tidings` executable.

fn main() {}
