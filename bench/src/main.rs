//! Benchmark drivers.

fn main() {}
