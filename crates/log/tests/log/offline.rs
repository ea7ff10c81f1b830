//! `offline`: what a check finds is what was done to the files, and after a repair a start succeeds.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tidings_log::batch::{BatchBuilder, Batches, EndTxnMarker, TransactionResult};
use tidings_log::offline::{Access, OfflineDataDir, PartitionCheck, Remedy, RepairError, RepairStep};
use tidings_log::testing::{Loss, Random, SimDisk};
use tidings_log::{
    AppendOptions, Chores, CleanupPolicy, DataDir, DataDirOptions, Disk, LogConfig, OpenError, OpenMode,
    Origin, PartitionLog, RecoverError, UpTo,
};

use crate::support::{NOW_MS, append_durably, batch, create, log, open_on, options, partition, timed_batch};

const ROOT: &str = "/data";

fn segment_path(base_offset: i64, extension: &str) -> PathBuf {
    Path::new(ROOT).join("orders-0").join(format!("{base_offset:020}.{extension}"))
}

/// A log of several segments: what it holds by offset, and where every batch lies.
struct Written {
    disk: SimDisk,
    values: BTreeMap<i64, String>,
    batches: Vec<Placed>,
}

/// A batch: its segment's base offset, its place there, its offsets.
#[derive(Debug, Clone, Copy)]
struct Placed {
    segment: i64,
    position: u64,
    bytes: u64,
    first: i64,
    next: i64,
}

fn write(count: usize, segment_bytes: u32, close: bool) -> Written {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
    let config = LogConfig { segment_bytes, index_interval_bytes: 128, ..LogConfig::default() };
    let orders = create(&data_dir, 0, config);
    let mut batches: Vec<Placed> = Vec::new();
    let (mut segments_count, mut before) = (1, 0);
    for index in 0..count {
        let records =
            timed_batch(&format!("b{index}"), 1 + index % 3, 40 + 13 * (index % 17), NOW_MS + index as i64);
        let bytes = records.len() as u64;
        let first = append_durably(&orders, records);
        let rolled = orders.segment_count() > segments_count;
        segments_count = orders.segment_count();
        let segment = if rolled { first } else { batches.last().map_or(0, |last| last.segment) };
        let position = if rolled { 0 } else { before };
        before = position + bytes;
        batches.push(Placed { segment, position, bytes, first, next: orders.log_end_offset() });
    }
    let values = values(&orders);
    if close {
        data_dir.close().expect("close");
    }
    Written { disk: disk.crash(Loss::Nothing), values, batches }
}

/// Every value by its offset; offsets may be missing.
fn values(log: &PartitionLog) -> BTreeMap<i64, String> {
    let mut values = BTreeMap::new();
    let mut offset = log.log_start_offset();
    while offset < log.log_end_offset() {
        let fetched = log.read(offset, 64 << 10, UpTo::HighWatermark, true).expect("read");
        for batch in Batches::new(fetched.slice.read().expect("read the slice")) {
            let batch = batch.expect("a whole batch");
            for record in batch.records().expect("not compressed") {
                let record = record.expect("a whole record");
                let value = record.value.expect("a value");
                values
                    .insert(record.offset, String::from_utf8_lossy(&value).trim_end_matches('.').to_owned());
            }
            offset = batch.header.next_offset();
        }
    }
    values
}

fn look(disk: &SimDisk, access: Access) -> (OfflineDataDir, PartitionCheck) {
    let dir = OfflineDataDir::open(Arc::new(disk.clone()), ROOT, access).expect("open");
    let check = dir.check(&partition(0), &|_| {}).expect("check");
    (dir, check)
}

fn repair(disk: &SimDisk, remedy: Remedy) -> Vec<RepairStep> {
    let (mut dir, check) = look(disk, Access::Locked);
    let plan = dir.plan_repair(&check, remedy).expect("plan");
    dir.repair(&plan).expect("repair");
    plan.steps
}

fn recover(disk: &SimDisk) -> Result<Arc<DataDir>, RecoverError> {
    let disk = Arc::new(disk.clone());
    let unrecovered = DataDir::open(disk, ROOT, DataDirOptions::default()).expect("open");
    unrecovered.recover().map(|(data_dir, _)| data_dir)
}

fn bytes_of(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    disk.corrupt(path, |data| bytes = data.clone()).expect("the file is there");
    bytes
}

