//! What the tests share: short ways to open a data directory and to make batches.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tidings_log::batch::{BatchBuilder, Batches};
use tidings_log::{
    AppendOptions, Appended, CommitTicket, DataDir, DataDirOptions, Disk, LogConfig, Origin, PartitionLog,
    RealDisk, RecoveryReport, UpTo,
};
use tidings_model::{TopicId, TopicPartition};

pub const NOW_MS: i64 = 1_700_000_000_000;

pub fn open(path: &Path) -> (Arc<DataDir>, RecoveryReport) {
    open_on(Arc::new(RealDisk), path, DataDirOptions::default())
}

pub fn open_on(disk: Arc<dyn Disk>, path: &Path, options: DataDirOptions) -> (Arc<DataDir>, RecoveryReport) {
    let unrecovered = DataDir::open(disk, path, options).expect("open the data directory");
    unrecovered.recover().expect("recover the data directory")
}

pub fn partition(index: i32) -> TopicPartition {
    TopicPartition::new("orders", index)
}

pub fn create(data_dir: &DataDir, index: i32, config: LogConfig) -> Arc<PartitionLog> {
    let new = (partition(index), TopicId([7; 16]), config);
    data_dir.create_logs(&[new]).expect("create a log").remove(0)
}

pub fn log(data_dir: &DataDir, index: i32) -> Arc<PartitionLog> {
    data_dir.log(&partition(index)).expect("the log exists")
}

pub fn options() -> AppendOptions {
    AppendOptions { origin: Origin::Client, leader_epoch: 0, now_ms: NOW_MS }
}

/// An append whose commit begins when somebody says so.
pub fn put_off(log: &Arc<PartitionLog>, tag: &str) -> CommitTicket {
    log.append_with_more(batch(tag, 1, 10), options()).expect("append").commit
}

/// Returns when the committer sleeps: with `CommitHere::Always`, who has its answer at once has led. Once it
/// may have been a committer that had not gone to sleep yet, but not so often in a row.
pub fn until_committer_sleeps(log: &Arc<PartitionLog>) {
    let mut in_a_row = 0;
    while in_a_row < 3 {
        let mut ticket = put_off(log, "x");
        ticket.commit_here();
        if ticket.outcome().is_some() {
            in_a_row += 1;
        } else {
            in_a_row = 0;
            ticket.wait_blocking().expect("commit");
        }
    }
}

/// A batch of `count` records whose values begin with `tag`.
pub fn batch(tag: &str, count: usize, value_len: usize) -> Bytes {
    timed_batch(tag, count, value_len, NOW_MS)
}

/// The same with timestamps from `first_ms` on.
pub fn timed_batch(tag: &str, count: usize, value_len: usize, first_ms: i64) -> Bytes {
    let mut builder = BatchBuilder::new();
    fill(&mut builder, tag, count, value_len, first_ms);
    builder.build()
}

pub fn fill(builder: &mut BatchBuilder, tag: &str, count: usize, value_len: usize, first_ms: i64) {
    for index in 0..count {
        let mut value = format!("{tag}/{index}/").into_bytes();
        value.resize(value.len().max(value_len), b'.');
        builder.push(first_ms + index as i64, Some(b"key"), Some(&value), &[]);
    }
}

pub fn append(log: &Arc<PartitionLog>, records: Bytes) -> Appended {
    log.append(records, options()).expect("append")
}

/// Appends and waits until it is durable.
pub fn append_durably(log: &Arc<PartitionLog>, records: Bytes) -> i64 {
    let appended = append(log, records);
    appended.commit.wait_blocking().expect("commit");
    appended.base_offset
}

/// All values from the log's start on, as the tags they begin with.
pub fn tags(log: &PartitionLog, up_to: UpTo) -> Vec<String> {
    let mut tags = Vec::new();
    let mut offset = log.log_start_offset();
    loop {
        let fetched = log.read(offset, 64 << 10, up_to, true).expect("read");
        if fetched.slice.is_empty() {
            return tags;
        }
        for batch in Batches::new(fetched.slice.read().expect("read the slice")) {
            let batch = batch.expect("a whole batch");
            assert!(batch.header.last_offset() >= offset);
            for record in batch.records().expect("not compressed") {
                let record = record.expect("a whole record");
                if record.offset >= offset {
                    assert_eq!(record.offset, offset);
                    offset += 1;
                    let value = record.value.expect("a value");
                    tags.push(String::from_utf8_lossy(&value).trim_end_matches('.').to_owned());
                }
            }
        }
    }
}
