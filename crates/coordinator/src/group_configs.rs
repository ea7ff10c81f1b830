//! What the coordinator must know of the configs that groups have of their own.
//!
//! Owns the question only; the broker answers it from what it keeps, tests from a map. An answer may change at any time and
//! counts from a member's next heartbeat on.

use crate::ConsumerGroupTimeouts;

/// The timeouts that a consumer group was given; none where the settings' hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupTimeouts {
    /// `consumer.session.timeout.ms`.
    pub session_timeout_ms: Option<i32>,
    /// `consumer.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: Option<i32>,
}

impl GroupTimeouts {
    /// What holds for the group.
    #[must_use]
    pub fn or(self, settings: ConsumerGroupTimeouts) -> ConsumerGroupTimeouts {
        ConsumerGroupTimeouts {
            session_timeout_ms: self.session_timeout_ms.unwrap_or(settings.session_timeout_ms),
            heartbeat_interval_ms: self.heartbeat_interval_ms.unwrap_or(settings.heartbeat_interval_ms),
        }
    }
}

/// The configs of groups now.
pub trait GroupConfigs: Send + Sync {
    /// The timeouts that a group was given.
    fn consumer_timeouts(&self, group_id: &str) -> GroupTimeouts;
}

/// No group has configs of its own: what a coordinator starts with.
#[derive(Debug)]
pub(crate) struct NoGroupConfigs;

impl GroupConfigs for NoGroupConfigs {
    fn consumer_timeouts(&self, _group_id: &str) -> GroupTimeouts {
        GroupTimeouts::default()
    }
}
