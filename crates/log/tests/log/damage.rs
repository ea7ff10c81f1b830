//! Damaged files: torn tails are cut, everything else is told and never read as if it were right.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tidings_log::batch::{
    BatchBuilder, BatchHeader, Batches, Compression, HEADER_LEN, LENGTH_OVERHEAD, compress, validate,
};
use tidings_log::testing::{Loss, SimDisk};
use tidings_log::{
    AppendOptions, Appended, DataDir, DataDirOptions, Disk, LogConfig, Origin, PartitionLog, ReadError,
    RecoverError, UpTo,
};

use crate::support::{
    NOW_MS, append, append_durably, batch, create, fill, log, open_on, options, tags, timed_batch,
};

const ROOT: &str = "/data";

fn segment_path(base_offset: i64, extension: &str) -> PathBuf {
    Path::new(ROOT).join("orders-0").join(format!("{base_offset:020}.{extension}"))
}

fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 20_000, index_interval_bytes: 128, ..LogConfig::default() }
}

/// A disk with one log of `count` batches of different sizes, after a kill; and the batches' positions.
fn killed(count: usize) -> (SimDisk, Vec<u64>) {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
    let orders = create(&data_dir, 0, LogConfig { index_interval_bytes: 128, ..LogConfig::default() });
    let mut positions = Vec::new();
    for index in 0..count {
        positions.push(orders.size_bytes());
        append_durably(&orders, batch(&format!("b{index}"), 1 + index % 3, 50 + 13 * index));
    }
    positions.push(orders.size_bytes());
    (disk.crash(Loss::Nothing), positions)
}

fn try_recover(disk: &SimDisk) -> Result<Arc<DataDir>, RecoverError> {
    let disk = Arc::new(disk.clone());
    let unrecovered = DataDir::open(disk, ROOT, DataDirOptions::default()).expect("open");
    unrecovered.recover().map(|(data_dir, _)| data_dir)
}

/// What a crash may tear: the batches of one append, as they reach the file.
fn torn_appends() -> Vec<(&'static str, Vec<Bytes>)> {
    let mut plain = BatchBuilder::new();
    fill(&mut plain, "plain", 3, 40, NOW_MS);
    let mut idempotent = BatchBuilder::new().producer(7, 0, 0);
    fill(&mut idempotent, "idempotent", 2, 30, NOW_MS);
    let mut transactional = BatchBuilder::new().producer(8, 0, 0).transactional();
    fill(&mut transactional, "transactional", 2, 30, NOW_MS);
    let sectors = batch("sectors", 2, 700);
    vec![
        ("of one empty record", vec![BatchBuilder::new().record(NOW_MS, None, None, &[]).build()]),
        ("of several records", vec![plain.build()]),
        ("of several sectors", vec![sectors]),
        ("compressed", vec![compressed(&batch("compressed", 2, 60))]),
        ("of an idempotent producer", vec![idempotent.build()]),
        ("of a transaction", vec![transactional.build()]),
        ("of several batches", vec![batch("first", 1, 20), batch("second", 2, 40), batch("third", 1, 5)]),
    ]
}

/// The same batch, its records packed.
fn compressed(batch: &Bytes) -> Bytes {
    const LZ4: u8 = 3;
    let packed = compress(Compression::Lz4, batch.slice(HEADER_LEN..)).expect("pack");
    let mut bytes = [&batch[..HEADER_LEN], &packed].concat();
    let length = i32::try_from(bytes.len() - LENGTH_OVERHEAD).expect("small");
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] |= LZ4;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

#[test]
fn a_tail_torn_at_any_byte_is_cut() {
    for (kind, batches) in torn_appends() {
        let (disk, positions) = killed(4);
        let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
        append_trusted(&log(&data_dir, 0), batches.concat().into());
        drop(data_dir);
        let start = positions[4] as usize;
        let len: usize = batches.iter().map(Bytes::len).sum();
        for torn_at in start..start + len {
            for zeros in [false, true] {
                check_torn(kind, &disk, &batches, start..start + len, torn_at, zeros);
            }
        }
    }
}

