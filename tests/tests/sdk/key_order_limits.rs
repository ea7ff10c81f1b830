//! The order of keys at its bounds: too much is parked, partitions move while records are let go, the mode is switched off, and
//! the protections are.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering as Atomic};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidings::admin::TopicSpec;
use tidings::consumer::{Consumer, ConsumerOptions, GroupProtocol, Outcome, Phase};
use tidings::failure::{Failure, FailureInbox, Selection};
use tidings::{ReceivedRecord, Record};
use tidings_tests::{LONG, until, until_within};

use crate::support::{InBatches, PATIENCE, STOP_LIMIT, Scene};

/// How long a handler waits for the test, which waits for others meanwhile.
const HOLD_LIMIT: Duration = LONG.saturating_mul(5);

/// Key and value of each record done, in the order in which it was.
type Done = Arc<Mutex<Vec<(String, usize)>>>;

fn key_and_value(record: &ReceivedRecord) -> (String, usize) {
    let text = |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().unwrap()).unwrap();
    (text(&record.key), text(&record.value).parse().unwrap())
}

/// One whose members hear soon that the group changes.
fn quick_scene() -> Scene {
    let mut scene = Scene::new();
    scene.cluster = scene.cluster.set("heartbeat.interval.ms", "100");
    scene
}

fn options(scene: &Scene, topic: &str) -> ConsumerOptions {
    let mut options = ConsumerOptions::new(&scene.group, [topic]).max_concurrency(8).preserve_key_order();
    options.backoff.initial = Duration::from_millis(5);
    options.backoff.max = Duration::from_millis(50);
    options
}

fn inbox(scene: &Scene, topic: &str) -> FailureInbox {
    FailureInbox::new(&scene.cluster, scene.producer.clone(), topic).timeout(PATIENCE)
}

/// A handler that rejects while it is told to, and remembers what it has done.
fn handler(
    done: &Done,
    is_bad: &Arc<AtomicBool>,
) -> impl Fn(&ReceivedRecord) -> Outcome + Send + Sync + 'static {
    let (done, is_bad) = (Arc::clone(done), Arc::clone(is_bad));
    move |record| {
        if is_bad.load(Atomic::SeqCst) {
            return Outcome::Reject(Failure::new("no"));
        }
        done.lock().unwrap().push(key_and_value(record));
        Outcome::Done
    }
}

fn start(
    scene: &Scene,
    options: ConsumerOptions,
    handler: impl Fn(&ReceivedRecord) -> Outcome + Send + Sync + 'static,
) -> Consumer {
    Consumer::for_each(&scene.cluster, scene.producer.clone(), options, handler).unwrap()
}

/// Nothing is lost and keys are in order; answers how many were done again.
#[track_caller]
fn check(done: &Done, count: usize) -> usize {
    let done = done.lock().unwrap();
    let distinct: BTreeSet<_> = done.iter().map(|(_, value)| *value).collect();
    assert_eq!(distinct.len(), count, "records were lost");
    let (mut seen, mut last) = (BTreeSet::new(), std::collections::BTreeMap::new());
    for (key, value) in done.iter() {
        if seen.insert(*value)
            && let Some(before) = last.insert(key, *value)
        {
            assert!(before < *value, "{key}: {value} after {before}");
        }
    }
    done.len() - count
}

#[test]
fn what_would_park_beyond_the_limit_waits_where_it_is_and_says_so() {
    let scene = quick_scene();
    let topic = format!("{}-single", scene.topic);
    scene.admin.create_topic(&TopicSpec::new(&topic, 1)).unwrap();
    scene.produce_numbers(&topic, 0..40, 1);
    let (done, is_bad) = (Done::default(), Arc::new(AtomicBool::new(true)));
    let mut options = options(&scene, &topic);
    options.max_parked_records = 10;
    let consumer = start(&scene, options, handler(&done, &is_bad));
    until("it says that too much waits", || {
        let reason = consumer.state().readiness().err()?;
        reason.contains("10 records of").then_some(())
    });
    let inbox = inbox(&scene, &topic);
    assert!(inbox.parked_count().unwrap() <= 10);
    assert_eq!(done.lock().unwrap().len(), 0);
    is_bad.store(false, Atomic::SeqCst);
    inbox.redrive(&Selection::All, "ann", false).unwrap();
    until("all are done", || (done.lock().unwrap().len() >= 40).then_some(()));
    until("nothing is parked any more", || (inbox.parked_count().unwrap() == 0).then_some(()));
    assert_eq!(check(&done, 40), 0);
    until("it is well again", || consumer.state().readiness().ok());
    consumer.stop(STOP_LIMIT).unwrap();
}

