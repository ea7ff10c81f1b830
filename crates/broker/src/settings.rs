//! The broker's settings: Kafka's names, types and defaults.
//!
//! Owns which settings exist and what an unset one is worth. Where a single node wants another default than Kafka
//! (`offsets.topic.num.partitions`, replication factors, `group.initial.rebalance.delay.ms`), `docs/compat.md` says so.
//! A setting that would have no effect is not in the table, so that nobody relies on it. It reads no file and no
//! environment: the caller hands in pairs.

use std::collections::BTreeMap;

pub(crate) mod definition;
pub(crate) mod group;
pub(crate) mod topic;

pub use definition::SettingError;
use definition::{Definition, Kind, find};
use topic::TopicOverrides;

const fn broker(name: &'static str, kind: Kind, default: &'static str) -> Definition {
    Definition { name, kind, default, synonyms: &[] }
}

const MAX_INT: &str = "2147483647";
const MAX_LONG: &str = "9223372036854775807";

/// Every broker setting, by name.
pub(crate) const BROKER_DEFINITIONS: &[Definition] = &[
    broker("auto.create.topics.enable", Kind::Boolean, "true"),
    broker(
        "compression.type",
        Kind::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
    ),
    broker("connections.max.idle.ms", Kind::long(-1), "600000"),
    broker("default.replication.factor", Kind::Int { min: 1, max: 1 }, "1"),
    broker("delete.topic.enable", Kind::Boolean, "true"),
    broker("durability", Kind::OneOf(&["power", "process"]), "power"),
    broker("fetch.max.bytes", Kind::int(1024), "57671680"),
    broker("group.consumer.assignors", Kind::ListOf(&["uniform", "range"]), "uniform,range"),
    broker("group.consumer.heartbeat.interval.ms", Kind::int(1), "5000"),
    broker("group.consumer.max.heartbeat.interval.ms", Kind::int(1), "15000"),
    broker("group.consumer.max.session.timeout.ms", Kind::int(1), "60000"),
    broker("group.consumer.max.size", Kind::int(1), MAX_INT),
    broker(
        "group.consumer.migration.policy",
        Kind::OneOf(&["bidirectional", "upgrade", "downgrade", "disabled"]),
        "bidirectional",
    ),
    broker("group.consumer.min.heartbeat.interval.ms", Kind::int(1), "5000"),
    broker("group.consumer.min.session.timeout.ms", Kind::int(1), "45000"),
    broker("group.consumer.session.timeout.ms", Kind::int(1), "45000"),
    broker("group.initial.rebalance.delay.ms", Kind::int(0), "0"),
    broker("group.max.session.timeout.ms", Kind::int(1), "1800000"),
    broker("group.max.size", Kind::int(1), MAX_INT),
    broker("group.min.session.timeout.ms", Kind::int(1), "6000"),
    broker("log.cleaner.backoff.ms", Kind::long(0), "15000"),
    broker("log.cleaner.dedupe.buffer.size", Kind::Long { min: 1_048_576, max: 1 << 40 }, "33554432"),
    broker("log.cleaner.delete.retention.ms", Kind::long(0), "86400000"),
    broker("log.cleaner.max.compaction.lag.ms", Kind::long(1), MAX_LONG),
    broker("log.cleaner.min.cleanable.ratio", Kind::Double { min: 0.0, max: 1.0 }, "0.5"),
    broker("log.cleaner.min.compaction.lag.ms", Kind::long(0), "0"),
    broker("log.cleanup.policy", Kind::ListOf(&["delete", "compact"]), "delete"),
    broker("log.flush.interval.messages", Kind::long(1), MAX_LONG),
    broker("log.flush.interval.ms", Kind::long(0), ""),
    broker("log.index.interval.bytes", Kind::int(0), "4096"),
    broker("log.index.size.max.bytes", Kind::int(4), "10485760"),
    broker("log.message.timestamp.after.max.ms", Kind::long(0), "3600000"),
    broker("log.message.timestamp.before.max.ms", Kind::long(0), MAX_LONG),
    broker("log.message.timestamp.type", Kind::OneOf(&["CreateTime", "LogAppendTime"]), "CreateTime"),
    broker("log.min.free.bytes", Kind::long(-1), "-1"),
    broker("log.preallocate", Kind::Boolean, "false"),
    broker("log.retention.bytes", Kind::long(i64::MIN), "-1"),
    broker("log.retention.check.interval.ms", Kind::long(1), "300000"),
    broker("log.retention.hours", Kind::int(-1), "168"),
    broker("log.retention.minutes", Kind::int(-1), ""),
    broker("log.retention.ms", Kind::long(-1), ""),
    broker("log.roll.hours", Kind::int(1), "168"),
    broker("log.roll.jitter.hours", Kind::int(0), "0"),
    broker("log.roll.jitter.ms", Kind::long(0), ""),
    broker("log.roll.ms", Kind::long(1), ""),
    broker("log.segment.bytes", Kind::int(1_048_576), "1073741824"),
    broker("log.segment.delete.delay.ms", Kind::long(0), "60000"),
    broker("max.connections", Kind::int(0), MAX_INT),
    broker("max.incremental.fetch.session.cache.slots", Kind::int(0), "1000"),
    broker("message.max.bytes", Kind::int(0), "1048588"),
    broker("min.insync.replicas", Kind::int(1), "1"),
    broker("node.id", Kind::int(0), "1"),
    broker("num.partitions", Kind::int(1), "1"),
    broker("offset.metadata.max.bytes", Kind::int(0), "4096"),
    broker("offsets.retention.check.interval.ms", Kind::long(1), "600000"),
    broker("offsets.retention.minutes", Kind::int(1), "10080"),
    broker("offsets.topic.num.partitions", Kind::int(1), "1"),
    broker("offsets.topic.replication.factor", Kind::Int { min: 1, max: 1 }, "1"),
    broker("offsets.topic.segment.bytes", Kind::int(1_048_576), "104857600"),
    broker("producer.id.expiration.ms", Kind::int(1), "86400000"),
    broker("queued.max.request.bytes", Kind::long(-1), "134217728"),
    broker("socket.request.max.bytes", Kind::int(1), "104857600"),
    broker("socket.sendfile.min.bytes", Kind::int(0), "16384"),
    broker("transaction.abort.timed.out.transaction.cleanup.interval.ms", Kind::int(1), "10000"),
    broker("transaction.max.timeout.ms", Kind::int(1), "900000"),
    broker("transaction.remove.expired.transaction.cleanup.interval.ms", Kind::int(1), "3600000"),
    broker("transaction.state.log.num.partitions", Kind::int(1), "1"),
    broker("transaction.state.log.replication.factor", Kind::Int { min: 1, max: 1 }, "1"),
    broker("transaction.state.log.segment.bytes", Kind::int(1_048_576), "104857600"),
    broker("transactional.id.expiration.ms", Kind::int(1), "604800000"),
    broker("unclean.leader.election.enable", Kind::Boolean, "false"),
];

