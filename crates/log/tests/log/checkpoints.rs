//! Checkpoints in the background: which logs they are for, and what a recovery has to read afterwards.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use tidings_log::testing::{Loss, SimDisk};
use tidings_log::{DataDirOptions, Disk, LogConfig, OpenMode, UpTo};

use crate::support::{append_durably, batch, create, log, open_on, tags};

const ROOT: &str = "/data";

fn recovery_points(disk: &SimDisk) -> String {
    let path = Path::new(ROOT).join("recovery-point-offset-checkpoint");
    let Ok(file) = disk.open(&path, OpenMode::Read) else { return String::new() };
    let mut bytes = vec![0; file.len().expect("len") as usize];
    let count = file.read_at(&mut bytes, 0).expect("read");
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

/// Appends much to one log and little to another, waits for the checkpoint that this causes, and answers what a
/// recovery reads after a power cut: bytes of the small log, and bytes in all.
fn check(passed_over_bytes: u64) -> (u64, u64) {
    let disk = SimDisk::new();
    let options = DataDirOptions {
        checkpoint_bytes: 20_000,
        checkpoint_log_bytes: 1000,
        passed_over_bytes,
        ..DataDirOptions::default()
    };
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), options);
    let (large, small) =
        (create(&data_dir, 0, LogConfig::default()), create(&data_dir, 1, LogConfig::default()));
    append_durably(&small, batch("s", 1, 10));
    append_durably(&large, batch("l", 1, 20_000));
    // What is written may not be durable yet.
    while !recovery_points(&disk.crash(Loss::Unsynced)).contains("orders 0 1\n") {
        thread::yield_now();
    }
    let small_bytes = small.size_bytes();
    let disk = disk.crash(Loss::Unsynced);
    let (data_dir, report) = open_on(Arc::new(disk), Path::new(ROOT), DataDirOptions::default());
    assert_eq!(tags(&log(&data_dir, 0), UpTo::HighWatermark), ["l/0/"]);
    assert_eq!(tags(&log(&data_dir, 1), UpTo::HighWatermark), ["s/0/"]);
    (small_bytes, report.checked_bytes)
}

#[test]
fn a_log_with_little_to_recover_is_passed_over() {
    let (small_bytes, checked_bytes) = check(1000);
    assert_eq!(checked_bytes, small_bytes);
}

#[test]
fn but_not_when_there_are_too_many_of_them() {
    assert_eq!(check(10).1, 0);
}