#[test]
fn what_is_whole_is_called_whole() {
    for close in [true, false] {
        let written = write(120, 3000, close);
        let operations = written.disk.operations_count();
        let (dir, check) = look(&written.disk, Access::ReadOnly);
        assert!(check.is_whole() && check.torn_tail.is_none(), "{check:?}");
        assert!(check.side_faults.is_empty() && dir.faults().is_empty(), "{check:?}");
        assert_eq!(check.batches_count, 120);
        assert_eq!(check.records_count, written.values.len() as u64);
        assert_eq!(check.log_end_offset, written.values.len() as i64);
        assert_eq!(check.bytes, written.batches.iter().map(|batch| batch.bytes).sum::<u64>());
        let error = dir.plan_repair(&check, Remedy::DropDamaged).expect_err("whole");
        assert!(matches!(error, RepairError::Whole { .. }), "{error}");
        // Opening files to read them counts as an operation; nothing else may have happened.
        let files = written.disk.files(Path::new(ROOT));
        drop(dir);
        assert_eq!(written.disk.files(Path::new(ROOT)), files);
        assert!(written.disk.operations_count() >= operations);
    }
}

#[test]
fn the_lock_is_respected_and_its_holder_named() {
    let written = write(3, 1 << 20, true);
    let data_dir = recover(&written.disk).expect("recover");
    let open = |access| OfflineDataDir::open(Arc::new(written.disk.clone()), ROOT, access);
    let error = open(Access::Locked).expect_err("a broker has it");
    assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
    let mut reading = open(Access::ReadOnly).expect("looking is allowed");
    let check = reading.check(&partition(0), &|_| {}).expect("check");
    assert!(check.is_whole());
    drop(data_dir);
    written.disk.corrupt(&segment_path(0, "log"), |data| data[70] ^= 1).expect("corrupt");
    let check = reading.check(&partition(0), &|_| {}).expect("check");
    let plan = reading.plan_repair(&check, Remedy::DropDamaged).expect("plan");
    assert!(matches!(reading.repair(&plan), Err(RepairError::ReadOnly)));
    let nowhere = OfflineDataDir::open(Arc::new(SimDisk::new()), "/nowhere", Access::ReadOnly);
    assert!(matches!(nowhere, Err(OpenError::Missing { .. })));
}

#[test]
fn every_byte_of_a_batch_in_the_middle() {
    for close in [true, false] {
        let written = write(9, 1 << 20, close);
        let hurt = written.batches[4];
        for position in hurt.position..hurt.position + hurt.bytes {
            // The leader epoch is not covered by the CRC.
            if (hurt.position + 12..hurt.position + 16).contains(&position) {
                continue;
            }
            let disk = written.disk.crash(Loss::Nothing);
            disk.corrupt(&segment_path(0, "log"), |data| data[position as usize] ^= 0x10).expect("corrupt");
            let (dir, check) = look(&disk, Access::ReadOnly);
            let [damage] = &check.damages[..] else { panic!("byte {position}: {check:?}") };
            assert_eq!(
                (damage.position, damage.bytes),
                (hurt.position, hurt.bytes),
                "byte {position}: {damage:?}"
            );
            assert_eq!((damage.first_offset, damage.next_offset), (hurt.first, hurt.next));
            assert_eq!(damage.valid_batches_behind, 4);
            drop(dir);
            if close {
                // It lies below the recovery point, so a start does not see it. The check does.
                recover(&disk).expect("start");
            } else {
                let error = recover(&disk).expect_err("refused");
                let expect = format!("tidings log repair --data-dir {ROOT} orders-0 --drop-damaged");
                assert!(error.hint().contains(&expect), "{}", error.hint());
                assert!(error.hint().contains(&format!("--truncate-at {}", hurt.first)), "{}", error.hint());
            }
        }
    }
}

