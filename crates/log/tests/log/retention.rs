//! What goes: old segments by time and size, records on demand. And what stays, whatever happens meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tidings_log::offline::{Access, OfflineDataDir};
use tidings_log::testing::{Captured, Loss, Random, SimDisk};
use tidings_log::{
    Chores, CleanupPolicy, DataDir, DataDirOptions, DeleteRecordsError, Disk, LogConfig, PartitionLog,
    ReadError, UpTo,
};
use tidings_model::ErrorCode;

use crate::support::{NOW_MS, append_durably, batch, create, log, open_on, partition, tags, timed_batch};

const HOUR_MS: i64 = 3_600_000;
const DATA: &str = "/data";

fn by_time() -> LogConfig {
    LogConfig {
        cleanup: CleanupPolicy::DELETE,
        retention_ms: HOUR_MS,
        segment_bytes: 1000,
        file_delete_delay_ms: 60_000,
        ..LogConfig::default()
    }
}

fn open_sim(disk: &SimDisk) -> Arc<DataDir> {
    open_on(Arc::new(disk.clone()), Path::new(DATA), DataDirOptions::default()).0
}

/// Ten segments of one batch each, ten minutes apart; the last one ends at `NOW_MS`.
fn ten_segments(data_dir: &DataDir, config: LogConfig) -> Arc<PartitionLog> {
    let orders = create(data_dir, 0, LogConfig { segment_bytes: 600, ..config });
    for index in 0..10 {
        let time_ms = NOW_MS - (9 - index) * HOUR_MS / 6;
        append_durably(&orders, timed_batch(&format!("b{index}"), 1, 500, time_ms));
    }
    assert_eq!(orders.segment_count(), 10);
    data_dir.checkpoint().expect("checkpoint");
    orders
}

fn retention() -> Chores {
    Chores { retention: true, ..Chores::default() }
}

fn expected(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|index| format!("b{index}/0/")).collect()
}

#[test]
fn segments_go_when_their_newest_record_is_too_old() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk);
    let orders = ten_segments(&data_dir, by_time());
    let slice = orders.read(0, 10_000, UpTo::HighWatermark, true).expect("read").slice;
    assert_eq!(data_dir.keep(NOW_MS, retention()).removed_segments, 3);
    assert_eq!((orders.log_start_offset(), orders.segment_count()), (3, 7));
    assert_eq!(tags(&orders, UpTo::HighWatermark), expected(3, 10));
    let gone = orders.read(2, 100, UpTo::HighWatermark, true).expect_err("deleted");
    assert_eq!(gone.error_code(), ErrorCode::OffsetOutOfRange);
    // Who was reading goes on with what it had.
    assert!(slice.read().expect("the file is open").windows(3).any(|bytes| bytes == b"b0/"));

    let aside = |disk: &SimDisk| {
        let names = disk.files(Path::new("/data/orders-0"));
        names.iter().filter(|path| path.extension().is_some_and(|found| found == "deleted")).count()
    };
    assert!(aside(&disk) >= 3, "the files wait for file.delete.delay.ms");
    data_dir.keep(NOW_MS + 59_999, Chores::default());
    assert!(aside(&disk) >= 3);
    data_dir.keep(NOW_MS + 60_000, Chores::default());
    assert_eq!((aside(&disk), data_dir.doomed_files_count()), (0, 0));
}

#[test]
fn a_log_whose_every_record_is_too_old_goes_on_empty() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk);
    let orders = ten_segments(&data_dir, by_time());
    data_dir.keep(NOW_MS + 2 * HOUR_MS, retention());
    assert_eq!((orders.log_start_offset(), orders.log_end_offset(), orders.segment_count()), (10, 10, 1));
    // Nothing is left to remove, and the empty segment stays.
    assert_eq!(data_dir.keep(NOW_MS + 9 * HOUR_MS, retention()).removed_segments, 0);
    drop((data_dir, orders));
    for loss in [Loss::Nothing, Loss::Unsynced] {
        let data_dir = open_sim(&disk.crash(loss));
        let orders = log(&data_dir, 0);
        assert_eq!((orders.log_start_offset(), orders.log_end_offset()), (10, 10), "{loss:?}");
        assert_eq!(append_durably(&orders, batch("next", 1, 1)), 10);
    }
}

#[test]
fn the_oldest_segments_go_while_the_rest_is_large_enough() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk);
    let config = LogConfig { retention_ms: -1, ..by_time() };
    let orders = ten_segments(&data_dir, config);
    let segment_bytes = orders.size_bytes() / 10;
    let keep = |retention_bytes| {
        orders.set_config(LogConfig { retention_bytes, ..config });
        data_dir.keep(NOW_MS, retention());
        orders.log_start_offset()
    };
    assert_eq!(keep(-1), 0);
    assert_eq!(keep(segment_bytes as i64 * 7), 3);
    assert_eq!(keep(segment_bytes as i64 * 7 - 1), 3, "one less would be too little");
    assert_eq!(keep(segment_bytes as i64 * 2), 8);
    assert_eq!(keep(0), 10);
}

