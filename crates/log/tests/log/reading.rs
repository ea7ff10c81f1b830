//! Where reads begin and end.

use std::path::Path;
use std::sync::Arc;

use tidings_log::batch::{BatchBuilder, BatchHeader, Batches, TimestampType};
use tidings_log::testing::SimDisk;
use tidings_log::{AppendOptions, DataDir, DataDirOptions, LogConfig, Origin, PartitionLog, ReadError, UpTo};
use tidings_model::ErrorCode;

use crate::support::{NOW_MS, append, append_durably, batch, create, log, open_on, options, timed_batch};

fn start() -> (SimDisk, Arc<DataDir>) {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new("/data"), DataDirOptions::default());
    (disk, data_dir)
}

/// First and last offset of what a read finds, and its size.
fn read(
    orders: &PartitionLog,
    offset: i64,
    max_bytes: usize,
    at_least_one: bool,
) -> Option<(i64, i64, usize)> {
    let fetched = orders.read(offset, max_bytes, UpTo::HighWatermark, at_least_one).expect("read");
    let bytes = fetched.slice.read().expect("read the slice");
    let headers: Vec<BatchHeader> =
        Batches::new(bytes.clone()).map(|batch| batch.expect("whole").header).collect();
    Some((headers.first()?.base_offset, headers.last()?.last_offset(), bytes.len()))
}

#[test]
fn reads_end_at_whole_batches() {
    let (_, data_dir) = start();
    let orders = create(&data_dir, 0, LogConfig::default());
    let size = batch("x", 2, 400).len();
    for _ in 0..50 {
        append_durably(&orders, batch("x", 2, 400));
    }
    let check = |offset, max_bytes, at_least_one, expect: Option<(i64, i64)>| {
        let found = read(&orders, offset, max_bytes, at_least_one).map(|(first, last, _)| (first, last));
        assert_eq!(found, expect, "{offset} {max_bytes} {at_least_one}");
    };
    check(0, size, false, Some((0, 1)));
    check(0, size - 1, false, None);
    check(0, 0, false, None);
    check(0, 0, true, Some((0, 1)));
    check(0, size * 2 - 1, false, Some((0, 1)));
    check(0, size * 2, false, Some((0, 3)));
    check(5, size * 2, false, Some((4, 7)));
    check(98, size, false, Some((98, 99)));
    check(99, size * 9, false, Some((98, 99)));
    check(0, usize::MAX >> 1, false, Some((0, 99)));
    check(100, size, true, None);
    for offset in 0..100 {
        for count in 1..50 {
            let last = (offset / 2 * 2 + 2 * count as i64 - 1).min(99);
            check(offset, size * count, false, Some((offset / 2 * 2, last)));
        }
    }
    for offset in [-1, 101] {
        let error = orders.read(offset, size, UpTo::HighWatermark, true).expect_err("out of range");
        assert!(matches!(error, ReadError::OffsetOutOfRange { .. }), "{error}");
        assert_eq!(error.error_code(), ErrorCode::OffsetOutOfRange);
    }
}

#[test]
fn what_is_not_durable_is_invisible_except_to_the_broker() {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new("/data"), DataDirOptions::default());
    let orders = create(&data_dir, 0, LogConfig::default());
    append_durably(&orders, batch("x", 2, 10));
    disk.fail(tidings_log::testing::Operation::Sync, "", 0, usize::MAX, 5);
    append(&orders, batch("y", 2, 10)).commit.wait_blocking().expect_err("the disk fails");
    assert_eq!((orders.high_watermark(), orders.log_end_offset()), (2, 4));
    assert_eq!(read(&orders, 2, 1000, true), None);
    assert_eq!(read(&orders, 4, 1000, true), None);
    let fetched = orders.read(2, 1000, UpTo::LogEnd, true).expect("read");
    assert!(!fetched.slice.is_empty());
    assert_eq!((fetched.high_watermark, fetched.last_stable_offset, fetched.log_start_offset), (2, 2, 0));
}

#[test]
fn sequential_reads_need_no_search() {
    let (disk, data_dir) = start();
    let orders = create(&data_dir, 0, LogConfig::default());
    let mut offset = 0;
    for _ in 0..100 {
        append_durably(&orders, batch("x", 3, 100));
        let opened = disk.operations_count();
        let (first, last, _) = read(&orders, offset, 1 << 20, true).expect("one batch");
        assert_eq!(first, offset);
        assert_eq!(disk.operations_count(), opened, "a tail read opens and writes nothing");
        offset = last + 1;
    }
}

