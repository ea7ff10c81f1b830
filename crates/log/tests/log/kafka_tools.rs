//! Kafka's own dump tool reads our files.
//!
//! Ignored unless asked for, because it needs Java and Kafka's jars: set `XTASK_KAFKA_LIBS` to their
//! folder and run with `--ignored`.

use std::path::Path;
use std::process::Command;

use tidings_log::LogConfig;
use tidings_log::batch::{BatchBuilder, TimestampType};

use crate::support::{NOW_MS, append_durably, create, fill, open, timed_batch};

fn dump(file: &Path) -> String {
    let libs = std::env::var("XTASK_KAFKA_LIBS").expect("XTASK_KAFKA_LIBS names the folder of Kafka's jars");
    let output = Command::new("java")
        .args(["-Xmx128m", "-cp", &format!("{libs}/*"), "org.apache.kafka.tools.DumpLogSegments"])
        .args(["--deep-iteration", "--print-data-log", "--verify-index-only"])
        .args(["--files", &file.display().to_string()])
        .output()
        .expect("start java");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn files(dir: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).expect("list");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut found: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    found.sort();
    found
}

#[test]
#[ignore = "needs Java and Kafka's jars"]
fn kafkas_dump_tool_reads_all_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data_dir, _) = open(folder.path());
    let config = LogConfig { segment_bytes: 100_000, ..LogConfig::default() };
    let orders = create(&data_dir, 0, config);
    for index in 0..300 {
        let first_ms = NOW_MS + (index * 7) % 1000 * 10 + index;
        append_durably(&orders, timed_batch(&format!("b{index}"), 3, 300, first_ms));
    }
    for index in 0..6 {
        let mut builder = BatchBuilder::new().producer(4711, 3, index * 2);
        fill(&mut builder, "producer", 2, 50, NOW_MS);
        append_durably(&orders, builder.build());
    }
    orders.set_config(LogConfig { timestamp_type: TimestampType::LogAppendTime, ..config });
    append_durably(&orders, timed_batch("stamped", 2, 10, 0));
    let end = orders.log_end_offset();
    data_dir.close().expect("close");

    let dir = folder.path().join("orders-0");
    let (logs, indexes, time_indexes) = (files(&dir, "log"), files(&dir, "index"), files(&dir, "timeindex"));
    assert!(logs.len() > 2 && indexes.len() == logs.len() && time_indexes.len() == logs.len());
    let mut records = 0;
    for log in &logs {
        let text = dump(log);
        records += text.lines().filter(|line| line.contains("| offset: ")).count();
        assert!(!text.contains("invalid") && !text.contains("isvalid: false"), "{text}");
    }
    assert_eq!(records as i64, end);
    for index in indexes.iter().chain(&time_indexes) {
        let text = dump(index);
        for complaint in ["Mismatches", "not found", "out of order", "Out of order"] {
            assert!(!text.contains(complaint), "{text}");
        }
    }
    let snapshots = files(&dir, "snapshot");
    assert_eq!(snapshots.len(), 1);
    let text = dump(&snapshots[0]);
    assert!(text.contains("producerId: 4711 producerEpoch: 3"), "{text}");
    assert!(text.contains("lastSequence: 11"), "{text}");
}
