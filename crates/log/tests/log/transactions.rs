//! Transactions in a partition: where `read_committed` ends, what was aborted, and that neither depends on whether the log
//! was closed, killed or robbed of its power, nor on the index file that tells it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tidings_log::batch::{BatchBuilder, Batches, EndTxnMarker, TransactionResult};
use tidings_log::testing::{Loss, Random, SimDisk};
use tidings_log::{
    AbortedTransaction, AppendError, AppendOptions, DataDirOptions, LogConfig, Origin, PartitionLog,
    SequenceError, UpTo,
};
use tidings_model::ErrorCode;

use crate::support::{NOW_MS, append, create, log, open, open_on, options};

const COMMIT: EndTxnMarker = EndTxnMarker { result: TransactionResult::Commit, coordinator_epoch: 0 };
const ABORT: EndTxnMarker = EndTxnMarker { result: TransactionResult::Abort, coordinator_epoch: 0 };

/// A transactional batch of `count` records.
fn batch(producer: (i64, i16), sequence: i32, count: usize) -> Bytes {
    let mut builder = BatchBuilder::new().producer(producer.0, producer.1, sequence).transactional();
    for _ in 0..count {
        builder.push(NOW_MS, None, Some(b"value"), &[]);
    }
    builder.build()
}

/// As after the coordinator's confirmation.
fn verified() -> AppendOptions {
    AppendOptions { origin: Origin::Transaction, ..options() }
}

fn send(log: &Arc<PartitionLog>, producer: (i64, i16), sequence: i32, count: usize) -> i64 {
    let appended = log.append(batch(producer, sequence, count), verified()).expect("append");
    appended.commit.wait_blocking().expect("commit");
    appended.base_offset
}

fn end(log: &Arc<PartitionLog>, producer: (i64, i16), marker: EndTxnMarker) -> i64 {
    let appended = log.append_marker(producer, marker, false, coordinator()).expect("append a marker");
    appended.commit.wait_blocking().expect("commit");
    appended.base_offset
}

fn coordinator() -> AppendOptions {
    AppendOptions { origin: Origin::Coordinator, ..options() }
}

fn aborted(log: &PartitionLog) -> Vec<AbortedTransaction> {
    log.aborted_transactions(log.log_start_offset(), i64::MAX).expect("read the index")
}

/// What the log's batches say, read one by one: where the first open transaction begins, and what was aborted.
fn from_batches(log: &PartitionLog) -> (Option<i64>, Vec<(i64, i64, i64)>) {
    let (mut open, mut aborted) = (BTreeMap::new(), Vec::new());
    let mut offset = log.log_start_offset();
    while offset < log.log_end_offset() {
        let fetched = log.read(offset, 1 << 20, UpTo::LogEnd, true).expect("read");
        for batch in Batches::new(fetched.slice.read().expect("read the slice")) {
            let batch = batch.expect("a whole batch");
            let header = batch.header;
            offset = header.next_offset();
            match EndTxnMarker::parse(&batch.bytes) {
                Some(marker) => {
                    let began = open.remove(&header.producer_id);
                    if let (TransactionResult::Abort, Some(began)) = (marker.result, began) {
                        aborted.push((header.producer_id, began, header.base_offset));
                    }
                }
                None if header.is_transactional() => {
                    open.entry(header.producer_id).or_insert(header.base_offset);
                }
                None => {}
            }
        }
    }
    (open.into_values().min(), aborted)
}

#[track_caller]
fn check(log: &PartitionLog) {
    let (first_open, expected) = from_batches(log);
    let found: Vec<_> =
        aborted(log).iter().map(|entry| (entry.producer_id, entry.first_offset, entry.last_offset)).collect();
    assert_eq!(found, expected);
    assert_eq!(log.last_stable_offset(), first_open.unwrap_or(i64::MAX).min(log.high_watermark()));
}

