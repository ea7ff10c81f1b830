//! When records are cleaned, and when tombstones and markers go.

use tidings_log::batch::BatchBuilder;
use tidings_log::testing::SimDisk;
use tidings_log::{DataDir, LogConfig, Origin, PartitionLog};

use super::world::{batches, cleaning, compacted, keyed, open_sim, records};
use crate::support::{NOW_MS, append_durably, create, options};

fn at(time_ms: i64, key: &str, value: Option<&str>) -> bytes::Bytes {
    BatchBuilder::new().record(time_ms, Some(key.as_bytes()), value.map(str::as_bytes), &[]).build()
}

fn keys(log: &PartitionLog) -> Vec<String> {
    let all: Vec<_> = batches(log).iter().flat_map(records).collect();
    let keys = all.iter().filter_map(|record| record.key.as_ref());
    keys.map(|key| String::from_utf8_lossy(key).into_owned()).collect()
}

/// Closes the active segment by an append that does not fit, and makes it cleanable.
fn close_segment(data_dir: &DataDir, log: &std::sync::Arc<PartitionLog>, key: &str) {
    append_durably(log, keyed(key, Some(&"x".repeat(380))));
    data_dir.checkpoint().expect("checkpoint");
}

#[test]
fn tombstones_stay_for_delete_retention_ms_after_they_were_cleaned() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk, 1 << 20);
    let config = LogConfig { segment_bytes: 500, delete_retention_ms: 1000, ..compacted() };
    let orders = create(&data_dir, 0, config);
    append_durably(&orders, keyed("a", Some("1")));
    append_durably(&orders, keyed("a", None));
    append_durably(&orders, keyed("b", Some("2")));
    close_segment(&data_dir, &orders, "z1");
    data_dir.keep(NOW_MS, cleaning());
    assert_eq!(keys(&orders), ["a", "b", "z1"], "the tombstone");
    // It goes with the first cleaning after that, which takes something dirty.
    close_segment(&data_dir, &orders, "z2");
    data_dir.keep(NOW_MS + 999, cleaning());
    assert_eq!(keys(&orders), ["a", "b", "z1", "z2"]);
    close_segment(&data_dir, &orders, "z3");
    data_dir.keep(NOW_MS + 1000, cleaning());
    assert_eq!(keys(&orders), ["b", "z1", "z2", "z3"]);
}

#[test]
fn markers_go_after_the_records_of_their_transaction_and_after_the_horizon() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk, 1 << 20);
    let config = LogConfig { segment_bytes: 700, delete_retention_ms: 1000, ..compacted() };
    let orders = create(&data_dir, 0, config);
    let in_txn = |key: &str, sequence| {
        let builder = BatchBuilder::new().producer(7, 0, sequence).transactional();
        let bytes = builder.record(NOW_MS, Some(key.as_bytes()), Some(b"1"), &[]).build();
        let options = tidings_log::AppendOptions { origin: Origin::Transaction, ..options() };
        orders.append(bytes, options).expect("append").commit.wait_blocking().expect("commit");
    };
    let end = |kind: u8| {
        let builder = BatchBuilder::new().producer(7, 0, -1).transactional().control();
        let marker = builder.record(NOW_MS, Some(&[0, 0, 0, kind]), Some(&[0; 6]), &[]).build();
        let options = tidings_log::AppendOptions { origin: Origin::Coordinator, ..options() };
        orders.append(marker, options).expect("append").commit.wait_blocking().expect("commit");
    };
    in_txn("aborted", 0);
    end(0);
    in_txn("committed", 1);
    end(1);
    in_txn("last", 2);
    end(1);
    let markers = || batches(&orders).iter().filter(|batch| batch.header.is_control()).count();
    close_segment(&data_dir, &orders, "z1");
    data_dir.keep(NOW_MS, cleaning());
    assert_eq!(keys(&orders).iter().filter(|key| *key == "aborted").count(), 0);
    assert_eq!(markers(), 3);
    // Nothing is left of the first transaction; its marker gets its horizon now and goes behind that.
    close_segment(&data_dir, &orders, "z2");
    data_dir.keep(NOW_MS + 10, cleaning());
    close_segment(&data_dir, &orders, "z3");
    data_dir.keep(NOW_MS + 1010, cleaning());
    assert_eq!(markers(), 2, "those of transactions whose records are still there stay");
}

#[test]
fn young_records_wait_and_old_ones_do_not() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk, 1 << 20);
    let config = LogConfig { segment_bytes: 500, min_compaction_lag_ms: 5000, ..compacted() };
    let orders = create(&data_dir, 0, config);
    for _ in 0..3 {
        append_durably(&orders, at(NOW_MS, "a", Some("1")));
    }
    close_segment(&data_dir, &orders, "z");
    assert_eq!(data_dir.keep(NOW_MS + 4999, cleaning()).cleaned_passes, 0);
    assert_eq!(data_dir.keep(NOW_MS + 5001, cleaning()).cleaned_passes, 1);
    assert_eq!(keys(&orders), ["a", "z"]);

    // A log that is not dirty enough is cleaned all the same when a record has waited too long.
    let config = LogConfig { segment_bytes: 500, min_cleanable_dirty_ratio: 1.0, ..compacted() };
    let payments = create(&data_dir, 1, LogConfig { max_compaction_lag_ms: 9000, ..config });
    for _ in 0..3 {
        append_durably(&payments, at(NOW_MS, "a", Some("1")));
    }
    close_segment(&data_dir, &payments, "z");
    assert_eq!(data_dir.keep(NOW_MS + 9000, cleaning()).cleaned_passes, 0);
    assert_eq!(data_dir.keep(NOW_MS + 9001, cleaning()).cleaned_passes, 1);
    assert_eq!(keys(&payments), ["a", "z"]);
    // And its segments are closed in time.
    append_durably(&payments, at(NOW_MS, "b", Some("1")));
    let segments = payments.segment_count();
    append_durably(&payments, at(NOW_MS + 9001, "b", Some("2")));
    assert_eq!(payments.segment_count(), segments + 1);
}

#[test]
fn a_log_is_cleaned_when_it_is_dirty_enough() {
    let disk = SimDisk::new();
    let data_dir = open_sim(&disk, 1 << 20);
    let config = LogConfig { segment_bytes: 500, min_cleanable_dirty_ratio: 0.5, ..compacted() };
    let orders = create(&data_dir, 0, config);
    for index in 0..8 {
        close_segment(&data_dir, &orders, &format!("key-{index}"));
    }
    assert_eq!(data_dir.keep(NOW_MS, cleaning()).cleaned_passes, 1, "all of it is dirty");
    for index in 0..7 {
        close_segment(&data_dir, &orders, &format!("key-{index}"));
        assert_eq!(data_dir.keep(NOW_MS, cleaning()).cleaned_passes, 0, "{index}");
    }
    close_segment(&data_dir, &orders, "key-0");
    assert_eq!(data_dir.keep(NOW_MS, cleaning()).cleaned_passes, 1, "half of it is");
}