#[test]
fn an_open_transaction_ends_stable_reads() {
    let (_, data_dir) = start();
    let orders = create(&data_dir, 0, LogConfig::default());
    append_durably(&orders, batch("plain", 5, 10));
    let txn = BatchBuilder::new().producer(3, 0, 0).transactional();
    let verified = AppendOptions { origin: Origin::Transaction, ..options() };
    let begun = orders.append(txn.record(NOW_MS, None, Some(b"v"), &[]).build(), verified).expect("append");
    begun.commit.wait_blocking().expect("commit");
    append_durably(&orders, batch("plain", 5, 10));
    assert_eq!((orders.last_stable_offset(), orders.high_watermark()), (5, 11));
    let fetched = orders.read(0, 10_000, UpTo::LastStable, true).expect("read");
    let batches: Vec<_> = Batches::new(fetched.slice.read().expect("read the slice")).collect();
    assert_eq!(batches.len(), 1);
    assert!(orders.read(5, 10_000, UpTo::LastStable, true).expect("read").slice.is_empty());
}

#[test]
fn timestamps_lead_to_offsets() {
    let (_, data_dir) = start();
    let config = LogConfig { segment_bytes: 2000, index_interval_bytes: 100, ..LogConfig::default() };
    let orders = create(&data_dir, 0, config);
    assert!(orders.offset_for_timestamp(0).expect("search").is_none());
    assert!(orders.max_timestamp().expect("search").is_none());
    // Out of order: later batches with earlier times.
    let firsts = [10, 40, 20, 70, 60, 65, 100, 90];
    for first in firsts {
        append_durably(&orders, timed_batch("x", 5, 150, NOW_MS + first));
    }
    assert!(orders.segment_count() > 2);
    let timestamps: Vec<i64> =
        firsts.iter().flat_map(|first| (0..5).map(move |delta| first + delta)).collect();
    for wanted in 0..110 {
        let expect = timestamps.iter().position(|timestamp| *timestamp >= wanted);
        let found = orders.offset_for_timestamp(NOW_MS + wanted).expect("search");
        assert_eq!(found.map(|found| found.offset), expect.map(|index| index as i64), "{wanted}");
    }
    let newest = orders.max_timestamp().expect("search").expect("found");
    assert_eq!((newest.offset, newest.timestamp_ms), (34, NOW_MS + 104));
}

#[test]
fn segments_roll_by_time_and_index_size() {
    let (_, data_dir) = start();
    let by_time = create(&data_dir, 0, LogConfig { segment_ms: 1000, ..LogConfig::default() });
    for second in [0, 1, 2, 3] {
        append_durably(&by_time, timed_batch("x", 1, 10, NOW_MS + second * 600));
    }
    assert_eq!(by_time.segment_count(), 2);
    let config = LogConfig { segment_index_bytes: 24, index_interval_bytes: 10, ..LogConfig::default() };
    let by_index = create(&data_dir, 1, config);
    for index in 0..10 {
        append_durably(&by_index, timed_batch("x", 1, 10, NOW_MS + index));
    }
    assert_eq!(by_index.segment_count(), 4);
    data_dir.close().expect("close");
}

#[test]
fn the_broker_can_set_timestamps() {
    let (disk, data_dir) = start();
    let config = LogConfig { timestamp_type: TimestampType::LogAppendTime, ..LogConfig::default() };
    let orders = create(&data_dir, 0, config);
    let appended = append(&orders, timed_batch("x", 3, 10, 0));
    assert_eq!(appended.log_append_time_ms, Some(NOW_MS));
    drop(data_dir);
    let disk = disk.crash(tidings_log::testing::Loss::Nothing);
    let (data_dir, report) = open_on(Arc::new(disk), Path::new("/data"), DataDirOptions::default());
    assert!(report.cuts.is_empty(), "the CRC is right");
    let found = log(&data_dir, 0).offset_for_timestamp(1).expect("search").expect("found");
    assert_eq!((found.offset, found.timestamp_ms), (0, NOW_MS));
}

#[test]
fn a_deleted_log_made_anew_is_empty() {
    let (disk, data_dir) = start();
    let orders = create(&data_dir, 0, LogConfig::default());
    append_durably(&orders, batch("x", 3, 10));
    data_dir.checkpoint().expect("checkpoint");
    data_dir.delete_logs(&[orders.topic_partition().clone()]).expect("delete");
    assert!(matches!(orders.read(0, 10, UpTo::LogEnd, true), Err(ReadError::Deleted { .. })));
    let orders = create(&data_dir, 0, LogConfig::default());
    assert_eq!(append_durably(&orders, batch("y", 1, 10)), 0);
    drop((orders, data_dir));
    let disk = disk.crash(tidings_log::testing::Loss::Unsynced);
    let (data_dir, _) = open_on(Arc::new(disk), Path::new("/data"), DataDirOptions::default());
    assert_eq!(log(&data_dir, 0).log_end_offset(), 1);
}