#[test]
fn dropping_keeps_what_is_behind_and_never_reuses_an_offset() {
    for close in [true, false] {
        for hurt in [0, 4, 8] {
            let written = write(9, 1 << 20, close);
            let (disk, hurt) = (&written.disk, written.batches[hurt]);
            disk.corrupt(&segment_path(0, "log"), |data| data[hurt.position as usize + 30] ^= 1)
                .expect("corrupt");
            let lost = bytes_of(disk, &segment_path(0, "log"));
            if !close && hurt.next == written.batches[8].next {
                // The last batch of a log that was not closed looks like a torn write.
                assert!(look(disk, Access::ReadOnly).1.torn_tail.is_some());
                continue;
            }
            let steps = repair(disk, Remedy::DropDamaged);
            let [RepairStep::Bridge { pieces, .. }] = &steps[..] else { panic!("{steps:?}") };
            let kept = pieces[0].kept.clone().expect("kept");
            let (from, to) = (hurt.position as usize, (hurt.position + hurt.bytes) as usize);
            assert_eq!(bytes_of(disk, &kept), &lost[from..to]);
            assert!(look(disk, Access::ReadOnly).1.is_whole());
            let data_dir = recover(disk).expect("start");
            let orders = log(&data_dir, 0);
            let mut expected = written.values.clone();
            expected.retain(|offset, _| !(hurt.first..hurt.next).contains(offset));
            assert_eq!(values(&orders), expected);
            assert_eq!(append_durably(&orders, batch("next", 1, 10)), written.values.len() as i64);
        }
    }
}

#[test]
fn cutting_ends_the_log_before_the_damage() {
    for close in [true, false] {
        let written = write(60, 3000, close);
        let hurt = written.batches[20];
        let disk = &written.disk;
        let path = segment_path(hurt.segment, "log");
        disk.corrupt(&path, |data| data[hurt.position as usize + 30] ^= 1).expect("corrupt");
        let (dir, check) = look(disk, Access::Locked);
        let error =
            dir.plan_repair(&check, Remedy::TruncateAt(hurt.first + 1)).expect_err("damage would stay");
        assert!(matches!(error, RepairError::CutBehindDamage { .. }), "{error}");
        drop(dir);
        let bytes = |disk: &SimDisk| -> usize {
            let files = disk.files(&Path::new(ROOT).join("orders-0"));
            let logs =
                files.iter().filter(|path| path.extension().is_some_and(|end| end == "log" || end == "cut"));
            logs.map(|path| bytes_of(disk, path).len()).sum()
        };
        let before = bytes(disk);
        repair(disk, Remedy::TruncateAt(hurt.first));
        assert_eq!(bytes(disk), before, "every byte is in the log or in a side file");
        // Also after a power cut: what was kept is there, and what belongs to the log before is not.
        let disk = &disk.crash(Loss::Unsynced);
        assert_eq!(bytes(disk), before);
        let files = disk.files(&Path::new(ROOT).join("orders-0"));
        assert!(!files.contains(&segment_path(hurt.segment, "index")), "{files:?}");
        let data_dir = recover(disk).expect("start");
        let orders = log(&data_dir, 0);
        let mut expected = written.values.clone();
        expected.retain(|offset, _| *offset < hurt.first);
        assert_eq!(values(&orders), expected);
        assert_eq!(append_durably(&orders, batch("next", 1, 10)), hurt.first);
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let written = write(60, 3000, false);
    let mut bases: Vec<i64> = written.batches.iter().map(|batch| batch.segment).collect();
    bases.dedup();
    let gone = bases[1];
    written.disk.remove_file(&segment_path(gone, "log")).expect("remove");
    // Below the recovery point the place of a removed segment is one that compaction may have emptied.
    let _ = written.disk.remove_file(&Path::new(ROOT).join("recovery-point-offset-checkpoint"));
    let (_, check) = look(&written.disk, Access::ReadOnly);
    let [damage] = &check.damages[..] else { panic!("{check:?}") };
    assert_eq!((damage.first_offset, damage.next_offset, damage.bytes), (gone, bases[2], 0));
    // A start could not tell it from a write that never reached the disk, and would take the later segments out.
    repair(&written.disk, Remedy::DropDamaged);
    let data_dir = recover(&written.disk).expect("start");
    let mut expected = written.values.clone();
    expected.retain(|offset, _| !(gone..bases[2]).contains(offset));
    assert_eq!(values(&log(&data_dir, 0)), expected);
}

/// Where batches on both sides of the recovery point are damaged, one bridge spans it.
#[test]
fn a_bridge_over_the_recovery_point() {
    let disk = SimDisk::new();
    let start =
        |disk: &SimDisk| open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default()).0;
    let data_dir = start(&disk);
    let orders = create(&data_dir, 0, LogConfig::default());
    for tag in ["a", "b"] {
        append_durably(&orders, timed_batch(tag, 2, 100, NOW_MS));
    }
    let whole_bytes = orders.size_bytes();
    data_dir.close().expect("close");
    let disk = disk.crash(Loss::Nothing);
    let data_dir = start(&disk);
    let orders = log(&data_dir, 0);
    for tag in ["c", "d"] {
        append_durably(&orders, timed_batch(tag, 2, 100, NOW_MS));
    }
    let disk = disk.crash(Loss::Nothing);
    let batch_bytes = whole_bytes as usize / 2;
    for damaged in [1, 2] {
        disk.corrupt(&segment_path(0, "log"), |data| data[damaged * batch_bytes + 30] ^= 1).expect("corrupt");
    }
    let steps = repair(&disk, Remedy::DropDamaged);
    assert!(matches!(steps[0], RepairStep::MoveRecoveryPoint { to: 6 }), "{steps:?}");
    let data_dir = recover(&disk).expect("recover");
    assert_eq!(values(&log(&data_dir, 0)).into_keys().collect::<Vec<_>>(), [0, 1, 6, 7]);
}

