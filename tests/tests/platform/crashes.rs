//! `kill -9` takes nothing that was acknowledged, repeats nothing, and groups go on where they committed.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use serde_json::Value;
use tidings_tests::{Http, LONG, Launch, Record, kept_address, until};

use crate::support::{ACTIVITIES, StoreDown, WRITER, activity, stored_ids, until_stored};

const BATCH: usize = 50;

/// What a loader knows about its activities: those it has an answer for, and those it sent at all.
#[derive(Default)]
struct Sent {
    acknowledged: BTreeSet<String>,
    attempted: BTreeSet<String>,
}

/// Sends batches until `stop`, or until the server is gone.
fn load(http: &Http, round: usize, stop: &AtomicBool) -> Sent {
    let mut sent = Sent::default();
    for batch in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let ids: Vec<String> = (0..BATCH).map(|number| format!("{round}-{batch}-{number}")).collect();
        let body =
            Value::Array(ids.iter().enumerate().map(|(minute, id)| activity("acme", id, minute)).collect());
        sent.attempted.extend(ids.iter().cloned());
        // Without a whole answer nobody knows what became of the batch.
        let headers = [("content-type", "application/json")];
        match http.attempt("POST", ACTIVITIES, &headers, body.to_string().as_bytes()) {
            Ok(answer) if answer.status == 200 => sent.acknowledged.extend(ids),
            _ => break,
        }
    }
    sent
}

/// The acknowledged activities that are not in the store.
fn missing<'a>(sent: &'a Sent, stored: &std::collections::BTreeMap<String, usize>) -> Vec<&'a String> {
    sent.acknowledged.iter().filter(|id| !stored.contains_key(*id)).collect()
}

#[test]
fn what_was_acknowledged_before_a_kill_is_stored_exactly_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut all = Sent::default();
    for round in 0..4 {
        let tidings = Launch::up(directory.path()).start();
        let http = tidings.http();
        let stop = AtomicBool::new(false);
        let sent = std::thread::scope(|scope| {
            let loader = scope.spawn(|| load(&http, round, &stop));
            let enough = 20 * (round + 1) * BATCH;
            until("some of this round is stored", || {
                let produced =
                    http.metric("kafka_messages_produced_total{topic=\"activities\"}").unwrap_or(0.0);
                (produced >= enough as f64).then_some(())
            });
            tidings.kill_now();
            stop.store(true, Ordering::Relaxed);
            loader.join().expect("the loader ends")
        });
        assert!(!sent.acknowledged.is_empty());
        all.acknowledged.extend(sent.acknowledged);
        all.attempted.extend(sent.attempted);
    }

    let tidings = Launch::up(directory.path()).start();
    until("nothing is left to store", || {
        let ends: Vec<i64> =
            (0..3).map(|partition| tidings.kafka().watermarks("activities", partition).1).collect();
        let committed = tidings.kafka().committed(WRITER, "activities");
        (ends.iter().zip(&committed).all(|(end, committed)| end == committed || *end == 0)).then_some(())
    });
    let stored = stored_ids(&tidings.http(), "acme");
    assert_eq!(missing(&all, &stored), Vec::<&String>::new());
    assert!(stored.values().all(|count| *count == 1), "an id is listed twice");
    assert!(stored.keys().all(|id| all.attempted.contains(id)), "an id is stored that nobody sent");
    assert_eq!(tidings.kafka().read_all("activities.dlq").len(), 0);
}

/// The control: where acknowledged bytes are taken away, the check above sees it.
#[test]
fn the_check_for_lost_activities_sees_a_loss() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
    // Nothing reaches the store, so that the topic is the only place where anything is.
    let down = StoreDown::begin(directory.path());
    let stop = AtomicBool::new(false);
    let http = tidings.http();
    let sent = std::thread::scope(|scope| {
        let loader = scope.spawn(|| load(&http, 0, &stop));
        until("some are acknowledged", || {
            (http.metric("kafka_messages_produced_total{topic=\"activities\"}")? >= 500.0).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        loader.join().expect("the loader ends")
    });
    tidings.kill_now();
    down.end();
    cut_longest_segment(directory.path());

    let launched = Launch::up(directory.path()).start();
    let ends: i64 = (0..3).map(|partition| launched.kafka().watermarks("activities", partition).1).sum();
    assert!(ends < sent.acknowledged.len() as i64, "the cut took nothing");
    let stored = until_stored(&launched.http(), "acme", usize::try_from(ends).unwrap());
    assert!(!missing(&sent, &stored).is_empty());
}

fn cut_longest_segment(data_dir: &Path) {
    let mut segments: Vec<(u64, std::path::PathBuf)> = Vec::new();
    for partition in 0..3 {
        for entry in std::fs::read_dir(data_dir.join(format!("activities-{partition}"))).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "log") {
                segments.push((std::fs::metadata(&path).unwrap().len(), path));
            }
        }
    }
    let (length, path) = segments.into_iter().max().unwrap();
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length / 2 + 1).unwrap();
}

