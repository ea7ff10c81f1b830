//! The registry of topics: what exists, and every change of it.
//!
//! Owns the image that requests read and the order of changes: one at a time. Invariants: the metadata log says what
//! exists, and the image shows a change only after its record is durable. Folders of new partitions are made and synced
//! before their record is written, so a topic that the log knows has its folders: one that is missing at start is an
//! error, never silently made empty. Folders that no record speaks of are left-overs of a crash and are removed.
//!
//! A change once begun is finished even when its client hangs up.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use tidings_log::{DataDir, DeleteRecordsError, LogConfig, PartitionLog, StorageState};
use tidings_model::{ErrorCode, TopicId, TopicPartition};
use tokio::sync::Mutex;

mod directory;
pub(crate) mod error;
pub(crate) mod image;
pub(crate) mod log_config;
pub(crate) mod names;
pub(crate) mod offline;
pub(crate) mod open;
pub(crate) mod plan;
pub(crate) mod records;

use crate::metadata_log::{MetadataLog, WriteError};
use crate::settings::BrokerSettings;
use crate::settings::topic::{TOPIC_DEFINITIONS, TopicOverrides, check_compaction_lags};
use error::TopicError;
use image::{Image, Topic};
use plan::{
    ConfigChange, MAX_PARTITIONS_PER_REQUEST, NewTopic, PlannedTopic, check_brokers, plan_configs, plan_topic,
};
use records::ConfigOwner;

/// Keeps what topics there are; cheap to clone.
#[derive(Clone)]
pub(crate) struct TopicRegistry {
    inner: Arc<Inner>,
}

struct Inner {
    image: RwLock<Image>,
    /// Held while a change is planned, stored and published.
    changing: Mutex<()>,
    data_dir: Arc<DataDir>,
    metadata: MetadataLog,
    settings: Arc<BrokerSettings>,
    node_id: i32,
}

/// A topic that a client asked for, as it was made or would be.
#[derive(Clone, Debug)]
pub(crate) struct CreatedTopic {
    /// Of nothing where the request was only checked.
    pub(crate) id: TopicId,
    pub(crate) partition_count: i32,
    pub(crate) overrides: TopicOverrides,
}

/// A topic to delete.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TopicRef {
    Name(String),
    Id(TopicId),
}

/// More partitions for a topic.
#[derive(Clone, Debug)]
pub(crate) struct Growth {
    pub(crate) name: String,
    /// The number of partitions after the change.
    pub(crate) count: i32,
    /// The brokers of each new partition, where the client chose them.
    pub(crate) assignments: Option<Vec<Vec<i32>>>,
}

impl TopicRegistry {
    pub(crate) fn new(
        image: Image,
        data_dir: Arc<DataDir>,
        metadata: MetadataLog,
        settings: Arc<BrokerSettings>,
        node_id: i32,
    ) -> TopicRegistry {
        let (image, changing) = (RwLock::new(image), Mutex::new(()));
        TopicRegistry { inner: Arc::new(Inner { image, changing, data_dir, metadata, settings, node_id }) }
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<Arc<Topic>> {
        self.inner.image.read().by_name(name).cloned()
    }

    pub(crate) fn by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.inner.image.read().by_id(id).cloned()
    }

