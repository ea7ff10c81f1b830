//! What a start makes of index files that a crash came over.

use std::sync::Arc;

use crate::config::{CleanupPolicy, LogConfig};
use crate::data_dir::Chores;
use crate::partition_log::PartitionLog;
use crate::testing::logs::{
    HOUR_MS, NOW_MS, append, append_durably, batch, batch_of, create, log, open, path_of,
};
use crate::testing::{Loss, SimDisk};

const LONG_AGO_MS: i64 = NOW_MS - 2 * HOUR_MS;

/// More entries of the offset index than gather in memory.
const MANY: usize = 1100;

fn config() -> LogConfig {
    LogConfig { index_interval_bytes: 1, retention_ms: HOUR_MS, ..LogConfig::default() }
}

/// A log whose second batch, behind the last checkpoint, is the newest by far, after a kill.
fn killed() -> SimDisk {
    let disk = SimDisk::new();
    let data_dir = open(&disk);
    let orders = create(&data_dir, config());
    append_durably(&orders, batch(LONG_AGO_MS));
    data_dir.checkpoint().expect("checkpoint");
    append(&orders, batch(NOW_MS));
    (0..MANY).for_each(|_| drop(append(&orders, batch(LONG_AGO_MS))));
    append_durably(&orders, batch(LONG_AGO_MS));
    disk.crash(Loss::Nothing)
}

fn check_newest(orders: &PartitionLog, what: &str) {
    let newest = orders.max_timestamp().expect("read").map(|found| (found.offset, found.timestamp_ms));
    assert_eq!(newest, Some((1, NOW_MS)), "{what}");
    let found = orders.offset_for_timestamp(NOW_MS - 1).expect("read").map(|found| found.offset);
    assert_eq!(found, Some(1), "{what}");
}

/// Timestamps that do not ascend give the offset index entries and the time index none: it was written long after
/// the other one, and a kill in between left it behind. The newest record was not found, and went as an old one.
#[test]
fn a_newest_record_is_known_after_a_kill() {
    let disk = killed();
    let data_dir = open(&disk);
    let orders = log(&data_dir);
    orders.set_config(config());
    check_newest(&orders, "after a kill");
    data_dir.checkpoint().expect("checkpoint");
    data_dir.keep(NOW_MS, Chores { retention: true, ..Chores::default() });
    assert_eq!(orders.log_start_offset(), 0);
}

/// A power cut may keep the one file and lose any part of the other.
#[test]
fn a_time_index_that_lags_behind_the_recovery_point_is_not_believed() {
    for kept_entries in [0, 1] {
        let disk = killed();
        let path = path_of(0, "timeindex");
        disk.corrupt(&path, |bytes| bytes.truncate(kept_entries * 12)).expect("it is there");
        let data_dir = open(&disk);
        check_newest(&log(&data_dir), &format!("{kept_entries} entries kept"));
    }
}

/// No recovery looks again at a closed segment: what it had to find anew is written before the next checkpoint.
#[test]
fn what_a_recovery_has_found_is_known_to_the_next_start() {
    let disk = killed();
    disk.corrupt(&path_of(0, "timeindex"), |bytes| bytes.clear()).expect("it is there");
    let data_dir = open(&disk);
    log(&data_dir).roll_now().expect("roll");
    data_dir.close().expect("close");
    let disk = disk.crash(Loss::Nothing);
    check_newest(&log(&open(&disk)), "after two starts");
}

/// Making the indexes anew of a segment that no recovery looks at again.
#[test]
fn a_time_index_that_is_made_anew_is_durable_before_the_offset_index() {
    let disk = killed();
    let data_dir = open(&disk);
    log(&data_dir).roll_now().expect("roll");
    data_dir.close().expect("close");
    let disk = disk.crash(Loss::Nothing);
    disk.corrupt(&path_of(0, "index"), |bytes| *bytes.last_mut().expect("entries") ^= 1)
        .expect("it is there");
    let data_dir = open(&disk);
    check_newest(&log(&data_dir), "a damaged index");
    for seed in 0..50 {
        let cut = open(&disk.crash(Loss::Random(seed)));
        check_newest(&log(&cut), &format!("a power cut, seed {seed}"));
    }
}

/// The same where the cleaner has made a segment, at each operation of that.
#[test]
fn a_power_cut_while_a_segment_is_cleaned_leaves_no_short_time_index() {
    let compacted = LogConfig { cleanup: CleanupPolicy::COMPACT, min_cleanable_dirty_ratio: 0.0, ..config() };
    let written = SimDisk::new();
    let data_dir = open(&written);
    let orders = create(&data_dir, compacted);
    for key in 0..20 {
        let timestamp = if key == 1 { NOW_MS } else { LONG_AGO_MS };
        append_durably(&orders, batch_of(&[key], timestamp));
    }
    orders.roll_now().expect("roll");
    data_dir.close().expect("close");
    drop(data_dir);
    for (moment, seed) in (1..).flat_map(|moment| (0..8).map(move |seed| (moment, seed))) {
        let disk = written.crash(Loss::Nothing);
        let data_dir = open(&disk);
        log(&data_dir).set_config(compacted);
        disk.capture_at(disk.operations_count() + moment, Loss::Random(seed), Arc::default());
        data_dir.keep(NOW_MS, Chores { cleaning: true, ..Chores::default() });
        let Some(captured) = disk.captured() else { return assert!(moment > 10, "{moment} operations") };
        check_newest(&log(&open(&captured.disk)), &format!("cut at operation {moment}, seed {seed}"));
    }
}
