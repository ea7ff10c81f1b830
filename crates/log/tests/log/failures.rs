//! A disk that fails: nothing is acknowledged that is not durable, and what can go on goes on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tidings_log::batch::{BatchBuilder, BatchHeader};
use tidings_log::testing::{Loss, Operation, Random, SimDisk};
use tidings_log::{
    AppendError, AppendOptions, CommitError, CreateError, DataDir, DataDirOptions, Durability, LogConfig,
    OpenError, Origin, RealDisk, StorageState, UpTo,
};
use tidings_model::{ErrorCode, TopicId};

use crate::support::{
    NOW_MS, append, append_durably, batch, create, log, open, open_on, options, partition, tags,
};

const ROOT: &str = "/data";
const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

fn start() -> (SimDisk, Arc<DataDir>) {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
    (disk, data_dir)
}

#[test]
fn a_failed_write_is_cut_back_and_the_next_one_succeeds() {
    let failures = [
        (Operation::Write, EIO),
        (Operation::Write, ENOSPC),
        (Operation::Write, EROFS),
        (Operation::Open, EMFILE),
        (Operation::Open, EROFS),
    ];
    for (operation, errno) in failures {
        let (disk, data_dir) = start();
        let orders = create(&data_dir, 0, LogConfig::default());
        disk.fail(operation, "0.log", 0, 1, errno);
        let error = orders.append(batch("lost", 1, 1000), options()).expect_err("the disk fails");
        assert!(matches!(error, AppendError::Storage { .. }), "{error}");
        assert_eq!(error.error_code(), ErrorCode::KafkaStorageError);
        assert_eq!((orders.log_end_offset(), orders.size_bytes()), (0, 0));
        append_durably(&orders, batch("kept", 1, 10));
        assert_eq!(data_dir.storage_state(), StorageState::Healthy);
        let disk = disk.crash(Loss::Nothing);
        let (data_dir, _) = open_on(Arc::new(disk), Path::new(ROOT), DataDirOptions::default());
        assert_eq!(tags(&log(&data_dir, 0), UpTo::HighWatermark), ["kept/0/"]);
    }
}

#[test]
fn while_cutting_back_fails_nothing_is_appended() {
    let (disk, data_dir) = start();
    let orders = create(&data_dir, 0, LogConfig::default());
    append_durably(&orders, batch("a", 1, 10));
    disk.fail(Operation::Write, "0.log", 0, 1, EIO);
    disk.fail(Operation::SetLen, "0.log", 0, 2, EIO);
    for _ in 0..2 {
        orders.append(batch("lost", 1, 1000), options()).expect_err("the disk fails");
    }
    assert_eq!(append_durably(&orders, batch("b", 1, 10)), 1);
    let disk = disk.crash(Loss::Nothing);
    let (data_dir, report) = open_on(Arc::new(disk), Path::new(ROOT), DataDirOptions::default());
    assert!(report.cuts.is_empty());
    assert_eq!(tags(&log(&data_dir, 0), UpTo::HighWatermark), ["a/0/", "b/0/"]);
}

#[test]
fn a_full_disk_refuses_and_resumes() {
    let (disk, data_dir) = start();
    let orders = create(&data_dir, 0, LogConfig::default());
    append_durably(&orders, batch("a", 1, 10));
    disk.set_space_left(100);
    for _ in 0..3 {
        let error = orders.append(batch("lost", 1, 1000), options()).expect_err("no space");
        assert_eq!(error.error_code(), ErrorCode::KafkaStorageError);
        assert_eq!(tags(&orders, UpTo::HighWatermark), ["a/0/"]);
    }
    disk.heal();
    append_durably(&orders, batch("b", 1, 10));
    assert_eq!(tags(&orders, UpTo::HighWatermark), ["a/0/", "b/0/"]);
}

