//! What stands in `__cluster_metadata-0`: Kafka's records for topics, partitions, configs and producer id blocks.
//!
//! Owns their encoding and their replay into plain maps. Invariant: replaying a log gives the same maps whatever batches
//! the records were written in. Opens no logs and answers no requests.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use thiserror::Error;
use tidings_model::TopicId;
use tidings_wire::messages::config_record::ConfigRecord;
use tidings_wire::messages::partition_record::PartitionRecord;
use tidings_wire::messages::producer_ids_record::ProducerIdsRecord;
use tidings_wire::messages::remove_topic_record::RemoveTopicRecord;
use tidings_wire::messages::topic_record::TopicRecord;
use tidings_wire::{
    DecodeError, Decoder, EncodeError, Message, MetadataRecordHeader, RecordMessage, encode_metadata_record,
};

use crate::settings::topic::TopicOverrides;

/// Whose configs a ConfigRecord is about, by Kafka's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConfigOwner {
    Topic = 2,
    Group = 32,
}

/// Why the metadata log cannot be replayed.
#[derive(Debug, Error)]
pub enum MetadataError {
    /// A record cannot be decoded.
    #[error("__cluster_metadata-0: bad record at offset {offset}: {source}")]
    Decode {
        /// The record's offset.
        offset: i64,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A record of a type this version does not know.
    #[error(
        "__cluster_metadata-0: unknown record type {found} at offset {offset}: written by a newer version"
    )]
    UnknownType {
        /// The record's offset.
        offset: i64,
        /// The type found.
        found: i16,
    },
    /// A record about a topic that does not exist.
    #[error(
        "__cluster_metadata-0: record at offset {offset} is about topic {topic}, which does not exist there"
    )]
    UnknownTopic {
        /// The record's offset.
        offset: i64,
        /// The topic's name or id.
        topic: String,
    },
    /// Partitions of a topic do not follow each other.
    #[error(
        "__cluster_metadata-0: record at offset {offset} adds partition {found} of topic {topic}, expected {expected}"
    )]
    PartitionOrder {
        /// The record's offset.
        offset: i64,
        /// The topic's name.
        topic: String,
        /// The partition that would be next.
        expected: i32,
        /// The partition found.
        found: i32,
    },
}

/// One topic as the log tells it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ReplayedTopic {
    pub(crate) name: String,
    pub(crate) partition_count: i32,
    pub(crate) overrides: TopicOverrides,
}

/// Everything the log tells.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ReplayedMetadata {
    pub(crate) topics: BTreeMap<TopicId, ReplayedTopic>,
    /// By group; none is empty.
    pub(crate) group_configs: BTreeMap<String, TopicOverrides>,
    /// Ids whose topic was deleted; their folders may still be there after a crash.
    pub(crate) removed: HashSet<TopicId>,
    /// The first producer id that no block holds.
    pub(crate) next_producer_id: i64,
}

impl ReplayedMetadata {
    /// Applies the record at `offset`.
    pub(crate) fn replay(&mut self, offset: i64, value: Bytes) -> Result<(), MetadataError> {
        let decode = |source| MetadataError::Decode { offset, source };
        let mut d = Decoder::stored(value);
        let header = MetadataRecordHeader::decode(&mut d).map_err(decode)?;
        match header.record_type {
            TopicRecord::RECORD_TYPE => {
                let record = TopicRecord::decode(&mut d, header.version).map_err(decode)?;
                let topic =
                    ReplayedTopic { name: record.name, partition_count: 0, overrides: TopicOverrides::new() };
                self.topics.insert(record.topic_id, topic);
            }
            PartitionRecord::RECORD_TYPE => {
                let record = PartitionRecord::decode(&mut d, header.version).map_err(decode)?;
                self.add_partition(offset, record.topic_id, record.partition_id)?;
            }
            ConfigRecord::RECORD_TYPE => {
                let record = ConfigRecord::decode(&mut d, header.version).map_err(decode)?;
                self.change_config(offset, record)?;
            }
            RemoveTopicRecord::RECORD_TYPE => {
                let record = RemoveTopicRecord::decode(&mut d, header.version).map_err(decode)?;
                self.topics.remove(&record.topic_id);
                self.removed.insert(record.topic_id);
            }
            ProducerIdsRecord::RECORD_TYPE => {
                let record = ProducerIdsRecord::decode(&mut d, header.version).map_err(decode)?;
                self.next_producer_id = self.next_producer_id.max(record.next_producer_id);
            }
            found => return Err(MetadataError::UnknownType { offset, found }),
        }
        Ok(())
    }

    fn add_partition(&mut self, offset: i64, id: TopicId, found: i32) -> Result<(), MetadataError> {
        let topic = self
            .topics
            .get_mut(&id)
            .ok_or_else(|| MetadataError::UnknownTopic { offset, topic: id.to_string() })?;
        if found != topic.partition_count {
            let (topic, expected) = (topic.name.clone(), topic.partition_count);
            return Err(MetadataError::PartitionOrder { offset, topic, expected, found });
        }
        topic.partition_count += 1;
        Ok(())
    }

    fn change_config(&mut self, offset: i64, record: ConfigRecord) -> Result<(), MetadataError> {
        if record.resource_type == ConfigOwner::Group as i8 {
            self.change_group_config(record);
            return Ok(());
        }
        let topic = self
            .topics
            .values_mut()
            .find(|topic| {
                record.resource_type == ConfigOwner::Topic as i8 && topic.name == record.resource_name
            })
            .ok_or_else(|| MetadataError::UnknownTopic { offset, topic: record.resource_name.clone() })?;
        match record.value {
            Some(value) => topic.overrides.insert(record.name, value),
            None => topic.overrides.remove(&record.name),
        };
        Ok(())
    }