    /// All topics ordered by name.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.inner.image.read().sorted()
    }

    /// Creates topics; one answer for each, in order. With `validate_only` nothing is changed.
    pub(crate) async fn create(
        &self,
        new: Vec<NewTopic>,
        validate_only: bool,
    ) -> Vec<Result<CreatedTopic, TopicError>> {
        let count = new.len();
        self.change(count, move |inner| async move { inner.create(&new, validate_only).await }).await
    }

    /// Deletes topics; one answer for each, in order: the name and id of what is gone. `forget` is told the names as a
    /// part of the change: it happens even when the client hangs up, and before a topic of such a name can be made again.
    pub(crate) async fn delete(
        &self,
        topics: Vec<TopicRef>,
        forget: impl FnOnce(&[&str]) + Send + 'static,
    ) -> Vec<Result<(Arc<str>, TopicId), TopicError>> {
        let count = topics.len();
        self.change(count, move |inner| async move { inner.delete(&topics, forget).await }).await
    }

    /// Moves logs' starts; one answer for each, in order: the start, which is durable.
    pub(crate) async fn delete_records(
        &self,
        wanted: Vec<(TopicPartition, Option<i64>)>,
        now_ms: i64,
    ) -> Vec<Result<i64, ErrorCode>> {
        let count = wanted.len();
        let data_dir = self.inner.data_dir.clone();
        let deleted = tokio::task::spawn_blocking(move || {
            let answers = data_dir.delete_records(&wanted, now_ms);
            let coded = |answer: Result<i64, DeleteRecordsError>| {
                answer.map_err(|error| {
                    tracing::debug!(%error, "deleting records refused");
                    error.error_code()
                })
            };
            answers.into_iter().map(coded).collect()
        });
        deleted.await.unwrap_or_else(|_| vec![Err(ErrorCode::UnknownServerError); count])
    }

    /// Adds partitions; one answer for each, in order.
    pub(crate) async fn grow(
        &self,
        growths: Vec<Growth>,
        validate_only: bool,
    ) -> Vec<Result<(), TopicError>> {
        let count = growths.len();
        self.change(count, move |inner| async move {
            let mut results = Vec::with_capacity(growths.len());
            for growth in &growths {
                results.push(inner.grow(growth, validate_only).await);
            }
            results
        })
        .await
    }

    /// Changes the configs of one topic. `replace` forgets every override that is not among the changes.
    pub(crate) async fn alter(
        &self,
        name: String,
        changes: Vec<(String, ConfigChange)>,
        replace: bool,
        validate_only: bool,
    ) -> Result<(), TopicError> {
        let change = move |inner: Arc<Inner>| async move {
            vec![inner.alter(&name, &changes, replace, validate_only).await]
        };
        self.change(1, change).await.pop().unwrap_or(Ok(()))
    }

    /// Runs a change to its end in a task of its own, after those before it.
    async fn change<T, F>(
        &self,
        count: usize,
        change: impl FnOnce(Arc<Inner>) -> F + Send + 'static,
    ) -> Vec<Result<T, TopicError>>
    where
        T: Send + 'static,
        F: Future<Output = Vec<Result<T, TopicError>>> + Send,
    {
        let inner = self.inner.clone();
        let task = tokio::spawn(async move {
            let holder = inner.clone();
            let _one_at_a_time = holder.changing.lock().await;
            change(inner).await
        });
        match task.await {
            Ok(results) => results,
            Err(error) => (0..count).map(|_| Err(TopicError::Storage(error.to_string()))).collect(),
        }
    }
}

impl Inner {
    async fn create(&self, new: &[NewTopic], validate_only: bool) -> Vec<Result<CreatedTopic, TopicError>> {
        let planned: Vec<_> = new.iter().map(|topic| self.plan(topic)).collect();
        let total: i64 = planned.iter().flatten().map(|topic| i64::from(topic.partition_count)).sum();
        if total > i64::from(MAX_PARTITIONS_PER_REQUEST) {
            return new.iter().map(|_| Err(TopicError::TooManyPartitions)).collect();
        }
        // A topic that is only checked has an id, too, as in Kafka: one that nothing will have.
        let topics: Vec<(PlannedTopic, TopicId)> =
            planned.iter().flatten().map(|topic| (topic.clone(), new_topic_id())).collect();
        let stored = if validate_only || topics.is_empty() { Ok(()) } else { self.store(&topics).await };
        let mut ids = topics.iter().map(|(_, id)| *id);
        let mut results = Vec::with_capacity(planned.len());
        for plan in planned {
            results.push(plan.and_then(|PlannedTopic { partition_count, overrides, .. }| {
                let id = ids.next().unwrap_or_default();
                stored.clone().map(|()| CreatedTopic { id, partition_count, overrides })
            }));
        }
        results
    }

    fn plan(&self, new: &NewTopic) -> Result<PlannedTopic, TopicError> {
        let mut planned = plan_topic(new, &self.image.read(), &self.settings, self.node_id)?;
        // Kafka's own settings for these; what the client says wins.
        let own = match planned.name.as_str() {
            names::OFFSETS_TOPIC => {
                Some(("producer", "offsets.topic.segment.bytes", "offsets.topic.num.partitions"))
            }
            names::TRANSACTIONS_TOPIC => Some((
                "uncompressed",
                "transaction.state.log.segment.bytes",
                "transaction.state.log.num.partitions",
            )),
            _ => None,
        };
        if let Some((compression, segment_bytes, partition_count)) = own {
            let own = [
                ("cleanup.policy", "compact"),
                ("compression.type", compression),
                ("segment.bytes", self.settings.value(segment_bytes)),
            ];
            for (key, value) in own {
                planned.overrides.entry(key.to_owned()).or_insert_with(|| value.to_owned());
            }
            if new.partition_count == -1 && new.assignments.is_empty() {
                planned.partition_count = self.settings.int(partition_count);
            }
        }
        Ok(planned)
    }

