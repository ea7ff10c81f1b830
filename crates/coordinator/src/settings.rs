//! The settings of the group coordinator, each under Kafka's name.
//!
//! Owns the defaults. Does not parse: the broker's settings do.

use crate::{Assignor, MigrationPolicy};

/// What the operator can set about groups and offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSettings {
    /// `group.min.session.timeout.ms`: a JoinGroup with a smaller session timeout is refused.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`: a JoinGroup with a larger session timeout is refused.
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members; 0 here, 3000 in Kafka.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: how many members a group may have.
    pub max_size: usize,
    /// `offset.metadata.max.bytes`: the longest metadata string that a committed offset may carry.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes` in milliseconds: how long the offsets of a group without members are kept.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`: how often expired offsets and dead groups are looked for.
    pub offsets_retention_check_interval_ms: i64,
    /// What is about groups of the consumer protocol.
    pub consumer: ConsumerGroupSettings,
}

/// What the operator can set about groups of the consumer protocol (KIP-848).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupSettings {
    /// What holds for a group that has no configs of its own.
    pub timeouts: ConsumerGroupTimeouts,
    /// `group.consumer.max.size`: how many members a group may have.
    pub max_size: usize,
    /// `group.consumer.assignors`: the first is for groups whose members do not ask for one. Not empty.
    pub assignors: Vec<Assignor>,
    /// `group.consumer.migration.policy`: which way a group may change its protocol while it has members.
    pub migration_policy: MigrationPolicy,
}

/// How often the members of a consumer group send heartbeats, and how long they may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerGroupTimeouts {
    /// `group.consumer.session.timeout.ms`.
    pub session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`.
    pub heartbeat_interval_ms: i32,
}

impl Default for ConsumerGroupSettings {
    fn default() -> Self {
        Self {
            timeouts: ConsumerGroupTimeouts { session_timeout_ms: 45_000, heartbeat_interval_ms: 5_000 },
            max_size: i32::MAX as usize,
            assignors: Assignor::ALL.to_vec(),
            migration_policy: MigrationPolicy::default(),
        }
    }
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 0,
            max_size: i32::MAX as usize,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 10 * 60 * 1_000,
            consumer: ConsumerGroupSettings::default(),
        }
    }
}