#[test]
fn the_last_stable_offset_waits_for_the_oldest_transaction_and_its_durable_marker() {
    let dir = tempfile::tempdir().unwrap();
    let (data_dir, _) = open(dir.path());
    let log = create(&data_dir, 0, LogConfig::default());
    append(&log, crate::support::batch("plain", 3, 10)).commit.wait_blocking().unwrap();
    assert_eq!(log.last_stable_offset(), 3);
    send(&log, (1, 0), 0, 2);
    send(&log, (2, 0), 0, 2);
    assert_eq!((log.last_stable_offset(), log.high_watermark()), (3, 7));
    assert_eq!(end(&log, (2, 0), ABORT), 7);
    assert_eq!(log.last_stable_offset(), 3, "the older one is still open");
    let marker = log.append_marker((1, 0), COMMIT, false, coordinator()).unwrap();
    marker.commit.wait_blocking().unwrap();
    assert_eq!((log.last_stable_offset(), log.high_watermark()), (9, 9));
    let entry = AbortedTransaction { producer_id: 2, first_offset: 5, last_offset: 7, last_stable_offset: 3 };
    assert_eq!(aborted(&log), [entry]);
    assert_eq!(log.aborted_transactions(0, 5).unwrap(), []);
    assert_eq!(log.aborted_transactions(0, 6).unwrap(), [entry]);
    assert_eq!(log.aborted_transactions(8, 9).unwrap(), []);
    check(&log);
}

/// A marker in the page cache decides nothing for consumers: a power cut could take it back.
#[test]
fn a_marker_that_is_not_durable_moves_nothing() {
    let disk = SimDisk::new();
    let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new("/data"), DataDirOptions::default());
    let log = create(&data_dir, 0, LogConfig::default());
    send(&log, (1, 0), 0, 2);
    let marker = log.append_marker((1, 0), ABORT, false, coordinator()).unwrap();
    // Held back: nobody has begun the commit yet.
    assert_eq!((log.log_end_offset(), log.last_stable_offset()), (3, 0));
    marker.commit.wait_blocking().unwrap();
    assert_eq!(log.last_stable_offset(), 3);
}

#[test]
fn what_does_not_belong_to_a_transaction_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (data_dir, _) = open(dir.path());
    let log = create(&data_dir, 0, LogConfig::default());
    let refused = |records: Bytes, options: AppendOptions| {
        let before = (log.log_end_offset(), log.open_transactions().len());
        let error = log.append(records, options).expect_err("must be refused");
        assert_eq!((log.log_end_offset(), log.open_transactions().len()), before);
        error
    };
    let unverified = refused(batch((1, 0), 0, 1), options());
    assert!(matches!(unverified, AppendError::Sequence { source: SequenceError::NotVerified { .. }, .. }));
    assert_eq!(unverified.error_code(), ErrorCode::InvalidTxnState);
    send(&log, (1, 3), 0, 1);
    // The next batch of an open transaction needs no confirmation.
    append(&log, batch((1, 3), 1, 1)).commit.wait_blocking().unwrap();
    let plain = BatchBuilder::new().producer(1, 3, 2).record(NOW_MS, None, Some(b"v"), &[]).build();
    let mixed = refused(plain, options());
    assert!(matches!(mixed, AppendError::Sequence { source: SequenceError::NotTransactional { .. }, .. }));
    assert_eq!(refused(batch((1, 2), 0, 1), verified()).error_code(), ErrorCode::InvalidProducerEpoch);
    let stale = log.append_marker((1, 2), COMMIT, false, coordinator()).expect_err("an older epoch");
    assert_eq!(stale.error_code(), ErrorCode::InvalidProducerEpoch);
    end(&log, (1, 3), COMMIT);
    // KIP-890: the marker that comes twice must not end what began after it.
    let bumped = log.append_marker((1, 4), ABORT, true, coordinator()).unwrap();
    bumped.commit.wait_blocking().unwrap();
    send(&log, (1, 4), 0, 1);
    let twice = log.append_marker((1, 4), ABORT, true, coordinator()).expect_err("written before");
    assert!(matches!(twice, AppendError::Sequence { source: SequenceError::Fenced { .. }, .. }));
    assert_eq!(log.open_transactions().len(), 1);
    let newer = EndTxnMarker { coordinator_epoch: 5, ..COMMIT };
    end(&log, (1, 4), newer);
    let older = log.append_marker((1, 4), COMMIT, false, coordinator()).expect_err("an older coordinator");
    assert_eq!(older.error_code(), ErrorCode::TransactionCoordinatorFenced);
}

