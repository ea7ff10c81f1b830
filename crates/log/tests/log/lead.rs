//! An appender that is alone commits on its own thread, and nothing else changes: rounds end in order, failures poison.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use tidings_log::testing::{Loss, Operation, SimDisk};
use tidings_log::{
    AppendError, CommitHere, CommitTicket, DataDir, DataDirOptions, LogConfig, PartitionLog, StorageState,
    UpTo,
};

use crate::support::{append, batch, create, log, open_on, options, put_off, tags, until_committer_sleeps};

const ROOT: &str = "/data";
const EIO: i32 = 5;

fn start() -> (SimDisk, Arc<DataDir>, Vec<Arc<PartitionLog>>) {
    let disk = SimDisk::new();
    // However slow the machine is just now.
    let options = DataDirOptions { commit_here: CommitHere::Always, ..DataDirOptions::default() };
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), options);
    let logs: Vec<_> = (0..3).map(|index| create(&data_dir, index, LogConfig::default())).collect();
    until_committer_sleeps(&logs[2]);
    (disk, data_dir, logs)
}

/// A thread that leads: its sync is held.
fn leading(disk: &SimDisk, log: &Arc<PartitionLog>, tag: &str) -> (thread::JoinHandle<()>, CommitTicket) {
    disk.hold_syncs();
    let mut ticket = put_off(log, tag);
    let watched = ticket.clone();
    let leader = thread::spawn(move || ticket.commit_here());
    disk.wait_for_held_syncs(1);
    (leader, watched)
}

fn after_power_cut(disk: &SimDisk, index: i32) -> Vec<String> {
    let disk = disk.crash(Loss::Unsynced);
    let (data_dir, _) = open_on(Arc::new(disk), Path::new(ROOT), DataDirOptions::default());
    tags(&log(&data_dir, index), UpTo::HighWatermark)
}

#[test]
fn who_is_alone_has_its_answer_at_once() {
    let (disk, _data_dir, logs) = start();
    for index in 0..100 {
        let mut ticket = put_off(&logs[0], &index.to_string());
        ticket.commit_here();
        assert_eq!(ticket.outcome(), Some(Ok(())));
        assert_eq!(logs[0].high_watermark(), index + 1);
        assert_eq!(after_power_cut(&disk, 0).len() as i64, index + 1);
    }
}

#[test]
fn who_is_not_alone_leaves_it_to_the_committer() {
    let (disk, _data_dir, logs) = start();
    disk.hold_syncs();
    let mut first = put_off(&logs[0], "a");
    let second = put_off(&logs[1], "b");
    // With syncs held this would never return if it led.
    first.commit_here();
    disk.wait_for_held_syncs(1);
    disk.release_syncs(false);
    first.wait_blocking().expect("commit");
    second.wait_blocking().expect("commit");
}

#[test]
fn while_somebody_leads_nobody_takes_the_next_round() {
    let (disk, data_dir, logs) = start();
    let (leader, first) = leading(&disk, &logs[0], "a");
    let second = append(&logs[1], batch("b", 1, 10)).commit;
    let mut third = put_off(&logs[0], "c");
    third.commit_here();
    // Nor when the directory is closed meanwhile, which waits for all of them.
    let closing = thread::spawn(move || data_dir.close().expect("close"));
    while append_is_open(&logs[1]) {
        thread::yield_now();
    }
    assert_eq!(disk.held_syncs_count(), 1);
    assert_eq!((second.outcome(), third.outcome()), (None, None));
    disk.release_syncs(false);
    leader.join().expect("the leader ends");
    closing.join().expect("closed");
    assert_eq!([first, second, third].map(|ticket| ticket.outcome()), [const { Some(Ok(())) }; 3]);
    assert_eq!(after_power_cut(&disk, 0), ["a/0/", "c/0/"]);
}

fn append_is_open(log: &Arc<PartitionLog>) -> bool {
    !matches!(log.append(batch("late", 1, 10), options()), Err(AppendError::Closed { .. }))
}

#[test]
fn a_leaders_failed_sync_stops_all_writes() {
    let (disk, data_dir, logs) = start();
    disk.fail(Operation::Sync, "", 0, 1, EIO);
    let mut ticket = put_off(&logs[0], "a");
    ticket.commit_here();
    ticket.wait_blocking().expect_err("the sync fails");
    assert!(matches!(data_dir.storage_state(), StorageState::Failed { .. }));
    logs[1].append(batch("b", 1, 10), options()).expect_err("refused");
    assert_eq!(logs[0].high_watermark(), 0);
}

#[test]
fn a_leaders_panic_fails_its_round_and_those_behind_it() {
    let (disk, data_dir, logs) = start();
    disk.hold_syncs();
    let mut first = put_off(&logs[0], "a");
    let watched = first.clone();
    let leader = thread::spawn(move || catch_unwind(AssertUnwindSafe(|| first.commit_here())));
    disk.wait_for_held_syncs(1);
    let second = append(&logs[1], batch("b", 1, 10)).commit;
    disk.release_syncs(true);
    assert!(leader.join().expect("caught").is_err(), "the leader has panicked");
    watched.wait_blocking().expect_err("its own round");
    second.wait_blocking().expect_err("the round behind it");
    assert!(matches!(data_dir.storage_state(), StorageState::Failed { .. }));
    logs[1].append(batch("c", 1, 10), options()).expect_err("refused");
}

#[test]
fn a_request_that_goes_away_leaves_its_commit_to_the_committer() {
    let (_disk, _data_dir, logs) = start();
    drop(put_off(&logs[0], "a"));
    while logs[0].high_watermark() == 0 {
        thread::yield_now();
    }
}