/// The operations by which a repair makes the recovery points durable: open, write, sync, rename, sync of the directory.
const KEPT_AFTER: u64 = 5;

/// The same where the damage reaches to the end of a segment that others follow, with a power cut at each moment of the repair:
/// a start in between must not take the damage for a torn tail, and cut off what is valid behind it.
#[test]
fn a_bridge_over_the_recovery_point_survives_a_power_cut() {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
    let orders = create(&data_dir, 0, LogConfig { segment_bytes: 1400, ..LogConfig::default() });
    let points = Path::new(ROOT).join("recovery-point-offset-checkpoint");
    let (mut second, mut points_bytes) = (None, Vec::new());
    for (index, tag) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        let first = append_durably(&orders, timed_batch(tag, 2, 100, NOW_MS));
        if index == 1 {
            data_dir.checkpoint().expect("checkpoint");
            points_bytes = bytes_of(&disk, &points);
        }
        second = second.or((orders.segment_count() == 2).then_some(first));
    }
    let second = second.expect("a second segment");
    assert!(second > 4, "{second} is behind the recovery point");
    let disk = disk.crash(Loss::Nothing);
    // As if the checkpoint that comes with a new segment had not come yet.
    let file = disk.open(&points, OpenMode::Truncate).expect("open");
    file.write_vectored_at(&[IoSlice::new(&points_bytes)], 0).expect("write");
    // What the killed process had not synced is another test's.
    disk.open_root(Path::new(ROOT)).and_then(|root| root.sync_all()).expect("sync");
    let (_, check) = look(&disk, Access::ReadOnly);
    assert_eq!(check.recovery_point, 4);
    let len = bytes_of(&disk, &segment_path(0, "log")).len();
    let batch_bytes = len / (second as usize / 2);
    for at in (batch_bytes..len).step_by(batch_bytes) {
        disk.corrupt(&segment_path(0, "log"), |data| data[at + 30] ^= 1).expect("corrupt");
    }
    let expected: Vec<i64> = [0, 1].into_iter().chain(second..12).collect();
    let operations = cut_at_each_operation_of_a_repair(&disk, |moment, disk| {
        // Until the point has moved, durably, a start sees a torn tail, repair or not.
        if moment <= 2 * KEPT_AFTER {
            return;
        }
        // A start goes on with what lies below the point, damaged or not: nothing behind it may be gone.
        let started = recover(&disk.crash(Loss::Nothing)).expect("recover");
        assert_eq!(log(&started, 0).log_end_offset(), 12, "cut at operation {moment}");
        let found = values_after_another_repair(disk);
        assert_eq!(found.into_keys().collect::<Vec<_>>(), expected, "cut at operation {moment}");
    });
    assert!(operations >= 2 * KEPT_AFTER + 5, "{operations} operations");
}

/// Repairs, and hands out what a power cut at each operation of that would have left. Answers how many there are.
fn cut_at_each_operation_of_a_repair(disk: &SimDisk, check_remains: impl Fn(u64, &SimDisk)) -> u64 {
    for moment in 1.. {
        let disk = disk.crash(Loss::Nothing);
        let (mut dir, check) = look(&disk, Access::Locked);
        assert!(check.torn_tail.is_none() && !check.is_whole());
        let plan = dir.plan_repair(&check, Remedy::DropDamaged).expect("plan");
        let first = disk.operations_count();
        disk.capture_at(first + moment, Loss::Unsynced, Arc::default());
        dir.repair(&plan).expect("repair");
        drop(dir);
        let Some(captured) = disk.captured() else { return moment - 1 };
        check_remains(moment, &captured.disk);
    }
    unreachable!("a repair ends")
}

