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

/// A record whose value holds a log's batches themselves, as those of backups and dead letters do.
fn wrapping(inner: &[u8], behind: usize) -> Bytes {
    let value = [&[b'x'; 100][..], inner, &vec![b'y'; behind]].concat();
    BatchBuilder::new().record(NOW_MS, None, Some(&value), &[]).build()
}

/// Batches with these base offsets.
fn inner(base_offsets: &[i64]) -> Vec<u8> {
    let one = |base: &i64| [&base.to_be_bytes()[..], &batch("inner", 2, 50)[8..]].concat();
    base_offsets.iter().flat_map(one).collect()
}

#[track_caller]
fn check_torn(disk: &SimDisk, context: &str) {
    assert!(check(disk).is_whole(), "{context}");
    let data_dir = try_recover(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(tags(&log(&data_dir, 0), UpTo::HighWatermark), ["a/0/", "a/1/"], "{context}");
}

/// The batches within the value of a torn write were taken for a proof that the log went on: a start was refused that a check
/// called whole.
#[test]
fn batches_within_a_torn_record_vouch_for_nothing() {
    // Offsets that look like those of what is to come, and others.
    for base_offsets in [&[3][..], &[3, 5], &[5000, 5002]] {
        let inner = inner(base_offsets);
        let outer = wrapping(&inner, 1500);
        let (disk, from) = followed(&outer, 0);
        let inner_from = from + outer.windows(inner.len()).position(|bytes| bytes == inner).expect("within");
        let looks_whole = |to: usize| {
            let ends =
                (1..=base_offsets.len()).map(|count| inner_from + inner.len() / base_offsets.len() * count);
            base_offsets[0] == 3 && ends.into_iter().any(|end| end == to)
        };
        let len = from + outer.len();
        for to in from..len {
            let disk = disk.crash(Loss::Nothing);
            disk.corrupt(&segment_path(0), |bytes| bytes.truncate(to)).expect("it is there");
            let context = format!("{} of {} bytes, {base_offsets:?}", to - from, outer.len());
            if looks_whole(to) {
                // Nothing tells it from a log with damage before its last batches, and those are never cut.
                assert!(!check(&disk).is_whole() && try_recover(&disk).is_err(), "{context}");
            } else {
                check_torn(&disk, &context);
            }
        }
        for sector in from.div_ceil(SECTOR)..len / SECTOR {
            for (from, to) in [(sector * SECTOR, (sector + 1) * SECTOR), (sector * SECTOR, len)] {
                let disk = disk.crash(Loss::Nothing);
                disk.corrupt(&segment_path(0), |bytes| bytes[from..to].fill(0)).expect("it is there");
                check_torn(&disk, &format!("{from} to {to} of {len} unwritten, {base_offsets:?}"));
            }
        }
    }
}

/// But a length that has come to be too large tears nothing off: the log goes on behind the batch, whatever is wrong with it besides.
#[test]
fn a_length_that_reaches_behind_the_end_hides_no_batch() {
    let batches = [wrapping(&inner(&[3]), 300), wrapping(&inner(&[3, 5]), 1500), batch("b", 1, 600)];
    for (followers_count, is_wrong_twice) in [(1, false), (2, false), (1, true), (2, true)] {
        for suspect in &batches {
            let (disk, from) = followed(suspect, followers_count);
            for bit in 12..31 {
                let disk = disk.crash(Loss::Nothing);
                let change = |bytes: &mut Vec<u8>| {
                    bytes[from + 8 + 3 - bit / 8] ^= 1 << (bit % 8);
                    bytes[from + HEADER_LEN + 20] ^= u8::from(is_wrong_twice);
                };
                disk.corrupt(&segment_path(0), change).expect("it is there");
                check_damaged(&disk, from + suspect.len(), &format!("bit {bit}, twice: {is_wrong_twice}"));
            }
        }
    }
}

/// What the CRC does not cover was wrong, and zeros in the value were taken for a sector that was never written: the records
/// behind it were cut.
#[test]
fn zeros_in_a_record_make_no_torn_write_of_what_is_whole() {
    let value = [&[b'x'; 100][..], &[0; 2000], &[b'y'; 33]].concat();
    let suspect = BatchBuilder::new().record(NOW_MS, None, Some(&value), &[]).build();
    let (disk, from) = followed(&suspect, 2);
    for at in (0..12).chain([16]) {
        for bit in 0..8 {
            let disk = disk.crash(Loss::Nothing);
            disk.corrupt(&segment_path(0), |bytes| bytes[from + at] ^= 1 << bit).expect("it is there");
            check_damaged(&disk, from + suspect.len(), &format!("byte {at}, bit {bit}"));
        }
    }
}

/// What a record holds is not the log's, damaged or not.
#[test]
fn batches_within_a_damaged_record_are_not_taken_for_the_logs() {
    let suspect = wrapping(&inner(&[3, 5]), 300);
    let (disk, from) = followed(&suspect, 1);
    disk.corrupt(&segment_path(0), |bytes| bytes[from + suspect.len() - 9] ^= 1).expect("it is there");
    check_damaged(&disk, from + suspect.len(), "its last bytes");
    let mut offline = OfflineDataDir::open(Arc::new(disk.clone()), ROOT, Access::Locked).expect("open");
    let check = offline.check(&partition(0), &|_| {}).expect("check");
    let plan = offline.plan_repair(&check, Remedy::DropDamaged).expect("plan");
    offline.repair(&plan).expect("repair");
    drop(offline);
    let data_dir = try_recover(&disk).expect("repaired");
    assert_eq!(log(&data_dir, 0).log_end_offset(), 4, "the one lost and the one behind it");
}

/// A log that ends with batches behind this one, and where it begins.
fn followed(suspect: &Bytes, followers_count: usize) -> (SimDisk, usize) {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
    let orders = create(&data_dir, 0, LogConfig::default());
    append_durably(&orders, batch("a", 2, 100));
    let from = orders.size_bytes() as usize;
    append_durably(&orders, suspect.clone());
    for number in 0..followers_count {
        append_durably(&orders, batch(&format!("c{number}"), 1, 10));
    }
    let disk = disk.crash(Loss::Nothing);
    let _none_yet = disk.remove_file(&Path::new(ROOT).join("recovery-point-offset-checkpoint"));
    (disk, from)
}

/// A start is refused, and a check says where the log goes on.
#[track_caller]
fn check_damaged(disk: &SimDisk, stop: usize, context: &str) {
    let Err(error) = try_recover(disk) else { panic!("{context}: taken") };
    let RecoverError::Damaged { position, offset, lost_bytes, .. } = error else {
        panic!("{context}: {error}")
    };
    assert_eq!((offset, position + lost_bytes), (2, stop as u64), "{context}");
    let check = check(disk);
    assert!(check.torn_tail.is_none() && check.damages.len() == 1, "{context}: {check:?}");
    assert_eq!((check.damages[0].first_offset, check.damages[0].next_offset), (2, 3), "{context}");
}