/// With batches, what makes room and what needs some come together.
#[test]
fn batches_that_would_park_beyond_the_limit_let_go_of_what_is_done() {
    let scene = quick_scene();
    let topic = format!("{}-single", scene.topic);
    scene.admin.create_topic(&TopicSpec::new(&topic, 1)).unwrap();
    scene.produce_numbers(&topic, 0..40, 4);
    let (done, is_bad) = (Done::default(), Arc::new(AtomicBool::new(true)));
    let mut options = options(&scene, &topic);
    options.max_parked_records = 10;
    let one = handler(&done, &is_bad);
    let batch = move |batch: &[ReceivedRecord]| Ok(batch.iter().map(&one).collect());
    let (cluster, producer) = (&scene.cluster, scene.producer.clone());
    let consumer = Consumer::start(cluster, producer, options, InBatches(batch)).unwrap();
    until("it says that too much waits", || {
        let reason = consumer.state().readiness().err()?;
        reason.contains("10 records of").then_some(())
    });
    is_bad.store(false, Atomic::SeqCst);
    let inbox = inbox(&scene, &topic);
    until("all are done", || {
        inbox.redrive(&Selection::All, "ann", false).unwrap();
        (done.lock().unwrap().len() >= 40).then_some(())
    });
    until("nothing is parked any more", || (inbox.parked_count().unwrap() == 0).then_some(()));
    assert_eq!(check(&done, 40), 0);
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn queues_that_are_let_go_while_their_partitions_move_lose_nothing_and_keep_their_order() {
    const COUNT: usize = 1_200;
    let scene = quick_scene();
    scene.produce_numbers(&scene.topic, 0..COUNT, 12);
    let (done, is_bad) = (Done::default(), Arc::new(AtomicBool::new(true)));
    let (has_moved, is_slow) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let member = || {
        let mut options = options(&scene, &scene.topic);
        options.protocol = GroupProtocol::Cooperative;
        let (work, has_moved) = (handler(&done, &is_bad), Arc::clone(&has_moved));
        let is_slow = Arc::clone(&is_slow);
        start(&scene, options, move |record| {
            // So that there is something left to let go when the partitions move.
            let begun = Instant::now();
            let is_enough = || {
                let has_waited = begun.elapsed() > Duration::from_millis(100);
                has_moved.load(Atomic::SeqCst) || !is_slow.load(Atomic::SeqCst) || has_waited
            };
            until("a partition has moved, or a moment is over", || is_enough().then_some(()));
            work(record)
        })
    };
    let owns = |member: &Consumer| !member.state().partitions.is_empty();
    let first = member();
    let inbox = inbox(&scene, &scene.topic);
    until("all are parked", || (first.state().rejected == COUNT as u64).then_some(()));
    is_bad.store(false, Atomic::SeqCst);
    is_slow.store(true, Atomic::SeqCst);
    inbox.redrive(&Selection::All, "ann", false).unwrap();
    until("some are let go", || (done.lock().unwrap().len() >= 20).then_some(()));
    let second = member();
    until("both own some", || (owns(&first) && owns(&second)).then_some(()));
    let at_the_move = done.lock().unwrap().len();
    has_moved.store(true, Atomic::SeqCst);
    first.stop(STOP_LIMIT).unwrap();
    until("all are done", || (distinct(&done) == COUNT).then_some(()));
    until("nothing is parked any more", || (inbox.parked_count().unwrap() == 0).then_some(()));
    second.stop(STOP_LIMIT).unwrap();
    let repeated = check(&done, COUNT);
    println!("{at_the_move} of {COUNT} let go when a partition moved, {repeated} done again");
    assert!(at_the_move < COUNT, "the move came too late to show anything");
    assert!(repeated <= 16, "handlers end within a rebalance: {repeated}");
}

fn distinct(done: &Done) -> usize {
    done.lock().unwrap().iter().map(|(_, value)| *value).collect::<BTreeSet<_>>().len()
}

#[test]
fn without_the_mode_a_group_does_not_start_over_what_waits() {
    let scene = quick_scene();
    scene.produce_numbers(&scene.topic, 0..20, 4);
    let (done, is_bad) = (Done::default(), Arc::new(AtomicBool::new(true)));
    let consumer = start(&scene, options(&scene, &scene.topic), handler(&done, &is_bad));
    until("all are parked", || (consumer.state().rejected == 20).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
    is_bad.store(false, Atomic::SeqCst);
    let without = || {
        let options = ConsumerOptions { preserve_key_order: false, ..options(&scene, &scene.topic) };
        start(&scene, options, handler(&done, &is_bad))
    };
    let refused = without();
    let reason = until("it does not start", || match refused.state().phase {
        Phase::Failed { reason } => Some(reason),
        _ => None,
    });
    assert!(reason.contains("20 records of") && reason.contains("preserve_key_order"), "{reason}");
    // The ends of a transaction come to its topics one by one.
    let inbox = inbox(&scene, &scene.topic);
    until("all letters can be read", || (inbox.parked_count().unwrap() == 20).then_some(()));
    inbox.discard(&Selection::All, "ann", false).unwrap();
    until("nobody waits in line any more", || inbox.queues(10).unwrap().is_empty().then_some(()));
    let consumer = without();
    until("it runs", || (consumer.state().phase == Phase::Running).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
    assert_eq!(done.lock().unwrap().len(), 0);
}

/// A member loses a partition while its handler has a record of each, which it rejects then. Answers how many of them were
/// parked that the new owner had done.
fn parked_by_a_former_owner(without_fence: bool) -> usize {
    let scene = quick_scene();
    let record = |partition: i32| {
        let value = partition.to_string();
        Record::new(scene.topic.as_str()).partition(partition).key(format!("key-{value}")).value(value)
    };
    scene.send(&[record(0), record(1), record(2)]);
    let mut options = options(&scene, &scene.topic);
    options.protocol = GroupProtocol::Cooperative;
    options.revoke_wait = Duration::ZERO;
    options.unprotected.without_fence = without_fence;
    let (calls, is_over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (called, over) = (Arc::clone(&calls), Arc::clone(&is_over));
    let former = start(&scene, options.clone(), move |_| {
        called.fetch_add(1, Atomic::SeqCst);
        until_within(HOLD_LIMIT, "the partition has moved", || over.load(Atomic::SeqCst).then_some(()));
        Outcome::Reject(Failure::new("too late"))
    });
    until("it has a record of each partition", || (calls.load(Atomic::SeqCst) == 3).then_some(()));
    let (done, is_bad) = (Done::default(), Arc::new(AtomicBool::new(false)));
    let owner = start(&scene, options, handler(&done, &is_bad));
    let moved = until("the new owner has done what is its own", || {
        let owned = owner.state();
        let all_are_owned = former.state().partitions.len() + owned.partitions.len() == 4;
        // What it says is done was done before.
        let moved = done.lock().unwrap().len();
        (moved > 0 && all_are_owned && owned.lag() == Some(0)).then_some(moved)
    });
    is_over.store(true, Atomic::SeqCst);
    until("the former owner has given up or parked", || (former.state().in_flight == 0).then_some(()));
    let expected = 3 - moved;
    until("what is its own is parked", || (former.state().rejected >= expected as u64).then_some(()));
    former.stop(STOP_LIMIT).unwrap();
    owner.stop(STOP_LIMIT).unwrap();
    // The ends of a transaction come to its topics one by one.
    let least = expected + usize::from(without_fence);
    let inbox = inbox(&scene, &scene.topic);
    let parked = until("what is parked can be read", || {
        usize::try_from(inbox.parked_count().unwrap()).ok().filter(|parked| *parked >= least)
    });
    parked - expected
}

#[test]
fn a_former_owner_parks_nothing_and_without_the_fence_it_does() {
    assert_eq!(parked_by_a_former_owner(false), 0);
    assert!(parked_by_a_former_owner(true) > 0, "the control shows nothing");
}

/// A new owner hears late what is parked. Answers what was done before it heard, of a key whose first record is parked.
fn done_before_it_is_known(without_barrier: bool) -> usize {
    let scene = quick_scene();
    scene.produce_numbers(&scene.topic, 0..1, 1);
    let (done, is_bad) = (Done::default(), Arc::new(AtomicBool::new(true)));
    let former = start(&scene, options(&scene, &scene.topic), handler(&done, &is_bad));
    until("it is parked", || (former.state().rejected == 1).then_some(()));
    former.stop(STOP_LIMIT).unwrap();
    is_bad.store(false, Atomic::SeqCst);
    scene.produce_numbers(&scene.topic, 1..2, 1);
    // Another key, whose fate shows that the owner has begun, or not.
    let mut options = options(&scene, &scene.topic);
    options.unprotected.without_barrier = without_barrier;
    let is_deaf = Arc::clone(&options.unprotected.is_deaf);
    is_deaf.store(true, Atomic::SeqCst);
    let owner = start(&scene, options, handler(&done, &is_bad));
    until("it owns all and has what there is", || {
        let state = owner.state();
        (state.partitions.len() == 4 && (state.buffered > 0 || state.processed > 0)).then_some(())
    });
    if without_barrier {
        until("it begins without knowing", || (!done.lock().unwrap().is_empty()).then_some(()));
    }
    let before = done.lock().unwrap().len();
    is_deaf.store(false, Atomic::SeqCst);
    if !without_barrier {
        until("the second record is parked behind the first", || (owner.state().rejected == 1).then_some(()));
        assert_eq!(done.lock().unwrap().len(), 0);
    }
    owner.stop(STOP_LIMIT).unwrap();
    before
}

#[test]
fn a_new_owner_waits_until_it_knows_what_is_parked_and_without_the_barrier_it_does_not() {
    assert_eq!(done_before_it_is_known(false), 0);
    assert_eq!(done_before_it_is_known(true), 1, "the control shows nothing");
}
