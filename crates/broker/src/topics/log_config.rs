//! From topic configs to what the log is told.
//!
//! Owns the mapping by name. Configs that the log does not know are kept and described, but have no effect yet:
//! `docs/compat.md` lists them. Invariant: what the coordinators keep is compacted and never deleted, whatever the configs
//! of their topics say.

use tidings_log::batch::{Compression, TimestampType};
use tidings_log::{CleanupPolicy, LogConfig};

use crate::settings::BrokerSettings;
use crate::settings::topic::{EffectiveConfigs, TopicOverrides};
use crate::topics::names;

/// The log's settings of a topic.
pub(crate) fn of(topic: &str, overrides: &TopicOverrides, settings: &BrokerSettings) -> LogConfig {
    let configs = EffectiveConfigs { overrides, settings };
    // The table's checks keep these between 0 and i32::MAX.
    let bytes = |name| u32::try_from(configs.long(name)).unwrap_or(u32::MAX);
    let policy = configs.text("cleanup.policy");
    let has = |policy_name: &str| policy.split(',').any(|item| item.trim() == policy_name);
    let cleanup = CleanupPolicy { delete: has("delete"), compact: has("compact") };
    LogConfig {
        cleanup: if names::is_internal(topic) { CleanupPolicy::COMPACT } else { cleanup },
        retention_ms: configs.long("retention.ms"),
        retention_bytes: configs.long("retention.bytes"),
        file_delete_delay_ms: configs.long("file.delete.delay.ms"),
        delete_retention_ms: configs.long("delete.retention.ms"),
        min_compaction_lag_ms: configs.long("min.compaction.lag.ms"),
        max_compaction_lag_ms: configs.long("max.compaction.lag.ms"),
        min_cleanable_dirty_ratio: configs.text("min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
        segment_bytes: bytes("segment.bytes"),
        segment_ms: configs.long("segment.ms"),
        segment_jitter_ms: configs.long("segment.jitter.ms"),
        segment_index_bytes: bytes("segment.index.bytes"),
        index_interval_bytes: bytes("index.interval.bytes"),
        max_message_bytes: bytes("max.message.bytes"),
        compression: match &*configs.text("compression.type") {
            "uncompressed" => Some(Compression::None),
            "gzip" => Some(Compression::Gzip),
            "snappy" => Some(Compression::Snappy),
            "lz4" => Some(Compression::Lz4),
            "zstd" => Some(Compression::Zstd),
            _ => None,
        },
        timestamp_type: match &*configs.text("message.timestamp.type") {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        timestamp_before_max_ms: configs.long("message.timestamp.before.max.ms"),
        timestamp_after_max_ms: configs.long("message.timestamp.after.max.ms"),
        flush_messages: configs.long("flush.messages"),
        flush_ms: configs.long("flush.ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_logs_own_but_for_what_may_go() {
        let with_defaults = |topic| of(topic, &TopicOverrides::new(), &BrokerSettings::default());
        let expected = |cleanup| LogConfig { cleanup, ..LogConfig::default() };
        assert_eq!(with_defaults("orders"), expected(CleanupPolicy::DELETE));
        assert_eq!(with_defaults(names::OFFSETS_TOPIC), expected(CleanupPolicy::COMPACT));
    }

    #[test]
    fn a_policy_may_be_both_and_is_ignored_for_what_the_coordinators_keep() {
        let overrides = TopicOverrides::from([("cleanup.policy".into(), "compact, delete".into())]);
        let cleanup = |topic| of(topic, &overrides, &BrokerSettings::default()).cleanup;
        assert_eq!(cleanup("orders"), CleanupPolicy { delete: true, compact: true });
        assert_eq!(cleanup(names::TRANSACTIONS_TOPIC), CleanupPolicy::COMPACT);
    }
}