#[test]
fn without_the_policy_nothing_goes_by_age_or_size() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk);
    for (index, cleanup) in [CleanupPolicy::default(), CleanupPolicy::COMPACT].into_iter().enumerate() {
        let config = LogConfig { cleanup, retention_bytes: 0, ..by_time() };
        let orders = create(&data_dir, index as i32, config);
        (0..5).for_each(|_| {
            append_durably(&orders, batch("b", 1, 900));
        });
        data_dir.checkpoint().expect("checkpoint");
        data_dir.keep(NOW_MS + 1000 * HOUR_MS, retention());
        assert_eq!(orders.log_start_offset(), 0, "{cleanup:?}");
    }
}

#[test]
fn records_are_deleted_on_demand_and_stay_deleted() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk);
    let orders = ten_segments(&data_dir, by_time());
    let delete = |offset| data_dir.delete_records(&[(partition(0), offset)], NOW_MS).remove(0);
    assert_eq!(delete(Some(4)).expect("delete"), 4);
    assert_eq!(orders.segment_count(), 6, "whole segments go at once");
    assert_eq!(delete(Some(2)).expect("nothing to do"), 4);
    let refused = |offset: Option<i64>| delete(offset).expect_err("refused").error_code();
    assert_eq!(refused(Some(11)), ErrorCode::OffsetOutOfRange);
    assert_eq!(refused(Some(-2)), ErrorCode::OffsetOutOfRange);
    let unknown = data_dir.delete_records(&[(partition(7), None)], NOW_MS).remove(0);
    assert!(matches!(unknown, Err(DeleteRecordsError::Unknown { .. })));
    orders.set_config(LogConfig { cleanup: CleanupPolicy::COMPACT, ..by_time() });
    assert_eq!(refused(None), ErrorCode::PolicyViolation);

    drop((data_dir, orders));
    let data_dir = open_sim(&disk.crash(Loss::Unsynced));
    let orders = log(&data_dir, 0);
    orders.set_config(by_time());
    assert_eq!(orders.log_start_offset(), 4);
    assert_eq!(tags(&orders, UpTo::HighWatermark), expected(4, 10));
    let delete = data_dir.delete_records(&[(partition(0), None)], NOW_MS).remove(0);
    assert_eq!((delete.expect("delete"), orders.segment_count()), (10, 1));
    assert!(tags(&orders, UpTo::HighWatermark).is_empty());
    assert_eq!(append_durably(&orders, batch("b10", 1, 1)), 10);
}

#[test]
fn a_start_within_a_segment_hides_what_is_below() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk);
    let orders = create(&data_dir, 0, by_time());
    append_durably(&orders, timed_batch("b0", 4, 1, NOW_MS));
    append_durably(&orders, timed_batch("b1", 4, 1, NOW_MS - 10));
    assert_eq!(orders.max_timestamp().expect("look").expect("one").offset, 3);
    data_dir.delete_records(&[(partition(0), Some(6))], NOW_MS).remove(0).expect("delete");
    assert!(matches!(
        orders.read(5, 100, UpTo::HighWatermark, true),
        Err(ReadError::OffsetOutOfRange { .. })
    ));
    assert_eq!(tags(&orders, UpTo::HighWatermark), ["b1/2/", "b1/3/"]);
    let by_time = |timestamp| orders.offset_for_timestamp(timestamp).expect("look").map(|found| found.offset);
    assert_eq!((by_time(0), by_time(NOW_MS - 7), by_time(NOW_MS)), (Some(6), Some(7), None));
    assert_eq!(orders.max_timestamp().expect("look").expect("one").offset, 7);
}

#[test]
fn a_later_topic_of_the_same_name_begins_at_0() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk);
    let orders = ten_segments(&data_dir, by_time());
    data_dir.delete_records(&[(partition(0), Some(7))], NOW_MS).remove(0).expect("delete");
    data_dir.delete_logs(&[partition(0)]).expect("delete the log");
    assert!(orders.is_deleted());
    let orders = create(&data_dir, 0, by_time());
    append_durably(&orders, batch("b0", 1, 1));
    drop((data_dir, orders));
    let data_dir = open_sim(&disk.crash(Loss::Unsynced));
    assert_eq!(tags(&log(&data_dir, 0), UpTo::HighWatermark), ["b0/0/"]);
}

#[test]
fn a_full_disk_does_not_keep_old_segments_from_going() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk);
    let orders = ten_segments(&data_dir, LogConfig { file_delete_delay_ms: 0, ..by_time() });
    disk.set_space_left(0);
    data_dir.keep(NOW_MS, retention());
    assert_eq!((orders.log_start_offset(), orders.segment_count()), (3, 7));
    disk.heal();
    drop((data_dir, orders));
    let data_dir = open_sim(&disk.crash(Loss::Unsynced));
    assert_eq!(tags(&log(&data_dir, 0), UpTo::HighWatermark), expected(3, 10));
}

