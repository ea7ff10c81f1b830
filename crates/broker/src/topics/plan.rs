//! From what a client asks for to what will be created: defaults filled in, everything checked.
//!
//! Owns the validation of CreateTopics and CreatePartitions in Kafka's order, so that the same wrong request gets the
//! same code. Changes nothing.

use std::collections::BTreeSet;

use crate::settings::BrokerSettings;
use crate::settings::definition::{Definition, find};
use crate::settings::topic::{TopicOverrides, check_compaction_lags, check_topic_config};
use crate::settings::{SettingError, topic};
use crate::topics::error::TopicError;
use crate::topics::image::Image;
use crate::topics::names;

/// The most partitions one request may create (Kafka's MAX_PARTITIONS_PER_BATCH).
pub(crate) const MAX_PARTITIONS_PER_REQUEST: i32 = 10_000;

/// A topic as a client asks for it.
#[derive(Clone, Debug)]
pub(crate) struct NewTopic {
    pub(crate) name: String,
    /// -1 for `num.partitions`.
    pub(crate) partition_count: i32,
    /// -1 for `default.replication.factor`.
    pub(crate) replication_factor: i16,
    /// Partition and its brokers.
    pub(crate) assignments: Vec<(i32, Vec<i32>)>,
    pub(crate) configs: Vec<(String, Option<String>)>,
}

impl NewTopic {
    /// A topic with every default.
    pub(crate) fn with_defaults(name: &str) -> NewTopic {
        NewTopic {
            name: name.to_owned(),
            partition_count: -1,
            replication_factor: -1,
            assignments: Vec::new(),
            configs: Vec::new(),
        }
    }
}

/// A topic that may be created as it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlannedTopic {
    pub(crate) name: String,
    pub(crate) partition_count: i32,
    pub(crate) overrides: TopicOverrides,
}

/// Checks one new topic against the topics that exist.
pub(crate) fn plan_topic(
    new: &NewTopic,
    image: &Image,
    settings: &BrokerSettings,
    node_id: i32,
) -> Result<PlannedTopic, TopicError> {
    names::check_name(&new.name).map_err(TopicError::InvalidName)?;
    if new.name == names::METADATA_TOPIC {
        return Err(TopicError::Request(format!("Creation of internal topic {} is prohibited.", new.name)));
    }
    if image.by_name(&new.name).is_some() {
        return Err(TopicError::Exists { name: new.name.clone() });
    }
    if let Some(existing) = image.colliding(&new.name) {
        return Err(TopicError::Collides { name: new.name.clone(), existing: existing.to_owned() });
    }
    let overrides = check_configs(&new.configs)?;
    check_compaction_lags(&overrides, settings).map_err(TopicError::Config)?;
    let partition_count = plan_partitions(new, settings, node_id)?;
    Ok(PlannedTopic { name: new.name.clone(), partition_count, overrides })
}

fn plan_partitions(new: &NewTopic, settings: &BrokerSettings, node_id: i32) -> Result<i32, TopicError> {
    if !new.assignments.is_empty() {
        return plan_assignments(new, node_id);
    }
    if new.replication_factor < -1 || new.replication_factor == 0 {
        return Err(TopicError::ReplicationFactorNotPositive);
    }
    if new.partition_count < -1 || new.partition_count == 0 {
        return Err(TopicError::PartitionCount);
    }
    if new.replication_factor > 1 {
        return Err(TopicError::ReplicationFactorTooLarge { requested: new.replication_factor });
    }
    let count = if new.partition_count == -1 { settings.int("num.partitions") } else { new.partition_count };
    if count > MAX_PARTITIONS_PER_REQUEST { Err(TopicError::TooManyPartitions) } else { Ok(count) }
}

