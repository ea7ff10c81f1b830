//! `flush.messages` and `flush.ms` where the page cache counts as durable: what they flush survives a power cut, and
//! nothing else is synced for it.

use std::path::Path;
use std::sync::Arc;

use tidings_log::testing::{Loss, Operation, SimDisk};
use tidings_log::{DataDir, DataDirOptions, Durability, LogConfig, PartitionLog, StorageState, UpTo};

use crate::support::{NOW_MS, append, append_durably, batch, create, log, open_on, tags};

const ROOT: &str = "/data";
const EIO: i32 = 5;

fn start(config: LogConfig) -> (SimDisk, Arc<DataDir>, Arc<PartitionLog>) {
    let disk = SimDisk::new();
    let options = DataDirOptions { durability: Durability::Process, ..DataDirOptions::default() };
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), options);
    let orders = create(&data_dir, 0, config);
    (disk, data_dir, orders)
}

/// What a start finds after a power cut now.
fn after_power_cut(disk: &SimDisk) -> Vec<String> {
    let disk = disk.crash(Loss::Unsynced);
    let (data_dir, _) = open_on(Arc::new(disk), Path::new(ROOT), DataDirOptions::default());
    tags(&log(&data_dir, 0), UpTo::HighWatermark)
}

#[test]
fn every_so_many_records_the_log_is_flushed() {
    let (disk, _data_dir, orders) = start(LogConfig { flush_messages: 3, ..LogConfig::default() });
    assert_eq!(append(&orders, batch("a", 1, 10)).commit.outcome(), Some(Ok(())));
    assert_eq!(orders.high_watermark(), 1, "visible from the page cache");
    assert_eq!(after_power_cut(&disk), [""; 0]);
    append_durably(&orders, batch("b", 2, 10));
    append_durably(&orders, batch("c", 2, 10));
    assert_eq!(orders.high_watermark(), 5);
    assert_eq!(after_power_cut(&disk), ["a/0/", "b/0/", "b/1/"]);
    append_durably(&orders, batch("d", 1, 10));
    assert_eq!(after_power_cut(&disk).len(), 6);
}

#[test]
fn after_one_message_each_nothing_is_visible_that_could_vanish() {
    let (disk, data_dir, orders) = start(LogConfig { flush_messages: 1, ..LogConfig::default() });
    append_durably(&orders, batch("a", 1, 10));
    disk.fail(Operation::Sync, "", 0, 1, EIO);
    append(&orders, batch("b", 1, 10)).commit.wait_blocking().expect_err("its flush fails");
    assert_eq!(orders.high_watermark(), 1);
    assert!(matches!(data_dir.storage_state(), StorageState::Failed { .. }));
    assert_eq!(after_power_cut(&disk), ["a/0/"]);
}

#[test]
fn a_flush_reaches_back_over_closed_segments() {
    let config = LogConfig { segment_bytes: 400, flush_messages: 6, ..LogConfig::default() };
    let (disk, _data_dir, orders) = start(config);
    for index in 0..6 {
        append_durably(&orders, batch(&index.to_string(), 1, 100));
    }
    assert!(orders.segment_count() >= 3);
    assert_eq!(after_power_cut(&disk).len(), 6);
}

#[test]
fn records_are_flushed_when_they_have_waited_long_enough() {
    let (disk, data_dir, orders) = start(LogConfig { flush_ms: 500, ..LogConfig::default() });
    append_durably(&orders, batch("a", 1, 10));
    let syncs_count = disk.syncs_count();
    let (flushed, ask_again_ms) = data_dir.flush_old(NOW_MS + 499);
    flushed.wait_blocking().expect("nothing to do");
    assert_eq!((ask_again_ms, disk.syncs_count()), (10, syncs_count));
    data_dir.flush_old(NOW_MS + 500).0.wait_blocking().expect("flush");
    assert_eq!(after_power_cut(&disk), ["a/0/"]);
    // Once is enough, until there is something new.
    let syncs_count = disk.syncs_count();
    data_dir.flush_old(NOW_MS + 5000).0.wait_blocking().expect("nothing to do");
    assert_eq!(disk.syncs_count(), syncs_count);
    append_durably(&orders, batch("b", 1, 10));
    // The clock was set back by an hour meanwhile.
    data_dir.flush_old(NOW_MS - 3_600_000).0.wait_blocking().expect("flush");
    assert_eq!(after_power_cut(&disk).len(), 2);
}

#[test]
fn without_the_settings_nothing_is_flushed() {
    let (disk, data_dir, orders) = start(LogConfig::default());
    let syncs_count = disk.syncs_count();
    append_durably(&orders, batch("a", 100, 10));
    assert_eq!(data_dir.flush_old(i64::MAX).1, 1000);
    assert_eq!(disk.syncs_count(), syncs_count);
}
