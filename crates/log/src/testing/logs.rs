//! Short ways for unit tests to a data directory on a simulated disk.
//!
//! Owns the names and the time that such tests share. Invariant: nothing here is in a build but that of the tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tidings_model::{TopicId, TopicPartition};

use super::SimDisk;
use crate::batch::BatchBuilder;
use crate::config::{DataDirOptions, LogConfig};
use crate::data_dir::DataDir;
use crate::partition_log::{AppendOptions, Appended, Origin, PartitionLog};
use crate::recovery::RecoverError;

pub(crate) const ROOT: &str = "/data";
pub(crate) const NOW_MS: i64 = 1_700_000_000_000;
pub(crate) const HOUR_MS: i64 = 60 * 60 * 1000;

pub(crate) fn partition() -> TopicPartition {
    TopicPartition::new("orders", 0)
}

pub(crate) fn path_of(base_offset: i64, extension: &str) -> PathBuf {
    Path::new(ROOT).join("orders-0").join(format!("{base_offset:020}.{extension}"))
}

pub(crate) fn try_open(disk: &SimDisk, options: DataDirOptions) -> Result<Arc<DataDir>, RecoverError> {
    let unrecovered = DataDir::open(Arc::new(disk.clone()), ROOT, options).expect("open the data directory");
    unrecovered.recover().map(|(data_dir, _)| data_dir)
}

pub(crate) fn open(disk: &SimDisk) -> Arc<DataDir> {
    try_open(disk, DataDirOptions::default()).expect("recover the data directory")
}

pub(crate) fn create(data_dir: &DataDir, config: LogConfig) -> Arc<PartitionLog> {
    let new = (partition(), TopicId([7; 16]), config);
    data_dir.create_logs(&[new]).expect("create a log").remove(0)
}

pub(crate) fn log(data_dir: &DataDir) -> Arc<PartitionLog> {
    data_dir.log(&partition()).expect("the log exists")
}

/// A batch of one record.
pub(crate) fn batch(timestamp_ms: i64) -> Bytes {
    batch_of(b"key", timestamp_ms)
}

/// The same with a key of its own.
pub(crate) fn batch_of(key: &[u8], timestamp_ms: i64) -> Bytes {
    BatchBuilder::new().record(timestamp_ms, Some(key), Some(b"value"), &[]).build()
}

pub(crate) fn append(log: &Arc<PartitionLog>, records: Bytes) -> Appended {
    let options = AppendOptions { origin: Origin::Client, leader_epoch: 0, now_ms: NOW_MS };
    log.append(records, options).expect("append")
}

/// Appends and waits until it is durable.
pub(crate) fn append_durably(log: &Arc<PartitionLog>, records: Bytes) -> i64 {
    let appended = append(log, records);
    appended.commit.wait_blocking().expect("commit");
    appended.base_offset
}