fn plan_assignments(new: &NewTopic, node_id: i32) -> Result<i32, TopicError> {
    let request = |what: &str| {
        TopicError::Request(format!(
            "A manual partition assignment was specified, but {what} was not set to -1."
        ))
    };
    if new.replication_factor != -1 {
        return Err(request("replication factor"));
    }
    if new.partition_count != -1 {
        return Err(request("numPartitions"));
    }
    let mut seen = BTreeSet::new();
    for (partition, brokers) in &new.assignments {
        if !seen.insert(*partition) {
            return Err(TopicError::Assignment(format!(
                "Found multiple manual partition assignments for partition {partition}"
            )));
        }
        check_brokers(brokers, node_id)?;
    }
    if seen.iter().zip(0..).any(|(found, expected)| *found != expected) {
        return Err(TopicError::Assignment(
            "partitions should be a consecutive 0-based integer sequence".to_owned(),
        ));
    }
    i32::try_from(seen.len())
        .ok()
        .filter(|count| *count <= MAX_PARTITIONS_PER_REQUEST)
        .ok_or(TopicError::TooManyPartitions)
}

/// Checks the brokers named for one partition: this is the only one there is.
pub(crate) fn check_brokers(brokers: &[i32], node_id: i32) -> Result<(), TopicError> {
    match brokers {
        [] => Err(TopicError::Assignment(
            "The manual partition assignment includes an empty replica list.".to_owned(),
        )),
        [broker] if *broker == node_id => Ok(()),
        [broker, rest @ ..] if *broker == node_id && rest.contains(broker) => Err(TopicError::Assignment(
            format!("The manual partition assignment includes the broker {broker} more than once."),
        )),
        _ => {
            let broker = brokers.iter().find(|broker| **broker != node_id).copied().unwrap_or_default();
            Err(TopicError::Assignment(format!(
                "The manual partition assignment includes broker {broker}, but no such broker is registered."
            )))
        }
    }
}

fn check_configs(configs: &[(String, Option<String>)]) -> Result<TopicOverrides, TopicError> {
    let nulls: Vec<&str> =
        configs.iter().filter(|(_, value)| value.is_none()).map(|(key, _)| &**key).collect();
    if !nulls.is_empty() {
        return Err(TopicError::NullConfig(nulls.join(",")));
    }
    let mut overrides = TopicOverrides::new();
    for (key, value) in configs {
        let value =
            check_topic_config(key, value.as_deref().unwrap_or_default()).map_err(TopicError::Config)?;
        overrides.insert(key.clone(), value);
    }
    Ok(overrides)
}

/// How a config is to be changed (IncrementalAlterConfigs, KIP-339).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ConfigChange {
    Set(String),
    Delete,
    Append(String),
    Subtract(String),
}

/// Applies changes to the overrides of a topic or group; the result is what it will carry.
pub(crate) fn plan_configs(
    definitions: &'static [Definition],
    current: &TopicOverrides,
    changes: &[(String, ConfigChange)],
    settings: &BrokerSettings,
) -> Result<TopicOverrides, TopicError> {
    let mut overrides = current.clone();
    for (key, change) in changes {
        let (ConfigChange::Set(found) | ConfigChange::Append(found) | ConfigChange::Subtract(found)) = change
        else {
            // What there is not can be taken away.
            overrides.remove(key);
            continue;
        };
        let definition = find(definitions, key).ok_or_else(|| {
            TopicError::Config(SettingError::Unknown { key: key.clone(), found: found.clone() })
        })?;
        let value = if matches!(change, ConfigChange::Set(_)) {
            found.clone()
        } else {
            if definition.kind.code() != LIST_CODE {
                return Err(TopicError::Config(SettingError::Invalid {
                    key: key.clone(),
                    expected: "a config whose type is a list, to append to or subtract from".to_owned(),
                    found: found.clone(),
                }));
            }
            let (value, _) = topic::effective(definition, &overrides, settings);
            merge_list(&value, found, matches!(change, ConfigChange::Append(_)))
        };
        overrides.insert(key.clone(), definition.check(&value).map_err(TopicError::Config)?);
    }
    Ok(overrides)
}

const LIST_CODE: i8 = 7;

