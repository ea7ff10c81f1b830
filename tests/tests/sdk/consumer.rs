//! Nothing is lost and nothing done twice, through failures, restarts and rebalances.

use std::time::{Duration, Instant};

use tidings::consumer::{Consumer, ConsumerOptions, Phase};
use tidings::producer::{TransactionalOptions, TransactionalProducer};
use tidings::{Record, now_ms};
use tidings_tests::{LONG, until};

use crate::support::{PATIENCE, Remembering, STOP_LIMIT, Scene};

fn values(range: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    range.map(|index| format!("value-{index}"))
}

#[track_caller]
fn until_done(handler: &Remembering, count: usize) {
    until(&format!("{count} records are done"), || (handler.counts().0 >= count).then_some(()));
}

#[test]
fn every_record_is_done_once_in_order_and_a_restart_repeats_none() {
    let scene = Scene::new();
    scene.produce(values(0..2_000));
    let handler = Remembering::default();
    let consumer = scene.consume(scene.options(), &handler);
    until_done(&handler, 2_000);
    let state = until("the lag is seen to be zero", || {
        let state = consumer.state();
        (state.lag() == Some(0)).then_some(state)
    });
    assert_eq!((state.processed, state.rejected, state.retries), (2_000, 0, 0));
    // A question that was not answered in time counts as trouble until the next one is.
    until("it is well", || consumer.state().readiness().ok());
    scene.until_committed(2_000);
    let begun = Instant::now();
    consumer.stop(STOP_LIMIT).unwrap();
    assert!(begun.elapsed() < STOP_LIMIT);

    scene.produce(values(2_000..2_500));
    let consumer = scene.consume(scene.options(), &handler);
    until_done(&handler, 2_500);
    consumer.stop(STOP_LIMIT).unwrap();
    assert_eq!(handler.counts(), (2_500, 1));
    assert_eq!(handler.with(|memory| memory.out_of_order), 0);
}