/// Appends without asking whether the coordinator knows of a transaction, and waits until it is durable.
fn append_trusted(log: &Arc<PartitionLog>, records: Bytes) -> Appended {
    let trusted = AppendOptions { origin: Origin::Coordinator, ..options() };
    let appended = log.append(records, trusted).expect("append");
    appended.commit.wait_blocking().expect("commit");
    appended
}

/// Tears the append that reaches over `range` at one byte: whole batches before it stay, the rest goes.
fn check_torn(
    kind: &str,
    disk: &SimDisk,
    batches: &[Bytes],
    range: Range<usize>,
    torn_at: usize,
    zeros: bool,
) {
    let disk = disk.crash(Loss::Nothing);
    let path = segment_path(0, "log");
    let mut whole = Vec::new();
    disk.corrupt(&path, |data| {
        let before = data.clone();
        // A file may have got its length before its bytes; where these are zeros anyway, they are there.
        data.truncate(torn_at);
        data.resize(if zeros { range.end } else { torn_at }, 0);
        let mut at = range.start;
        for bytes in batches {
            let end = at + bytes.len();
            whole.push(data.get(at..end) == Some(&before[at..end]));
            at = end;
        }
    })
    .expect("corrupt");
    let mut kept = (range.start, 7);
    for (bytes, _) in batches.iter().zip(&whole).take_while(|(_, whole)| **whole) {
        let header = BatchHeader::parse(bytes).expect("a header");
        kept = (kept.0 + bytes.len(), kept.1 + i64::from(header.last_offset_delta) + 1);
    }
    if kept.0 == range.end {
        return;
    }
    let (data_dir, report) = open_on(Arc::new(disk), Path::new(ROOT), DataDirOptions::default());
    let orders = log(&data_dir, 0);
    let context = format!("{kind}, torn at {torn_at} of {range:?}, zeros: {zeros}");
    assert_eq!((orders.size_bytes(), orders.log_end_offset()), (kept.0 as u64, kept.1), "{context}");
    assert_eq!(orders.last_stable_offset(), kept.1, "{context}");
    assert_eq!(tags(&orders, UpTo::HighWatermark).len() as i64, kept.1, "{context}");
    let cut_bytes: u64 = report.cuts.iter().map(|cut| cut.bytes).sum();
    let expected = if zeros { range.end } else { torn_at } - kept.0;
    assert_eq!(cut_bytes, expected as u64, "{context}");
    // The producer sends again what was never acknowledged.
    let again = append_trusted(&orders, batches[0].clone());
    assert_eq!((again.base_offset, again.duplicate), (kept.1, false), "{context}");
}

#[test]
fn damage_before_valid_batches_is_an_error_that_names_the_place() {
    let (disk, positions) = killed(5);
    let (from, to) = (positions[2], positions[3]);
    for position in from..to {
        // The leader epoch is not covered by the CRC; it is ours to assign and tells consumers nothing new.
        if (from + 12..from + 16).contains(&position) {
            continue;
        }
        let disk = disk.crash(Loss::Nothing);
        disk.corrupt(&segment_path(0, "log"), |data| data[position as usize] ^= 0x10).expect("corrupt");
        let error = try_recover(&disk).expect_err("damage in the middle");
        let RecoverError::Damaged { position: found, offset, lost_bytes, ref file, .. } = error else {
            panic!("{error}")
        };
        assert_eq!((found, offset, lost_bytes), (from, 3, to - from), "byte {position}: {error}");
        assert_eq!(*file, segment_path(0, "log"));
        assert!(error.hint().contains("orders-0"), "{}", error.hint());
    }
}

#[test]
fn a_log_shorter_than_its_recovery_point_is_an_error() {
    let (disk, positions) = killed(5);
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
    data_dir.close().expect("close");
    drop(data_dir);
    let disk = disk.crash(Loss::Nothing);
    disk.corrupt(&segment_path(0, "log"), |data| data.truncate(positions[4] as usize)).expect("corrupt");
    let error = try_recover(&disk).expect_err("lost batches");
    assert!(error.to_string().contains("before its recovery point"), "{error}");
}

