//! At start: the metadata log and the folders must tell the same story.
//!
//! Owns that comparison. A topic of the log whose folder is missing, or whose folder belongs to another topic of the same
//! name, is an error that names it, and so is a missing metadata log where there are topics' folders. A folder that no topic
//! owns is removed when it is left over (its topic was deleted, or it is empty because its creation was never recorded);
//! otherwise it is left alone and reported.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;
use tidings_log::{CreateError, DataDir, PartitionLog};
use tidings_model::{TopicId, TopicPartition};

use crate::replay::{ReplayLogError, for_each_record};
use crate::settings::BrokerSettings;
use crate::settings::topic::TopicOverrides;
use crate::topics::image::{Image, Topic};
use crate::topics::records::{MetadataError, ReplayedMetadata, ReplayedTopic};
use crate::topics::{log_config, names};

/// Why the topics could not be opened.
#[derive(Debug, Error)]
pub enum OpenTopicsError {
    /// The metadata log could not be made.
    #[error("cannot create __cluster_metadata-0: {0}")]
    Create(#[from] CreateError),
    /// The metadata log could not be read.
    #[error(transparent)]
    Replay(#[from] ReplayLogError),
    /// The metadata log makes no sense.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A partition's folder is not there.
    #[error(
        "{topic_partition}: the topic exists, but its folder {folder} is missing; restore it from a backup, or delete \
         the data directory to start empty"
    )]
    MissingFolder {
        /// The partition.
        topic_partition: TopicPartition,
        /// Where its records should be.
        folder: String,
    },
    /// A partition's folder is of another topic that had the same name.
    #[error("{topic_partition}: expected a folder of topic id {expected}, found {found}")]
    ForeignFolder {
        /// The partition.
        topic_partition: TopicPartition,
        /// The topic's id.
        expected: TopicId,
        /// The id in the folder's `partition.metadata`.
        found: TopicId,
    },
}

impl OpenTopicsError {
    pub(crate) fn missing_folder(data_dir: &Path, topic_partition: TopicPartition) -> Self {
        let folder = data_dir.join(topic_partition.to_string()).display().to_string();
        Self::MissingFolder { topic_partition, folder }
    }
}

/// What was found.
pub(crate) struct Opened {
    pub(crate) metadata_log: Arc<PartitionLog>,
    pub(crate) image: Image,
    pub(crate) group_configs: BTreeMap<String, TopicOverrides>,
    pub(crate) next_producer_id: i64,
}

/// Replays the metadata log and looks every topic's folders up.
pub(crate) fn open(data_dir: &DataDir, settings: &BrokerSettings) -> Result<Opened, OpenTopicsError> {
    let metadata_log = open_metadata_log(data_dir)?;
    let mut replayed = ReplayedMetadata::default();
    for_each_record(&metadata_log, |record| match record.value {
        Some(value) => replayed.replay(record.offset, value).map_err(OpenTopicsError::from),
        None => Ok(()),
    })?;
    let mut image = Image::default();
    for (id, topic) in &replayed.topics {
        image.put(open_topic(data_dir, settings, *id, topic)?);
    }
    remove_left_overs(data_dir, &image, &replayed);
    let ReplayedMetadata { group_configs, next_producer_id, .. } = replayed;
    Ok(Opened { metadata_log, image, group_configs, next_producer_id })
}

/// A new directory has none yet, and no topics: whose folders those are that are there already, only a lost one told.
fn open_metadata_log(data_dir: &DataDir) -> Result<Arc<PartitionLog>, OpenTopicsError> {
    let topic_partition = TopicPartition::new(names::METADATA_TOPIC, 0);
    if let Some(log) = data_dir.log(&topic_partition) {
        return Ok(log);
    }
    if data_dir.logs().iter().any(|log| log.topic_id() != TopicId::ZERO) {
        return Err(OpenTopicsError::missing_folder(data_dir.path(), topic_partition));
    }
    let config = tidings_log::LogConfig::default();
    let mut created = data_dir.create_logs(&[(topic_partition.clone(), TopicId::METADATA, config)])?;
    created.pop().ok_or(OpenTopicsError::Create(CreateError::Exists { topic_partition }))
}

fn open_topic(
    data_dir: &DataDir,
    settings: &BrokerSettings,
    id: TopicId,
    topic: &ReplayedTopic,
) -> Result<Topic, OpenTopicsError> {
    let name: Arc<str> = topic.name.as_str().into();
    let config = log_config::of(&topic.name, &topic.overrides, settings);
    let mut partitions = Vec::new();
    for partition in 0..topic.partition_count {
        let topic_partition = TopicPartition::new(name.clone(), partition);
        let Some(log) = data_dir.log(&topic_partition) else {
            return Err(OpenTopicsError::missing_folder(data_dir.path(), topic_partition));
        };
        if log.topic_id() != id {
            return Err(OpenTopicsError::ForeignFolder {
                topic_partition,
                expected: id,
                found: log.topic_id(),
            });
        }
        log.set_config(config);
        partitions.push(log);
    }
    Ok(Topic { name, id, partitions, overrides: topic.overrides.clone() })
}

fn remove_left_overs(data_dir: &DataDir, image: &Image, replayed: &ReplayedMetadata) {
    let mut left_over = Vec::new();
    for log in data_dir.logs() {
        let topic_partition = log.topic_partition();
        let owned = image
            .by_id(log.topic_id())
            .is_some_and(|topic| topic.partition(topic_partition.partition).is_some());
        if owned || &*topic_partition.topic == names::METADATA_TOPIC {
            continue;
        }
        if replayed.removed.contains(&log.topic_id()) || log.log_end_offset() == 0 {
            left_over.push(topic_partition.clone());
        } else {
            tracing::warn!(%topic_partition, "a folder with records belongs to no topic: left where it is");
        }
    }
    if let Err(error) = data_dir.delete_logs(&left_over) {
        tracing::warn!(%error, "a left-over folder could not be removed");
    }
}
