//! The executable as people use it: its help, its refusals, and its commands against a running platform.

mod help;
mod refusals;
mod round_trip;
mod support;
