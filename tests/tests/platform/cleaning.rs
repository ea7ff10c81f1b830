//! Compacted topics shrink to the last record of each key, survive kills while they do, and stay readable for Kafka's own tool.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tidings_tests::{Kafka, LONG, Launch, until};

use crate::formats::{CODECS, dump, files};

const KEYS: usize = 200;
const ROUNDS: usize = 20;
const OTHERS: usize = 1500;

/// Letters that no codec makes much smaller, so that segments fill up.
fn noise(seed: usize, len: usize) -> String {
    let mut state = seed as u64 + 1;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 33) as u8 % 90)
    };
    (0..len).map(|_| letter()).collect()
}

/// Every tenth key is deleted in the last round.
fn is_deleted(key: usize, round: usize) -> bool {
    round + 1 == ROUNDS && key.is_multiple_of(10)
}

/// Writes every key once for each round, in changing codecs, and then records of other keys that close the segment.
fn fill(kafka: &Kafka, topic: &str) -> BTreeMap<String, String> {
    let mut expected = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut config = kafka.config();
        config
            .set("enable.idempotence", "true")
            .set("compression.type", CODECS[round % CODECS.len()])
            .set("batch.num.messages", "37");
        let producer: BaseProducer = config.create().unwrap();
        let mut send = |key: String, value: Option<String>| {
            let mut record = BaseRecord::to(topic).key(&key).partition(0);
            if let Some(value) = &value {
                record = record.payload(value);
            }
            producer.send(record).map_err(|(error, _)| error).unwrap();
            match value {
                Some(value) => expected.insert(key, value),
                None => expected.remove(&key),
            };
        };
        for key in 0..KEYS {
            let value =
                (!is_deleted(key, round)).then(|| format!("{round} {}", noise(key * ROUNDS + round, 400)));
            send(format!("key-{key}"), value);
        }
        if round + 1 == ROUNDS {
            (0..OTHERS).for_each(|number| send(format!("other-{number}"), Some(noise(number, 1500))));
        }
        producer.flush(LONG).unwrap();
    }
    expected
}

/// Reads the whole topic; the last value of each key, and how many records there were.
fn read(kafka: &Kafka, topic: &str) -> (BTreeMap<String, String>, usize) {
    let mut config = kafka.config();
    config.set("group.id", "reader").set("enable.partition.eof", "true");
    let consumer: rdkafka::consumer::BaseConsumer = config.create().unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let (mut table, mut count) = (BTreeMap::new(), 0);
    until("the topic is read", || {
        loop {
            match consumer.poll(Duration::from_millis(50))? {
                Ok(record) => {
                    count += 1;
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    let key = record.key().map(text).unwrap();
                    match record.payload().map(text) {
                        Some(value) => table.insert(key, value),
                        None => table.remove(&key),
                    };
                }
                Err(KafkaError::PartitionEOF(_)) => return Some(()),
                Err(error) => panic!("{error}"),
            }
        }
    });
    (table, count)
}

fn launch(directory: &Path) -> Launch {
    let settings = [
        "log.cleanup.policy=compact",
        "log.segment.bytes=1048576",
        "log.cleaner.backoff.ms=100",
        "log.cleaner.min.cleanable.ratio=0.01",
    ];
    Launch::broker(directory).arguments(settings.iter().flat_map(|setting| ["--set", *setting]))
}

#[test]
fn a_compacted_topic_shrinks_and_kafkas_dump_tool_reads_what_is_left() {
    let directory = tempfile::tempdir().unwrap();
    let broker = launch(directory.path()).start();
    let kafka = broker.kafka();
    kafka.create_topic("table", 1);
    let expected = fill(&kafka, "table");
    let records = until("old records are gone", || {
        let (table, count) = read(&kafka, "table");
        assert_eq!(table, expected);
        (count < 2 * KEYS + OTHERS).then_some(count)
    });
    assert!(records >= expected.len(), "{records}");
    assert!(broker.terminate(LONG).status.success());

    let folder = directory.path().join("table-0");
    let printed = dump(&files(&folder, "log"), &["--print-data-log", "--deep-iteration"]);
    // The cleaner went on after the last read.
    let printed = printed.lines().filter(|line| line.starts_with("| offset: ")).count();
    assert!((expected.len()..=records).contains(&printed), "{printed} records of {records}");
    dump(&files(&folder, "index"), &[]);
    dump(&files(&folder, "timeindex"), &[]);
    dump(&files(&folder, "snapshot"), &[]);
}

#[test]
fn kills_while_the_cleaner_works_lose_no_key() {
    let directory = tempfile::tempdir().unwrap();
    let mut broker = launch(directory.path()).start();
    broker.kafka().create_topic("table", 1);
    let mut expected = BTreeMap::new();
    for round in 0..4 {
        let kafka = broker.kafka();
        expected.extend(fill(&kafka, "table"));
        (0..KEYS).filter(|key| is_deleted(*key, ROUNDS - 1)).for_each(|key| {
            expected.remove(&format!("key-{key}"));
        });
        // At another moment of the cleaner's work each time.
        for _ in 0..round * 2 {
            assert_eq!(read(&kafka, "table").0, expected, "round {round}");
        }
        broker.kill_now();
        broker = launch(directory.path()).start();
        assert_eq!(read(&broker.kafka(), "table").0, expected, "round {round}, after the kill");
    }
}