fn merge_list(current: &str, items: &str, append: bool) -> String {
    let items: Vec<&str> = items.split(',').map(str::trim).collect();
    // An empty text is a list of nothing, not of one item without a name.
    let current = current.split(',').map(str::trim).filter(|item| !item.is_empty());
    let mut merged: Vec<&str> = current.filter(|item| append || !items.contains(item)).collect();
    if append {
        for item in items {
            if !merged.contains(&item) {
                merged.push(item);
            }
        }
    }
    merged.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::topic::TOPIC_DEFINITIONS;

    fn plan(change: impl FnOnce(&mut NewTopic)) -> Result<PlannedTopic, i16> {
        let mut new = NewTopic::with_defaults("orders");
        change(&mut new);
        let settings = BrokerSettings::parse([("num.partitions", "3")]).unwrap();
        plan_topic(&new, &Image::default(), &settings, 1).map_err(|error| error.code().code())
    }

    #[test]
    fn defaults_are_filled_in() {
        let planned = plan(|_| {}).unwrap();
        assert_eq!((planned.partition_count, planned.overrides.len()), (3, 0));
        assert_eq!(
            plan(|new| new.assignments = vec![(1, vec![1]), (0, vec![1])]).map(|plan| plan.partition_count),
            Ok(2)
        );
    }

    #[test]
    fn wrong_requests_get_kafkas_codes() {
        assert_eq!(plan(|new| new.name = "a b".into()), Err(17));
        assert_eq!(plan(|new| new.name = names::METADATA_TOPIC.into()), Err(42));
        assert_eq!(plan(|new| new.partition_count = 0), Err(37));
        assert_eq!(plan(|new| new.partition_count = -2), Err(37));
        assert_eq!(plan(|new| new.partition_count = 10_001), Err(44));
        assert_eq!(plan(|new| new.replication_factor = 0), Err(38));
        assert_eq!(plan(|new| new.replication_factor = 3), Err(38));
        assert_eq!(plan(|new| new.assignments = vec![(0, vec![2])]), Err(39));
        assert_eq!(plan(|new| new.assignments = vec![(1, vec![1])]), Err(39));
        assert_eq!(plan(|new| (new.assignments, new.partition_count) = (vec![(0, vec![1])], 1)), Err(42));
        assert_eq!(plan(|new| new.configs = vec![("retention.ms".into(), Some("x".into()))]), Err(40));
        assert_eq!(plan(|new| new.configs = vec![("nonsense".into(), Some("1".into()))]), Err(40));
        assert_eq!(plan(|new| new.configs = vec![("retention.ms".into(), None)]), Err(40));
        let lags = |min: &str, max: &str| {
            let pair = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
            let configs = vec![pair("min.compaction.lag.ms", min), pair("max.compaction.lag.ms", max)];
            plan(|new| new.configs = configs).map(|planned| planned.overrides.len())
        };
        assert_eq!((lags("100", "50"), lags("50", "50")), (Err(40), Ok(2)));
    }

    #[test]
    fn configs_change_one_by_one() {
        let settings = BrokerSettings::default();
        let current = TopicOverrides::from([("retention.ms".into(), "5".into())]);
        let plan = |key: &str, change| {
            plan_configs(TOPIC_DEFINITIONS, &current, &[(key.to_owned(), change)], &settings)
        };
        assert_eq!(plan("retention.ms", ConfigChange::Delete).unwrap(), TopicOverrides::new());
        assert_eq!(
            plan("cleanup.policy", ConfigChange::Append("compact".into())).unwrap()["cleanup.policy"],
            "delete,compact"
        );
        assert!(plan("cleanup.policy", ConfigChange::Set("shred".into())).is_err());
        assert!(plan("retention.ms", ConfigChange::Append("1".into())).is_err());
        for change in [ConfigChange::Set, ConfigChange::Append, ConfigChange::Subtract] {
            let refused = plan("foo", change("bar".into())).unwrap_err().to_string();
            assert_eq!(refused, "unknown setting foo: found \"bar\"");
        }
    }

    /// Appending to a list of nothing was refused.
    #[test]
    fn lists_can_be_emptied_and_filled_again() {
        let settings = BrokerSettings::default();
        let check = |current: &str, change, expected: &str| {
            let current = TopicOverrides::from([("cleanup.policy".into(), current.into())]);
            let changes = [("cleanup.policy".to_owned(), change)];
            let planned = plan_configs(TOPIC_DEFINITIONS, &current, &changes, &settings).unwrap();
            assert_eq!(planned["cleanup.policy"], expected);
        };
        check("delete,compact", ConfigChange::Subtract("delete, compact".into()), "");
        check("", ConfigChange::Append("compact".into()), "compact");
        check("", ConfigChange::Subtract("compact".into()), "");
        check("compact", ConfigChange::Append("compact,delete".into()), "compact,delete");
    }
}
