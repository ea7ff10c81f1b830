//! Idempotent producers across restarts.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tidings_log::batch::BatchBuilder;
use tidings_log::testing::{Loss, SimDisk};
use tidings_log::{AppendError, DataDirOptions, LogConfig, UpTo};
use tidings_model::ErrorCode;

use crate::support::{NOW_MS, append, append_durably, create, fill, log, open_on, options, tags};

const ROOT: &str = "/data";

fn sequenced(base_sequence: i32, count: usize) -> Bytes {
    let mut builder = BatchBuilder::new().producer(9, 0, base_sequence);
    fill(&mut builder, &format!("s{base_sequence}"), count, 20, NOW_MS);
    builder.build()
}

#[test]
fn a_batch_that_comes_twice_gets_its_first_offset_also_after_any_restart() {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
    let orders = create(&data_dir, 0, LogConfig::default());
    for index in 0..7 {
        assert_eq!(append_durably(&orders, sequenced(index * 2, 2)), i64::from(index) * 2);
    }
    let killed = disk.crash(Loss::Nothing);
    let cut = disk.crash(Loss::Unsynced);
    data_dir.close().expect("close");
    drop((orders, data_dir));
    let closed = disk.crash(Loss::Nothing);
    let no_snapshot = disk.crash(Loss::Nothing);
    let snapshot = Path::new(ROOT).join("orders-0").join(format!("{:020}.snapshot", 14));
    no_snapshot.corrupt(&snapshot, |data| data[9] ^= 1).expect("corrupt");
    for (name, disk) in [("killed", killed), ("cut", cut), ("closed", closed), ("no snapshot", no_snapshot)] {
        let (data_dir, report) = open_on(Arc::new(disk), Path::new(ROOT), DataDirOptions::default());
        assert_eq!(report.rebuilt.is_empty(), name != "no snapshot", "{name}: {:?}", report.rebuilt);
        let orders = log(&data_dir, 0);
        for index in 2..7 {
            let appended = append(&orders, sequenced(index * 2, 2));
            assert!(appended.duplicate, "{name}: batch {index}");
            assert_eq!(
                (appended.base_offset, appended.last_offset),
                (i64::from(index) * 2, i64::from(index) * 2 + 1)
            );
            appended.commit.wait_blocking().expect("durable before");
        }
        let error = orders.append(sequenced(0, 2), options()).expect_err("too old to be told from a new one");
        assert_eq!(error.error_code(), ErrorCode::OutOfOrderSequenceNumber, "{name}");
        let error = orders.append(sequenced(16, 1), options()).expect_err("a hole");
        assert!(matches!(error, AppendError::Sequence { .. }), "{name}: {error}");
        assert_eq!(append_durably(&orders, sequenced(14, 1)), 14, "{name}");
        assert_eq!(tags(&orders, UpTo::HighWatermark).len(), 15, "{name}");
    }
}

#[test]
fn a_duplicate_of_an_append_under_way_waits_for_its_commit() {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
    let orders = create(&data_dir, 0, LogConfig::default());
    for round in 0..100 {
        let first = append(&orders, sequenced(round, 1));
        let again = append(&orders, sequenced(round, 1));
        assert!(again.duplicate && again.base_offset == first.base_offset);
        again.commit.wait_blocking().expect("commit");
        assert!(orders.high_watermark() > first.base_offset);
    }
}