#[test]
fn a_group_goes_on_where_it_committed() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::broker(directory.path()).at(&kept_address()).start();
    let address = tidings.bootstrap();
    let kafka = tidings.kafka();
    kafka.create_topic("orders", 1);
    let numbers: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let records: Vec<(Option<&[u8]>, &[u8])> =
        numbers.iter().map(|number| (None, number.as_bytes())).collect();
    kafka.produce("orders", &records);

    // A static member, so that the one that comes after the kill takes its place at once.
    let member = || {
        let mut config = kafka.config();
        config
            .set("group.id", "billing")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest");
        config.set("group.instance.id", "billing-1");
        let consumer: rdkafka::consumer::BaseConsumer = config.create().unwrap();
        consumer.subscribe(&["orders"]).unwrap();
        consumer
    };
    let first = member();
    let mut seen = Vec::new();
    until("40 records are seen", || {
        while seen.len() < 40
            && let Some(record) = first.poll(Duration::from_millis(50))
        {
            let record = record.expect("read a record");
            seen.push(String::from_utf8_lossy(record.payload().unwrap()).into_owned());
            if seen.len() == 40 {
                first.commit_message(&record, CommitMode::Sync).unwrap();
            }
        }
        (seen.len() == 40).then_some(())
    });
    tidings.kill_now();
    let tidings = Launch::broker(directory.path()).at(&address).start();
    assert_eq!(tidings.kafka().committed("billing", "orders"), [40]);
    drop(first);

    let second = member();
    let mut rest = Vec::new();
    until("the rest is seen", || {
        while let Some(record) = second.poll(Duration::from_millis(50)) {
            rest.push(
                String::from_utf8_lossy(record.expect("read a record").payload().unwrap()).into_owned(),
            );
        }
        (rest.len() >= 60).then_some(())
    });
    seen.extend(rest);
    assert_eq!(seen, numbers);
}

/// Notes the records that will never be delivered; an idempotent producer that waits long enough has none.
#[derive(Default)]
struct Failures(Mutex<Vec<String>>);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap().push(error.to_string());
        }
    }
}

#[test]
fn an_idempotent_producer_goes_on_through_kills_and_every_record_is_there_once_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut broker = Launch::broker(directory.path()).at(&kept_address()).start();
    let address = broker.bootstrap();
    broker.kafka().create_topic("once", 1);
    let mut config = broker.kafka().config();
    config.set("enable.idempotence", "true").set("linger.ms", "1").set("batch.num.messages", "50");
    config
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "100")
        .set("retry.backoff.ms", "20");
    let producer: ThreadedProducer<Failures> = config.create_with_context(Failures::default()).unwrap();
    let mut sent = 0;
    for _ in 0..4 {
        let (_, stored_before) = broker.kafka().watermarks("once", 0);
        // The kill comes while records are on their way: some are stored and their answers are lost.
        until("the round is in full swing", || {
            for _ in 0..500 {
                let value = sent.to_string();
                let record = BaseRecord::<(), str>::to("once").payload(&value).partition(0);
                match producer.send(record) {
                    Ok(()) => sent += 1,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => break,
                    Err((error, _)) => panic!("send: {error}"),
                }
            }
            (broker.kafka().watermarks("once", 0).1 > stored_before + 5000).then_some(())
        });
        broker.kill_now();
        broker = Launch::broker(directory.path()).at(&address).start();
    }
    producer.flush(LONG).unwrap();
    assert_eq!(*producer.context().0.lock().unwrap(), Vec::<String>::new());
    let found: Vec<String> = broker.kafka().read_all("once").iter().map(Record::value_text).collect();
    assert_eq!(found.len(), sent);
    assert!(found.iter().enumerate().all(|(number, value)| *value == number.to_string()), "out of order");
}

#[test]
fn records_topics_and_settings_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::broker(directory.path()).start();
    let kafka = tidings.kafka();
    kafka.create_topic("kept", 3);
    kafka.produce("kept", &[(Some(b"k"), b"v"), (None, b"w")]);
    let before = kafka.read_all("kept");
    tidings.kill_now();

    let tidings = Launch::broker(directory.path()).start();
    assert_eq!(tidings.kafka().partition_count("kept"), 3);
    assert_eq!(tidings.kafka().read_all("kept"), before);
    tidings.kafka().produce("kept", &[(None, b"x")]);
    let after = tidings.kafka().read_all("kept");
    assert_eq!((after.len(), after[2].offset), (3, 2));
}