#[test]
fn low_space_refuses_clients_only_and_resumes_by_itself() {
    let disk = SimDisk::new();
    let options_of_dir = DataDirOptions { min_free_bytes: Some(1 << 20), ..DataDirOptions::default() };
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), options_of_dir);
    let orders = create(&data_dir, 0, LogConfig::default());
    let other = create(&data_dir, 1, LogConfig::default());
    append_durably(&orders, batch("a", 1, 10));
    append_durably(&other, batch("a", 1, 10));
    let idempotent =
        || BatchBuilder::new().producer(5, 0, 0).record(NOW_MS, None, Some(b"once"), &[]).build();
    append_durably(&orders, idempotent());
    disk.set_space_left((1 << 20) - 1);
    let low = data_dir.check_space().expect("less than the least");
    assert_eq!((low.available_bytes, low.min_free_bytes), ((1 << 20) - 1, 1 << 20));
    assert_eq!(data_dir.storage_state(), StorageState::LowSpace(low));
    for log in [&orders, &other] {
        let error = log.append(batch("lost", 1, 10), options()).expect_err("refused");
        assert!(matches!(error, AppendError::LowSpace { .. }), "{error}");
        assert_eq!(error.error_code(), ErrorCode::KafkaStorageError);
        assert!(error.error_code().retriable());
    }
    // What is there already is answered as before; what the broker itself has to write is written; reads go on.
    let again = append(&orders, idempotent());
    assert!(again.duplicate && again.commit.wait_blocking().is_ok());
    let own = AppendOptions { origin: Origin::Coordinator, ..options() };
    orders.append(batch("own", 1, 10), own).expect("append").commit.wait_blocking().expect("commit");
    assert_eq!(tags(&orders, UpTo::HighWatermark), ["a/0/", "once", "own/0/"]);
    // Deleting works, and as much space as before is not enough to begin again.
    data_dir.delete_logs(&[partition(1)]).expect("delete");
    disk.set_space_left(1 << 20);
    assert!(data_dir.check_space().is_some());
    disk.set_space_left(2 << 20);
    assert!(data_dir.check_space().is_none());
    append_durably(&orders, batch("b", 1, 10));
    assert_eq!(tags(&orders, UpTo::HighWatermark), ["a/0/", "once", "own/0/", "b/0/"]);
}

/// It has several batches under way, and is not known yet: the second must not be taken for its beginning.
#[test]
fn a_new_producer_whose_first_batch_is_refused_begins_with_it() {
    let (disk, data_dir) = start();
    let orders = create(&data_dir, 0, LogConfig::default());
    let of = |producer_id, epoch, sequence: i32| {
        let value = format!("{producer_id}/{epoch}/{sequence}");
        let builder = BatchBuilder::new().producer(producer_id, epoch, sequence);
        builder.record(NOW_MS, None, Some(value.as_bytes()), &[]).build()
    };
    for (producer_id, operation) in [(1, Operation::Open), (2, Operation::Write)] {
        disk.fail(operation, "0.log", 0, 1, ENOSPC);
        let error = orders.append(of(producer_id, 3, 7), options()).expect_err("the disk fails");
        assert_eq!(error.error_code(), ErrorCode::KafkaStorageError, "{error}");
        for _ in 0..2 {
            let error =
                orders.append(of(producer_id, 3, 8), options()).expect_err("one is missing before it");
            assert_eq!(error.error_code(), ErrorCode::OutOfOrderSequenceNumber, "{error}");
        }
        append_durably(&orders, of(producer_id, 3, 7));
        append_durably(&orders, of(producer_id, 3, 8));
    }
    // The lowest of those that were refused, whichever was refused last: some clients number anew.
    for sequence in [5, 3] {
        disk.fail(Operation::Write, "0.log", 0, 1, EIO);
        orders.append(of(3, 0, sequence), options()).expect_err("the disk fails");
    }
    orders.append(of(3, 0, 4), options()).expect_err("one is missing before it");
    append_durably(&orders, of(3, 0, 3));
    // Another epoch, another producer: they have lost nothing.
    disk.fail(Operation::Write, "0.log", 0, 1, EIO);
    orders.append(of(70, 0, 0), options()).expect_err("the disk fails");
    append_durably(&orders, of(70, 1, 5));
    append_durably(&orders, of(71, 0, 5));
    // What a coordinator has put off counts as well.
    orders.await_batch(&BatchHeader::parse(&of(72, 0, 0)).expect("a whole batch"));
    orders.append(of(72, 0, 1), options()).expect_err("one is missing before it");
    append_durably(&orders, of(72, 0, 0));
    let expected = ["1/3/7", "1/3/8", "2/3/7", "2/3/8", "3/0/3", "70/1/5", "71/0/5", "72/0/0"];
    assert_eq!(tags(&orders, UpTo::HighWatermark), expected);
}