/// What a start finds when the repair has been run again, where that is needed.
fn values_after_another_repair(disk: &SimDisk) -> BTreeMap<i64, String> {
    if !look(disk, Access::ReadOnly).1.is_whole() {
        repair(disk, Remedy::DropDamaged);
    }
    values(&log(&recover(disk).expect("recover"), 0))
}

/// A killed process had just written its recovery points, and nobody had synced them yet: a power cut while the damage is
/// repaired must not bring the older ones back, by which the damage would be a torn tail.
#[test]
fn recovery_points_outlive_a_power_cut_during_a_repair() {
    let written = write(60, 3000, true);
    let disk = &written.disk;
    let points = Path::new(ROOT).join("recovery-point-offset-checkpoint");
    let bytes = bytes_of(disk, &points);
    disk.remove_file(&points).expect("remove");
    disk.sync_dir(Path::new(ROOT)).expect("sync");
    let file = disk.open(&points, OpenMode::Truncate).expect("open");
    file.write_vectored_at(&[IoSlice::new(&bytes)], 0).expect("write");
    let last_of_first = written.batches.iter().rfind(|batch| batch.segment == 0).expect("a batch");
    let at = last_of_first.position as usize + 30;
    disk.corrupt(&segment_path(0, "log"), |data| data[at] ^= 1).expect("corrupt");
    let mut expected = written.values.clone();
    expected.retain(|offset, _| !(last_of_first.first..last_of_first.next).contains(offset));
    let operations = cut_at_each_operation_of_a_repair(disk, |moment, disk| {
        // A cut before the first of them is durable leaves a disk on which the damage is a torn tail, repair or not.
        if moment > KEPT_AFTER {
            assert_eq!(values_after_another_repair(disk), expected, "cut at operation {moment}");
        }
    });
    assert!(operations >= 10, "{operations} operations");
}

/// Random damage to random segments, and a crash at a random moment of the repair: when it is run again, a start
/// succeeds, what was valid is there, what was reported lost is all that is lost.
#[test]
fn random_damage_is_repaired_also_across_crashes() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let written = write(60, 3000, random.below(2) == 0);
        let disk = written.disk.crash(Loss::Nothing);
        // What the killed process had not synced is another test's.
        disk.open_root(Path::new(ROOT)).and_then(|root| root.sync_all()).expect("sync");
        for _ in 0..1 + random.below(3) {
            let target = written.batches[random.below(written.batches.len())];
            let from = 16 + random.below(target.bytes as usize - 16);
            // No further than the batch: the CRC does not cover the base offset of the next one.
            let length = (1 + random.below(40)).min(target.bytes as usize - from);
            let at = target.position as usize + from;
            disk.corrupt(&segment_path(target.segment, "log"), |data| {
                data.iter_mut().skip(at).take(length).for_each(|byte| *byte ^= 0x5a);
            })
            .expect("corrupt");
        }
        let (mut dir, check) = look(&disk, Access::Locked);
        if check.torn_tail.is_some() || check.is_whole() {
            continue;
        }
        let lost = |offset: &i64| {
            check.damages.iter().any(|damage| (damage.first_offset..damage.next_offset).contains(offset))
        };
        let mut expected = written.values.clone();
        expected.retain(|offset, _| !lost(offset));
        assert!(expected.len() < written.values.len());
        let plan = dir.plan_repair(&check, Remedy::DropDamaged).expect("plan");
        let moment = disk.operations_count() + random.below(30) as u64;
        disk.capture_at(moment, Loss::Random(seed), Arc::new(AtomicU64::new(0)));
        dir.repair(&plan).expect("repair");
        drop(dir);
        for disk in [disk.captured().map(|captured| captured.disk), Some(disk)].into_iter().flatten() {
            if !look(&disk, Access::ReadOnly).1.is_whole() {
                repair(&disk, Remedy::DropDamaged);
            }
            let data_dir = recover(&disk).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert_eq!(values(&log(&data_dir, 0)), expected, "seed {seed}");
        }
    }
}