/// A cleanly closed log of many segments.
fn closed() -> (SimDisk, Vec<String>) {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
    let orders = create(&data_dir, 0, small_segments());
    for index in 0..300 {
        let first_ms = NOW_MS + index as i64 * 10;
        append_durably(
            &orders,
            timed_batch(&format!("b{index}"), 1 + index % 3, 100 + 7 * (index % 20), first_ms),
        );
    }
    assert!(orders.segment_count() > 3);
    let expected = tags(&orders, UpTo::HighWatermark);
    data_dir.close().expect("close");
    (disk, expected)
}

/// Reads every offset on its own, and every timestamp.
fn read_everywhere(orders: &PartitionLog, expected: &[String]) {
    for (offset, tag) in expected.iter().enumerate() {
        let fetched = orders.read(offset as i64, 1, UpTo::HighWatermark, true).expect("read");
        let bytes = fetched.slice.read().expect("read the slice");
        let records = Batches::new(bytes).flatten().filter_map(|batch| batch.records()).flatten().flatten();
        let record = records.into_iter().find(|record| record.offset == offset as i64).expect("the record");
        let value = String::from_utf8_lossy(&record.value.expect("a value")).into_owned();
        assert_eq!(value.trim_end_matches('.'), tag, "offset {offset}");
        let found = orders.offset_for_timestamp(record.timestamp_ms).expect("search").expect("found");
        assert_eq!(found.timestamp_ms, record.timestamp_ms);
        assert_eq!(found.offset, offset as i64);
    }
}

#[test]
fn missing_and_damaged_indexes_are_rebuilt_and_never_believed() {
    let (disk, expected) = closed();
    let files = disk.files(Path::new(ROOT));
    let indexes: Vec<_> = files.iter().filter(|path| path.to_string_lossy().ends_with("index")).collect();
    assert!(indexes.len() > 6);
    for (seed, path) in indexes.iter().enumerate() {
        let damages: [fn(&mut Vec<u8>, usize); 4] = [
            |data, _| data.clear(),
            |data, _| data.truncate(data.len() / 2 + 1),
            |data, seed| {
                let at = (seed * 7) % data.len().max(1);
                if let Some(byte) = data.get_mut(at) {
                    *byte ^= 0x40;
                }
            },
            |data, _| data.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7)),
        ];
        for damage in damages {
            let disk = disk.crash(Loss::Nothing);
            disk.corrupt(path, |data| damage(data, seed)).expect("corrupt");
            let data_dir = try_recover(&disk).expect("an index is no reason to stop");
            read_everywhere(&log(&data_dir, 0), &expected);
        }
    }
}

#[test]
fn flipped_bits_in_a_closed_segment_are_no_silent_wrong_reads() {
    let (disk, expected) = closed();
    let path = segment_path(0, "log");
    for seed in 0..200usize {
        let disk = disk.crash(Loss::Nothing);
        disk.corrupt(&path, |data| {
            let bit = seed * 7919 % (data.len() * 8);
            data[bit / 8] ^= 1 << (bit % 8);
        })
        .expect("corrupt");
        let data_dir = try_recover(&disk).expect("the damage lies below the recovery point");
        let orders = log(&data_dir, 0);
        for (offset, tag) in expected.iter().enumerate().take(60) {
            let fetched = match orders.read(offset as i64, 1, UpTo::HighWatermark, true) {
                Ok(fetched) => fetched,
                Err(ReadError::Damaged { .. }) => continue,
                Err(error) => panic!("{error}"),
            };
            let bytes = fetched.slice.read().expect("read the slice");
            // What a consumer does: check the CRC.
            let Ok(headers) = validate(&bytes, &Default::default()) else { continue };
            assert_eq!(headers.len(), 1);
            let batch = Batches::new(bytes).next().expect("one").expect("valid");
            let found =
                batch.records().expect("plain").flatten().find(|record| record.offset == offset as i64);
            if let Some(record) = found {
                let value = String::from_utf8_lossy(&record.value.expect("a value")).into_owned();
                assert_eq!(value.trim_end_matches('.'), tag, "seed {seed} offset {offset}");
            }
        }
    }
}

