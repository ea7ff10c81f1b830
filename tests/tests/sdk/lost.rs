//! Records that are removed before a group has read them: it goes on behind them, and says so. Holes in the offsets are no such
//! records.

use std::ops::Range;
use std::time::Duration;

use tidings::Record;
use tidings::consumer::{Consumer, Phase};
use tidings::producer::{TransactionalOptions, TransactionalProducer};
use tidings::reader::{ReadFrom, TopicReader};
use tidings_tests::{Kafka, until};

use crate::support::{PATIENCE, Remembering, STOP_LIMIT, Scene};

/// Produces values to the one partition that these tests use, with one request.
#[track_caller]
fn produce(scene: &Scene, values: Range<usize>) {
    let record =
        |value: usize| Record::new(scene.topic.as_str()).partition(0).value(format!("value-{value}"));
    scene.send(&values.map(record).collect::<Vec<_>>());
}

#[track_caller]
fn delete_before(scene: &Scene, offset: i64) {
    Kafka::new(scene.cluster.bootstrap()).delete_records_before(&scene.topic, 0, offset);
}

#[track_caller]
fn until_done(handler: &Remembering, count: usize) {
    until(&format!("{count} records are done"), || (handler.counts().0 >= count).then_some(()));
}

/// Stops a consumer. Answers how many records it has said were lost.
#[track_caller]
fn stop(consumer: Consumer) -> u64 {
    let monitor = consumer.monitor();
    consumer.stop(STOP_LIMIT).unwrap();
    monitor.state().lost
}

#[test]
fn what_was_removed_before_a_start_is_told_once() {
    let scene = Scene::new();
    produce(&scene, 0..10);
    let handler = Remembering::default();
    let consumer = scene.consume(scene.options(), &handler);
    until_done(&handler, 10);
    scene.until_committed(10);
    assert_eq!(stop(consumer), 0);

    produce(&scene, 10..20);
    delete_before(&scene, 15);
    let consumer = scene.consume(scene.options(), &handler);
    until_done(&handler, 15);
    until("five records are lost", || (consumer.state().lost == 5).then_some(()));
    scene.until_committed(20);
    assert_eq!(stop(consumer), 5);

    produce(&scene, 20..21);
    let consumer = scene.consume(scene.options(), &handler);
    until_done(&handler, 16);
    assert_eq!(stop(consumer), 0);

    // Who has committed nothing has nothing to lose.
    let mut options = scene.options();
    options.group = format!("{}-of-others", scene.group);
    let handler = Remembering::default();
    let consumer = scene.consume(options, &handler);
    until_done(&handler, 6);
    assert_eq!(stop(consumer), 0);
}

#[test]
fn a_topic_that_was_emptied_before_a_start_is_told() {
    let scene = Scene::new();
    produce(&scene, 0..10);
    let handler = Remembering::default();
    let consumer = scene.consume(scene.options(), &handler);
    until_done(&handler, 10);
    scene.until_committed(10);
    assert_eq!(stop(consumer), 0);

    produce(&scene, 10..20);
    delete_before(&scene, 20);
    let consumer = scene.consume(scene.options(), &handler);
    until("ten records are lost", || (consumer.state().lost == 10).then_some(()));
    // The group is behind them, so the next start does not tell of them again.
    scene.until_committed(20);
    assert_eq!(stop(consumer), 10);
    let consumer = scene.consume(scene.options(), &handler);
    produce(&scene, 20..21);
    until_done(&handler, 11);
    assert_eq!(stop(consumer), 0);
}

#[test]
fn what_is_removed_before_a_running_consumer_is_told() {
    let scene = Scene::new();
    for round in 0..10 {
        produce(&scene, 100 * round..100 * (round + 1));
    }
    let handler = Remembering::default();
    handler.with(|memory| memory.failing_calls = u32::MAX);
    let mut options = scene.options();
    options.max_buffered_records = 100;
    options.backoff.max = Duration::from_millis(50);
    // The client has little more than what the consumer asks it for.
    let cluster = scene.cluster.clone().set("queued.min.messages", "1").set("fetch.message.max.bytes", "1");
    let consumer = Consumer::start(&cluster, scene.producer.clone(), options, handler.clone()).unwrap();
    until("it pauses", || matches!(consumer.state().phase, Phase::Paused { .. }).then_some(()));
    delete_before(&scene, 900);
    handler.with(|memory| memory.failing_calls = 0);
    until("all are done or lost", || {
        (handler.counts().0 as u64 + consumer.state().lost == 1_000).then_some(())
    });
    let lost = stop(consumer);
    assert!(lost > 0, "the client had everything");
    assert_eq!((handler.counts(), lost), ((1_000 - lost as usize, 1), lost));
    let is_done = |value: usize| handler.with(|memory| memory.done.contains_key(&format!("value-{value}")));
    assert!((900..1_000).all(is_done), "what was left was done");
}

#[test]
fn holes_that_transactions_leave_are_not_lost() {
    let scene = Scene::new();
    let options = TransactionalOptions { timeout: PATIENCE, ..TransactionalOptions::default() };
    let mut producer = TransactionalProducer::open(&scene.cluster, &scene.group, options).unwrap();
    let record = |value: &str| Record::new(scene.topic.as_str()).partition(0).value(value);
    producer.write(&[record("first")]).unwrap();
    let handler = Remembering::default();
    let consumer = scene.consume(scene.options(), &handler);
    until_done(&handler, 1);
    // The record and its marker.
    scene.until_committed(2);
    assert_eq!(stop(consumer), 0);

    let mut aborted = producer.begin().unwrap();
    aborted.send(&record("aborted")).unwrap();
    let uncommitted = scene.cluster.clone().set("isolation.level", "read_uncommitted");
    until("the record is there", || {
        let reader = TopicReader::open(&uncommitted, &scene.topic, ReadFrom::Latest, PATIENCE).unwrap();
        (reader.bounds()[&0].end_offset == 3).then_some(())
    });
    aborted.abort().unwrap();
    producer.write(&[record("second")]).unwrap();
    // The log begins where the group is, and the next record comes two offsets later.
    delete_before(&scene, 2);
    let consumer = scene.consume(scene.options(), &handler);
    until_done(&handler, 2);
    scene.until_committed(6);
    // What was read goes while the consumer runs.
    delete_before(&scene, 6);
    producer.write(&[record("third")]).unwrap();
    until_done(&handler, 3);
    scene.until_committed(8);
    assert_eq!(stop(consumer), 0);
}