/// A compacted log whose recovery point lies below its holes, as after a repair or without the checkpoint.
fn compacted_log(lowered: bool) -> SimDisk {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
    let config = LogConfig {
        cleanup: CleanupPolicy::COMPACT,
        segment_bytes: 700,
        min_cleanable_dirty_ratio: 0.0,
        ..LogConfig::default()
    };
    let orders = create(&data_dir, 0, config);
    for index in 0..40 {
        let key = format!("key-{}", index % 7);
        let builder = BatchBuilder::new().record(NOW_MS, Some(key.as_bytes()), Some(b"value"), &[]);
        append_durably(&orders, builder.build());
    }
    data_dir.checkpoint().expect("checkpoint");
    let report = data_dir.keep(NOW_MS, Chores { cleaning: true, ..Chores::default() });
    assert!(report.cleaned_passes == 1 && report.cleaned_written_bytes < report.cleaned_read_bytes);
    data_dir.close().expect("close");
    let disk = disk.crash(Loss::Nothing);
    let points = Path::new(ROOT).join("recovery-point-offset-checkpoint");
    match lowered {
        true => disk.corrupt(&points, |text| *text = b"0\n1\norders 0 0\n".to_vec()).expect("it is there"),
        false => disk.remove_file(&points).expect("it is there"),
    }
    disk
}

/// A start knows which logs the cleaner has been in, and so does a check.
#[test]
fn holes_of_a_compaction_are_no_damage_wherever_the_recovery_point_is() {
    for lowered in [true, false] {
        let disk = compacted_log(lowered);
        let (_, check) = look(&disk, Access::ReadOnly);
        assert!(check.is_whole() && check.torn_tail.is_none(), "{check:?}");
        assert!((check.records_count as i64) < check.log_end_offset);
        let data_dir = recover(&disk).expect("a start takes it");
        assert_eq!(values(&log(&data_dir, 0)).len() as u64, check.records_count);
        drop(data_dir);

        // A log that nobody has cleaned has no holes.
        let disk = compacted_log(lowered);
        disk.remove_file(&Path::new(ROOT).join("cleaner-offset-checkpoint")).expect("it is there");
        let (_, check) = look(&disk, Access::ReadOnly);
        assert!(!check.is_whole() || check.torn_tail.is_some(), "{check:?}");
    }
    // Where the cleaner has not been, a missing offset is a lost one, in such a log as well.
    let disk = compacted_log(true);
    let dirty = b"0\n1\norders 0 10\n".to_vec();
    disk.corrupt(&Path::new(ROOT).join("cleaner-offset-checkpoint"), |text| *text = dirty).expect("corrupt");
    let (_, check) = look(&disk, Access::ReadOnly);
    assert!(!check.is_whole() || check.torn_tail.is_some(), "{check:?}");
}

/// A check finds the transaction indexes that a start makes anew, and writes nothing.
#[test]
fn transaction_indexes_are_held_against_the_snapshot() {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
    let orders = create(&data_dir, 0, LogConfig { segment_bytes: 700, ..LogConfig::default() });
    let coordinator = AppendOptions { origin: Origin::Coordinator, ..options() };
    let abort = EndTxnMarker { result: TransactionResult::Abort, coordinator_epoch: 0 };
    for sequence in 0..12 {
        let builder = BatchBuilder::new().producer(1, 0, sequence).transactional();
        let records = builder.record(NOW_MS, None, Some(b"value"), &[]).build();
        let verified = AppendOptions { origin: Origin::Transaction, ..options() };
        let _sent = orders.append(records, verified).expect("append");
        let marker = orders.append_marker((1, 0), abort, false, coordinator).expect("append a marker");
        marker.commit.wait_blocking().expect("commit");
    }
    data_dir.close().expect("close");
    let disk = disk.crash(Loss::Nothing);
    let aborted = orders.aborted_transactions(0, i64::MAX).expect("read");
    let (_, check) = look(&disk, Access::ReadOnly);
    assert!(check.is_whole() && check.side_faults.is_empty(), "{check:?}");
    let files = disk.files(&Path::new(ROOT).join("orders-0"));
    let indexes: Vec<_> =
        files.iter().filter(|path| path.extension().is_some_and(|end| end == "txnindex")).collect();
    assert!(indexes.len() > 2);
    for (index, path) in indexes.into_iter().enumerate() {
        let hurt = disk.crash(Loss::Nothing);
        match index % 3 {
            0 => hurt.corrupt(path, |bytes| bytes[20] ^= 1).expect("corrupt"),
            1 => hurt.remove_file(path).expect("remove"),
            _ => hurt.corrupt(path, |bytes| bytes.truncate(bytes.len() - 1)).expect("corrupt"),
        }
        let (_, check) = look(&hurt, Access::ReadOnly);
        assert!(check.is_whole(), "{check:?}");
        let [fault] = &check.side_faults[..] else { panic!("{check:?}") };
        assert_eq!(&fault.file, path);
        let data_dir = recover(&hurt).expect("start");
        assert_eq!(log(&data_dir, 0).aborted_transactions(0, i64::MAX).expect("read"), aborted);
        drop(data_dir);
        assert!(look(&hurt, Access::ReadOnly).1.side_faults.is_empty());
    }
}

