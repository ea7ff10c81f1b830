//! Records that are due later, and retries that wait elsewhere: not too early, not lost, and nobody waits for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidings::admin::TopicSpec;
use tidings::consumer::{Consumer, ConsumerOptions, HandlerError, Ordering, Outcome};
use tidings::failure::{Failure, StatusFilter};
use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord, Record, now_ms};
use tidings_tests::{Kafka, LONG, until, until_within};

use crate::concurrency::committed;
use crate::support::{InBatches, Member, STOP_LIMIT, Scene, process_of};

/// When each value was handed out, in milliseconds since the epoch.
type Seen = Arc<Mutex<BTreeMap<String, Vec<i64>>>>;

fn consume(
    scene: &Scene,
    seen: &Seen,
    answer: impl Fn(&str, usize) -> Outcome + Send + Sync + 'static,
) -> Consumer {
    let mut options = ConsumerOptions::new(&scene.group, [&scene.topic]).ordering(Ordering::Partition);
    options.instance_id = Some("only".into());
    options.delayed_retries = true;
    consume_with(scene, options, seen, answer)
}

fn consume_with(
    scene: &Scene,
    mut options: ConsumerOptions,
    seen: &Seen,
    answer: impl Fn(&str, usize) -> Outcome + Send + Sync + 'static,
) -> Consumer {
    options.delayed_delivery = true;
    let seen = Arc::clone(seen);
    let handler = move |record: &ReceivedRecord| {
        let value = String::from_utf8(record.value.clone().unwrap()).unwrap();
        let mut seen = seen.lock().unwrap();
        let times = seen.entry(value.clone()).or_default();
        times.push(now_ms());
        answer(&value, times.len())
    };
    Consumer::for_each(&scene.cluster, scene.producer.clone(), options, handler).unwrap()
}

fn count(seen: &Seen) -> usize {
    seen.lock().unwrap().values().map(Vec::len).sum()
}

#[test]
fn records_come_when_they_are_due_and_nobody_waits_for_them() {
    // A slow machine needs longer for those that are due at once.
    let delays = [3, 15, 60].map(Duration::from_secs);
    assert!(delays.into_iter().any(come_when_they_are_due), "too slow a machine to show anything");
}

/// Whether those that were due at once came before the first one of the others was due.
fn come_when_they_are_due(delay: Duration) -> bool {
    let scene = Scene::new();
    let seen = Seen::default();
    let consumer = consume(&scene, &seen, |_, _| Outcome::Done);
    until("it runs", || (consumer.state().partitions.len() == 4).then_some(()));
    let due_ms = now_ms() + delay.as_millis() as i64;
    let record = |index: i64| {
        // Same partition and key as those that are due at once; the later ones first.
        let record = Record::new(scene.topic.as_str()).key("k").value(format!("late-{index}"));
        record.due_at_ms(due_ms + 400 * (9 - index))
    };
    scene.send(&(0..10).map(record).collect::<Vec<_>>());
    let now = |index| Record::new(scene.topic.as_str()).key("k").value(format!("now-{index}"));
    let past = Record::new(scene.topic.as_str()).key("k").value("past").due_at_ms(5);
    scene.send(&(0..50).map(now).chain([past]).collect::<Vec<_>>());
    until("those that are due are done", || (count(&seen) >= 51).then_some(()));
    let is_in_time = now_ms() < due_ms;
    // What waits survives a restart.
    scene.until_committed(61);
    consumer.stop(STOP_LIMIT).unwrap();
    let consumer = consume(&scene, &seen, |_, _| Outcome::Done);
    until_within(delay + LONG, "all are done", || (count(&seen) == 61).then_some(()));
    let mut latest_ms = 0;
    for (value, times) in &*seen.lock().unwrap() {
        assert_eq!(times.len(), 1, "{value} came twice");
        if let Some(index) = value.strip_prefix("late-") {
            let early_ms = due_ms + 400 * (9 - index.parse::<i64>().unwrap()) - times[0];
            assert!(early_ms <= 0, "{value} came {early_ms} ms too early");
            latest_ms = latest_ms.max(-early_ms);
        }
    }
    println!("at most {latest_ms} ms late");
    consumer.stop(STOP_LIMIT).unwrap();
    is_in_time
}

#[test]
fn a_retry_that_waits_elsewhere_lets_its_partition_go_on_and_counts() {
    let scene = Scene::new();
    let seen = Seen::default();
    let consumer = consume(&scene, &seen, |value, times| match (value, times) {
        ("twice", 1 | 2) => Outcome::retry_after(Duration::from_millis(600), Failure::new("not yet")),
        ("never", _) => Outcome::Reject(Failure::new("never")),
        _ => Outcome::Done,
    });
    let record = |value: &str| Record::new(scene.topic.as_str()).key("k").value(value);
    let bad = record("soon").header("tidings.due-ms", "tomorrow");
    let others = (0..50).map(|index| record(&format!("{index}")));
    scene.send(&[record("twice"), bad].into_iter().chain(others).collect::<Vec<_>>());
    until("the others are done", || (count(&seen) >= 51).then_some(()));
    until("it has been tried three times", || (count(&seen) == 53).then_some(()));
    let times = seen.lock().unwrap()["twice"].clone();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 600), "{times:?}");
    let letter = until("the one without a readable time is a letter", || {
        scene.inbox().list(StatusFilter::Parked, None, 10).unwrap().items.pop()
    });
    let context = letter.context.unwrap();
    assert!(context.error.contains("tidings.due-ms"), "{}", context.error);
    consumer.stop(STOP_LIMIT).unwrap();
}

