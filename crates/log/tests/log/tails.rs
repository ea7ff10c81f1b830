//! The end of a file: what a crash has torn off goes, what was whole once is damage.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tidings_log::batch::{BatchBuilder, HEADER_LEN};
use tidings_log::offline::{Access, OfflineDataDir, PartitionCheck, Remedy};
use tidings_log::testing::{Loss, SimDisk};
use tidings_log::{DataDir, DataDirOptions, Disk, LogConfig, RecoverError, UpTo};

use crate::support::{NOW_MS, append_durably, batch, create, log, open_on, partition, tags};

const ROOT: &str = "/data";
const SECTOR: usize = 512;

fn segment_path(base_offset: i64) -> PathBuf {
    Path::new(ROOT).join(format!("orders-0/{base_offset:020}.log"))
}

fn try_recover(disk: &SimDisk) -> Result<Arc<DataDir>, RecoverError> {
    let unrecovered = DataDir::open(Arc::new(disk.clone()), ROOT, DataDirOptions::default()).expect("open");
    unrecovered.recover().map(|(data_dir, _)| data_dir)
}

fn check(disk: &SimDisk) -> PartitionCheck {
    let offline = OfflineDataDir::open(Arc::new(disk.clone()), ROOT, Access::ReadOnly).expect("open");
    offline.check(&partition(0), &|_| {}).expect("check")
}

/// Two segments after a crash that no checkpoint was written before; and where the last batch of the first one begins.
fn two_segments() -> (SimDisk, usize) {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
    let orders = create(&data_dir, 0, LogConfig { segment_bytes: 3100, ..LogConfig::default() });
    append_durably(&orders, batch("a", 2, 700));
    let last = orders.size_bytes() as usize;
    append_durably(&orders, batch("b", 2, 700));
    append_durably(&orders, batch("c", 1, 300));
    assert_eq!(orders.segment_count(), 2);
    let disk = disk.crash(Loss::Nothing);
    let _none_yet = disk.remove_file(&Path::new(ROOT).join("recovery-point-offset-checkpoint"));
    (disk, last)
}

/// One was taken for a torn write, and the segments behind it were set aside.
#[test]
fn a_flipped_bit_in_the_last_batch_of_a_closed_segment_is_damage() {
    let (disk, last) = two_segments();
    let mut end = 0;
    disk.corrupt(&segment_path(0), |bytes| end = bytes.len()).expect("it is there");
    for at in last..end {
        // The leader epoch is not covered by the CRC.
        if (last + 12..last + 16).contains(&at) {
            continue;
        }
        let is_header = at < last + HEADER_LEN;
        for bit in if is_header { 0..8 } else { at % 8..at % 8 + 1 } {
            let disk = disk.crash(Loss::Nothing);
            disk.corrupt(&segment_path(0), |bytes| bytes[at] ^= 1 << bit).expect("it is there");
            let context = format!("byte {at} of {last}..{end}, bit {bit}");
            let Err(error) = try_recover(&disk) else { panic!("{context}: taken") };
            let RecoverError::Damaged { position, offset, lost_bytes, .. } = error else {
                panic!("{context}: {error}")
            };
            assert_eq!((position, offset, lost_bytes), (last as u64, 2, (end - last) as u64), "{context}");
            let check = check(&disk);
            assert!(check.torn_tail.is_none() && check.damages.len() == 1, "{context}: {check:?}");
            assert_eq!((check.damages[0].first_offset, check.damages[0].next_offset), (2, 4), "{context}");
        }
    }
    let mut offline = OfflineDataDir::open(Arc::new(disk.clone()), ROOT, Access::Locked).expect("open");
    disk.corrupt(&segment_path(0), |bytes| bytes[last + 100] ^= 1).expect("it is there");
    let check = offline.check(&partition(0), &|_| {}).expect("check");
    let plan = offline.plan_repair(&check, Remedy::DropDamaged).expect("plan");
    offline.repair(&plan).expect("repair");
    drop(offline);
    let data_dir = try_recover(&disk).expect("repaired");
    let orders = log(&data_dir, 0);
    assert_eq!((orders.log_end_offset(), orders.segment_count()), (5, 2), "what follows has stayed");
}

