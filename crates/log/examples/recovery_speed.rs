//! How long a start takes: `cargo run --release -p tidings-log --example recovery_speed FOLDER PARTITIONS MB`.
//!
//! Fills a data directory with that many megabytes over that many partitions, ends without closing it, as a
//! kill does, and opens it again; then the same after a clean end. Prints times and resident memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tidings_log::batch::BatchBuilder;
use tidings_log::{
    AppendOptions, CommitTicket, DataDir, DataDirOptions, LogConfig, Origin, RealDisk, RecoveryReport,
};
use tidings_model::{TopicId, TopicPartition};

const BATCH_BYTES: usize = 100_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, partitions, megabytes] = &arguments[..] else {
        panic!("usage: recovery_speed FOLDER PARTITIONS MB");
    };
    let folder = Path::new(folder);
    let partitions: i32 = partitions.parse().expect("a number of partitions");
    let megabytes: usize = megabytes.parse().expect("a number of megabytes");
    let data_dir = open(folder, "empty").0;
    fill(&data_dir, partitions, megabytes);
    drop(data_dir);
    let (data_dir, report) = open(folder, "after a kill");
    println!("  {} bytes checked in {} logs", report.checked_bytes, report.logs_count);
    data_dir.close().expect("close");
    drop(data_dir);
    let (data_dir, _) = open(folder, "after a clean end");
    drop(data_dir);
    std::fs::remove_dir_all(folder).expect("remove");
}

fn open(folder: &Path, what: &str) -> (Arc<DataDir>, RecoveryReport) {
    let start = Instant::now();
    let unrecovered = DataDir::open(Arc::new(RealDisk), folder, DataDirOptions::default()).expect("open");
    let (data_dir, report) = unrecovered.recover().expect("recover");
    println!("{what}: ready after {:.3} s, {}", start.elapsed().as_secs_f64(), resident());
    (data_dir, report)
}

fn fill(data_dir: &DataDir, partitions: i32, megabytes: usize) {
    let topic: Arc<str> = "speed".into();
    let new: Vec<_> = (0..partitions)
        .map(|index| (TopicPartition::new(topic.clone(), index), TopicId([1; 16]), LogConfig::default()))
        .collect();
    let logs = data_dir.create_logs(&new).expect("create");
    let value = vec![7; BATCH_BYTES];
    let options = AppendOptions { origin: Origin::Client, leader_epoch: 0, now_ms: 1 };
    let mut newest = CommitTicket::ready();
    for index in 0..megabytes * 1_000_000 / BATCH_BYTES {
        let records = BatchBuilder::new().producer(5, 0, (index / logs.len()) as i32);
        let records = records.record(1, None, Some(&value), &[]).build();
        newest = logs[index % logs.len()].append(records, options).expect("append").commit;
        if index % 100 == 99 {
            newest.wait_blocking().expect("commit");
        }
    }
    newest.wait_blocking().expect("commit");
    println!("filled: {}", resident());
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("read the process's status");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}