/// A start that refuses names the place that a check finds first, and the cut that its hint names is one that can be made.
fn assert_start_and_check_agree(disk: &SimDisk, what: &str) -> bool {
    let (dir, check) = look(disk, Access::ReadOnly);
    let Some(damage) = check.damages.first() else {
        drop(dir);
        recover(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
        return false;
    };
    let remedy = Remedy::TruncateAt(damage.first_offset);
    dir.plan_repair(&check, remedy).unwrap_or_else(|error| panic!("{what}: {error}"));
    drop(dir);
    let Err(error) = recover(disk) else { return false };
    let hint = error.hint();
    let RecoverError::Damaged { position, offset, ref file, .. } = error else { panic!("{what}: {error}") };
    assert_eq!((offset, position), (damage.first_offset, damage.position), "{what}: {error}, {damage:?}");
    assert_eq!(*file, damage.file, "{what}");
    assert!(hint.contains(&format!("--truncate-at {}`", damage.first_offset)), "{what}: {hint}");
    true
}

/// It named the recovery point, or the end of the segment, at which a repair refuses to cut.
#[test]
fn the_hint_of_a_start_names_the_offset_where_the_damage_begins() {
    // Torn at any byte below the recovery point, of a log of one segment and of the last one of many.
    for segment_bytes in [1 << 20, 3000] {
        let written = write(24, segment_bytes, true);
        let last = written.batches.last().expect("a batch").segment;
        let len = bytes_of(&written.disk, &segment_path(last, "log")).len();
        for len in 0..len {
            let disk = written.disk.crash(Loss::Nothing);
            disk.corrupt(&segment_path(last, "log"), |data| data.truncate(len)).expect("corrupt");
            assert!(assert_start_and_check_agree(&disk, &format!("segment {last}, {len} bytes")));
        }
    }
    // Any byte of closed segments, where the snapshot is missing and a start reads them.
    let written = write(24, 3000, true);
    let snapshot = written.disk.files(&Path::new(ROOT).join("orders-0"));
    let snapshot = snapshot.iter().find(|path| path.extension().is_some_and(|end| end == "snapshot"));
    written.disk.remove_file(snapshot.expect("a snapshot")).expect("remove");
    let mut refused = 0;
    for hurt in &written.batches[..written.batches.len() / 2] {
        for at in hurt.position..hurt.position + 61 {
            let disk = written.disk.crash(Loss::Nothing);
            disk.corrupt(&segment_path(hurt.segment, "log"), |data| data[at as usize] ^= 0x80)
                .expect("corrupt");
            refused += usize::from(assert_start_and_check_agree(&disk, &format!("{hurt:?}, byte {at}")));
        }
    }
    assert!(refused > 50, "{refused} starts refused");
}

/// A check judged nothing where there was no segment, and called such a log whole. It is one that ends before its recovery point, like an
/// empty segment, and is mended like one.
#[test]
fn a_log_without_its_only_segment_is_as_damaged_as_an_empty_one() {
    let written = write(9, 1 << 20, true);
    let records = written.values.len() as i64;
    let path = segment_path(0, "log");
    for empty in [true, false] {
        for remedy in [Remedy::DropDamaged, Remedy::TruncateAt(0)] {
            let disk = written.disk.crash(Loss::Nothing);
            match empty {
                true => disk.corrupt(&path, Vec::clear).expect("corrupt"),
                false => disk.remove_file(&path).expect("remove"),
            }
            assert!(assert_start_and_check_agree(&disk.crash(Loss::Nothing), "no segment"));
            let (dir, check) = look(&disk, Access::ReadOnly);
            let [damage] = &check.damages[..] else { panic!("{check:?}") };
            assert_eq!((damage.first_offset, damage.next_offset, damage.bytes), (0, records, 0));
            assert_eq!((&damage.file, check.log_end_offset), (&path, records));
            drop(dir);
            repair(&disk, remedy);
            assert!(look(&disk, Access::ReadOnly).1.is_whole());
            let data_dir = recover(&disk).expect("start");
            let orders = log(&data_dir, 0);
            let next = if remedy == Remedy::DropDamaged { records } else { 0 };
            assert_eq!(append_durably(&orders, batch("next", 1, 10)), next);
            assert_eq!(values(&orders).into_keys().collect::<Vec<_>>(), [next]);
        }
    }
    // Where nothing says that there was a record, none is missed, but a check says what it has not found.
    written.disk.remove_file(&path).expect("remove");
    written.disk.remove_file(&Path::new(ROOT).join("recovery-point-offset-checkpoint")).expect("remove");
    let (_, check) = look(&written.disk, Access::ReadOnly);
    assert!(check.is_whole() && check.side_faults.iter().any(|fault| fault.file == path), "{check:?}");
}

/// A log whose first segment is gone, but for its indexes, was whole for a check, and a start said nothing.
#[test]
fn a_missing_first_segment_is_damage_and_a_start_goes_on_without_it() {
    let written = write(60, 3000, true);
    let second = written.batches.iter().find(|batch| batch.segment > 0).expect("a second segment").segment;
    let disk = &written.disk;
    disk.remove_file(&segment_path(0, "log")).expect("remove");
    let (dir, check) = look(disk, Access::ReadOnly);
    let [damage] = &check.damages[..] else { panic!("{check:?}") };
    assert_eq!((damage.first_offset, damage.next_offset, damage.bytes), (0, second, 0));
    assert!(damage.is_before_log());
    let orphans: Vec<_> = check.side_faults.iter().map(|fault| fault.file.clone()).collect();
    assert_eq!(orphans, [segment_path(0, "index"), segment_path(0, "timeindex")]);
    let error = dir.plan_repair(&check, Remedy::TruncateAt(0)).expect_err("there is nothing to cut");
    assert!(matches!(error, RepairError::OutOfRange { .. }), "{error}");
    drop(dir);
    let started = disk.crash(Loss::Nothing);
    let (data_dir, report) = open_on(Arc::new(started), Path::new(ROOT), DataDirOptions::default());
    let [late] = &report.late_starts[..] else { panic!("{:?}", report.late_starts) };
    assert_eq!((late.recorded, late.offset), (0, second));
    assert_eq!(log(&data_dir, 0).log_start_offset(), second);
    for remedy in [Remedy::DropDamaged, Remedy::TruncateAt(second + 10)] {
        let disk = disk.crash(Loss::Nothing);
        let steps = repair(&disk, remedy);
        assert!(matches!(steps[0], RepairStep::RaiseLogStart { to } if to == second), "{steps:?}");
        assert!(look(&disk, Access::ReadOnly).1.is_whole());
        let (data_dir, report) = open_on(Arc::new(disk), Path::new(ROOT), DataDirOptions::default());
        assert!(report.late_starts.is_empty());
        let mut expected = written.values.clone();
        let log_end_offset = log(&data_dir, 0).log_end_offset();
        expected.retain(|offset, _| (second..log_end_offset).contains(offset));
        assert_eq!(values(&log(&data_dir, 0)), expected);
        assert_eq!(remedy == Remedy::DropDamaged, log_end_offset == written.values.len() as i64);
    }
}

/// Indexes of a segment that is gone for a reason are told, and nothing more.
#[test]
fn indexes_without_a_log_below_its_start_are_no_damage() {
    let written = write(60, 3000, true);
    let second = written.batches.iter().find(|batch| batch.segment > 0).expect("a second segment").segment;
    let disk = &written.disk;
    disk.remove_file(&segment_path(0, "log")).expect("remove");
    for text in [format!("0\n1\norders 0 {second}\n"), "damaged".to_owned()] {
        let path = Path::new(ROOT).join("log-start-offset-checkpoint");
        drop(disk.open(&path, OpenMode::Truncate).expect("create"));
        disk.corrupt(&path, |bytes| *bytes = text.clone().into_bytes()).expect("it is there");
        let (_, check) = look(disk, Access::ReadOnly);
        assert!(check.is_whole() && check.side_faults.len() == 2, "{check:?}");
        let disk = disk.crash(Loss::Nothing);
        let (_, report) = open_on(Arc::new(disk), Path::new(ROOT), DataDirOptions::default());
        assert!(report.late_starts.is_empty());
    }
}
