//! Who produces never waits for the keeper: at each of its syncs, however long it takes, appends go on.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use tidings_log::batch::BatchBuilder;
use tidings_log::testing::SimDisk;
use tidings_log::{Chores, CleanupPolicy, DataDir, DataDirOptions, LogConfig, PartitionLog};

use crate::support::{NOW_MS, append_durably, create, open_on};

const HOUR_MS: i64 = 3_600_000;

/// Runs the keeper and holds each of its syncs until `meanwhile` has ended; how many there were.
fn held_at_each_sync(disk: &SimDisk, data_dir: &Arc<DataDir>, meanwhile: impl Fn()) -> usize {
    let mut syncs_count = 0;
    thread::scope(|scope| {
        let keeper = scope.spawn(|| {
            disk.hold_my_syncs();
            data_dir.keep(NOW_MS, Chores::ALL)
        });
        while !keeper.is_finished() {
            if disk.my_held_syncs_count() > syncs_count {
                syncs_count += 1;
                meanwhile();
                disk.let_held_go();
            } else {
                thread::yield_now();
            }
        }
        let report = keeper.join().expect("keep");
        assert!(report.cleaned_passes == 1 && report.removed_segments > 0, "{report:?}");
    });
    syncs_count
}

fn keyed(timestamp_ms: i64, value: &str) -> Bytes {
    BatchBuilder::new().record(timestamp_ms, Some(b"key"), Some(value.as_bytes()), &[]).build()
}

/// A log with something to do for the keeper, by either policy.
fn filled(data_dir: &DataDir, index: i32, cleanup: CleanupPolicy) -> Arc<PartitionLog> {
    let config = LogConfig {
        cleanup,
        segment_bytes: 600,
        retention_ms: HOUR_MS,
        min_cleanable_dirty_ratio: 0.0,
        ..LogConfig::default()
    };
    let log = create(data_dir, index, config);
    for _ in 0..5 {
        append_durably(&log, keyed(NOW_MS - 2 * HOUR_MS, &"x".repeat(500)));
    }
    log
}

#[test]
fn appends_wait_for_no_sync_of_the_keeper() {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new("/data"), DataDirOptions::default());
    let cleaned = filled(&data_dir, 0, CleanupPolicy::COMPACT);
    let removed = filled(&data_dir, 1, CleanupPolicy::DELETE);
    let bystander = create(&data_dir, 2, LogConfig::default());
    data_dir.checkpoint().expect("checkpoint");
    let syncs_count = held_at_each_sync(&disk, &data_dir, || {
        for log in [&cleaned, &removed, &bystander] {
            append_durably(log, keyed(NOW_MS, "meanwhile"));
        }
    });
    // Each policy makes at least one change durable.
    assert!(syncs_count >= 4, "{syncs_count} syncs");
}