#[test]
fn a_disk_that_fills_is_noticed_before_it_is_full() {
    let disk = SimDisk::new();
    let options_of_dir = DataDirOptions { min_free_bytes: Some(16 << 20), ..DataDirOptions::default() };
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), options_of_dir);
    let orders = create(&data_dir, 0, LogConfig::default());
    disk.set_space_left(32 << 20);
    let mut appends = (0..64).map(|index| orders.append(batch(&format!("{index}"), 1, 1 << 19), options()));
    let error = appends.find_map(Result::err).expect("refused in time");
    assert!(matches!(error, AppendError::LowSpace { .. }), "{error}");
    let low = data_dir.check_space().expect("nobody has made room");
    assert!(low.available_bytes > 8 << 20, "{low:?}");
}

/// What a failed write left, and could not be cut back at first, is gone before anything follows it: a checkpoint has
/// made it durable, a new segment begins where it began, and a crash comes at any moment in between.
#[test]
fn the_rest_of_a_failed_write_never_ends_up_in_a_closed_segment() {
    for (at, seed) in (0..12).flat_map(|at| (0..24).map(move |seed| (at, seed))) {
        let (disk, data_dir) = start();
        let orders = create(&data_dir, 0, LogConfig { segment_bytes: 1200, ..LogConfig::default() });
        append_durably(&orders, batch("a", 1, 800));
        disk.fail(Operation::Write, "0.log", 0, 1, EIO);
        disk.fail(Operation::SetLen, "0.log", 0, 1, EIO);
        orders.append(batch("lost", 1, 100), options()).expect_err("the disk fails");
        data_dir.checkpoint().expect("checkpoint");
        disk.capture_at(disk.operations_count() + at, Loss::Random(seed), Arc::default());
        append_durably(&orders, batch("b", 1, 800));
        assert_eq!(orders.segment_count(), 2);
        let Some(captured) = disk.captured() else { continue };
        let recovered = open_on(Arc::new(captured.disk), Path::new(ROOT), DataDirOptions::default());
        let found = tags(&log(&recovered.0, 0), UpTo::HighWatermark);
        assert!(found == ["a/0/"] || found == ["a/0/", "b/0/"], "moment {at}, seed {seed}: {found:?}");
    }
}

/// Any operation fails with any of the errors that disks give, again and again: what was acknowledged is there after a
/// power cut at any moment, once and in order.
#[test]
fn no_failure_makes_a_false_acknowledgement() {
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let disk = SimDisk::new();
        let syncfs_from_files = if random.chance(2) { 1 } else { 100 };
        let options_of_dir = DataDirOptions { syncfs_from_files, ..DataDirOptions::default() };
        let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), options_of_dir);
        let logs = [0, 1]
            .map(|index| create(&data_dir, index, LogConfig { segment_bytes: 2000, ..LogConfig::default() }));
        let mut acknowledged: Vec<(usize, String)> = Vec::new();
        let acknowledged_count = Arc::new(AtomicU64::new(0));
        let loss = if random.chance(2) { Loss::Unsynced } else { Loss::Random(seed) };
        let moment = disk.operations_count() + random.below(300) as u64;
        disk.capture_at(moment, loss, acknowledged_count.clone());
        for index in 0..60 {
            if random.chance(4) {
                fail_somewhere(&disk, &mut random);
            }
            let which = random.below(2);
            let batches: Vec<_> = (0..1 + random.below(3)).map(|at| format!("{seed}-{index}-{at}")).collect();
            let records: Vec<_> = batches.iter().map(|tag| batch(tag, 1, 100 + random.below(400))).collect();
            let Ok(appended) = logs[which].append(records.concat().into(), options()) else { continue };
            if random.chance(10) {
                let _ = data_dir.checkpoint();
            }
            if appended.commit.wait_blocking().is_ok() {
                acknowledged.extend(batches.iter().map(|tag| (which, format!("{tag}/0/"))));
                acknowledged_count.store(acknowledged.len() as u64, SeqCst);
            }
        }
        let disk = match disk.captured() {
            Some(captured) => {
                acknowledged.truncate(captured.note as usize);
                captured.disk
            }
            None => disk.crash(loss),
        };
        let unrecovered = DataDir::open(Arc::new(disk), ROOT, DataDirOptions::default()).expect("open");
        let (data_dir, _) = unrecovered.recover().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        for index in 0..2 {
            let found = tags(&log(&data_dir, index as i32), UpTo::HighWatermark);
            let mut rest = found.iter();
            let mut expected = acknowledged.iter().filter(|(which, _)| *which == index).map(|(_, tag)| tag);
            let missing = expected.find(|tag| !rest.any(|found| found == *tag));
            assert_eq!(
                missing, None,
                "seed {seed}, orders-{index}: acknowledged, but lost, twice or out of order"
            );
        }
    }
}