    async fn store(&self, topics: &[(PlannedTopic, TopicId)]) -> Result<(), TopicError> {
        let mut logs = Vec::new();
        let mut records = Vec::new();
        for (topic, id) in topics {
            let config = self.log_config(&topic.name, &topic.overrides);
            let name: Arc<str> = topic.name.as_str().into();
            records.push(records::topic_record(&topic.name, *id).map_err(storage)?);
            for partition in 0..topic.partition_count {
                logs.push((TopicPartition::new(name.clone(), partition), *id, config));
                records.push(records::partition_record(*id, partition, self.node_id).map_err(storage)?);
            }
            for (key, value) in &topic.overrides {
                records.push(
                    records::config_record((ConfigOwner::Topic, &topic.name), key, Some(value))
                        .map_err(storage)?,
                );
            }
        }
        let logs = self.create_logs(logs).await?;
        self.record_new_logs(&records, &logs).await?;
        let mut logs = logs.into_iter();
        let mut image = self.image.write();
        for (topic, id) in topics {
            let count = usize::try_from(topic.partition_count).unwrap_or_default();
            image.put(Topic {
                name: topic.name.as_str().into(),
                id: *id,
                partitions: logs.by_ref().take(count).collect(),
                overrides: topic.overrides.clone(),
            });
        }
        Ok(())
    }

    async fn create_logs(
        &self,
        logs: Vec<(TopicPartition, TopicId, LogConfig)>,
    ) -> Result<Vec<Arc<PartitionLog>>, TopicError> {
        let data_dir = self.data_dir.clone();
        // Groups must be able to begin, and with them to read: their topic may use what is left.
        let internal =
            |(topic_partition, ..): &(TopicPartition, _, _)| names::is_internal(&topic_partition.topic);
        if let StorageState::LowSpace(low) = data_dir.storage_state()
            && !logs.iter().all(internal)
        {
            return Err(TopicError::LowSpace(low));
        }
        // Making and syncing folders blocks, and can take its time when there are thousands.
        let created = tokio::task::spawn_blocking(move || data_dir.create_logs(&logs)).await;
        created.map_err(storage)?.map_err(storage)
    }

    /// Writes the records that make new folders part of a topic.
    async fn record_new_logs(&self, records: &[Bytes], logs: &[Arc<PartitionLog>]) -> Result<(), TopicError> {
        let error = match self.metadata.write(records).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if matches!(error, WriteError::Append(_)) {
            // Nothing was recorded, and folders that stay would be in the way of the next attempt. After a failed
            // commit they stay: the record may turn out to be there after a restart, and needs them.
            let gone: Vec<_> = logs.iter().map(|log| log.topic_partition().clone()).collect();
            self.remove_folders(gone).await;
        }
        Err(storage(error))
    }

    /// Removes folders that no topic owns any more. What remains of them, a restart removes.
    async fn remove_folders(&self, gone: Vec<TopicPartition>) {
        let data_dir = self.data_dir.clone();
        let removed = tokio::task::spawn_blocking(move || data_dir.delete_logs(&gone)).await;
        if let Some(error) = removed.map_err(storage).and_then(|removed| removed.map_err(storage)).err() {
            tracing::warn!(%error, "folders of deleted topics remain");
        }
    }

    async fn delete(
        &self,
        topics: &[TopicRef],
        forget: impl FnOnce(&[&str]),
    ) -> Vec<Result<(Arc<str>, TopicId), TopicError>> {
        let found: Vec<Result<Arc<Topic>, TopicError>> =
            topics.iter().map(|topic| self.deletable(topic)).collect();
        let records: Result<Vec<_>, _> =
            found.iter().flatten().map(|topic| records::remove_topic_record(topic.id)).collect();
        let stored = match records {
            Ok(records) if records.is_empty() => Ok(()),
            Ok(records) => self.metadata.write_to_make_room(&records).await.map_err(storage),
            Err(error) => Err(storage(error)),
        };
        if let Err(error) = stored {
            return found.into_iter().map(|topic| topic.and(Err(error.clone()))).collect();
        }
        let mut gone = Vec::new();
        for topic in found.iter().flatten() {
            self.image.write().remove(topic.id);
            gone.extend(
                (0..topic.partition_count()).map(|index| TopicPartition::new(topic.name.clone(), index)),
            );
        }
        let names: Vec<&str> = found.iter().flatten().map(|topic| &*topic.name).collect();
        if !names.is_empty() {
            forget(&names);
        }
        self.remove_folders(gone).await;
        found.into_iter().map(|topic| topic.map(|topic| (topic.name.clone(), topic.id))).collect()
    }

