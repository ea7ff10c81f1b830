//! Group state machines; no I/O, receives now.
