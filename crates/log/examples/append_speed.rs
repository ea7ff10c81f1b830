//! How fast appends become durable: `cargo run --release -p tidings-log --example append_speed [folder]`.
//!
//! Appends batches from a few threads to 3 and to 1,000 partitions and waits for their tickets as a broker
//! does: each thread has a window of appends in flight. Prints a table; the figures in the ADR on group
//! commit come from here.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings_log::batch::BatchBuilder;
use tidings_log::{
    AppendOptions, DataDir, DataDirOptions, Durability, LogConfig, Origin, PartitionLog, RealDisk,
};
use tidings_model::{TopicId, TopicPartition};

const THREADS: usize = 2;

struct Case {
    partitions: usize,
    batch_bytes: usize,
    in_flight: usize,
    total_bytes: usize,
    durability: Durability,
}

fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "append-speed".to_owned());
    println!("| durability | partitions | batch | in flight | appends/s | MB/s | p50 ms | p99 ms |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mb = 1 << 20;
    for durability in [Durability::Power, Durability::Process] {
        for partitions in [3, 1000] {
            for (batch_bytes, in_flight, total_bytes) in [
                (1 << 10, 1, 4 * mb),
                (1 << 10, 1000, 128 * mb),
                (64 << 10, 64, 512 * mb),
                (mb, 8, 1024 * mb),
            ] {
                run(
                    Path::new(&folder),
                    &Case { partitions, batch_bytes, in_flight, total_bytes, durability },
                );
            }
        }
    }
}

fn run(folder: &Path, case: &Case) {
    let _ = std::fs::remove_dir_all(folder);
    let options = DataDirOptions { durability: case.durability, ..DataDirOptions::default() };
    let unrecovered = DataDir::open(Arc::new(RealDisk), folder, options).expect("open");
    let (data_dir, _) = unrecovered.recover().expect("recover");
    let new: Vec<_> = (0..case.partitions as i32)
        .map(|index| (TopicPartition::new("speed", index), TopicId([1; 16]), LogConfig::default()))
        .collect();
    let logs = data_dir.create_logs(&new).expect("create");
    let start = Instant::now();
    let mut latencies: Vec<Duration> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn({
                    let logs = &logs;
                    move || produce(logs, case, thread)
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("produce")).collect()
    });
    let elapsed = start.elapsed().as_secs_f64();
    latencies.sort();
    let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "| {:?} | {} | {} | {} | {:.0} | {:.0} | {:.2} | {:.2} |",
        case.durability,
        case.partitions,
        case.batch_bytes,
        case.in_flight,
        latencies.len() as f64 / elapsed,
        (latencies.len() * case.batch_bytes) as f64 / elapsed / 1e6,
        at(0.5),
        at(0.99),
    );
    data_dir.close().expect("close");
    std::fs::remove_dir_all(folder).expect("remove");
}

fn produce(logs: &[Arc<PartitionLog>], case: &Case, thread: usize) -> Vec<Duration> {
    let value = vec![7; case.batch_bytes - 80];
    let records = BatchBuilder::new().record(1, None, Some(&value), &[]).build();
    let options = AppendOptions { origin: Origin::Client, leader_epoch: 0, now_ms: 1 };
    let count = (case.total_bytes / case.batch_bytes / THREADS).min(if case.in_flight == 1 {
        400
    } else {
        usize::MAX
    });
    let mut latencies = Vec::with_capacity(count);
    let mut waiting = VecDeque::with_capacity(case.in_flight);
    for index in 0..count {
        if waiting.len() == case.in_flight {
            finish(&mut waiting, &mut latencies);
        }
        let log = &logs[(thread + index * THREADS) % logs.len()];
        let sent = Instant::now();
        waiting.push_back((sent, log.append(records.clone(), options).expect("append").commit));
    }
    while !waiting.is_empty() {
        finish(&mut waiting, &mut latencies);
    }
    latencies
}

fn finish(waiting: &mut VecDeque<(Instant, tidings_log::CommitTicket)>, latencies: &mut Vec<Duration>) {
    if let Some((sent, commit)) = waiting.pop_front() {
        commit.wait_blocking().expect("commit");
        latencies.push(sent.elapsed());
    }
}
