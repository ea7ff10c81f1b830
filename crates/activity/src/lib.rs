//! The activity stream: who did what, when.
