//! What becomes of a log after a repair.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::batch::{BatchBuilder, Batches};
use crate::config::{CleanupPolicy, LogConfig};
use crate::data_dir::{Chores, DataDir};
use crate::partition_log::{PartitionLog, UpTo};
use crate::testing::logs::{HOUR_MS, NOW_MS, ROOT, append_durably, create, log, open, partition, path_of};
use crate::testing::{Loss, SimDisk};

fn record(key: u8, value: Option<&[u8]>) -> Bytes {
    BatchBuilder::new().record(NOW_MS, Some(&[key]), value, &[]).build()
}

/// The values by key, as whoever reads the whole log has them in the end.
fn view(log: &PartitionLog) -> BTreeMap<Bytes, Bytes> {
    let mut view = BTreeMap::new();
    let mut offset = log.log_start_offset();
    while offset < log.log_end_offset() {
        let fetched = log.read(offset, 1 << 20, UpTo::HighWatermark, true).expect("read");
        offset = fetched.end_offset;
        let batches = Batches::new(fetched.slice.read().expect("read the slice")).flatten();
        for record in batches.flat_map(|batch| batch.unpacked_records().expect("unpack")).flatten() {
            let key = record.key.expect("a key");
            match record.value {
                Some(value) => view.insert(key, value),
                None => view.remove(&key),
            };
        }
    }
    view
}

/// The cleaner's offset lay behind the end after the repair; records that came up to there were taken for cleaned ones, a
/// tombstone among them went without the value that it had deleted, and that was back.
#[test]
fn what_is_written_after_a_cut_is_cleaned() {
    const KEY: u8 = 100;
    let config = LogConfig {
        cleanup: CleanupPolicy::COMPACT,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: HOUR_MS,
        ..LogConfig::default()
    };
    let clean = |data_dir: &DataDir, now_ms: i64| {
        log(data_dir).roll_now().expect("roll");
        data_dir.checkpoint().expect("checkpoint");
        let report = data_dir.keep(now_ms, Chores { cleaning: true, ..Chores::default() });
        assert_eq!(report.cleaned_passes, 1);
    };
    let disk = SimDisk::new();
    let data_dir = open(&disk);
    let orders = create(&data_dir, config);
    append_durably(&orders, record(KEY, Some(b"old")));
    for key in 1..10 {
        append_durably(&orders, record(key, Some(b"old")));
    }
    clean(&data_dir, NOW_MS);
    data_dir.close().expect("close");
    let disk = disk.crash(Loss::Nothing);
    disk.corrupt(&path_of(0, "log"), |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle + 30] ^= 1;
    })
    .expect("it is there");
    let mut offline = OfflineDataDir::open(Arc::new(disk.clone()), ROOT, Access::Locked).expect("open");
    let check = offline.check(&partition(), &|_| {}).expect("check");
    let plan = offline.plan_repair(&check, Remedy::TruncateAt(5)).expect("plan");
    offline.repair(&plan).expect("repair");
    drop(offline);
    let data_dir = open(&disk);
    let orders = log(&data_dir);
    orders.set_config(config);
    assert_eq!(orders.log_end_offset(), 5);
    append_durably(&orders, record(KEY, None));
    for key in 1..10 {
        append_durably(&orders, record(key, Some(b"new")));
    }
    clean(&data_dir, NOW_MS);
    assert!(!view(&orders).contains_key(&[KEY][..]));
    append_durably(&orders, record(1, Some(b"newer")));
    clean(&data_dir, NOW_MS + 2 * HOUR_MS);
    assert!(!view(&orders).contains_key(&[KEY][..]));
    assert_eq!(view(&orders).len(), 9);
}