/// Who asks by time gets an offset and no bytes, so no client can check a CRC: a flipped timestamp in a header made the
/// log name another record. And no CRC covers a base offset: a flip there moved records to other offsets.
#[test]
fn flipped_bits_in_a_header_give_no_wrong_record_for_a_time_or_an_offset() {
    let (disk, expected) = closed();
    let path = segment_path(0, "log");
    // The batch in the middle of the first segment's first ones: some are found by the index, some by hops from it.
    let mut range = 0..0;
    disk.corrupt(&path, |data| {
        let batches: Vec<_> = Batches::new(data.clone().into()).flatten().collect();
        let start: usize = batches[..7].iter().map(|batch| batch.bytes.len()).sum();
        range = start..start + HEADER_LEN;
    })
    .expect("look at the log");
    let mut told = 0;
    for bit in range.start * 8..range.end * 8 {
        let disk = disk.crash(Loss::Nothing);
        disk.corrupt(&path, |data| data[bit / 8] ^= 1 << (bit % 8)).expect("corrupt");
        let data_dir = try_recover(&disk).expect("the damage lies below the recovery point");
        let orders = log(&data_dir, 0);
        for offset in 0..expected.len().min(40) as i64 {
            told += usize::from(!is_found(&orders, offset, &expected[offset as usize]));
        }
        told += usize::from(!reads_in_one_go(&orders, &expected));
    }
    assert!(told > 0, "no flip was noticed");
}

/// Reads as much as there is at once: each record is at its offset, up to where something is told (then false).
fn reads_in_one_go(orders: &PartitionLog, expected: &[String]) -> bool {
    let mut next = 0;
    while let Ok(fetched) = orders.read(next, 8 << 10, UpTo::HighWatermark, true)
        && !fetched.slice.is_empty()
    {
        let before = next;
        for batch in Batches::new(fetched.slice.read().expect("read the slice")) {
            let Ok(batch) = batch else { return false };
            if validate(&batch.bytes, &Default::default()).is_err() {
                return false;
            }
            for record in batch.records().expect("plain").flatten().filter(|record| record.offset >= before) {
                let value = String::from_utf8_lossy(&record.value.expect("a value")).into_owned();
                assert_eq!(record.offset, next);
                assert_eq!(value.trim_end_matches('.'), expected[next as usize], "offset {next}");
                next += 1;
            }
        }
        assert!(next > before, "nothing at offset {next}");
    }
    next as usize == expected.len()
}

/// Asks for a record by its time and by its offset: each answer is right, or an error (then false).
fn is_found(orders: &PartitionLog, offset: i64, tag: &str) -> bool {
    let numbers: Vec<i64> =
        tag.trim_start_matches('b').split('/').filter_map(|number| number.parse().ok()).collect();
    let by_time = match orders.offset_for_timestamp(NOW_MS + numbers[0] * 10 + numbers[1]) {
        Ok(found) => {
            assert_eq!(found.map(|found| found.offset), Some(offset));
            true
        }
        Err(ReadError::Damaged { .. }) => false,
        Err(error) => panic!("the time of offset {offset}: {error}"),
    };
    let bytes = match orders.read(offset, 1, UpTo::HighWatermark, true) {
        Ok(fetched) => fetched.slice.read().expect("read the slice"),
        Err(ReadError::Damaged { .. }) => return false,
        Err(error) => panic!("offset {offset}: {error}"),
    };
    if validate(&bytes, &Default::default()).is_err() {
        return false;
    }
    let batch = Batches::new(bytes).next().expect("one").expect("valid");
    let mut records = batch.records().expect("plain").flatten();
    let record = records.find(|record| record.offset == offset).expect("the batch with the offset");
    assert!(record.value.expect("a value").starts_with(tag.as_bytes()), "offset {offset}");
    by_time
}

#[test]
fn a_missing_checkpoint_costs_time_only() {
    let (disk, expected) = closed();
    for name in ["recovery-point-offset-checkpoint", "orders-0/leader-epoch-checkpoint"] {
        let disk = disk.crash(Loss::Nothing);
        disk.corrupt(&Path::new(ROOT).join(name), |data| data.truncate(3)).expect("corrupt");
        let (data_dir, report) = open_on(Arc::new(disk), Path::new(ROOT), DataDirOptions::default());
        assert!(!report.rebuilt.is_empty(), "{name}");
        let orders = log(&data_dir, 0);
        assert_eq!(tags(&orders, UpTo::HighWatermark), expected);
        assert_eq!(orders.latest_leader_epoch(), Some(0));
    }
}

