//! Handlers that hang, records that never work, databases that do not answer: who must not wait for them.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering as Atomic};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings::admin::TopicSpec;
use tidings::consumer::{
    Claim, Consumer, ConsumerOptions, Crash, CrashHandler, HandlerError, OffsetStore, Ordering, Outcome,
    Phase, Position, StartAt, StoredError,
};
use tidings::failure::Failure;
use tidings::{ReceivedRecord, Record};
use tidings_tests::{LONG, until, until_within};

use crate::support::{STOP_LIMIT, Scene};

/// How long a handler waits for the test, which waits for others meanwhile.
const HOLD_LIMIT: Duration = LONG.saturating_mul(5);

/// Values that a handler was given, in that order.
type Seen = Arc<Mutex<Vec<String>>>;

fn value(record: &ReceivedRecord) -> String {
    String::from_utf8(record.value.clone().unwrap()).unwrap()
}

fn times(seen: &Seen, value: &str) -> usize {
    seen.lock().unwrap().iter().filter(|seen| *seen == value).count()
}

fn send(scene: &Scene, key: &str, value: &str) {
    scene.send(&[Record::new(scene.topic.as_str()).key(key).value(value)]);
}

/// Remembers each value, and answers by it; waits where the test says so.
fn start(
    scene: &Scene,
    options: ConsumerOptions,
    seen: &Seen,
    answer: impl Fn(&str) -> Outcome + Send + Sync + 'static,
) -> Consumer {
    let seen = Arc::clone(seen);
    let handler = move |record: &ReceivedRecord| {
        let value = value(record);
        seen.lock().unwrap().push(value.clone());
        answer(&value)
    };
    Consumer::for_each(&scene.cluster, scene.producer.clone(), options, handler).unwrap()
}

#[test]
fn a_retry_that_is_due_does_not_wait_for_a_handler_that_hangs() {
    let scene = Scene::new();
    let (seen, may_go_on) = (Seen::default(), Arc::new(AtomicBool::new(false)));
    let options = scene.options().ordering(Ordering::Key).max_concurrency(4);
    let (tries, gate) = (AtomicUsize::new(0), Arc::clone(&may_go_on));
    let consumer = start(&scene, options, &seen, move |value| {
        if value == "again" && tries.fetch_add(1, Atomic::SeqCst) == 0 {
            return Outcome::retry_after(Duration::from_millis(300), Failure::new("not yet"));
        }
        if value == "hangs" {
            until_within(HOLD_LIMIT, "it may go on", || gate.load(Atomic::SeqCst).then_some(()));
        }
        Outcome::Done
    });
    send(&scene, "a", "again");
    until("it was tried", || (times(&seen, "again") == 1).then_some(()));
    // The one worker that there is takes it.
    send(&scene, "b", "hangs");
    until("the other one hangs", || (times(&seen, "hangs") == 1).then_some(()));
    until("it is tried again", || (times(&seen, "again") == 2).then_some(()));
    may_go_on.store(true, Atomic::SeqCst);
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn a_consumer_whose_handler_panics_says_so_although_another_one_hangs() {
    let scene = Scene::new();
    let (seen, may_go_on) = (Seen::default(), Arc::new(AtomicBool::new(false)));
    let crashes = Arc::new(AtomicUsize::new(0));
    let mut options = scene.options().ordering(Ordering::Key).max_concurrency(4);
    options.revoke_wait = Duration::from_millis(200);
    let counted = Arc::clone(&crashes);
    options.on_crash = Some(CrashHandler::new(move |_: &Crash<'_>| {
        counted.fetch_add(1, Atomic::SeqCst);
    }));
    let gate = Arc::clone(&may_go_on);
    let consumer = start(&scene, options, &seen, move |value| {
        assert!(value != "panics", "as it should");
        until_within(HOLD_LIMIT, "it may go on", || gate.load(Atomic::SeqCst).then_some(()));
        Outcome::Done
    });
    send(&scene, "a", "hangs");
    until("it hangs", || (times(&seen, "hangs") == 1).then_some(()));
    send(&scene, "b", "panics");
    until("it has failed", || matches!(consumer.state().phase, Phase::Failed { .. }).then_some(()));
    until("somebody was told", || (crashes.load(Atomic::SeqCst) == 1).then_some(()));
    may_go_on.store(true, Atomic::SeqCst);
}