/// The same place, as a power cut leaves it: the file is short, or one of its sectors was never written.
#[test]
fn what_a_power_cut_takes_from_a_closed_segment_goes_with_what_follows() {
    let (disk, last) = two_segments();
    let mut end = 0;
    disk.corrupt(&segment_path(0), |bytes| end = bytes.len()).expect("it is there");
    let short = (last..end).map(|to| (to, to));
    let unwritten = (last / SECTOR + 1..end / SECTOR + 1).map(|sector| {
        let from = sector * SECTOR;
        (from, end.min(from + SECTOR))
    });
    // The sector in which the batch before ends holds what it held.
    let first = (last, (last / SECTOR + 1) * SECTOR);
    for (from, to) in short.chain(unwritten.filter(|(from, to)| from < to)).chain([first]) {
        let disk = disk.crash(Loss::Nothing);
        disk.corrupt(&segment_path(0), |bytes| {
            if from == to {
                bytes.truncate(to);
            } else {
                bytes[from..to].fill(0);
            }
        })
        .expect("it is there");
        let context = format!("bytes {from} to {to} of {last}..{end}");
        if to > last {
            let check = check(&disk);
            assert!(check.is_whole(), "{context}: {check:?}");
            assert_eq!(check.torn_tail.expect(&context).later_segments_count, 1, "{context}");
        }
        let data_dir = try_recover(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(tags(&log(&data_dir, 0), UpTo::HighWatermark), ["a/0/", "a/1/"], "{context}");
    }
}

/// A record whose value is a log's batch itself, as backups and dead letters hold them.
fn wrapping(inner: &Bytes) -> Bytes {
    let value = [&[b'x'; 100][..], inner, &[b'y'; 300]].concat();
    BatchBuilder::new().record(NOW_MS, None, Some(&value), &[]).build()
}

/// The batch within the value of a torn write was taken for a proof that the log went on: a start was refused that a check called
/// whole.
#[test]
fn a_batch_within_a_torn_record_vouches_for_nothing() {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
    let orders = create(&data_dir, 0, LogConfig::default());
    append_durably(&orders, batch("a", 2, 100));
    let from = orders.size_bytes() as usize;
    let mut inner = batch("inner", 2, 50).to_vec();
    // Its offsets look like those of what is to come.
    inner[..8].copy_from_slice(&3_i64.to_be_bytes());
    let outer = wrapping(&inner.into());
    append_durably(&orders, outer.clone());
    let disk = disk.crash(Loss::Nothing);
    for to in from..from + outer.len() {
        let disk = disk.crash(Loss::Nothing);
        disk.corrupt(&segment_path(0), |bytes| bytes.truncate(to)).expect("it is there");
        let context = format!("{} of {} bytes", to - from, outer.len());
        assert!(check(&disk).is_whole(), "{context}");
        let data_dir = try_recover(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(tags(&log(&data_dir, 0), UpTo::HighWatermark), ["a/0/", "a/1/"], "{context}");
    }
}

/// But a length that has come to be too large tears nothing off: the log goes on behind the batch.
#[test]
fn a_length_that_reaches_behind_the_end_hides_no_batch() {
    for followers_count in 1..3 {
        let disk = SimDisk::new();
        let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
        let orders = create(&data_dir, 0, LogConfig::default());
        append_durably(&orders, batch("a", 2, 100));
        let from = orders.size_bytes() as usize;
        append_durably(&orders, wrapping(&batch("inner", 2, 50)));
        for _ in 0..followers_count {
            append_durably(&orders, batch("c", 1, 10));
        }
        let disk = disk.crash(Loss::Nothing);
        for bit in 10..31 {
            let disk = disk.crash(Loss::Nothing);
            let at = from + 8 + 3 - bit / 8;
            disk.corrupt(&segment_path(0), |bytes| bytes[at] ^= 1 << (bit % 8)).expect("it is there");
            let Err(error) = try_recover(&disk) else { panic!("bit {bit}: taken") };
            assert!(matches!(error, RecoverError::Damaged { offset: 2, .. }), "bit {bit}: {error}");
            assert!(!check(&disk).is_whole(), "bit {bit}");
        }
    }
}