/// Where a log begins could not be written down before its segments went; nobody did so later, and whoever missed them then
/// could not know better.
#[test]
fn a_start_that_a_full_disk_had_no_room_for_is_written_down_when_it_has() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk);
    ten_segments(&data_dir, LogConfig { file_delete_delay_ms: 0, ..by_time() });
    disk.set_space_left(0);
    data_dir.keep(NOW_MS, retention());
    assert_eq!(begins_late(&disk), [(0, 3)]);
    disk.heal();
    data_dir.keep(NOW_MS, retention());
    assert_eq!(begins_late(&disk), []);
}

/// The recorded and the real start of logs that miss segments at their beginning: a start goes on, and a check says the same.
fn begins_late(disk: &SimDisk) -> Vec<(i64, i64)> {
    let disk = disk.crash(Loss::Unsynced);
    let offline = OfflineDataDir::open(Arc::new(disk.clone()), DATA, Access::ReadOnly).expect("open");
    let check = offline.check(&partition(0), &|_| {}).expect("check");
    let (_, report) = open_on(Arc::new(disk), Path::new(DATA), DataDirOptions::default());
    let late: Vec<_> = report.late_starts.iter().map(|late| (late.recorded, late.offset)).collect();
    let missing: Vec<_> =
        check.damages.iter().map(|damage| (damage.first_offset, damage.next_offset)).collect();
    assert_eq!(late, missing);
    late
}

/// A history of appends, deletions and retention, cut off at some operation. The note holds what was
/// acknowledged: the log's end, and its start above that.
fn run(seed: u64) -> Option<Captured> {
    let mut random = Random::new(seed);
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk);
    let config = LogConfig {
        retention_ms: -1,
        retention_bytes: 3000 + random.below(4000) as i64,
        segment_bytes: 700 + random.below(1500) as u32,
        file_delete_delay_ms: random.below(2) as i64 * 50,
        ..by_time()
    };
    let orders = create(&data_dir, 0, config);
    let note = Arc::new(AtomicU64::new(0));
    disk.capture_at(disk.operations_count() + random.below(300) as u64, Loss::Random(seed), note.clone());
    for step in 0..60 {
        append_durably(&orders, batch(&format!("b{step}"), 1, random.below(600)));
        note.fetch_add(1, SeqCst);
        let end = orders.log_end_offset() as usize;
        match random.below(8) {
            0 => data_dir.checkpoint().expect("checkpoint"),
            1 => {
                let offset = Some(random.below(end + 1) as i64);
                let start = data_dir.delete_records(&[(partition(0), offset)], step).remove(0);
                let start = start.expect("delete") as u64;
                note.fetch_and(u64::from(u32::MAX), SeqCst);
                note.fetch_or(start << 32, SeqCst);
            }
            2 | 3 => drop(data_dir.keep(step, retention())),
            _ => {}
        }
    }
    disk.captured()
}

/// Whether the start fell back behind what was acknowledged.
fn start_lost(seed: u64, captured: &Captured) -> bool {
    let data_dir = open_sim(&captured.disk);
    let orders = log(&data_dir, 0);
    let (start, end) = (orders.log_start_offset(), orders.log_end_offset());
    let (acked_start, acked_end) = (captured.note >> 32, captured.note & u64::from(u32::MAX));
    assert!(end as u64 >= acked_end, "seed {seed}: the log ends at {end}, acknowledged were {acked_end}");
    let found = tags(&orders, UpTo::HighWatermark);
    assert_eq!(found, expected(start as usize, end as usize), "seed {seed}");
    assert_eq!(append_durably(&orders, batch("next", 1, 10)), end);
    (start as u64) < acked_start
}

#[test]
fn power_cuts_bring_no_deleted_record_back_and_take_no_other() {
    let mut crashed = 0;
    for seed in 1..=200 {
        let Some(captured) = run(seed) else { continue };
        assert_eq!(begins_late(&captured.disk), [], "seed {seed}: deleted records are missed");
        assert!(!start_lost(seed, &captured), "seed {seed}: deleted records are back");
        crashed += 1;
    }
    assert!(crashed > 100, "{crashed}");
}

#[test]
fn without_the_starts_file_the_same_test_sees_deleted_records() {
    let lost = |seed| {
        let captured = run(seed)?;
        let _ = captured.disk.remove_file(&Path::new(DATA).join("log-start-offset-checkpoint"));
        Some(start_lost(seed, &captured))
    };
    assert!(
        (1..=200).filter_map(lost).any(|lost| lost),
        "the file is not needed, so the other test proves nothing"
    );
}
