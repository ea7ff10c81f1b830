//! The topics of a data directory that no broker has open: which folders there should be.
//!
//! Owns the comparison of the metadata log with the folders, by the rules of a start (`open`). Invariants: nothing is written;
//! what a running broker creates or deletes meanwhile is not taken for lost. Does not look into the logs of topics.

use std::collections::BTreeSet;
use std::io;

use tidings_log::offline::{OfflineDataDir, SegmentItem};
use tidings_model::{TopicId, TopicPartition};

use crate::replay::ReplayLogError;
use crate::topics::names;
use crate::topics::open::OpenTopicsError;
use crate::topics::records::ReplayedMetadata;

/// A partition that a topic has, without the folder that it should have. A start is refused.
#[derive(Debug)]
pub struct BadFolder {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// What a start says.
    pub why: OpenTopicsError,
}

impl BadFolder {
    /// Whether there is no folder of that name at all.
    pub fn is_missing(&self) -> bool {
        matches!(self.why, OpenTopicsError::MissingFolder { .. })
    }
}

/// Partitions whose folder is missing or is another topic's. An error where the metadata log can't tell.
pub fn bad_folders(dir: &OfflineDataDir) -> Result<Vec<BadFolder>, OpenTopicsError> {
    let mut bad = look(dir)?;
    if !bad.is_empty() {
        // A running broker deletes a folder after the topic's record, and makes it before: the second look sees both.
        let still: BTreeSet<_> = look(dir)?.into_iter().map(|bad| bad.topic_partition).collect();
        bad.retain(|bad| still.contains(&bad.topic_partition));
    }
    Ok(bad)
}

fn look(dir: &OfflineDataDir) -> Result<Vec<BadFolder>, OpenTopicsError> {
    let failed = |source| ReplayLogError::Io { log: metadata_log().to_string(), offset: 0, source };
    let folders: BTreeSet<_> = dir.partitions().map_err(failed)?.into_iter().collect();
    if !folders.contains(&metadata_log()) {
        let missing = has_topics(dir, &folders).map_err(failed)?.then(|| BadFolder {
            topic_partition: metadata_log(),
            why: OpenTopicsError::missing_folder(dir.path(), metadata_log()),
        });
        return Ok(missing.into_iter().collect());
    }
    let replayed = replay(dir)?;
    let mut bad = Vec::new();
    for (id, topic) in &replayed.topics {
        for partition in 0..topic.partition_count {
            let topic_partition = TopicPartition::new(topic.name.as_str(), partition);
            if !folders.contains(&topic_partition) {
                let why = OpenTopicsError::missing_folder(dir.path(), topic_partition.clone());
                bad.push(BadFolder { topic_partition, why });
                continue;
            }
            let found = dir.topic_id(&topic_partition).map_err(failed)?;
            if found != *id {
                let (expected, named) = (*id, topic_partition.clone());
                let why = OpenTopicsError::ForeignFolder { topic_partition: named, expected, found };
                bad.push(BadFolder { topic_partition, why });
            }
        }
    }
    bad.sort_by(|a, b| a.topic_partition.cmp(&b.topic_partition));
    Ok(bad)
}

/// Whether a topic was ever created: its folder tells whose it is.
fn has_topics(dir: &OfflineDataDir, folders: &BTreeSet<TopicPartition>) -> io::Result<bool> {
    for folder in folders {
        if dir.topic_id(folder)? != TopicId::ZERO {
            return Ok(true);
        }
    }
    Ok(false)
}

fn metadata_log() -> TopicPartition {
    TopicPartition::new(names::METADATA_TOPIC, 0)
}

/// Replays what is whole. What is not, at the end, was never acknowledged, or the log's check says that it is lost.
fn replay(dir: &OfflineDataDir) -> Result<ReplayedMetadata, OpenTopicsError> {
    let log = metadata_log().to_string();
    let mut replayed = ReplayedMetadata::default();
    let (mut offset, mut damaged_at, mut outcome) = (0, None, Ok(()));
    let read = dir.read_log(&metadata_log(), |item| -> Result<(), io::Error> {
        let SegmentItem::Batch { batch, .. } = item else {
            damaged_at.get_or_insert(offset);
            return Ok(());
        };
        if outcome.is_ok() {
            outcome = match damaged_at {
                Some(offset) => Err(ReplayLogError::Batch { log: log.clone(), offset }.into()),
                None => replay_batch(&mut replayed, &batch),
            };
        }
        offset = batch.header.next_offset();
        Ok(())
    });
    read.map_err(|source| ReplayLogError::Io { log, offset, source })?;
    outcome.map(|()| replayed)
}

