//! The configs that groups have of their own (KIP-848): which there are, and what is set.
//!
//! Owns the overrides by group and their order of changes: one at a time. Invariant: a change is seen only after its records
//! in the metadata log are durable. A group need not exist to have configs, and keeps them when it is deleted, as in Kafka.
//!
//! A change once begun is finished even when its client hangs up.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use tidings_coordinator::GroupTimeouts;
use tokio::sync::Mutex;

use crate::metadata_log::MetadataLog;
use crate::settings::topic::TopicOverrides;
use crate::settings::{BrokerSettings, group};
use crate::topics::error::TopicError;
use crate::topics::plan::{ConfigChange, plan_configs};
use crate::topics::records::{self, ConfigOwner};

/// The configs of all groups that have some.
pub(crate) struct GroupConfigs {
    overrides: RwLock<BTreeMap<String, TopicOverrides>>,
    /// Held while a change is planned, stored and published.
    changing: Mutex<()>,
    metadata: MetadataLog,
    settings: Arc<BrokerSettings>,
}

impl GroupConfigs {
    pub(crate) fn new(
        overrides: BTreeMap<String, TopicOverrides>,
        metadata: MetadataLog,
        settings: Arc<BrokerSettings>,
    ) -> GroupConfigs {
        GroupConfigs { overrides: RwLock::new(overrides), changing: Mutex::new(()), metadata, settings }
    }

    /// What a group was given.
    pub(crate) fn of(&self, group_id: &str) -> TopicOverrides {
        self.overrides.read().get(group_id).cloned().unwrap_or_default()
    }

    /// Changes the configs of one group. `replace` forgets every override that is not among the changes.
    pub(crate) async fn alter(
        self: &Arc<Self>,
        group_id: String,
        changes: Vec<(String, ConfigChange)>,
        replace: bool,
        validate_only: bool,
    ) -> Result<(), TopicError> {
        let this = self.clone();
        let task = tokio::spawn(async move { this.change(group_id, &changes, replace, validate_only).await });
        task.await.unwrap_or_else(|error| Err(TopicError::Storage(error.to_string())))
    }

    async fn change(
        &self,
        group_id: String,
        changes: &[(String, ConfigChange)],
        replace: bool,
        validate_only: bool,
    ) -> Result<(), TopicError> {
        let _one_at_a_time = self.changing.lock().await;
        let before = self.of(&group_id);
        let current = if replace { TopicOverrides::new() } else { before.clone() };
        let after = plan_configs(group::GROUP_DEFINITIONS, &current, changes, &self.settings)?;
        group::check_timeouts(&after, &self.settings).map_err(TopicError::Config)?;
        if validate_only || after == before {
            return Ok(());
        }
        let owner = (ConfigOwner::Group, group_id.as_str());
        let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key, None));
        let set = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
        let records: Result<Vec<_>, _> = gone
            .chain(set.map(|(key, value)| (key, Some(value.as_str()))))
            .map(|(key, value)| records::config_record(owner, key, value))
            .collect();
        let storage = |error: &dyn std::fmt::Display| TopicError::Storage(error.to_string());
        let records = records.map_err(|error| storage(&error))?;
        self.metadata.write(&records).await.map_err(|error| storage(&error))?;
        let mut overrides = self.overrides.write();
        if after.is_empty() {
            overrides.remove(&group_id);
        } else {
            overrides.insert(group_id, after);
        }
        Ok(())
    }
}

impl tidings_coordinator::GroupConfigs for GroupConfigs {
    fn consumer_timeouts(&self, group_id: &str) -> GroupTimeouts {
        let overrides = self.overrides.read();
        let own = |name: &str| overrides.get(group_id)?.get(name)?.parse().ok();
        GroupTimeouts {
            session_timeout_ms: own(group::SESSION_TIMEOUT_MS),
            heartbeat_interval_ms: own(group::HEARTBEAT_INTERVAL_MS),
        }
    }
}