/// A small log with idempotent producers, cleanly closed or killed some way behind a checkpoint; and what it holds.
fn with_producers(close: bool) -> (SimDisk, Vec<String>) {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new(ROOT), DataDirOptions::default());
    let config = LogConfig { segment_bytes: 2000, index_interval_bytes: 128, ..LogConfig::default() };
    let orders = create(&data_dir, 0, config);
    for index in 0..24 {
        append_durably(&orders, produced(index));
        if index == 17 {
            data_dir.checkpoint().expect("checkpoint");
        }
    }
    assert!(orders.segment_count() > 3);
    let expected = tags(&orders, UpTo::HighWatermark);
    if close {
        data_dir.close().expect("close");
    }
    (disk.crash(Loss::Nothing), expected)
}

/// The batch of this index: two producers take turns.
fn produced(index: i32) -> bytes::Bytes {
    let mut builder = BatchBuilder::new().producer(i64::from(index % 2), 0, index / 2);
    fill(&mut builder, &format!("b{index}"), 1, 120 + 10 * index as usize, NOW_MS + i64::from(index));
    builder.build()
}

/// Every file besides the logs, deleted, cut at every byte, flipped in every byte, and with bytes behind its end: a start
/// succeeds, everything is read as it was written, and a producer's retry of its last batch is still recognised. Only a
/// recovery point that claims more than there is stops the start: that is what lost data looks like.
#[test]
fn any_damage_to_a_file_beside_the_logs_costs_time_only() {
    let mut kinds = std::collections::BTreeSet::new();
    for close in [true, false] {
        let (disk, expected) = with_producers(close);
        for path in disk.files(Path::new(ROOT)) {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            // The identity decides whether the directory is ours at all; its version is tested where it is read.
            if name.ends_with(".log") || name == "meta.properties" || name == ".lock" {
                continue;
            }
            kinds.insert(path.extension().map_or(name.clone(), |end| end.to_string_lossy().into_owned()));
            let mut len = 0;
            disk.corrupt(&path, |data| len = data.len()).expect("look");
            let deleted = disk.crash(Loss::Nothing);
            deleted.remove_file(&path).expect("delete");
            check_readable(&deleted, &expected, &format!("{name} deleted"));
            for at in 0..len {
                let damages: [fn(&mut Vec<u8>, usize); 4] = [
                    |data, at| data.truncate(at),
                    |data, at| data[at] ^= 1,
                    |data, at| data[at] ^= 0x80,
                    |data, at| data.extend(std::iter::repeat_n(0x5a, at + 1)),
                ];
                for (number, damage) in damages.into_iter().enumerate() {
                    let disk = disk.crash(Loss::Nothing);
                    disk.corrupt(&path, |data| damage(data, at)).expect("corrupt");
                    check_readable(&disk, &expected, &format!("{name}, byte {at}, damage {number}"));
                }
            }
        }
    }
    let expected = [
        "index",
        "kafka_cleanshutdown",
        "leader-epoch-checkpoint",
        "metadata",
        "recovery-point-offset-checkpoint",
        "replication-offset-checkpoint",
        "snapshot",
        "timeindex",
    ];
    let found: Vec<_> = kinds.iter().map(|kind| kind.trim_start_matches('.')).collect();
    assert!(expected.iter().all(|kind| found.contains(kind)), "{found:?}");
}

fn check_readable(disk: &SimDisk, expected: &[String], what: &str) {
    let data_dir = match try_recover(disk) {
        Ok(data_dir) => data_dir,
        Err(error) if what.starts_with("recovery-point") => {
            assert!(error.to_string().contains("before its recovery point"), "{what}: {error}");
            return;
        }
        Err(error) => panic!("{what}: {error}"),
    };
    let orders = log(&data_dir, 0);
    assert_eq!(tags(&orders, UpTo::HighWatermark), expected, "{what}");
    for offset in [0, 9, 23] {
        let found = orders.offset_for_timestamp(NOW_MS + offset).expect("search").expect("found");
        assert_eq!((found.offset, found.timestamp_ms), (offset, NOW_MS + offset), "{what}");
    }
    for index in [22, 23] {
        let again = append(&orders, produced(index));
        assert!(again.duplicate && again.base_offset == i64::from(index), "{what}: {again:?}");
    }
}