/// A delay topic took the place of another one between two looks, and as many as before counted as the same ones: nobody moved
/// what waited in it.
#[test]
fn a_topic_that_comes_for_another_one_has_its_records_delayed_and_delivered() {
    let scene = Scene::new();
    let (before, after) = (format!("{}-before", scene.topic), format!("{}-after", scene.topic));
    scene.admin.create_topic(&TopicSpec::new(&before, 1)).unwrap();
    let mut options = ConsumerOptions::new(&scene.group, [format!("^{}-.*", scene.topic)]);
    options.topics_refresh = Duration::from_millis(100);
    let seen = Seen::default();
    let consumer = consume_with(&scene, options, &seen, |_, _| Outcome::Done);
    until("it runs", || (consumer.state().partitions.len() == 2).then_some(()));
    let due_soon = |topic: &str| Record::new(topic).value(topic).due_at_ms(now_ms() + 600);
    scene.send(&[due_soon(&before)]);
    until("the first topic's is delivered", || seen.lock().unwrap().contains_key(&before).then_some(()));
    scene.admin.delete_topic(&before).unwrap();
    scene.admin.create_topic(&TopicSpec::new(&after, 1)).unwrap();
    until("the second topic is its own", || {
        consumer.state().partitions.iter().any(|partition| *partition.topic == *after).then_some(())
    });
    scene.send(&[due_soon(&after)]);
    until("the second topic's is delivered", || seen.lock().unwrap().contains_key(&after).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
}

/// A member that is killed: runs in a process of its own until then, and writes what it is handed, and when, into a ledger. Not
/// a test by itself: nothing happens where nobody gives it arguments.
#[test]
#[ignore = "a process that other tests start and kill"]
fn waiting_process() {
    if std::env::var_os("XTASK_WAITING_BOOTSTRAP").is_none() {
        return;
    }
    let argument = |name: &str| std::env::var(format!("XTASK_WAITING_{name}")).unwrap();
    let cluster = Cluster::new(argument("BOOTSTRAP")).set("session.timeout.ms", "6000");
    let producer = Producer::new(&cluster, ProducerOptions::default()).unwrap();
    let mut options =
        ConsumerOptions::new(argument("GROUP"), [argument("TOPIC")]).ordering(Ordering::Unordered);
    options.instance_id = Some("only".into());
    options.delayed_delivery = true;
    let ledger = OpenOptions::new().append(true).create(true).open(argument("LEDGER")).unwrap();
    let handler = move |record: &ReceivedRecord| {
        let line = format!("{} {}\n", std::str::from_utf8(record.value.as_ref().unwrap()).unwrap(), now_ms());
        (&ledger).write_all(line.as_bytes()).unwrap();
        Outcome::Done
    };
    let _consumer = Consumer::for_each(&cluster, producer, options, handler).unwrap();
    loop {
        std::thread::park();
    }
}

/// Values and the times at which they were handed out; a line that a kill has cut short does not count.
fn ledger(path: &Path) -> Vec<(usize, i64)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| {
        let (value, time_ms) = line.split_once(' ').unwrap();
        (value.parse().unwrap(), time_ms.parse().unwrap())
    };
    whole.lines().map(parse).collect()
}

#[test]
fn members_killed_while_records_wait_lose_none_and_hand_none_out_early() {
    const COUNT: usize = 400;
    let scene = Scene::new();
    let topic = format!("{}-single", scene.topic);
    scene.admin.create_topic(&TopicSpec::new(&topic, 1)).unwrap();
    let retry = format!("{topic}.{}.retry", scene.group);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let start = || {
        let mut command = process_of("delayed::waiting_process");
        command.env("XTASK_WAITING_BOOTSTRAP", scene.cluster.bootstrap());
        command.env("XTASK_WAITING_GROUP", &scene.group).env("XTASK_WAITING_TOPIC", &topic);
        command.env("XTASK_WAITING_LEDGER", &path);
        Member::start(&mut command)
    };
    let mut member = start();
    let record = |value: usize, due_ms: i64| {
        Record::new(topic.as_str()).key(value.to_string()).value(value.to_string()).due_at_ms(due_ms)
    };
    scene.send(&[record(COUNT, 0)]);
    until("it runs", || (ledger(&path).len() == 1).then_some(()));
    // In no order, over eight seconds: some wait in each of the shorter partitions whenever a member dies.
    let first_due_ms = now_ms() + 2_000;
    let due_ms = |value: usize| match value {
        COUNT => 0,
        _ => first_due_ms + (value * 37 % COUNT * 20) as i64,
    };
    scene.send(&(0..COUNT).map(|value| record(value, due_ms(value))).collect::<Vec<_>>());
    until("all wait elsewhere", || (committed(&scene, &topic).0 == COUNT as i64 + 1).then_some(()));
    // What had been handed out when a member died, and was not committed.
    let mut may_repeat = 0;
    for kill_at in [2, 40, 120, 250] {
        until("some are handed out", || (ledger(&path).len() >= kill_at).then_some(()));
        drop(member);
        let uncommitted = uncommitted(&scene, &retry);
        may_repeat += ledger(&path).iter().filter(|(value, _)| uncommitted.contains(value)).count();
        member = start();
    }
    let distinct = || ledger(&path).iter().map(|(value, _)| *value).collect::<BTreeSet<_>>().len();
    until("all are handed out", || (distinct() == COUNT + 1).then_some(()));
    drop(member);
    let handed_out = ledger(&path);
    let early = handed_out.iter().find(|(value, time_ms)| *time_ms < due_ms(*value));
    assert_eq!(early, None, "the first one too early");
    let repeated = handed_out.len() - COUNT - 1;
    println!("4 kills, {repeated} of {COUNT} repeated, of {may_repeat} that might");
    assert!(repeated <= may_repeat, "more than was handed out since a commit: {repeated} of {may_repeat}");
}

