//! Topic configs: the overrides a topic carries, and what is in force once the broker's defaults are filled in.
//!
//! Owns the table of topic configs with Kafka's names, defaults and broker-level synonyms. It does not store them (the
//! topic registry does, as ConfigRecords) nor apply them (the log does).

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::BrokerSettings;
use super::definition::{Definition, Kind, SettingError, find};

/// The overrides of one topic by name; values were checked.
pub(crate) type TopicOverrides = BTreeMap<String, String>;

const fn topic(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    synonyms: &'static [(&'static str, i64)],
) -> Definition {
    Definition { name, kind, default, synonyms }
}

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
const MAX_LONG: &str = "9223372036854775807";
const MAX_COMPACTION_LAG_MS: &str = "max.compaction.lag.ms";
const MIN_COMPACTION_LAG_MS: &str = "min.compaction.lag.ms";

/// Every topic config the broker knows, by name.
pub(crate) const TOPIC_DEFINITIONS: &[Definition] = &[
    topic("cleanup.policy", Kind::AnyOf(&["delete", "compact"]), "delete", &[("log.cleanup.policy", 1)]),
    topic(
        "compression.type",
        Kind::OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "producer",
        &[("compression.type", 1)],
    ),
    topic("delete.retention.ms", Kind::long(0), "86400000", &[("log.cleaner.delete.retention.ms", 1)]),
    topic("file.delete.delay.ms", Kind::long(0), "60000", &[("log.segment.delete.delay.ms", 1)]),
    topic("flush.messages", Kind::long(1), MAX_LONG, &[("log.flush.interval.messages", 1)]),
    topic("flush.ms", Kind::long(0), MAX_LONG, &[("log.flush.interval.ms", 1)]),
    topic("index.interval.bytes", Kind::int(0), "4096", &[("log.index.interval.bytes", 1)]),
    topic(MAX_COMPACTION_LAG_MS, Kind::long(1), MAX_LONG, &[("log.cleaner.max.compaction.lag.ms", 1)]),
    topic("max.message.bytes", Kind::int(0), "1048588", &[("message.max.bytes", 1)]),
    topic(
        "message.timestamp.after.max.ms",
        Kind::long(0),
        "3600000",
        &[("log.message.timestamp.after.max.ms", 1)],
    ),
    topic(
        "message.timestamp.before.max.ms",
        Kind::long(0),
        MAX_LONG,
        &[("log.message.timestamp.before.max.ms", 1)],
    ),
    topic(
        "message.timestamp.type",
        Kind::OneOf(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        &[("log.message.timestamp.type", 1)],
    ),
    topic(
        "min.cleanable.dirty.ratio",
        Kind::Double { min: 0.0, max: 1.0 },
        "0.5",
        &[("log.cleaner.min.cleanable.ratio", 1)],
    ),
    topic(MIN_COMPACTION_LAG_MS, Kind::long(0), "0", &[("log.cleaner.min.compaction.lag.ms", 1)]),
    topic("min.insync.replicas", Kind::int(1), "1", &[("min.insync.replicas", 1)]),
    topic("preallocate", Kind::Boolean, "false", &[("log.preallocate", 1)]),
    topic("retention.bytes", Kind::long(i64::MIN), "-1", &[("log.retention.bytes", 1)]),
    topic(
        "retention.ms",
        Kind::long(-1),
        "604800000",
        &[("log.retention.ms", 1), ("log.retention.minutes", MINUTE_MS), ("log.retention.hours", HOUR_MS)],
    ),
    topic("segment.bytes", Kind::int(1_048_576), "1073741824", &[("log.segment.bytes", 1)]),
    topic("segment.index.bytes", Kind::int(4), "10485760", &[("log.index.size.max.bytes", 1)]),
    topic(
        "segment.jitter.ms",
        Kind::long(0),
        "0",
        &[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", HOUR_MS)],
    ),
    topic("segment.ms", Kind::long(1), "604800000", &[("log.roll.ms", 1), ("log.roll.hours", HOUR_MS)]),
    topic("unclean.leader.election.enable", Kind::Boolean, "false", &[("unclean.leader.election.enable", 1)]),
];

/// Where a topic config's value comes from, in DescribeConfigs' terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigSource {
    Topic,
    Group,
    StaticBroker,
    Default,
}

impl ConfigSource {
    /// The code in a DescribeConfigs answer.
    pub(crate) fn code(self) -> i8 {
        match self {
            ConfigSource::Topic => 1,
            ConfigSource::Group => 8,
            ConfigSource::StaticBroker => 4,
            ConfigSource::Default => 5,
        }
    }
}

/// Checks one topic config given by a client; returns the text to keep.
pub(crate) fn check_topic_config(key: &str, value: &str) -> Result<String, SettingError> {
    match find(TOPIC_DEFINITIONS, key) {
        Some(definition) => definition.check(value),
        None => Err(SettingError::Unknown { key: key.to_owned(), found: value.to_owned() }),
    }
}

/// Checks that a topic with these configs need not compact a record before it may.
pub(crate) fn check_compaction_lags(
    overrides: &TopicOverrides,
    settings: &BrokerSettings,
) -> Result<(), SettingError> {
    let configs = EffectiveConfigs { overrides, settings };
    let (min_ms, max_ms) = (configs.long(MIN_COMPACTION_LAG_MS), configs.long(MAX_COMPACTION_LAG_MS));
    if min_ms <= max_ms {
        return Ok(());
    }
    Err(SettingError::Invalid {
        key: MIN_COMPACTION_LAG_MS.to_owned(),
        expected: format!("a number of at most {MAX_COMPACTION_LAG_MS} = {max_ms}"),
        found: min_ms.to_string(),
    })
}

/// The value in force of a topic config, and where it comes from.
pub(crate) fn effective<'a>(
    definition: &'static Definition,
    overrides: &'a TopicOverrides,
    settings: &'a BrokerSettings,
) -> (Cow<'a, str>, ConfigSource) {
    if let Some(value) = overrides.get(definition.name) {
        return (Cow::Borrowed(value.as_str()), ConfigSource::Topic);
    }
    for (synonym, unit) in definition.synonyms {
        if let Some(value) = settings.explicit(synonym) {
            return (in_milliseconds(value, *unit), ConfigSource::StaticBroker);
        }
    }
    (Cow::Borrowed(definition.default), ConfigSource::Default)
}