    fn deletable(&self, topic: &TopicRef) -> Result<Arc<Topic>, TopicError> {
        if !self.settings.flag("delete.topic.enable") {
            return Err(TopicError::DeletionDisabled);
        }
        let image = self.image.read();
        let topic = match topic {
            TopicRef::Name(name) => image.by_name(name).ok_or(TopicError::UnknownName)?,
            TopicRef::Id(id) => image.by_id(*id).ok_or(TopicError::UnknownId { id: *id })?,
        };
        if topic.is_internal() {
            return Err(TopicError::Request(format!(
                "topic {} is internal and cannot be deleted",
                topic.name
            )));
        }
        Ok(topic.clone())
    }

    async fn grow(&self, growth: &Growth, validate_only: bool) -> Result<(), TopicError> {
        let topic = self.image.read().by_name(&growth.name).cloned().ok_or(TopicError::UnknownName)?;
        let current = topic.partition_count();
        check_growth(growth, current, self.node_id)?;
        if validate_only {
            return Ok(());
        }
        let config = self.log_config(&topic.name, &topic.overrides);
        let new = |index| (TopicPartition::new(topic.name.clone(), index), topic.id, config);
        let logs = self.create_logs((current..growth.count).map(new).collect()).await?;
        let record = |index| records::partition_record(topic.id, index, self.node_id);
        let records: Vec<_> =
            (current..growth.count).map(record).collect::<Result<_, _>>().map_err(storage)?;
        self.record_new_logs(&records, &logs).await?;
        let mut grown = Topic::clone(&topic);
        grown.partitions.extend(logs);
        self.image.write().put(grown);
        Ok(())
    }

    async fn alter(
        &self,
        name: &str,
        changes: &[(String, ConfigChange)],
        replace: bool,
        validate_only: bool,
    ) -> Result<(), TopicError> {
        let topic = self.image.read().by_name(name).cloned().ok_or(TopicError::UnknownName)?;
        let current = if replace { TopicOverrides::new() } else { topic.overrides.clone() };
        let overrides = plan_configs(TOPIC_DEFINITIONS, &current, changes, &self.settings)?;
        check_compaction_lags(&overrides, &self.settings).map_err(TopicError::Config)?;
        if validate_only || overrides == topic.overrides {
            return Ok(());
        }
        let mut records = Vec::new();
        for key in topic.overrides.keys().filter(|key| !overrides.contains_key(*key)) {
            records.push(records::config_record((ConfigOwner::Topic, name), key, None).map_err(storage)?);
        }
        for (key, value) in overrides.iter().filter(|(key, value)| topic.overrides.get(*key) != Some(*value))
        {
            records
                .push(records::config_record((ConfigOwner::Topic, name), key, Some(value)).map_err(storage)?);
        }
        self.metadata.write_to_make_room(&records).await.map_err(storage)?;
        let config = self.log_config(name, &overrides);
        for log in &topic.partitions {
            log.set_config(config);
        }
        self.image.write().put(Topic { overrides, ..Topic::clone(&topic) });
        Ok(())
    }

    fn log_config(&self, topic: &str, overrides: &TopicOverrides) -> LogConfig {
        log_config::of(topic, overrides, &self.settings)
    }
}

fn check_growth(growth: &Growth, current: i32, node_id: i32) -> Result<(), TopicError> {
    let added = growth.count.saturating_sub(current);
    if growth.count <= 0 {
        return Err(TopicError::PartitionCount);
    }
    if added <= 0 {
        let name = growth.name.clone();
        return Err(TopicError::NoIncrease { name, current, requested: growth.count });
    }
    if added > MAX_PARTITIONS_PER_REQUEST {
        return Err(TopicError::TooManyPartitions);
    }
    let Some(assignments) = &growth.assignments else { return Ok(()) };
    if i32::try_from(assignments.len()) != Ok(added) {
        return Err(TopicError::Assignment(format!(
            "Attempted to add {added} additional partition(s), but {} assignment(s) were specified.",
            assignments.len()
        )));
    }
    assignments.iter().try_for_each(|brokers| check_brokers(brokers, node_id))
}

fn storage(error: impl std::fmt::Display) -> TopicError {
    TopicError::Storage(error.to_string())
}

/// A random id that is not one of those Kafka reserves.
fn new_topic_id() -> TopicId {
    loop {
        let id = TopicId(crate::random::bytes());
        // Kafka avoids ids whose text begins with a dash: they look like options on a command line.
        if id != TopicId::ZERO && id != TopicId::METADATA && !id.to_string().starts_with('-') {
            return id;
        }
    }
}
