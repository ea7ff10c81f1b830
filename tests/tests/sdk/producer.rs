//! Sends answer by their deadline, with where the record went or why it did not.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidings::producer::{DeliveryCallback, Partitioner, partition_of_key};
use tidings::reader::{ReadFrom, TopicReader};
use tidings::{Cluster, KafkaFault, Producer, ProducerOptions, Record, SendError};
use tidings_tests::until;

use crate::support::{PATIENCE, Scene, patient_producer};

#[test]
fn records_arrive_exactly_as_they_were_sent() {
    let scene = Scene::new();
    let mut record = Record::new(scene.topic.as_str()).partition(1).timestamp_ms(1_700_000_000_123);
    record.key = Some(Vec::new());
    record.headers.push("a", "1");
    record.headers.push([0xff, 0xfe], [0x00, 0xff]);
    record.headers.push_null("a");
    record.headers.push("a", "");
    let tombstone = Record::new(scene.topic.as_str()).partition(1).key("k");
    let sent = [record.clone(), tombstone];
    let offsets: Vec<_> =
        scene.producer.send_batch_blocking(&sent, PATIENCE).into_iter().map(Result::unwrap).collect();
    assert_eq!(
        offsets.iter().map(|delivered| (delivered.partition, delivered.offset)).collect::<Vec<_>>(),
        [(1, 0), (1, 1)]
    );
    let mut reader = TopicReader::open(&scene.cluster, &scene.topic, ReadFrom::Earliest, PATIENCE).unwrap();
    let first = reader.next_until_end(PATIENCE).unwrap().unwrap();
    assert_eq!((first.key, first.value, first.headers), (record.key, record.value, record.headers));
    assert_eq!(first.timestamp_ms, record.timestamp_ms);
    let second = reader.next_until_end(PATIENCE).unwrap().unwrap();
    assert_eq!((second.key.as_deref(), second.value), (Some(b"k".as_slice()), None));
    assert_eq!(reader.next_until_end(PATIENCE).unwrap(), None);
    assert!(reader.is_at_end());
}

#[test]
fn a_key_keeps_its_partition_and_its_order() {
    let scene = Scene::new();
    for _ in 0..5 {
        scene.produce((0..160).map(|index| format!("{index}")));
    }
    let mut reader = TopicReader::open(&scene.cluster, &scene.topic, ReadFrom::Earliest, PATIENCE).unwrap();
    let mut by_key = std::collections::BTreeMap::<Vec<u8>, Vec<(i32, u32)>>::new();
    while let Some(record) = reader.next_until_end(PATIENCE).unwrap() {
        let number = String::from_utf8(record.value.unwrap()).unwrap().parse().unwrap();
        by_key.entry(record.key.unwrap()).or_default().push((record.partition, number));
    }
    assert_eq!(by_key.len(), 16);
    for seen in by_key.values() {
        assert!(seen.iter().all(|(partition, _)| *partition == seen[0].0));
        assert!(seen.chunks(10).all(|round| round.is_sorted_by_key(|(_, number)| *number)), "{seen:?}");
    }
}

#[test]
fn nobody_there_is_an_answer_by_the_deadline() {
    // Port 9 (discard) has no listener on a test machine.
    let cluster = Cluster::new("127.0.0.1:9");
    // Its client would go on for much longer.
    let options = ProducerOptions { delivery_timeout: 10 * PATIENCE, ..ProducerOptions::default() };
    let producer = Producer::new(&cluster, options).unwrap();
    let begun = Instant::now();
    let record = Record::new("orders").value("x");
    let result = producer.send_batch_blocking(std::slice::from_ref(&record), Duration::from_millis(300));
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    let error = result.into_iter().next().unwrap().unwrap_err();
    assert!(matches!(error, SendError::Deadline { .. }) && error.may_be_written(), "{error:?}");
    // Its client may not have had the time to try.
    let fault = until("it says why", || producer.last_fault());
    assert_eq!(fault, KafkaFault::Unreachable { bootstrap: "127.0.0.1:9".into() });
    assert!(producer.connect(&["orders"], Duration::from_millis(300)).is_err());
}

#[test]
fn a_full_queue_is_an_answer_by_the_deadline() {
    let cluster = Cluster::new("127.0.0.1:9").set("queue.buffering.max.kbytes", "64");
    let producer = Producer::new(&cluster, ProducerOptions::default()).unwrap();
    let records: Vec<_> = (0..10).map(|_| Record::new("orders").value(vec![b'x'; 20_000])).collect();
    let results = producer.send_batch_blocking(&records, Duration::from_millis(100));
    let full = results.iter().filter(|result| matches!(result, Err(SendError::QueueFull { .. }))).count();
    assert!((6..=8).contains(&full), "{results:?}");
}