/// The values in a topic that the group has not committed.
fn uncommitted(scene: &Scene, topic: &str) -> BTreeSet<usize> {
    let kafka = Kafka::new(scene.cluster.bootstrap());
    let committed = kafka.committed(&scene.group, topic);
    let mut records = kafka.read_all(topic);
    records.retain(|record| record.offset >= committed[record.partition as usize]);
    records.iter().map(|record| record.value_text().parse().unwrap()).collect()
}

/// More wait than a member keeps in memory, and another member joins: its group for delays changes as well, and what was paused in
/// it then was never read on.
#[test]
fn more_than_fits_into_memory_waits_while_members_come_and_go_and_comes_once() {
    // A slow machine needs longer until both members are there.
    let delays = [6, 20, 60].map(Duration::from_secs);
    assert!(delays.into_iter().any(comes_once_though_a_member_joins), "too slow a machine to show anything");
}

/// Whether the second member was there before the first record was due.
fn comes_once_though_a_member_joins(delay: Duration) -> bool {
    const COUNT: usize = 1_200;
    let mut scene = Scene::new();
    // Members hear soon that the group changes.
    scene.cluster = scene.cluster.set("heartbeat.interval.ms", "100");
    let seen = Seen::default();
    let start = || {
        let options = ConsumerOptions::new(&scene.group, [&scene.topic]).ordering(Ordering::Key);
        consume_with(&scene, options, &seen, |_, _| Outcome::Done)
    };
    let first = start();
    until("it runs", || (first.state().partitions.len() == 4).then_some(()));
    let due_ms = now_ms() + delay.as_millis() as i64;
    let record = |value: usize| {
        Record::new(scene.topic.as_str()).key(value.to_string()).value(value.to_string()).due_at_ms(due_ms)
    };
    scene.send(&(0..COUNT).map(record).collect::<Vec<_>>());
    until("all wait elsewhere", || (first.state().processed >= COUNT as u64).then_some(()));
    let second = start();
    until("both own some", || {
        let owns = |member: &Consumer| !member.state().partitions.is_empty();
        (owns(&first) && owns(&second)).then_some(())
    });
    let is_in_time = now_ms() < due_ms;
    until_within(delay + LONG, "all are done", || (seen.lock().unwrap().len() == COUNT).then_some(()));
    first.stop(STOP_LIMIT).unwrap();
    second.stop(STOP_LIMIT).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.values().all(|times| times.len() == 1 && times[0] >= due_ms), "too early, or twice");
    is_in_time
}

#[test]
fn what_is_due_later_lets_nobody_pass_who_stands_behind_a_failure() {
    let scene = Scene::new();
    let topic = format!("{}-single", scene.topic);
    scene.admin.create_topic(&TopicSpec::new(&topic, 1)).unwrap();
    let record = |value: &str| Record::new(topic.as_str()).key("one").value(value);
    let later = record("later").due_at_ms(now_ms() + 3_600_000);
    scene.send(&[record("first"), later, record("last")]);
    let mut options = ConsumerOptions::new(&scene.group, [&topic]);
    options.delayed_delivery = true;
    options.backoff.initial = Duration::from_millis(20);
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (calls, done) = (Mutex::new(0), Arc::clone(&seen));
    let handler = move |batch: &[ReceivedRecord]| {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        if *calls == 1 {
            return Err(HandlerError::transient("the store is down"));
        }
        let values = batch.iter().map(|record| String::from_utf8(record.value.clone().unwrap()).unwrap());
        done.lock().unwrap().extend(values);
        Ok(Vec::new())
    };
    let (cluster, producer) = (&scene.cluster, scene.producer.clone());
    let consumer = Consumer::start(cluster, producer, options, InBatches(handler)).unwrap();
    until("both are done", || (seen.lock().unwrap().len() >= 2).then_some(()));
    assert_eq!(*seen.lock().unwrap(), ["first", "last"]);
    consumer.stop(STOP_LIMIT).unwrap();
}