fn fail_somewhere(disk: &SimDisk, random: &mut Random) {
    let operations = [
        Operation::Write,
        Operation::Open,
        Operation::SetLen,
        Operation::Rename,
        // Seldom, because it is the end of all writes.
        if random.chance(8) { Operation::Sync } else { Operation::Write },
    ];
    let errnos = [EIO, ENOSPC, EMFILE, EROFS];
    let (operation, errno) = (operations[random.below(5)], errnos[random.below(4)]);
    disk.fail(operation, "", random.below(4), 1 + random.below(3), errno);
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_until_a_restart() {
    // A file system that gives up may answer the sync itself with success.
    let faults = [(Operation::Sync, EIO), (Operation::EnsureAlive, EROFS)];
    for (syncfs_from_files, (operation, errno)) in [1, 100].into_iter().flat_map(|n| faults.map(|f| (n, f))) {
        let disk = SimDisk::new();
        let options_of_dir = DataDirOptions { syncfs_from_files, ..DataDirOptions::default() };
        let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), options_of_dir);
        let orders = create(&data_dir, 0, LogConfig::default());
        let payments = create(&data_dir, 1, LogConfig::default());
        append_durably(&orders, batch("a", 1, 10));
        disk.fail(operation, "", 0, 1, errno);
        let doubtful = append(&orders, batch("doubtful", 1, 10));
        assert!(matches!(doubtful.commit.wait_blocking(), Err(CommitError::Storage { .. })));
        // The disk works again, and would report success; but what it dropped stays dropped.
        let error = orders.append(batch("b", 1, 10), options()).expect_err("poisoned");
        assert!(matches!(error, AppendError::StorageFailed { .. }), "{error}");
        assert_eq!(error.error_code(), ErrorCode::KafkaStorageError);
        payments.append(batch("b", 1, 10), options()).expect_err("all logs are");
        let new = [(partition(2), TopicId([1; 16]), LogConfig::default())];
        assert!(matches!(data_dir.create_logs(&new), Err(CreateError::StorageFailed { .. })));
        assert!(matches!(data_dir.storage_state(), StorageState::Failed { .. }));
        assert_eq!(tags(&orders, UpTo::HighWatermark), ["a/0/"]);
        data_dir.close().expect_err("not a clean end");
        drop((orders, payments, data_dir));

        // The process restarts on a system that believes the doubtful bytes are clean. Recovery writes
        // them again, so that a power cut right after it does not take them back.
        let disk = disk.crash(Loss::Nothing);
        let (data_dir, report) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
        assert!(!report.clean && report.checked_bytes > 0);
        let shown = tags(&log(&data_dir, 0), UpTo::HighWatermark);
        assert_eq!(shown, ["a/0/", "doubtful/0/"]);
        let disk = disk.crash(Loss::Unsynced);
        let (data_dir, _) = open_on(Arc::new(disk), Path::new(ROOT), DataDirOptions::default());
        assert_eq!(tags(&log(&data_dir, 0), UpTo::HighWatermark), shown);
    }
}

#[test]
fn a_roll_that_fails_is_tried_again() {
    let (disk, data_dir) = start();
    let config = LogConfig { segment_bytes: 1000, ..LogConfig::default() };
    let orders = create(&data_dir, 0, config);
    append_durably(&orders, batch("a", 1, 800));
    disk.fail(Operation::Open, "1.log", 0, 1, EMFILE);
    orders.append(batch("b", 1, 800), options()).expect_err("the new segment can't be created");
    append_durably(&orders, batch("c", 1, 800));
    assert_eq!(tags(&orders, UpTo::HighWatermark), ["a/0/", "c/0/"]);
    assert_eq!(orders.segment_count(), 2);
}

/// Its records went into a new directory in the old place, where the next start missed them or was not told of them.
#[test]
fn nothing_is_created_where_the_directory_was_moved_away() {
    let folder = tempfile::tempdir().expect("make a folder");
    let (path, moved) = (folder.path().join("data"), folder.path().join("moved"));
    let (data_dir, _) = open(&path);
    std::fs::rename(&path, &moved).expect("move it");
    let new = [(partition(0), TopicId([1; 16]), LogConfig::default())];
    let error = data_dir.create_logs(&new).expect_err("it is not there");
    assert!(
        matches!(&error, CreateError::Io { source, .. } if source.to_string().contains("put it back")),
        "{error:?}"
    );
    assert!(!path.exists());
    // What is left of a mount point.
    std::fs::create_dir(&path).expect("make a folder in its place");
    data_dir.create_logs(&new).expect_err("it is not there either");
    std::fs::remove_dir(&path).expect("nothing was put there");
    std::fs::rename(&moved, &path).expect("put it back");
    data_dir.create_logs(&new).expect("now it works");
}