#[test]
fn what_the_cluster_refuses_is_named() {
    let scene = Scene::new();
    let large = Record::new(scene.topic.as_str()).value(vec![b'x'; 3_000_000]);
    let fine = Record::new(scene.topic.as_str()).value("fine");
    let illegal = Record::new("no/such/topic").value("x");
    let results = scene.producer.send_batch_blocking(&[large, fine, illegal], PATIENCE);
    assert!(
        matches!(&results[0], Err(SendError::Refused { fault: KafkaFault::RecordTooLarge, .. })),
        "{results:?}"
    );
    assert!(results[1].is_ok(), "{results:?}");
    assert!(matches!(&results[2], Err(error) if !error.is_transient()), "{results:?}");
}

#[test]
fn keys_go_where_kafka_would_put_them_or_where_a_partitioner_says() {
    #[derive(Debug)]
    struct Last;
    impl Partitioner for Last {
        fn partition(&self, _: &str, _: Option<&[u8]>, partitions_count: i32) -> i32 {
            partitions_count - 1
        }
    }
    let scene = Scene::new();
    let records: Vec<_> =
        (0..20).map(|number| Record::new(scene.topic.as_str()).key(format!("key-{number}"))).collect();
    let partitions = |producer: &Producer| -> Vec<i32> {
        let sent = producer.send_batch_blocking(&records, PATIENCE);
        sent.into_iter().map(|delivered| delivered.unwrap().partition).collect()
    };
    let by_key: Vec<_> =
        records.iter().map(|record| partition_of_key(record.key.as_deref().unwrap(), 3)).collect();
    assert_eq!(partitions(&scene.producer), by_key);
    assert!((0..3).all(|partition| by_key.contains(&partition)), "{by_key:?}");
    let options = ProducerOptions { partitioner: Some(Arc::new(Last)), ..patient_producer() };
    assert_eq!(partitions(&Producer::new(&scene.cluster, options).unwrap()), [2; 20]);
}

#[test]
fn every_answer_is_reported() {
    let scene = Scene::new();
    let answers = Arc::new(Mutex::new(Vec::new()));
    let on_delivery = {
        let answers = Arc::clone(&answers);
        DeliveryCallback::new(move |report| {
            answers.lock().unwrap().push((report.topic.to_owned(), report.result.is_ok()))
        })
    };
    let options = ProducerOptions { on_delivery: Some(on_delivery), ..patient_producer() };
    let producer = Producer::new(&scene.cluster, options).unwrap();
    let record = |topic: &str| Record::new(topic).value("x");
    let results = producer.send_batch_blocking(&[record(&scene.topic), record("no/such/topic")], PATIENCE);
    assert!(results[0].is_ok() && results[1].is_err(), "{results:?}");
    let answers = answers.lock().unwrap();
    assert!(answers.contains(&(scene.topic.clone(), true)), "{answers:?}");
    assert!(answers.contains(&("no/such/topic".to_owned(), false)), "{answers:?}");
}

#[test]
fn what_is_compressed_arrives_as_it_was_sent() {
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let scene = Scene::new();
        let options = ProducerOptions {
            linger: Duration::from_millis(20),
            compression: compression.into(),
            ..patient_producer()
        };
        let producer = Producer::new(&scene.cluster, options).unwrap();
        let value = |number: usize| format!("{number} ").repeat(200);
        let record = |number| Record::new(scene.topic.as_str()).partition(0).value(value(number));
        let records: Vec<_> = (0..500).map(record).collect();
        for (offset, sent) in (0..).zip(producer.send_batch_blocking(&records, PATIENCE)) {
            assert_eq!(sent.unwrap().offset, offset, "{compression}");
        }
        let mut reader =
            TopicReader::open(&scene.cluster, &scene.topic, ReadFrom::Earliest, PATIENCE).unwrap();
        for number in 0..500 {
            let record = reader.next_until_end(PATIENCE).unwrap().unwrap();
            assert!(record.value == Some(value(number).into_bytes()), "{compression}: {number}");
        }
    }
    let unknown = ProducerOptions { compression: "brotli".into(), ..ProducerOptions::default() };
    let error = Producer::new(&Cluster::new("127.0.0.1:9"), unknown).unwrap_err().to_string();
    assert!(error.contains("compression.codec") && error.contains("brotli"), "{error}");
}
