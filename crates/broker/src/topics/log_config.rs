//! From topic configs to what the log is told.
//!
//! Owns the mapping by name. Configs that the log does not know are kept and described, but have no effect yet:
//! `docs/compat.md` lists them.

use tidings_log::LogConfig;
use tidings_log::batch::TimestampType;

use crate::settings::BrokerSettings;
use crate::settings::topic::{EffectiveConfigs, TopicOverrides};

/// The log's settings of a topic.
pub(crate) fn of(overrides: &TopicOverrides, settings: &BrokerSettings) -> LogConfig {
    let configs = EffectiveConfigs { overrides, settings };
    // The table's checks keep these between 0 and i32::MAX.
    let bytes = |name| u32::try_from(configs.long(name)).unwrap_or(u32::MAX);
    LogConfig {
        segment_bytes: bytes("segment.bytes"),
        segment_ms: configs.long("segment.ms"),
        segment_index_bytes: bytes("segment.index.bytes"),
        index_interval_bytes: bytes("index.interval.bytes"),
        max_message_bytes: bytes("max.message.bytes"),
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
    fn defaults_are_the_logs_own() {
        assert_eq!(of(&TopicOverrides::new(), &BrokerSettings::default()), LogConfig::default());
    }
}