#[test]
fn a_record_that_is_tried_for_ever_stops_its_own_partition_only() {
    const COUNT: usize = 300;
    let scene = Scene::new();
    let topic = format!("{}-two", scene.topic);
    scene.admin.create_topic(&TopicSpec::new(&topic, 2)).unwrap();
    let record =
        |partition: i32, value: String| Record::new(topic.as_str()).partition(partition).value(value);
    let records = |partition: i32| (0..COUNT).map(move |number| (partition, format!("{partition}/{number}")));
    let all: Vec<_> =
        records(0).chain(records(1)).map(|(partition, value)| record(partition, value)).collect();
    scene.send(&all);
    let mut options = ConsumerOptions::new(&scene.group, [&topic]).ordering(Ordering::Partition);
    options.max_buffered_records = 100;
    options.backoff.initial = Duration::from_millis(20);
    let seen = Seen::default();
    let consumer = start(&scene, options, &seen, |value| match value {
        "0/0" => Outcome::retry(Failure::new("never")),
        _ => Outcome::Done,
    });
    until("the other partition is done", || (times(&seen, &format!("1/{}", COUNT - 1)) == 1).then_some(()));
    assert_eq!(times(&seen, "0/1"), 0, "the order of its own is kept");
    assert!(consumer.state().buffered <= 200, "{} records in hand", consumer.state().buffered);
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn a_group_that_begins_late_goes_on_with_what_it_has_begun() {
    let scene = Scene::new();
    let mut options = scene.options().ordering(Ordering::Partition);
    options.start_at = StartAt::Latest;
    options.commit_interval = Duration::from_millis(50);
    let seen = Seen::default();
    let consumer = start(&scene, options.clone(), &seen, |_| Outcome::retry(Failure::new("down")));
    until("it has begun", || {
        send(&scene, "a", "first");
        (times(&seen, "first") > 0).then_some(())
    });
    send(&scene, "a", "last");
    consumer.stop(STOP_LIMIT).unwrap();
    seen.lock().unwrap().clear();
    let consumer = start(&scene, options, &seen, |_| Outcome::Done);
    until("what came since it began is done", || (times(&seen, "last") == 1).then_some(()));
    assert!(times(&seen, "first") > 0, "the first record, too");
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn a_group_that_begins_late_has_begun_in_partitions_without_records_too() {
    let scene = Scene::new();
    let mut options = scene.options();
    options.start_at = StartAt::Latest;
    options.commit_interval = Duration::from_millis(50);
    let seen = Seen::default();
    let consumer = start(&scene, options.clone(), &seen, |_| Outcome::Done);
    let kafka = tidings_tests::Kafka::new(scene.cluster.bootstrap());
    until("its beginnings are committed", || {
        let committed = kafka.committed(&scene.group, &scene.topic);
        committed.iter().all(|offset| *offset == 0).then_some(())
    });
    consumer.stop(STOP_LIMIT).unwrap();
    send(&scene, "a", "meanwhile");
    let consumer = start(&scene, options, &seen, |_| Outcome::Done);
    until("what came while it was away is done", || (times(&seen, "meanwhile") == 1).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
}

/// A store whose claims wait for the test.
struct Blocked {
    asked: Arc<AtomicUsize>,
    may_go_on: Arc<AtomicBool>,
}

impl OffsetStore for Blocked {
    type Transaction<'a> = ();
    type Error = io::Error;

    fn claim(&mut self, _: &str, _: &str, _: i32) -> Result<Claim, io::Error> {
        self.asked.fetch_add(1, Atomic::SeqCst);
        until_within(HOLD_LIMIT, "the store answers", || self.may_go_on.load(Atomic::SeqCst).then_some(()));
        Ok(Claim { epoch: 1, next_offset: None })
    }

    fn transaction(
        &mut self,
        _: &[Position<'_>],
        work: &mut dyn FnMut(&mut ()) -> Result<(), HandlerError>,
    ) -> Result<(), StoredError<io::Error>> {
        work(&mut ()).map_err(StoredError::Handler)
    }
}

#[test]
fn a_group_does_not_wait_for_a_database_that_does_not_answer() {
    let scene = Scene::new();
    let (asked, may_go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let store = Blocked { asked: Arc::clone(&asked), may_go_on: Arc::clone(&may_go_on) };
    let (cluster, producer) = (&scene.cluster, scene.producer.clone());
    let seen = Seen::default();
    let taken = Arc::clone(&seen);
    let work = move |batch: &[ReceivedRecord], _: &mut ()| {
        taken.lock().unwrap().extend(batch.iter().map(value));
        Ok(Vec::new())
    };
    let mut options = scene.options();
    options.instance_id = None;
    let consumer = Consumer::stored(cluster, producer.clone(), options.clone(), store, work).unwrap();
    until("the store is asked", || (asked.load(Atomic::SeqCst) == 1).then_some(()));
    // A rebalance that takes nothing from whoever serves the group.
    let other = start(&scene, options, &Seen::default(), |_| Outcome::Done);
    until("the other member has its share", || (!other.state().partitions.is_empty()).then_some(()));
    other.stop(STOP_LIMIT).unwrap();
    send(&scene, "a", "worked on");
    may_go_on.store(true, Atomic::SeqCst);
    until("it goes on", || (times(&seen, "worked on") == 1).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
}