    fn change_group_config(&mut self, record: ConfigRecord) {
        let name = record.resource_name;
        let configs = self.group_configs.entry(name.clone()).or_default();
        match record.value {
            Some(value) => configs.insert(record.name, value),
            None => configs.remove(&record.name),
        };
        if configs.is_empty() {
            self.group_configs.remove(&name);
        }
    }
}

/// The record that adds a topic.
pub(crate) fn topic_record(name: &str, id: TopicId) -> Result<Bytes, EncodeError> {
    encode_metadata_record(&TopicRecord { name: name.to_owned(), topic_id: id, ..TopicRecord::default() }, 0)
}

/// The record that adds a partition, led by the only node.
pub(crate) fn partition_record(id: TopicId, partition: i32, node_id: i32) -> Result<Bytes, EncodeError> {
    let record = PartitionRecord {
        partition_id: partition,
        topic_id: id,
        replicas: vec![node_id],
        isr: vec![node_id],
        leader: node_id,
        ..PartitionRecord::default()
    };
    encode_metadata_record(&record, 0)
}

/// The record that sets a config of a topic or group, or removes it.
pub(crate) fn config_record(
    (owner, name): (ConfigOwner, &str),
    key: &str,
    value: Option<&str>,
) -> Result<Bytes, EncodeError> {
    let record = ConfigRecord {
        resource_type: owner as i8,
        resource_name: name.to_owned(),
        name: key.to_owned(),
        value: value.map(str::to_owned),
        ..ConfigRecord::default()
    };
    encode_metadata_record(&record, 0)
}

/// The record that removes a topic with its partitions and configs.
pub(crate) fn remove_topic_record(id: TopicId) -> Result<Bytes, EncodeError> {
    encode_metadata_record(&RemoveTopicRecord { topic_id: id, ..RemoveTopicRecord::default() }, 0)
}

/// The record that takes a block of producer ids, up to and without `next_producer_id`.
pub(crate) fn producer_ids_record(node_id: i32, next_producer_id: i64) -> Result<Bytes, EncodeError> {
    let record = ProducerIdsRecord {
        broker_id: node_id,
        broker_epoch: 0,
        next_producer_id,
        ..ProducerIdsRecord::default()
    };
    encode_metadata_record(&record, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: TopicId = TopicId([7; 16]);

    fn replay(records: Vec<Result<Bytes, EncodeError>>) -> Result<ReplayedMetadata, MetadataError> {
        let mut replayed = ReplayedMetadata::default();
        for (offset, record) in (0..).zip(records) {
            replayed.replay(offset, record.unwrap())?;
        }
        Ok(replayed)
    }

    #[test]
    fn a_topic_comes_back_with_partitions_and_configs() {
        let orders = (ConfigOwner::Topic, "orders");
        let replayed = replay(vec![
            topic_record("orders", ID),
            partition_record(ID, 0, 1),
            partition_record(ID, 1, 1),
            config_record(orders, "retention.ms", Some("5")),
            config_record(orders, "cleanup.policy", Some("compact")),
            config_record(orders, "retention.ms", None),
            producer_ids_record(1, 1000),
        ])
        .unwrap();
        let topic = &replayed.topics[&ID];
        assert_eq!((topic.name.as_str(), topic.partition_count), ("orders", 2));
        assert_eq!(topic.overrides, TopicOverrides::from([("cleanup.policy".into(), "compact".into())]));
        assert_eq!(replayed.next_producer_id, 1000);
    }

    #[test]
    fn a_group_comes_back_with_its_configs() {
        let (readers, others) = ((ConfigOwner::Group, "readers"), (ConfigOwner::Group, "others"));
        let replayed = replay(vec![
            config_record(readers, "consumer.session.timeout.ms", Some("50000")),
            config_record(others, "consumer.session.timeout.ms", Some("50000")),
            config_record(others, "consumer.session.timeout.ms", None),
        ])
        .unwrap();
        let configs = TopicOverrides::from([("consumer.session.timeout.ms".into(), "50000".into())]);
        assert_eq!(replayed.group_configs, BTreeMap::from([("readers".to_owned(), configs)]));
    }

    #[test]
    fn a_removed_topic_is_gone_and_remembered() {
        let replayed =
            replay(vec![topic_record("orders", ID), partition_record(ID, 0, 1), remove_topic_record(ID)])
                .unwrap();
        assert!(replayed.topics.is_empty());
        assert!(replayed.removed.contains(&ID));
    }

    #[test]
    fn a_log_that_makes_no_sense_names_the_offset() {
        let error = |records| replay(records).unwrap_err().to_string();
        assert_eq!(
            error(vec![topic_record("orders", ID), partition_record(ID, 1, 1)]),
            "__cluster_metadata-0: record at offset 1 adds partition 1 of topic orders, expected 0"
        );
        assert!(
            error(vec![config_record((ConfigOwner::Topic, "gone"), "a", None)])
                .contains("topic gone, which does not exist")
        );
        assert!(
            error(vec![Ok(Bytes::from_static(&[1, 99, 0]))]).contains("unknown record type 99 at offset 0")
        );
        assert!(error(vec![Ok(Bytes::new())]).contains("bad record at offset 0"));
    }
}