fn replay_batch(
    replayed: &mut ReplayedMetadata,
    batch: &tidings_log::batch::Batch,
) -> Result<(), OpenTopicsError> {
    let (log, offset) = (metadata_log().to_string(), batch.header.base_offset);
    if batch.header.is_control() {
        return Ok(());
    }
    let Some(records) = batch.records() else { return Err(ReplayLogError::Batch { log, offset }.into()) };
    for record in records {
        let record = record.map_err(|source| ReplayLogError::Record { log: log.clone(), offset, source })?;
        if let Some(value) = record.value {
            replayed.replay(record.offset, value)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use bytes::Bytes;
    use tidings_log::batch::BatchBuilder;
    use tidings_log::offline::Access;
    use tidings_log::testing::{Loss, SimDisk};
    use tidings_log::{AppendOptions, DataDir, DataDirOptions, Disk, LogConfig, Origin, PartitionLog};

    use super::*;
    use crate::topics::records::{partition_record, remove_topic_record, topic_record};

    const ROOT: &str = "/data";
    const ORDERS: TopicId = TopicId([7; 16]);
    const GONE: TopicId = TopicId([8; 16]);

    fn append(log: &Arc<PartitionLog>, value: Bytes) {
        let options = AppendOptions { origin: Origin::Coordinator, leader_epoch: 0, now_ms: 0 };
        let records = BatchBuilder::new().record(0, None, Some(&value), &[]).build();
        log.append(records, options).expect("append").commit.wait_blocking().expect("commit");
    }

    /// A topic of two partitions, and one that was deleted.
    fn written() -> SimDisk {
        let disk = SimDisk::new();
        let data_dir = DataDir::open(Arc::new(disk.clone()), ROOT, DataDirOptions::default()).expect("open");
        let (data_dir, _) = data_dir.recover().expect("recover");
        let new =
            |topic: &str, partition, id| (TopicPartition::new(topic, partition), id, LogConfig::default());
        let created = data_dir.create_logs(&[
            new(names::METADATA_TOPIC, 0, TopicId::METADATA),
            new("orders", 0, ORDERS),
            new("orders", 1, ORDERS),
        ]);
        let metadata = created.expect("create").remove(0);
        let records = [
            topic_record("orders", ORDERS),
            topic_record("gone", GONE),
            partition_record(GONE, 0, 0),
            partition_record(ORDERS, 0, 0),
            partition_record(ORDERS, 1, 0),
            remove_topic_record(GONE),
        ];
        records.into_iter().for_each(|record| append(&metadata, record.expect("encode")));
        data_dir.close().expect("close");
        drop((data_dir, metadata));
        disk.crash(Loss::Nothing)
    }

    fn found(disk: &SimDisk) -> Result<Vec<String>, String> {
        let dir = OfflineDataDir::open(Arc::new(disk.clone()), ROOT, Access::ReadOnly).expect("open");
        let bad = bad_folders(&dir).map_err(|error| error.to_string())?;
        Ok(bad.iter().map(|bad| bad.why.to_string()).collect())
    }

    #[test]
    fn a_missing_folder_is_named_as_a_start_does() {
        let disk = written();
        assert_eq!(found(&disk), Ok(vec![]));
        disk.remove_dir_all(&Path::new(ROOT).join("orders-1")).expect("remove");
        let expected = "orders-1: the topic exists, but its folder /data/orders-1 is missing; restore it from a backup, \
                        or delete the data directory to start empty";
        assert_eq!(found(&disk), Ok(vec![expected.to_owned()]));
    }

    #[test]
    fn a_folder_that_does_not_say_whose_it_is_is_refused_as_well() {
        let disk = written();
        disk.remove_file(&Path::new(ROOT).join("orders-0/partition.metadata")).expect("remove");
        let [found] = &found(&disk).expect("read")[..] else { panic!("one") };
        assert!(found.starts_with("orders-0: expected a folder of topic id"), "{found}");
    }

    #[test]
    fn what_can_not_be_told_is_an_error_and_a_torn_tail_is_none() {
        let disk = written();
        let log = Path::new(ROOT).join("__cluster_metadata-0/00000000000000000000.log");
        disk.corrupt(&log, |bytes| bytes.truncate(bytes.len() - 1)).expect("corrupt");
        // Without its last record the deleted topic is there again.
        assert_eq!(found(&disk).expect("read").len(), 1);
        disk.corrupt(&log, |bytes| bytes[70] ^= 1).expect("corrupt");
        let error = found(&disk).expect_err("damaged");
        assert!(
            error.contains("__cluster_metadata-0: expected an uncompressed record batch at offset 0"),
            "{error}"
        );
    }

    /// A start made it anew, and every topic was gone.
    #[test]
    fn a_missing_metadata_log_is_named_where_there_are_topics() {
        let disk = written();
        disk.remove_dir_all(&Path::new(ROOT).join("__cluster_metadata-0")).expect("remove");
        let [missing] = &found(&disk).expect("read")[..] else { panic!("one") };
        assert!(missing.starts_with("__cluster_metadata-0: the topic exists, but its folder"), "{missing}");
        for folder in ["orders-0", "orders-1"] {
            disk.remove_dir_all(&Path::new(ROOT).join(folder)).expect("remove");
        }
        assert_eq!(found(&disk), Ok(vec![]));
    }
}