/// A producer may have given up a batch whose answer got lost, aborted its transaction and given the sequence to another
/// record: that one must not be taken for the first.
#[test]
fn a_batch_of_an_ended_transaction_does_not_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let (data_dir, _) = open(dir.path());
    let log = create(&data_dir, 0, LogConfig::default());
    for marker in [ABORT, COMMIT] {
        let (sequence, end_offset) = (log.log_end_offset() as i32 / 2, log.log_end_offset());
        assert_eq!(send(&log, (1, 0), sequence, 1), end_offset);
        let again = log.append(batch((1, 0), sequence, 1), options()).expect("a retry");
        assert!(again.duplicate && again.base_offset == end_offset);
        end(&log, (1, 0), marker);
        let error = log.append(batch((1, 0), sequence, 1), verified()).expect_err("another record");
        assert_eq!(error.error_code(), ErrorCode::OutOfOrderSequenceNumber);
    }
}

/// Small segments, so that transactions reach over several.
fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 700, index_interval_bytes: 64, ..LogConfig::default() }
}

/// One step of some producer: a batch, a marker, or a batch of somebody without transactions.
struct Producers {
    sequences: BTreeMap<i64, i32>,
    open: BTreeSet<i64>,
}

impl Producers {
    fn new() -> Self {
        Self { sequences: BTreeMap::new(), open: BTreeSet::new() }
    }

    fn step(&mut self, log: &Arc<PartitionLog>, random: &mut Random) {
        let id = 1 + random.below(4) as i64;
        if self.open.contains(&id) && random.chance(3) {
            let marker = if random.chance(2) { COMMIT } else { ABORT };
            log.append_marker((id, 0), marker, false, coordinator()).expect("append a marker");
            self.open.remove(&id);
        } else if random.chance(6) {
            append(log, crate::support::batch("plain", 1, 20));
        } else {
            let sequence = self.sequences.entry(id).or_insert(0);
            let count = 1 + random.below(3);
            log.append(batch((id, 0), *sequence, count), verified()).expect("append");
            *sequence += count as i32;
            self.open.insert(id);
        }
    }
}

#[test]
fn restarts_of_all_kinds_find_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(7);
    let mut producers = Producers::new();
    for round in 0..12 {
        let (data_dir, report) = open(dir.path());
        assert!(report.rebuilt.iter().all(|path| path.extension().is_none_or(|name| name != "txnindex")));
        let log = if round == 0 { create(&data_dir, 0, small_segments()) } else { log(&data_dir, 0) };
        log.set_config(small_segments());
        check(&log);
        for _ in 0..30 {
            producers.step(&log, &mut random);
        }
        if round % 3 == 0 {
            data_dir.checkpoint().unwrap();
            producers.step(&log, &mut random);
        }
        append(&log, crate::support::batch("last", 1, 1)).commit.wait_blocking().unwrap();
        check(&log);
        if round % 2 == 0 {
            data_dir.close().unwrap();
        }
    }
    let (data_dir, _) = open(dir.path());
    let log = log(&data_dir, 0);
    assert!(log.segment_count() > 10 && aborted(&log).len() > 10, "the test did not do what it is for");
}

/// Kafka's format has neither checksum nor length, so a start must find out by itself.
#[test]
fn a_damaged_or_missing_transaction_index_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(3);
    {
        let (data_dir, _) = open(dir.path());
        let log = create(&data_dir, 0, small_segments());
        let mut producers = Producers::new();
        for _ in 0..120 {
            producers.step(&log, &mut random);
        }
        data_dir.close().unwrap();
    }
    let index_files = || {
        let entries = std::fs::read_dir(dir.path().join("orders-0")).unwrap();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "txnindex"));
        paths.sort();
        paths
    };
    let original: Vec<_> = index_files().iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(original.len() > 3, "too few segments with aborted transactions");
    let damages: [&dyn Fn(&Path); 5] = [
        &|path| std::fs::remove_file(path).unwrap(),
        &|path| std::fs::write(path, b"").unwrap(),
        &|path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes.truncate(bytes.len() - 34);
            std::fs::write(path, bytes).unwrap();
        },
        &|path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[13] ^= 1;
            std::fs::write(path, bytes).unwrap();
        },
        &|path| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes.extend_from_slice(&[0; 34]);
            std::fs::write(path, bytes).unwrap();
        },
    ];
    for (which, damage) in damages.iter().enumerate() {
        damage(&index_files()[which % original.len()]);
        let (data_dir, report) = open(dir.path());
        let is_index = |path: &std::path::PathBuf| path.extension().is_some_and(|name| name == "txnindex");
        // What stands behind the entries that count is cut off without a word.
        assert_eq!(report.rebuilt.iter().any(is_index), which < 4, "damage {which}");
        check(&log(&data_dir, 0));
        data_dir.close().unwrap();
        let now: Vec<_> = index_files().iter().map(|path| std::fs::read(path).unwrap()).collect();
        assert_eq!(now, original, "damage {which}");
    }
}

