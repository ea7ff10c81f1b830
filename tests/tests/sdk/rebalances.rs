//! Partitions that move: from a member that is behind, that restarts, or that was asleep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidings::ReceivedRecord;
use tidings::consumer::{Consumer, ConsumerOptions, Ordering, Outcome};
use tidings_tests::{LONG, signal_child, until, until_within};

use crate::concurrency::{WORK, kill, ledger, start_named_member};
use crate::support::{STOP_LIMIT, Scene};

const KEYS: usize = 20;

/// Values in the order they were done.
type Done = Arc<Mutex<Vec<usize>>>;

fn value(record: &ReceivedRecord) -> usize {
    std::str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse().unwrap()
}

fn distinct(done: &[usize]) -> usize {
    done.iter().collect::<BTreeSet<_>>().len()
}

/// A member whose handler waits until it may go on.
fn member(scene: &Scene, options: ConsumerOptions, done: &Done, may_go_on: &Arc<AtomicBool>) -> Consumer {
    let (done, may_go_on) = (Arc::clone(done), Arc::clone(may_go_on));
    let handler = move |record: &ReceivedRecord| {
        // The test waits for others meanwhile.
        let limit = LONG * 5;
        until_within(limit, "the handler may go on", || may_go_on.load(Atomic::SeqCst).then_some(()));
        done.lock().unwrap().push(value(record));
        Outcome::Done
    };
    Consumer::for_each(&scene.cluster, scene.producer.clone(), options, handler).unwrap()
}

/// librdkafka keeps a partition paused past its assignment. A member that was behind when its group changed, and got its
/// partition back, never read on in it.
#[test]
fn what_was_paused_when_the_group_changed_is_read_on() {
    const COUNT: usize = 300;
    let scene = Scene::new();
    scene.produce_numbers(&scene.topic, 0..COUNT, KEYS);
    let (done, may_go_on) = (Done::default(), Arc::<AtomicBool>::default());
    let mut options = scene.options().ordering(Ordering::Key).max_concurrency(1);
    options.instance_id = None;
    options.max_buffered_records = 8;
    options.revoke_wait = Duration::ZERO;
    let first = member(&scene, options.clone(), &done, &may_go_on);
    until("it has all that it may have in hand", || (first.state().buffered >= 8).then_some(()));
    let begun = Instant::now();
    // Longer than it waits for room before it pauses.
    until("its partitions are paused", || (begun.elapsed() > Duration::from_secs(2)).then_some(()));
    let second = member(&scene, options, &done, &may_go_on);
    let owns = |member: &Consumer| !member.state().partitions.is_empty();
    until("both own some", || (owns(&first) && owns(&second)).then_some(()));
    may_go_on.store(true, Atomic::SeqCst);
    until("all are done", || (distinct(&done.lock().unwrap()) == COUNT).then_some(()));
    first.stop(STOP_LIMIT).unwrap();
    second.stop(STOP_LIMIT).unwrap();
    let repeated = done.lock().unwrap().len() - COUNT;
    assert!(repeated <= 1, "what was with the handler at the rebalance: {repeated}");
}

#[test]
fn a_static_member_that_restarts_moves_nothing() {
    let scene = Scene::new();
    let (done, may_go_on) = (Done::default(), Arc::new(AtomicBool::new(true)));
    let start = |name: &str| {
        let mut options = scene.options().ordering(Ordering::Key);
        options.instance_id = Some(name.into());
        member(&scene, options, &done, &may_go_on)
    };
    let owned = |member: &Consumer| -> BTreeSet<_> {
        member.state().partitions.iter().map(|owned| (owned.topic.clone(), owned.partition)).collect()
    };
    let (first, second) = (start("first"), start("second"));
    until("each has its share", || {
        (!owned(&first).is_empty()
            && !owned(&second).is_empty()
            && owned(&first).len() + owned(&second).len() == 4)
            .then_some(())
    });
    let (before_first, before_second) = (owned(&first), owned(&second));
    scene.produce_numbers(&scene.topic, 0..300, KEYS);
    until("all are done", || (distinct(&done.lock().unwrap()) == 300).then_some(()));
    until("and told", || (second.state().lag() == Some(0)).then_some(()));
    scene.until_committed(300);
    second.stop(STOP_LIMIT).unwrap();
    scene.produce_numbers(&scene.topic, 300..600, KEYS);
    let second = start("second");
    until("it has its share again", || {
        assert_eq!(owned(&first), before_first, "the other one was disturbed");
        (owned(&second) == before_second).then_some(())
    });
    until("all are done", || (distinct(&done.lock().unwrap()) == 600).then_some(()));
    first.stop(STOP_LIMIT).unwrap();
    second.stop(STOP_LIMIT).unwrap();
    assert_eq!(done.lock().unwrap().len(), 600, "nothing comes again");
}

#[test]
fn a_member_stopped_past_its_session_loses_nothing_and_keeps_the_order_of_keys() {
    const BEFORE: usize = 5_000;
    const ASLEEP: usize = 6_000;
    const ALL: usize = 6_500;
    let scene = Scene::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let start = |work| start_named_member(&scene, &scene.topic, &path, usize::MAX, "", work);
    // Slow enough to be at work when it is stopped.
    let sleeper = start(10 * WORK);
    scene.produce_numbers(&scene.topic, 0..BEFORE, KEYS);
    until("some are done", || (ledger(&path).len() > 100).then_some(()));
    signal_child(&sleeper, Signal::STOP);
    assert!(ledger(&path).len() < BEFORE, "it was stopped too late to show anything");
    scene.produce_numbers(&scene.topic, BEFORE..ASLEEP, KEYS);
    let other = start(WORK);
    until("the other one has done everything", || (distinct(&ledger(&path)) == ASLEEP).then_some(()));
    signal_child(&sleeper, Signal::CONT);
    until("the sleeper is a member again", || {
        let group = scene.admin.describe_group(&scene.group).unwrap();
        (group.members.len() == 2 && group.state == "Stable").then_some(())
    });
    scene.produce_numbers(&scene.topic, ASLEEP..ALL, KEYS);
    until("everything is done", || (distinct(&ledger(&path)) == ALL).then_some(()));
    kill(sleeper);
    kill(other);
    let done = ledger(&path);
    let (mut seen, mut last, mut repeated) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
    for value in done {
        if !seen.insert(value) {
            repeated.push(value);
            continue;
        }
        let before = last.insert(value % KEYS, value);
        assert!(before.is_none_or(|before| before < value), "{value} after {before:?} of its key");
    }
    println!("{} of {ALL} repeated", repeated.len());
    // What it had in hand when it fell asleep, which it goes on with until it hears that it is no member.
    assert!(
        repeated.iter().all(|value| *value < BEFORE),
        "done twice, and never in the sleeper's hands: {repeated:?}"
    );
}