#[test]
fn a_transient_failure_keeps_the_batch_and_dead_letters_nothing() {
    let scene = Scene::new();
    scene.produce(values(0..300));
    let handler = Remembering::default();
    handler.with(|memory| memory.failing_calls = u32::MAX);
    let consumer = scene.consume(scene.options(), &handler);
    let reason = until("it pauses", || match consumer.state().phase {
        Phase::Paused { reason, attempts, .. } if attempts > 2 => Some(reason),
        _ => None,
    });
    assert_eq!(reason, "store down: connection refused");
    scene.produce(values(300..600));
    until("the growing lag is seen while paused", || (consumer.state().lag() == Some(600)).then_some(()));
    assert!(consumer.state().readiness().is_err());
    handler.with(|memory| memory.failing_calls = 0);
    until_done(&handler, 600);
    assert_eq!(handler.counts(), (600, 1));
    until("it runs again", || (consumer.state().phase == Phase::Running).then_some(()));
    assert_eq!(scene.inbox().parked_count().unwrap(), 0);
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn the_lag_is_told_in_records_and_in_seconds() {
    let scene = Scene::new();
    let minute_ago_ms = now_ms() - 60_000;
    let record = |value: usize| {
        let record = Record::new(scene.topic.as_str()).partition(0).value(format!("value-{value}"));
        record.timestamp_ms(minute_ago_ms + value as i64)
    };
    let records: Vec<_> = (0..10).map(record).collect();
    scene.send(&records);
    let handler = Remembering::default();
    handler.with(|memory| memory.failing_calls = u32::MAX);
    let mut options = scene.options();
    options.backoff.max = Duration::from_millis(50);
    let consumer = scene.consume(options, &handler);
    let lag = || {
        let state = consumer.state();
        let partition =
            state.partitions.into_iter().find(|p| *p.topic == *scene.topic && p.partition == 0)?;
        Some((partition.lag()?, partition.lag_ms?))
    };
    let behind_ms = until("ten records wait", || lag().filter(|(lag, _)| *lag == 10).map(|(_, ms)| ms));
    assert!((60_000..60_000 + LONG.as_millis() as i64).contains(&behind_ms), "{behind_ms}");
    handler.with(|memory| memory.failing_calls = 0);
    until_done(&handler, 10);
    until("nothing waits", || lag().filter(|lag| *lag == (0, 0)));
    consumer.stop(STOP_LIMIT).unwrap();
}

/// The marker of a transaction has an offset, too: behind the last record it was a lag of one for ever, whose age grew and grew.
#[test]
fn a_marker_at_the_end_is_no_lag() {
    let scene = Scene::new();
    let options = TransactionalOptions { timeout: PATIENCE, ..TransactionalOptions::default() };
    let mut producer = TransactionalProducer::open(&scene.cluster, &scene.group, options).unwrap();
    let mut write = |value: &str| {
        let record = Record::new(scene.topic.as_str()).partition(0).value(value);
        producer.write(&[record.timestamp_ms(now_ms() - 60_000)]).unwrap();
    };
    write("first");
    let handler = Remembering::default();
    let mut options = scene.options();
    options.backoff.max = Duration::from_millis(50);
    let consumer = scene.consume(options, &handler);
    let lag = |consumer: &Consumer| {
        let partitions = consumer.state().partitions;
        let partition = partitions.into_iter().find(|p| *p.topic == *scene.topic && p.partition == 0)?;
        Some((partition.lag()?, partition.lag_ms?))
    };
    until_done(&handler, 1);
    until("the marker is no lag", || lag(&consumer).filter(|lag| *lag == (0, 0)));
    // The record and the marker: others see the group at its end, too.
    scene.until_committed(2);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert_eq!(lag(&consumer), Some((0, 0)), "it stays so");
        std::thread::sleep(Duration::from_millis(50));
    }
    // What is not done ages all the same, with a marker behind it.
    handler.with(|memory| memory.failing_calls = u32::MAX);
    write("second");
    let behind_ms =
        until("the second one waits", || lag(&consumer).filter(|(_, ms)| *ms >= 60_000).map(|(_, ms)| ms));
    until("it ages", || lag(&consumer).filter(|(lag, ms)| *lag == 2 && *ms > behind_ms + 5_000));
    handler.with(|memory| memory.failing_calls = 0);
    until_done(&handler, 2);
    until("nothing waits", || lag(&consumer).filter(|lag| *lag == (0, 0)));
    scene.until_committed(4);
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn a_stop_during_a_pause_is_quick_and_loses_nothing() {
    let scene = Scene::new();
    scene.produce(values(0..50));
    let handler = Remembering::default();
    handler.with(|memory| memory.failing_calls = u32::MAX);
    let mut options = scene.options();
    options.backoff.initial = Duration::from_secs(3_600);
    options.backoff.max = Duration::from_secs(3_600);
    let consumer = scene.consume(options, &handler);
    until("it pauses", || matches!(consumer.state().phase, Phase::Paused { .. }).then_some(()));
    let begun = Instant::now();
    consumer.stop(STOP_LIMIT).unwrap();
    assert!(begun.elapsed() < STOP_LIMIT);
    handler.with(|memory| memory.failing_calls = 0);
    let consumer = scene.consume(scene.options(), &handler);
    until_done(&handler, 50);
    assert_eq!(handler.counts(), (50, 1));
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn members_that_come_and_go_lose_nothing() {
    let scene = Scene::new();
    let handler = Remembering::default();
    let member = |name: &str| -> Consumer {
        let mut options: ConsumerOptions = scene.options();
        options.instance_id = (name != "dynamic").then(|| name.to_string());
        scene.consume(options, &handler)
    };
    let first = member("first");
    until("the first owns all", || (first.state().partitions.len() == 4).then_some(()));
    scene.produce(values(0..1_000));
    let second = member("dynamic");
    until("both own some", || {
        (!first.state().partitions.is_empty() && !second.state().partitions.is_empty()).then_some(())
    });
    handler.with(|memory| memory.failing_calls = 3);
    scene.produce(values(1_000..2_000));
    until_done(&handler, 2_000);
    scene.produce(values(2_000..2_500));
    second.stop(STOP_LIMIT).unwrap();
    until_done(&handler, 2_500);
    let (distinct, most) = handler.counts();
    assert_eq!(distinct, 2_500);
    assert!(most <= 2, "a rebalance may repeat a batch, not more: {most}");
    first.stop(STOP_LIMIT).unwrap();
}

#[test]
fn a_second_member_with_the_same_instance_id_fences_the_first() {
    let scene = Scene::new();
    let handler = Remembering::default();
    let first = scene.consume(scene.options(), &handler);
    until("the first owns all", || (first.state().partitions.len() == 4).then_some(()));
    let second = scene.consume(scene.options(), &handler);
    let reason = until("the first gives up", || match first.state().phase {
        Phase::Failed { reason } => Some(reason),
        _ => None,
    });
    assert!(reason.contains("group.instance.id"), "{reason}");
    assert!(first.stop(STOP_LIMIT).is_err());
    second.stop(STOP_LIMIT).unwrap();
}

#[test]
fn a_missing_topic_is_waited_for_and_said() {
    let scene = Scene::new();
    let handler = Remembering::default();
    let later = format!("{}-later", scene.topic);
    let consumer = scene.consume(ConsumerOptions::new(&scene.group, [&later]), &handler);
    until("it says what is missing", || {
        consumer.state().readiness().is_err_and(|why| why.contains(&later)).then_some(())
    });
    scene.admin.create_topic(&tidings::admin::TopicSpec::new(&later, 1)).unwrap();
    until("it runs", || (consumer.state().phase == Phase::Running).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn wrong_credentials_are_said_with_what_to_check() {
    let scene = Scene::new();
    let refused = [("security.protocol", "sasl_plaintext"), ("sasl.mechanism", "PLAIN")];
    let refused =
        refused.iter().fold(scene.cluster.clone(), |cluster, (name, value)| cluster.set(*name, *value));
    let refused = refused.set("sasl.username", "nobody").set("sasl.password", "wrong");
    let producer = tidings::Producer::new(&refused, tidings::ProducerOptions::default()).unwrap();
    let handler = Remembering::default();
    let consumer = Consumer::start(&refused, producer, scene.options(), handler).unwrap();
    let reason = until("it says why", || {
        let reason = consumer.state().readiness().unwrap_err();
        reason.contains("refused").then_some(reason)
    });
    // Neither broker has logins; they differ in how they say so.
    let is_hint = |hint: &&str| reason.contains(*hint);
    assert!(["log in without SASL", "check user and password"].iter().any(is_hint), "{reason}");
    assert!(!reason.contains("wrong"), "{reason}");
    consumer.stop(STOP_LIMIT).unwrap();
}