fn in_milliseconds(value: &str, unit: i64) -> Cow<'_, str> {
    match value.parse::<i64>() {
        // A negative retention means "for ever" in every unit.
        Ok(number) if unit != 1 => {
            Cow::Owned(if number < 0 { -1 } else { number.saturating_mul(unit) }.to_string())
        }
        _ => Cow::Borrowed(value),
    }
}

/// The configs in force for one topic, read by name with their type.
pub(crate) struct EffectiveConfigs<'a> {
    pub(crate) overrides: &'a TopicOverrides,
    pub(crate) settings: &'a BrokerSettings,
}

impl EffectiveConfigs<'_> {
    /// The text in force; an empty text for a name that is not in the table.
    pub(crate) fn text(&self, name: &str) -> Cow<'_, str> {
        match find(TOPIC_DEFINITIONS, name) {
            Some(definition) => effective(definition, self.overrides, self.settings).0,
            None => Cow::Borrowed(""),
        }
    }

    /// A whole number; the table's checks make the parse succeed.
    pub(crate) fn long(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_passes_its_own_check() {
        for definition in TOPIC_DEFINITIONS {
            assert_eq!(definition.check(definition.default), Ok(definition.default.to_owned()));
            assert_eq!(definition.kind.described(definition.default), definition.default);
        }
    }

    #[test]
    fn what_may_be_compacted_must_not_be_due_before() {
        let check = |pairs: &[(&str, &str)], settings: &[(&str, &str)]| {
            let overrides =
                pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            let settings =
                BrokerSettings::parse(settings.iter().copied()).map_err(|error| error.to_string())?;
            check_compaction_lags(&overrides, &settings).map_err(|error| error.to_string())
        };
        let refused = "setting min.compaction.lag.ms: expected a number of at most max.compaction.lag.ms = 50, found \"100\"";
        let (min, max) = ((MIN_COMPACTION_LAG_MS, "100"), (MAX_COMPACTION_LAG_MS, "50"));
        assert_eq!(check(&[min, max], &[]), Err(refused.to_owned()));
        assert_eq!(check(&[min], &[]), Ok(()));
        assert_eq!(check(&[min, (MAX_COMPACTION_LAG_MS, "100")], &[]), Ok(()));
        // The broker's own defaults count as well, and are bound themselves.
        let (broker_min, broker_max) =
            (("log.cleaner.min.compaction.lag.ms", "100"), ("log.cleaner.max.compaction.lag.ms", "50"));
        assert_eq!(check(&[min], &[broker_max]), Err(refused.to_owned()));
        assert_eq!(check(&[], &[broker_min, broker_max]), Err(refused.to_owned()));
    }

    #[test]
    fn retention_bytes_may_be_any_number() {
        for text in ["-5", "-9223372036854775808", "0", MAX_LONG] {
            assert_eq!(check_topic_config("retention.bytes", text), Ok(text.to_owned()));
        }
        assert!(check_topic_config("retention.bytes", "-9223372036854775809").is_err());
    }

    #[test]
    fn a_topic_override_wins_over_the_broker_setting_over_the_default() {
        let mut overrides = TopicOverrides::new();
        let settings = BrokerSettings::parse([("log.retention.hours", "2")]).unwrap();
        let value = |overrides: &TopicOverrides| {
            EffectiveConfigs { overrides, settings: &settings }.long("retention.ms")
        };
        assert_eq!(value(&overrides), 2 * HOUR_MS);
        overrides.insert("retention.ms".into(), "5".into());
        assert_eq!(value(&overrides), 5);
        let defaults = BrokerSettings::default();
        let configs = EffectiveConfigs { overrides: &TopicOverrides::new(), settings: &defaults };
        assert_eq!(configs.long("retention.ms"), 604_800_000);
    }
}