/// An entry that is not what was written would tell consumers to skip something else, and so show aborted records.
#[test]
fn a_transaction_index_that_is_damaged_under_a_running_log_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (data_dir, _) = open(dir.path());
    let log = create(&data_dir, 0, LogConfig::default());
    for sequence in 0..3 {
        send(&log, (1, 0), sequence, 1);
        end(&log, (1, 0), ABORT);
    }
    data_dir.checkpoint().unwrap();
    let expected = aborted(&log);
    let path = dir.path().join("orders-0/00000000000000000000.txnindex");
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 3 * 34);
    for at in 0..bytes.len() {
        let mut hurt = bytes.clone();
        hurt[at] ^= 4;
        std::fs::write(&path, hurt).unwrap();
        let error = log.aborted_transactions(0, i64::MAX).expect_err("an entry is damaged");
        assert_eq!(error.error_code(), ErrorCode::KafkaStorageError);
        assert!(error.to_string().contains("00000000000000000000.txnindex"), "{error}");
    }
    // What comes later is not taken for harm, and what was written before it is checked still.
    std::fs::write(&path, &bytes).unwrap();
    send(&log, (1, 0), 3, 1);
    end(&log, (1, 0), ABORT);
    data_dir.checkpoint().unwrap();
    assert_eq!(aborted(&log)[..3], expected);
    std::fs::write(&path, [&[1][..], &std::fs::read(&path).unwrap()[1..]].concat()).unwrap();
    log.aborted_transactions(0, i64::MAX).expect_err("an entry is damaged");
    drop((log, data_dir));
    let (data_dir, report) = open(dir.path());
    assert_eq!(report.rebuilt, [path]);
    check(&crate::support::log(&data_dir, 0));
}

/// Power cuts at any moment, with transactions open, ending and ended: what is told of them is what the batches say, and a
/// transaction whose marker was acknowledged does not open again.
#[test]
fn power_cuts_leave_no_transaction_in_doubt() {
    let (mut cuts, mut ended_count, mut open_count) = (0, 0, 0);
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut disk = SimDisk::new();
        let mut producers = Producers::new();
        for round in 0..4 {
            let options = DataDirOptions { checkpoint_bytes: 1 << 11, ..DataDirOptions::default() };
            let (data_dir, _) = open_on(Arc::new(disk.clone()), Path::new("/data"), options);
            let log = if round == 0 { create(&data_dir, 0, small_segments()) } else { log(&data_dir, 0) };
            log.set_config(small_segments());
            check(&log);
            // What the cut took back, the producers do again under new ids.
            let open: BTreeSet<i64> = log.open_transactions().iter().map(|open| open.producer_id).collect();
            open_count += open.len();
            for open in log.open_transactions() {
                log.append_marker((open.producer_id, open.producer_epoch), ABORT, false, coordinator())
                    .unwrap();
            }
            producers.open.clear();
            producers.sequences.clear();
            for producer in log.active_producers() {
                producers.sequences.insert(producer.producer_id, producer.last_sequence + 1);
            }
            for _ in 0..random.below(40) {
                producers.step(&log, &mut random);
            }
            let ended = log.append_marker((9, 0), COMMIT, false, coordinator()).unwrap();
            ended.commit.wait_blocking().unwrap();
            ended_count += aborted(&log).len();
            let known = aborted(&log);
            for _ in 0..random.below(10) {
                producers.step(&log, &mut random);
            }
            disk = disk.crash(Loss::Random(seed * 10 + round));
            let (after, _) = open_on(Arc::new(disk.clone()), Path::new("/data"), DataDirOptions::default());
            let after_log = crate::support::log(&after, 0);
            check(&after_log);
            let found = aborted(&after_log);
            assert_eq!(found.get(..known.len()), Some(&known[..]), "seed {seed}, round {round}");
            cuts += 1;
            drop(after_log);
            drop(after);
            disk = disk.crash(Loss::Unsynced);
        }
    }
    println!("{cuts} power cuts, {ended_count} aborted transactions known before, {open_count} found open");
    assert!(ended_count > 100 && open_count > 10, "the test did not do what it is for");
}