/// The settings a broker runs with; `Default` is Kafka's default for everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerSettings {
    explicit: BTreeMap<&'static str, String>,
}

impl BrokerSettings {
    /// Checks pairs of Kafka setting names and values; a later pair replaces an earlier one of the same name.
    pub fn parse<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<BrokerSettings, SettingError>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let mut settings = BrokerSettings::default();
        for (key, value) in pairs {
            let (key, value) = (key.as_ref().trim(), value.as_ref());
            let definition = find(BROKER_DEFINITIONS, key)
                .ok_or_else(|| SettingError::Unknown { key: key.to_owned(), found: value.to_owned() })?;
            settings.explicit.insert(definition.name, definition.check(value)?);
        }
        group::check_timeouts(&TopicOverrides::new(), &settings)?;
        topic::check_compaction_lags(&TopicOverrides::new(), &settings)?;
        Ok(settings)
    }

    /// The value given for a setting, if one was.
    pub(crate) fn explicit(&self, name: &str) -> Option<&str> {
        self.explicit.get(name).map(String::as_str)
    }

    /// The value in force; empty for a setting without a default.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.explicit(name)
            .or_else(|| find(BROKER_DEFINITIONS, name).map(|definition| definition.default))
            .unwrap_or("")
    }

    /// A whole number in force. The table's checks make the parse succeed.
    pub(crate) fn long(&self, name: &str) -> i64 {
        debug_assert!(find(BROKER_DEFINITIONS, name).is_some(), "no setting {name}");
        self.value(name).parse().unwrap_or_default()
    }

    /// A whole number in force that is at most `i32::MAX`.
    pub(crate) fn int(&self, name: &str) -> i32 {
        i32::try_from(self.long(name)).unwrap_or(i32::MAX)
    }

    /// A switch in force.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.value(name).eq_ignore_ascii_case("true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_passes_its_own_check() {
        for definition in BROKER_DEFINITIONS.iter().filter(|definition| !definition.default.is_empty()) {
            assert_eq!(definition.check(definition.default), Ok(definition.default.to_owned()));
            assert_eq!(definition.kind.described(definition.default), definition.default);
        }
    }

    #[test]
    fn topic_synonyms_name_broker_settings() {
        for definition in topic::TOPIC_DEFINITIONS {
            for (synonym, _) in definition.synonyms {
                assert!(find(BROKER_DEFINITIONS, synonym).is_some(), "{synonym} of {}", definition.name);
            }
        }
    }

    #[test]
    fn errors_name_key_expected_and_found() {
        let error = |key, value| BrokerSettings::parse([(key, value)]).unwrap_err().to_string();
        assert_eq!(
            error("num.partitions", "four"),
            "setting num.partitions: expected a whole number of at least 1, found \"four\""
        );
        assert_eq!(
            error("default.replication.factor", "3"),
            "setting default.replication.factor: expected a whole number from 1 to 1, found \"3\""
        );
        assert_eq!(
            error("log.retention.bytes", "much"),
            "setting log.retention.bytes: expected a whole number, found \"much\""
        );
        assert_eq!(
            error("log.cleaner.max.compaction.lag.ms", "0"),
            "setting log.cleaner.max.compaction.lag.ms: expected a whole number of at least 1, found \"0\""
        );
        assert_eq!(error("num.partitionz", "4"), "unknown setting num.partitionz: found \"4\"");
        assert_eq!(
            error("auto.create.topics.enable", "yes"),
            "setting auto.create.topics.enable: expected true or false, found \"yes\""
        );
    }

    #[test]
    fn explicit_values_win_and_the_last_one_counts() {
        let settings = BrokerSettings::parse([("num.partitions", "2"), ("num.partitions", " 4 ")]).unwrap();
        assert_eq!(settings.int("num.partitions"), 4);
        assert_eq!(BrokerSettings::default().int("num.partitions"), 1);
        assert!(BrokerSettings::default().flag("auto.create.topics.enable"));
    }
}
