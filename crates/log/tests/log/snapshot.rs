//! Snapshots while everything goes on: what a crash at one instant would have left, in a folder of its own.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

use tidings_log::{Chores, CleanupPolicy, DataDir, LogConfig, UpTo};

use crate::support::{NOW_MS, append_durably, batch, create, log, open, tags};

/// What comes after what: record n is in the first log before it is in the second, and so on.
const LOGS: i32 = 4;
const SNAPSHOTS: usize = 10;

fn config() -> LogConfig {
    LogConfig {
        cleanup: CleanupPolicy::DELETE,
        segment_bytes: 2000,
        retention_bytes: 20_000,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

/// Makes a data directory of a snapshot, as a backup does: each file up to its length.
fn copy(data_dir: &DataDir, from: &Path, to: &Path) {
    std::fs::create_dir(from).unwrap();
    for file in data_dir.snapshot(from, || ()).expect("make a snapshot") {
        let bytes = std::fs::read(from.join(&file.path)).unwrap();
        let target = to.join(&file.path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, &bytes[..usize::try_from(file.bytes).unwrap()]).unwrap();
    }
    std::fs::remove_dir_all(from).unwrap();
}

/// One log after the other is appended to; retention removes, and checkpoints are written. In no snapshot is a log ahead of
/// the one before it.
#[test]
fn no_log_is_ahead_of_what_it_follows() {
    let scene = tempfile::tempdir().unwrap();
    let (data_dir, _) = open(&scene.path().join("data"));
    (0..LOGS).for_each(|index| drop(create(&data_dir, index, config())));
    let (done, through) = (AtomicBool::new(false), AtomicI64::new(0));
    let mut snapshots = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in (0..).take_while(|_| !done.load(SeqCst)) {
                for index in 0..LOGS {
                    let offset = append_durably(&log(&data_dir, index), batch(&format!("b{number}"), 1, 300));
                    assert_eq!(offset, number);
                }
                through.store(number + 1, SeqCst);
            }
        });
        scope.spawn(|| {
            while !done.load(SeqCst) {
                data_dir.keep(NOW_MS, Chores::ALL);
                data_dir.checkpoint().expect("checkpoint");
            }
        });
        for number in 0..SNAPSHOTS {
            let before = through.load(SeqCst);
            let target = scene.path().join(format!("copy-{number}"));
            copy(&data_dir, &scene.path().join("data/.snapshot"), &target);
            snapshots.push((before, target));
        }
        // Retention has had its part in it.
        while log(&data_dir, 0).log_start_offset() == 0 {
            std::thread::yield_now();
        }
        done.store(true, SeqCst);
    });
    for (before, path) in snapshots {
        let (restored, report) = open(&path);
        assert!(report.cuts.is_empty(), "{:?}", report.cuts);
        let ends: Vec<i64> = (0..LOGS).map(|index| log(&restored, index).log_end_offset()).collect();
        assert!(ends.is_sorted_by(|earlier, later| earlier >= later), "a log is ahead: {ends:?}");
        assert!(ends[LOGS as usize - 1] >= before, "{before} were through: {ends:?}");
        assert!(ends[0] - ends[LOGS as usize - 1] <= 1, "one instant: {ends:?}");
        for index in 0..LOGS {
            let log = log(&restored, index);
            let expected: Vec<String> = (log.log_start_offset()..log.log_end_offset())
                .map(|number| format!("b{number}/0/"))
                .collect();
            assert_eq!(tags(&log, UpTo::HighWatermark), expected);
        }
        // It goes on from there.
        let end = log(&restored, 0).log_end_offset();
        assert_eq!(append_durably(&log(&restored, 0), batch("more", 1, 10)), end);
    }
}
