//! Configs of groups: which there are, and between which bounds the broker lets them be.
//!
//! Owns the table with Kafka's names and broker-level synonyms, and the rule that binds the timeouts to the broker's bounds
//! and to each other, for the broker's own defaults as well. Does not keep what is set.

use super::BrokerSettings;
use super::definition::{Definition, Kind, SettingError};
use super::topic::{TopicOverrides, effective};

/// Every config of a group, by name.
pub(crate) const GROUP_DEFINITIONS: &[Definition] = &[
    group(HEARTBEAT_INTERVAL_MS, "5000", &[("group.consumer.heartbeat.interval.ms", 1)]),
    group(SESSION_TIMEOUT_MS, "45000", &[("group.consumer.session.timeout.ms", 1)]),
];

pub(crate) const HEARTBEAT_INTERVAL_MS: &str = "consumer.heartbeat.interval.ms";
pub(crate) const SESSION_TIMEOUT_MS: &str = "consumer.session.timeout.ms";

const fn group(
    name: &'static str,
    default: &'static str,
    synonyms: &'static [(&'static str, i64)],
) -> Definition {
    Definition { name, kind: Kind::int(1), default, synonyms }
}

/// Checks the timeouts that a group with these configs has against the broker's bounds, and against each other: a member
/// must be heard of before its session ends.
pub(crate) fn check_timeouts(
    configs: &TopicOverrides,
    settings: &BrokerSettings,
) -> Result<(), SettingError> {
    let [heartbeat, session] = GROUP_DEFINITIONS else { unreachable!("the table has two rows") };
    let value = |definition: &'static Definition| effective(definition, configs, settings).0.into_owned();
    let (heartbeat_ms, session_ms) = (value(heartbeat), value(session));
    let bounds = [
        (
            heartbeat,
            &heartbeat_ms,
            "group.consumer.min.heartbeat.interval.ms",
            "group.consumer.max.heartbeat.interval.ms",
        ),
        (
            session,
            &session_ms,
            "group.consumer.min.session.timeout.ms",
            "group.consumer.max.session.timeout.ms",
        ),
    ];
    for (definition, found, min, max) in bounds {
        let allowed = settings.long(min)..=settings.long(max);
        if !found.parse().is_ok_and(|found: i64| allowed.contains(&found)) {
            let expected = format!("a number from {min} = {} to {max} = {}", allowed.start(), allowed.end());
            return Err(SettingError::Invalid {
                key: definition.name.to_owned(),
                expected,
                found: found.clone(),
            });
        }
    }
    if session_ms.parse::<i64>().ok() <= heartbeat_ms.parse::<i64>().ok() {
        let expected = format!("a number greater than {HEARTBEAT_INTERVAL_MS} = {heartbeat_ms}");
        return Err(SettingError::Invalid { key: session.name.to_owned(), expected, found: session_ms });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&str, &str)], settings: &[(&str, &str)]) -> Result<(), String> {
        let configs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let settings = BrokerSettings::parse(settings.iter().copied()).map_err(|error| error.to_string())?;
        check_timeouts(&configs, &settings).map_err(|error| error.to_string())
    }

    #[test]
    fn timeouts_lie_between_the_brokers_bounds() {
        assert_eq!(check(&[], &[]), Ok(()));
        assert_eq!(check(&[(SESSION_TIMEOUT_MS, "60000"), (HEARTBEAT_INTERVAL_MS, "15000")], &[]), Ok(()));
        let refused = check(&[(SESSION_TIMEOUT_MS, "60001")], &[]).unwrap_err();
        assert_eq!(
            refused,
            "setting consumer.session.timeout.ms: expected a number from group.consumer.min.session.timeout.ms = 45000 to \
             group.consumer.max.session.timeout.ms = 60000, found \"60001\""
        );
        let wider = [
            ("group.consumer.min.session.timeout.ms", "1"),
            ("group.consumer.max.heartbeat.interval.ms", "99999"),
        ];
        assert_eq!(check(&[(SESSION_TIMEOUT_MS, "6000")], &wider), Ok(()));
        assert!(check(&[(SESSION_TIMEOUT_MS, "5000")], &wider).is_err());
    }

    #[test]
    fn the_brokers_own_defaults_are_bound_as_well() {
        assert!(check(&[], &[("group.consumer.session.timeout.ms", "1000")]).is_err());
        let lower = [
            ("group.consumer.min.session.timeout.ms", "9000"),
            ("group.consumer.session.timeout.ms", "9000"),
        ];
        assert_eq!(check(&[], &lower), Ok(()));
    }
}
