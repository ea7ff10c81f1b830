//! Power cuts at any moment: what was acknowledged is there afterwards, and nothing else than what was
//! sent, in its order. The negative control takes the page cache for durable, and must lose.
//!
//! `TIDINGS_CRASH_ROUNDS` sets the number of rounds, `TIDINGS_CRASH_SEED` the first seed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tidings_log::testing::{Captured, Loss, Random, SimDisk};
use tidings_log::{CommitHere, CommitTicket, DataDirOptions, Durability, LogConfig, PartitionLog, UpTo};

use crate::support::{append, batch, create, log, open_on, tags};

const PARTITIONS: usize = 3;
const BATCHES: u64 = 40;
const IN_FLIGHT: usize = 4;

fn options(durability: Durability, random: &mut Random) -> DataDirOptions {
    DataDirOptions {
        durability,
        checkpoint_bytes: 1 << (10 + random.below(5)),
        checkpoint_log_bytes: 1 << random.below(14),
        passed_over_bytes: 1 << random.below(16),
        max_open_files: 2,
        commit_here: CommitHere::Always,
        // Both ways of syncing get their share.
        syncfs_from_files: 1 + random.below(4),
        ..DataDirOptions::default()
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Appends to all partitions in turn with several appends in flight; `acked` counts, in order, what was
/// acknowledged.
fn produce(logs: &[Arc<PartitionLog>], random: &mut Random, acked: &AtomicU64) {
    let mut waiting: Vec<CommitTicket> = Vec::new();
    for index in 0..BATCHES {
        let len = if random.chance(4) { 3000 } else { 80 };
        let records = batch(&format!("b{index}"), 1 + random.below(3), random.below(len));
        let log = &logs[index as usize % PARTITIONS];
        // Who is alone commits on this thread.
        let mut ticket = log.append_with_more(records, crate::support::options()).expect("append").commit;
        if random.chance(2) {
            ticket.commit_here()
        } else {
            ticket.begin()
        }
        waiting.push(ticket);
        if waiting.len() == IN_FLIGHT || random.chance(4) {
            for ticket in waiting.drain(..) {
                ticket.wait_blocking().expect("commit");
                acked.fetch_add(1, SeqCst);
            }
        }
    }
}

/// One run with a crash before some operation; none when the run ended before it.
fn run(seed: u64, durability: Durability, flush_messages: i64) -> Option<Captured> {
    let mut random = Random::new(seed);
    let disk = SimDisk::new();
    let path = Path::new("/data");
    let (data_dir, _) = open_on(Arc::new(disk.clone()), path, options(durability, &mut random));
    let segment_bytes = 10_000 << random.below(3);
    let config =
        LogConfig { segment_bytes, index_interval_bytes: 256, flush_messages, ..LogConfig::default() };
    let logs: Vec<_> = (0..PARTITIONS).map(|index| create(&data_dir, index as i32, config)).collect();
    let acked = Arc::new(AtomicU64::new(0));
    let at = disk.operations_count() + random.below(4 * BATCHES as usize) as u64;
    disk.capture_at(at, Loss::Random(seed), acked.clone());
    produce(&logs, &mut random, &acked);
    data_dir.close().expect("close");
    disk.captured()
}

/// How many acknowledged batches are missing after the crash.
fn lost(seed: u64, captured: &Captured) -> usize {
    let path = Path::new("/data");
    let (data_dir, _) = open_on(Arc::new(captured.disk.clone()), path, DataDirOptions::default());
    let mut lost = 0;
    for partition in 0..PARTITIONS {
        let partition_log = log(&data_dir, partition as i32);
        let mut found: Vec<String> = tags(&partition_log, UpTo::HighWatermark);
        found.iter_mut().for_each(|tag| tag.truncate(tag.find('/').expect("batch/record/")));
        found.dedup();
        let sent = |index: &u64| *index as usize % PARTITIONS == partition;
        let expected: Vec<String> = (0..BATCHES).filter(sent).map(|index| format!("b{index}")).collect();
        assert_eq!(found[..], expected[..found.len()], "seed {seed}: partition {partition} is no prefix");
        let acked = (0..captured.note).filter(sent).count();
        lost += acked.saturating_sub(found.len());
        // The log goes on where it ends.
        let next = partition_log.log_end_offset();
        assert_eq!(append(&partition_log, batch("next", 1, 10)).base_offset, next);
    }
    lost
}

/// Crashed rounds and acknowledged batches lost in them.
fn rounds(durability: Durability, flush_messages: i64) -> (usize, usize) {
    let first = number("TIDINGS_CRASH_SEED", 1);
    let (mut crashed, mut total) = (0, 0);
    for seed in first..first + number("TIDINGS_CRASH_ROUNDS", 150) {
        let Some(captured) = run(seed, durability, flush_messages) else { continue };
        let lost = lost(seed, &captured);
        assert!(
            lost == 0 || (durability == Durability::Process && flush_messages > 1),
            "lost {lost} batches; rerun: TIDINGS_CRASH_SEED={seed} TIDINGS_CRASH_ROUNDS=1 cargo test power_cut"
        );
        crashed += 1;
        total += lost;
    }
    println!(
        "{durability:?}, flush.messages={flush_messages}: {crashed} power cuts, {total} acknowledged batches lost"
    );
    (crashed, total)
}

#[test]
fn acknowledged_batches_survive_power_cuts() {
    let (crashed, lost) = rounds(Durability::Power, i64::MAX);
    assert_eq!(lost, 0);
    assert!(crashed > 0 || number("TIDINGS_CRASH_ROUNDS", 150) < 10);
}

#[test]
fn flushing_after_each_message_is_as_good() {
    let (_, lost) = rounds(Durability::Process, 1);
    assert_eq!(lost, 0);
}

#[test]
fn without_syncs_the_same_test_sees_losses() {
    let (_, lost) = rounds(Durability::Process, i64::MAX);
    assert!(lost > 0, "the simulated disk loses nothing, so the other test proves nothing");
}
