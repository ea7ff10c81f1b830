//! How long a durable append takes while nothing else happens, and while the cleaner and retention work.
//!
//! `cargo run --release -p tidings-log --example cleaning_latency -- DIR [MB]`: fills a compacted log with so many
//! megabytes (default 400), then times appends to another log without and with the cleaner at work.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidings_log::batch::BatchBuilder;
use tidings_log::{
    AppendOptions, Chores, CleanupPolicy, DataDir, DataDirOptions, LogConfig, Origin, PartitionLog, RealDisk,
};
use tidings_model::{TopicId, TopicPartition};

const OPTIONS: AppendOptions = AppendOptions { origin: Origin::Client, leader_epoch: 0, now_ms: 0 };
const KEYS: usize = 50_000;
const QUIET: Duration = Duration::from_secs(5);

fn batch(first_key: usize, records: usize, value_len: usize) -> Bytes {
    let value = vec![b'x'; value_len];
    let mut builder = BatchBuilder::new();
    for index in 0..records {
        let key = format!("key-{}", (first_key + index * 7919) % KEYS);
        builder.push(0, Some(key.as_bytes()), Some(&value), &[]);
    }
    builder.build()
}

fn fill(log: &Arc<PartitionLog>, megabytes: usize) {
    let records = batch(0, 100, 1000);
    for index in 0..megabytes * 1_000_000 / records.len() {
        let appended = log.append(batch(index * 100, 100, 1000), OPTIONS).expect("append");
        if index % 64 == 0 {
            appended.commit.wait_blocking().expect("commit");
        }
    }
}

/// Appends durably, one at a time, until told to stop; the latencies in microseconds, sorted.
fn time_appends(log: &Arc<PartitionLog>, stop: &AtomicBool) -> Vec<u128> {
    let mut latencies = Vec::new();
    while !stop.load(Relaxed) {
        let start = Instant::now();
        let appended = log.append(batch(1, 1, 100), OPTIONS).expect("append");
        appended.commit.wait_blocking().expect("commit");
        latencies.push(start.elapsed().as_micros());
    }
    latencies.sort_unstable();
    latencies
}

fn print(what: &str, latencies: &[u128]) {
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    let (p50, p99, p999, max) = (at(0.5), at(0.99), at(0.999), at(1.0));
    let count = latencies.len();
    println!("{what:10} {count:7} appends: p50 {p50} us, p99 {p99} us, p99.9 {p999} us, max {max} us");
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().expect("a directory"));
    let megabytes = arguments.next().map_or(400, |text| text.parse().expect("megabytes"));
    let opened = DataDir::open(Arc::new(RealDisk), dir, DataDirOptions::default()).expect("open");
    let (data_dir, _) = opened.recover().expect("recover");
    let compacted = LogConfig {
        cleanup: CleanupPolicy::COMPACT,
        segment_bytes: 100 << 20,
        min_cleanable_dirty_ratio: 0.0,
        ..LogConfig::default()
    };
    let new = [
        (TopicPartition::new("compacted", 0), TopicId([1; 16]), compacted),
        (TopicPartition::new("timed", 0), TopicId([2; 16]), LogConfig::default()),
    ];
    let logs = data_dir.create_logs(&new).expect("create");
    let (compacted, timed) = (&logs[0], &logs[1]);
    fill(compacted, megabytes);
    data_dir.checkpoint().expect("checkpoint");

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let quiet = scope.spawn(|| time_appends(timed, &stop));
        std::thread::sleep(QUIET);
        stop.store(true, Relaxed);
        print("quiet", &quiet.join().expect("appends"));
        stop.store(false, Relaxed);
        let busy = scope.spawn(|| time_appends(timed, &stop));
        let start = Instant::now();
        let report = data_dir.keep(0, Chores::ALL);
        let elapsed = start.elapsed();
        stop.store(true, Relaxed);
        print("cleaning", &busy.join().expect("appends"));
        let (read, written) = (report.cleaned_read_bytes >> 20, report.cleaned_written_bytes >> 20);
        println!("cleaned {read} MB into {written} MB in {elapsed:.1?}");
    });
    data_dir.close().expect("close");
}
