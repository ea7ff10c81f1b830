//! Many threads and tasks at once.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidings_log::testing::SimDisk;
use tidings_log::{CommitHere, CommitTicket, DataDir, DataDirOptions, FetchWaiter, LogConfig, UpTo};

use crate::support::{
    append, batch, create, log, open, open_on, options, partition, tags, until_committer_sleeps,
};

const THREADS: usize = 4;
const APPENDS: usize = 100;
const PARTITIONS: usize = 5;

fn produce(data_dir: &DataDir, thread: usize) {
    for index in 0..APPENDS {
        let orders = log(data_dir, ((thread + index) % PARTITIONS) as i32);
        let appended = append(&orders, batch(&format!("t{thread}-{index}"), 2, 100));
        appended.commit.wait_blocking().expect("commit");
        assert!(orders.high_watermark() > appended.last_offset);
    }
}

#[test]
fn threads_share_partitions_and_commits() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data_dir, _) = open(folder.path());
    let logs: Vec<_> =
        (0..PARTITIONS).map(|index| create(&data_dir, index as i32, LogConfig::default())).collect();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let data_dir = &data_dir;
            scope.spawn(move || produce(data_dir, thread));
        }
    });
    let mut found = Vec::new();
    for orders in &logs {
        let tags = tags(orders, UpTo::HighWatermark);
        for thread in 0..THREADS {
            // Each thread's appends are there in its order.
            let mine = tags.iter().filter_map(|tag| tag.strip_prefix(&format!("t{thread}-")));
            let indexes: Vec<usize> =
                mine.map(|tag| tag.split('/').next().unwrap().parse().unwrap()).collect();
            assert!(indexes.is_sorted());
        }
        found.extend(tags);
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), THREADS * APPENDS * 2);
}

#[tokio::test]
async fn a_request_over_many_partitions_waits_for_its_newest_ticket() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data_dir, _) = open(folder.path());
    let logs: Vec<_> = (0..50).map(|index| create(&data_dir, index, LogConfig::default())).collect();
    for _ in 0..20 {
        let tickets = logs.iter().map(|orders| append(orders, batch("x", 1, 100)).commit);
        tickets.fold(CommitTicket::ready(), CommitTicket::newest).await.expect("commit");
        for orders in &logs {
            assert_eq!(orders.high_watermark(), orders.log_end_offset());
        }
    }
}

#[tokio::test]
async fn a_request_over_many_partitions_costs_one_sync() {
    let disk = SimDisk::new();
    // So that one can tell when the committer sleeps.
    let options_of_dir = DataDirOptions { commit_here: CommitHere::Always, ..DataDirOptions::default() };
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new("/data"), options_of_dir);
    let logs: Vec<_> = (0..50).map(|index| create(&data_dir, index, LogConfig::default())).collect();
    let (mut syncs, rounds) = (Vec::new(), 20);
    for _ in 0..rounds {
        until_committer_sleeps(&logs[0]);
        let before = disk.syncs_count();
        let tickets = logs
            .iter()
            .map(|orders| orders.append_with_more(batch("x", 1, 100), options()).expect("append").commit);
        tickets.fold(CommitTicket::ready(), CommitTicket::newest).await.expect("commit");
        assert!(logs.iter().all(|orders| orders.high_watermark() == orders.log_end_offset()));
        syncs.push(disk.syncs_count() - before);
    }
    // A committer that has not gone to sleep yet may take a part of the next request early.
    syncs.sort_unstable();
    assert_eq!(syncs[rounds / 2], 1, "{syncs:?}");
}

#[tokio::test]
async fn fetches_are_woken_by_commits_and_by_deletion() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data_dir, _) = open(folder.path());
    let orders = create(&data_dir, 0, LogConfig::default());
    let idle = create(&data_dir, 1, LogConfig::default());
    let deadline = Duration::from_secs(60);
    for round in 1..50 {
        let waiter = FetchWaiter::new();
        orders.add_fetch_waiter(waiter.clone());
        idle.add_fetch_waiter(waiter.clone());
        drop(append(&orders, batch("x", 1, 100)));
        tokio::time::timeout(deadline, waiter.woken()).await.expect("woken by the commit");
        assert_eq!(orders.high_watermark(), round);
    }
    let waiter = FetchWaiter::new();
    idle.add_fetch_waiter(waiter.clone());
    data_dir.delete_logs(&[partition(1)]).expect("delete");
    tokio::time::timeout(deadline, waiter.woken()).await.expect("woken by the deletion");
    let late = FetchWaiter::new();
    idle.add_fetch_waiter(late.clone());
    tokio::time::timeout(deadline, late.woken()).await.expect("a deleted log keeps nobody waiting");
    assert!(idle.read(0, 1, UpTo::HighWatermark, true).is_err());
    assert!(Arc::strong_count(&waiter) == 1);
}