#[test]
fn creation_is_all_or_nothing() {
    let (disk, data_dir) = start();
    let new: Vec<_> =
        (0..3).map(|index| (partition(index), TopicId([1; 16]), LogConfig::default())).collect();
    disk.fail(Operation::Open, "orders-2", 0, 1, ENOSPC);
    assert!(matches!(data_dir.create_logs(&new), Err(CreateError::Io { .. })));
    assert!(data_dir.logs().is_empty());
    assert!(disk.files(&Path::new(ROOT).join("orders-0")).is_empty());
    data_dir.create_logs(&new).expect("now it works");
    assert!(matches!(data_dir.create_logs(&new[..1]), Err(CreateError::Exists { .. })));
    // What was created is there after a power cut, and what was deleted is not.
    data_dir.delete_logs(&[partition(1)]).expect("delete");
    let disk = disk.crash(Loss::Unsynced);
    let (data_dir, _) = open_on(Arc::new(disk), Path::new(ROOT), DataDirOptions::default());
    let mut found: Vec<i32> = data_dir.logs().iter().map(|log| log.topic_partition().partition).collect();
    found.sort_unstable();
    assert_eq!(found, [0, 2]);
    assert_eq!(log(&data_dir, 0).topic_id(), TopicId([1; 16]));
}

/// A new data directory may lie below directories that are new as well.
#[test]
fn a_new_directory_is_found_again_after_a_power_cut() {
    for path in ["/data", "/srv/platform/data"] {
        let disk = SimDisk::new();
        let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(path), DataDirOptions::default());
        let after = disk.crash(Loss::Unsynced);
        let (again, _) = open_on(Arc::new(after), Path::new(path), DataDirOptions::default());
        assert_eq!(again.directory_id(), data_dir.directory_id());
    }
}

#[test]
fn process_durability_is_ready_at_once() {
    let disk = SimDisk::new();
    let options_of_dir = DataDirOptions { durability: Durability::Process, ..DataDirOptions::default() };
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), options_of_dir);
    let orders = create(&data_dir, 0, LogConfig::default());
    let appended = append(&orders, batch("a", 1, 10));
    assert_eq!(appended.commit.outcome(), Some(Ok(())));
    assert_eq!(orders.high_watermark(), 1);
    let killed = disk.crash(Loss::Nothing);
    let (data_dir, _) = open_on(Arc::new(killed), Path::new(ROOT), DataDirOptions::default());
    assert_eq!(tags(&log(&data_dir, 0), UpTo::HighWatermark), ["a/0/"]);
    let cut = disk.crash(Loss::Unsynced);
    let (data_dir, _) = open_on(Arc::new(cut), Path::new(ROOT), DataDirOptions::default());
    assert_eq!(log(&data_dir, 0).log_end_offset(), 0);
}

#[test]
fn a_directory_that_is_not_ours_to_use_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = |options| DataDir::open(Arc::new(RealDisk), folder.path(), options);
    let is_in_use = || DataDir::is_in_use(&RealDisk, folder.path()).expect("look at the lock");
    assert!(!is_in_use());
    assert!(!folder.path().join(".lock").exists(), "looking makes nothing");
    let first = open(DataDirOptions::default()).expect("open");
    assert!(is_in_use());
    let error = open(DataDirOptions::default()).expect_err("locked");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    drop(first);
    assert!(!is_in_use());
    let error = open(DataDirOptions { node_id: 1, ..DataDirOptions::default() }).expect_err("another node");
    assert!(matches!(error, OpenError::Node { .. }), "{error}");
    let meta = folder.path().join("meta.properties");
    let ours = std::fs::read_to_string(&meta).expect("read");
    for (text, found) in [
        (ours.replace("tidings.version=1", "tidings.version=2"), "tidings.version=2"),
        (ours.replace("tidings.version=1\n", ""), "no tidings.version in meta.properties"),
    ] {
        std::fs::write(&meta, text).expect("write");
        let error = open(DataDirOptions::default()).expect_err("another version").to_string();
        assert!(error.contains(found) && error.contains("expected tidings.version=1"), "{error}");
    }
}
