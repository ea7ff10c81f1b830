//! Our files are Kafka's: Apache Kafka's own dump tool reads segments, indexes and snapshots, and finds nothing wrong.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidings_tests::{Kafka, LONG, Launch, kafka_tool, until};

const DUMP: &str = "org.apache.kafka.tools.DumpLogSegments";
pub(crate) const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const RECORDS_PER_CODEC: usize = 2000;

/// Fills partition 0 of `topic` by idempotent producers, one for each codec.
fn fill(kafka: &Kafka, topic: &str) {
    kafka.create_topic(topic, 1);
    for codec in CODECS {
        let mut config = kafka.config();
        config
            .set("enable.idempotence", "true")
            .set("compression.type", codec)
            .set("batch.num.messages", "100");
        let producer: BaseProducer = config.create().unwrap();
        for number in 0..RECORDS_PER_CODEC {
            let (key, value) = (format!("key-{number}"), format!("{codec} {number} ").repeat(100));
            let record = BaseRecord::to(topic).key(&key).payload(&value).partition(0);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(LONG).unwrap();
    }
}

/// Has a group commit an offset, so that there is something in `__consumer_offsets`.
fn commit(kafka: &Kafka, topic: &str) {
    let consumer = kafka.reader("readers");
    consumer.subscribe(&[topic]).unwrap();
    until("a record is read and committed", || {
        let record = consumer.poll(Duration::from_millis(50))?.unwrap();
        consumer.commit_message(&record, CommitMode::Sync).unwrap();
        Some(())
    });
}

pub(crate) fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    assert!(!paths.is_empty(), "no .{extension} in {}", folder.display());
    paths
}

#[track_caller]
pub(crate) fn dump(files: &[PathBuf], flags: &[&str]) -> String {
    let names: Vec<String> = files.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let names = names.join(",");
    let printed = kafka_tool(DUMP, &[&["--files", &names], flags].concat());
    for complaint in ["ismatch", "orrupt", "nvalid", "non-consecutive", "out of order", "Error"] {
        let lines: Vec<&str> = printed.lines().filter(|line| line.contains(complaint)).collect();
        assert!(
            lines.iter().all(|line| line.contains("isvalid: true") || line.contains("payload")),
            "{lines:?}"
        );
    }
    printed
}

#[test]
fn kafkas_dump_tool_reads_what_we_write() {
    let directory = tempfile::tempdir().unwrap();
    let broker = Launch::broker(directory.path()).arguments(["--set", "log.segment.bytes=1048576"]).start();
    fill(&broker.kafka(), "dumped");
    commit(&broker.kafka(), "dumped");
    // A clean end writes indexes and snapshots to their last entry.
    assert!(broker.terminate(LONG).status.success());

    let folder = directory.path().join("dumped-0");
    let segments = files(&folder, "log");
    assert!(segments.len() > 1, "nothing was rolled: {segments:?}");
    let records = dump(&segments, &["--print-data-log", "--deep-iteration"]);
    let count = records.lines().filter(|line| line.starts_with("| offset: ")).count();
    assert_eq!(count, CODECS.len() * RECORDS_PER_CODEC);
    for codec in CODECS {
        assert!(records.contains(&format!("compresscodec: {codec}")), "no batch of {codec}");
    }
    let last = format!("| offset: {} ", count - 1);
    assert!(records.lines().any(|line| line.starts_with(&last)), "offsets end before {last}");

    let offset_index = dump(&files(&folder, "index"), &[]);
    assert!(offset_index.contains("offset: ") && offset_index.contains("position: "), "{offset_index}");
    let time_index = dump(&files(&folder, "timeindex"), &[]);
    assert!(time_index.contains("timestamp: "), "{time_index}");
    let snapshot = dump(&files(&folder, "snapshot"), &[]);
    assert!(snapshot.contains("producerId: "), "{snapshot}");

    let offsets = dump(&files(&directory.path().join("__consumer_offsets-0"), "log"), &["--offsets-decoder"]);
    assert!(
        offsets.contains("\"group\":\"readers\"") && offsets.contains("\"topic\":\"dumped\""),
        "{offsets}"
    );
    let metadata =
        dump(&files(&directory.path().join("__cluster_metadata-0"), "log"), &["--cluster-metadata-decoder"]);
    assert!(metadata.contains("TOPIC_RECORD") && metadata.contains("\"name\":\"dumped\""), "{metadata}");
}
