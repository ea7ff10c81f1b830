//! A data directory with any damage anywhere: a start takes it or refuses it with an error, reads give what was written or
//! what a consumer's CRC check refuses, and a log that is damaged can be repaired either way, after which a start takes it.
//!
//! The choices are given from outside, so that a seed decides all of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use tidings_log::batch::{BatchBuilder, BatchLimits, Batches, validate};
use tidings_log::offline::{Access, OfflineDataDir, Remedy};
use tidings_log::testing::{Loss, SimDisk};
use tidings_log::{AppendOptions, DataDir, DataDirOptions, Disk, LogConfig, Origin, PartitionLog, UpTo};
use tidings_model::{TopicId, TopicPartition};

const ROOT: &str = "/data";
const START_MS: i64 = 1_700_000_000_000;

/// Answers a number below the one it is given.
pub type Choose<'a> = &'a mut dyn FnMut(usize) -> usize;

struct Original {
    disk: SimDisk,
    files: Vec<PathBuf>,
    values: BTreeMap<i64, Vec<u8>>,
}

/// One directory after a clean end, one after a kill.
static ORIGINALS: LazyLock<[Original; 2]> = LazyLock::new(|| [original(true), original(false)]);

fn topic_partition() -> TopicPartition {
    TopicPartition::new("any", 0)
}

fn original(close: bool) -> Original {
    let disk = SimDisk::new();
    let data_dir = DataDir::open(Arc::new(disk.clone()), ROOT, DataDirOptions::default()).expect("open");
    let data_dir = data_dir.recover().expect("recover").0;
    let config = LogConfig { segment_bytes: 1500, index_interval_bytes: 100, ..LogConfig::default() };
    let new = [(topic_partition(), TopicId([1; 16]), config)];
    let log = data_dir.create_logs(&new).expect("create").remove(0);
    let mut values = BTreeMap::new();
    for index in 0..40i32 {
        let mut batch = BatchBuilder::new().producer(i64::from(index % 3), 0, index / 3);
        if index % 3 == 2 {
            batch = batch.transactional();
        }
        let value = format!("value {index}").repeat(1 + index as usize % 5).into_bytes();
        batch.push(START_MS + i64::from(index), Some(b"key"), Some(&value), &[]);
        let origin = if index % 3 == 2 { Origin::Transaction } else { Origin::Client };
        let options = AppendOptions { origin, leader_epoch: 0, now_ms: START_MS };
        let appended = log.append(batch.build(), options).expect("append");
        values.insert(appended.base_offset, value);
        appended.commit.wait_blocking().expect("commit");
        if index == 25 {
            data_dir.checkpoint().expect("checkpoint");
        }
    }
    if close {
        data_dir.close().expect("close");
    }
    drop((log, data_dir));
    let disk = disk.crash(Loss::Nothing);
    let files = disk.files(Path::new(ROOT));
    Original { disk, files, values }
}

/// Hurts a copy of a directory and looks what becomes of it.
pub fn check(choose: Choose<'_>) {
    let original = &ORIGINALS[choose(2)];
    let disk = original.disk.crash(Loss::Nothing);
    for _ in 0..1 + choose(4) {
        damage(choose, original, &disk);
    }
    start(original, &disk.crash(Loss::Nothing));
    let opened = OfflineDataDir::open(Arc::new(disk.clone()), ROOT, Access::Locked);
    // Without its identity it is no data directory.
    let Ok(mut dir) = opened else { return };
    let Ok(check) = dir.check(&topic_partition(), &|_| {}) else { return };
    if check.is_whole() {
        return;
    }
    let first = check.damages[0].first_offset;
    let remedy = if choose(2) == 0 { Remedy::DropDamaged } else { Remedy::TruncateAt(first) };
    let Ok(plan) = dir.plan_repair(&check, remedy) else { return };
    dir.repair(&plan).expect("the disk does not fail");
    drop(dir);
    let again = OfflineDataDir::open(Arc::new(disk.clone()), ROOT, Access::ReadOnly).expect("open");
    let again = again.check(&topic_partition(), &|_| {}).expect("check");
    assert!(again.is_whole(), "still damaged: {:?}\nbefore: {check:?}\nplan: {plan:?}", again.damages);
    assert!(start(original, &disk), "repaired, but refused\nbefore: {check:?}\nplan: {plan:?}");
}

fn damage(choose: Choose<'_>, original: &Original, disk: &SimDisk) {
    let file = &original.files[choose(original.files.len())];
    let kind = choose(7);
    let length = 1 + if kind < 4 { choose(200) } else { choose(16) };
    let bytes: Vec<u8> = match kind {
        1 | 3 | 4.. => (0..length).map(|_| choose(256) as u8).collect(),
        _ => Vec::new(),
    };
    let at = choose(4096);
    // A file that an earlier damage has removed stays away.
    let _ = match kind {
        0 => disk.remove_file(file),
        1 => disk.corrupt(file, |data| *data = bytes),
        2 => disk.corrupt(file, |data| data.truncate(at % (data.len() + 1))),
        3 => disk.corrupt(file, |data| data.extend(bytes)),
        _ => disk.corrupt(file, |data| {
            let at = at % data.len().max(1);
            data.iter_mut().skip(at).zip(bytes).for_each(|(byte, new)| *byte = new);
        }),
    };
}

/// Whether a start takes the directory; then everything is read.
fn start(original: &Original, disk: &SimDisk) -> bool {
    let unrecovered = DataDir::open(Arc::new(disk.clone()), ROOT, DataDirOptions::default());
    let Ok(unrecovered) = unrecovered else {
        // The identity is damaged: nothing of the log was looked at.
        return true;
    };
    let Ok((data_dir, _)) = unrecovered.recover() else { return false };
    if let Some(log) = data_dir.log(&topic_partition()) {
        read_everything(original, &log);
    }
    true
}

fn read_everything(original: &Original, log: &PartitionLog) {
    for offset in log.log_start_offset()..log.log_end_offset().min(60) {
        let Ok(fetched) = log.read(offset, 1, UpTo::HighWatermark, true) else { continue };
        let Ok(bytes) = fetched.slice.read() else { continue };
        let limits = BatchLimits { control_allowed: true, empty_allowed: true, ..BatchLimits::default() };
        // As a consumer does: what does not match its CRC is not believed.
        if validate(&bytes, &limits).is_err() {
            continue;
        }
        for batch in Batches::new(bytes).flatten() {
            for record in batch.records().into_iter().flatten().flatten() {
                // The CRC does not cover a batch's base offset, so a value may show up at another one; but it is one
                // that was written.
                let value = record.value.as_deref();
                let written = original.values.values().any(|written| Some(&written[..]) == value);
                assert!(written, "offset {offset}: {value:?}");
            }
        }
    }
    let _ = log.offset_for_timestamp(START_MS + 10);
    let _ = log.max_timestamp();
}
