//! The broker: listener, one handler file per API, topics, fetch waiters.
