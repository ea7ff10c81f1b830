//! Many records at a time: order by key, exact commits, retries that block nobody, kills and rebalances.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering as Atomic};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidings::admin::TopicSpec;
use tidings::consumer::{
    Consumer, ConsumerOptions, GroupProtocol, HandlerError, Ordering, Outcome, Phase, SharedBatchHandler,
};
use tidings::failure::{Failure, StatusFilter};
use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord, Record};
use tidings_tests::{Kafka, LONG, until};

use crate::support::{PATIENCE, STOP_LIMIT, Scene, process_of};

/// Values in the order they were done, by key, and how many were worked on at the same time.
#[derive(Default)]
struct Log {
    by_key: Mutex<BTreeMap<String, Vec<usize>>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Log {
    fn done(&self, record: &ReceivedRecord) {
        let (key, value) = key_and_value(record);
        self.by_key.lock().unwrap().entry(key).or_default().push(value);
    }

    fn count(&self) -> usize {
        self.by_key.lock().unwrap().values().map(Vec::len).sum()
    }

    fn enter(&self) {
        let now = self.now.fetch_add(1, Atomic::SeqCst) + 1;
        self.most.fetch_max(now, Atomic::SeqCst);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Atomic::SeqCst);
    }
}

fn key_and_value(record: &ReceivedRecord) -> (String, usize) {
    let text = |bytes: &Option<Vec<u8>>| String::from_utf8(bytes.clone().unwrap_or_default()).unwrap();
    (text(&record.key), text(&record.value).parse().unwrap())
}

/// Values 0 to `count`, with `keys` keys in turn.
fn options(scene: &Scene) -> ConsumerOptions {
    let mut options = scene.options().ordering(Ordering::Key).max_concurrency(32);
    options.backoff.initial = Duration::from_millis(5);
    options
}

fn for_each(
    scene: &Scene,
    options: ConsumerOptions,
    handler: impl Fn(&ReceivedRecord) -> Outcome + Send + Sync + 'static,
) -> Consumer {
    Consumer::for_each(&scene.cluster, scene.producer.clone(), options, handler).unwrap()
}

#[test]
fn keys_run_side_by_side_each_in_order() {
    let scene = Scene::new();
    scene.produce_numbers(&scene.topic, 0..2_000, 16);
    let log = Arc::new(Log::default());
    let seen = Arc::clone(&log);
    let consumer = for_each(&scene, options(&scene), move |record| {
        seen.enter();
        // Until others are at it as well: what runs one by one never gets past this.
        let begun = Instant::now();
        while seen.most.load(Atomic::SeqCst) < 8 && begun.elapsed() < LONG {
            std::thread::yield_now();
        }
        seen.done(record);
        seen.leave();
        Outcome::Done
    });
    until("all are done", || (log.count() == 2_000).then_some(()));
    until("the lag is seen to be zero", || (consumer.state().lag() == Some(0)).then_some(()));
    scene.until_committed(2_000);
    consumer.stop(STOP_LIMIT).unwrap();
    for (key, values) in &*log.by_key.lock().unwrap() {
        assert!(values.is_sorted(), "{key} out of order");
    }
    assert!(log.most.load(Atomic::SeqCst) <= 16, "one record of a key at a time");
    let committed: i64 =
        Kafka::new(scene.cluster.bootstrap()).committed(&scene.group, &scene.topic).iter().sum();
    assert_eq!(committed, 2_000);
}

#[test]
fn a_record_that_is_retried_holds_up_its_key_only() {
    let scene = Scene::new();
    scene.produce_numbers(&scene.topic, 0..160, 16);
    let log = Arc::new(Log::default());
    let seen = Arc::clone(&log);
    let is_healed = Arc::new(AtomicUsize::new(0));
    let healed = Arc::clone(&is_healed);
    let consumer = for_each(&scene, options(&scene), move |record| {
        if key_and_value(record).1 == 3 && healed.load(Atomic::SeqCst) == 0 {
            return Outcome::retry(Failure::new("not yet"));
        }
        seen.done(record);
        Outcome::Done
    });
    until("all other keys are done", || (log.count() == 150).then_some(()));
    until("the wait is seen", || (consumer.state().retrying == 1).then_some(()));
    assert_eq!(consumer.state().phase, Phase::Running, "one bad record is no reason to be unwell");
    assert!(!log.by_key.lock().unwrap().contains_key("key-3"));
    is_healed.store(1, Atomic::SeqCst);
    until("the key goes on", || (log.count() == 160).then_some(()));
    let expect: Vec<usize> = (0..10).map(|turn| turn * 16 + 3).collect();
    assert_eq!(log.by_key.lock().unwrap()["key-3"], expect);
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn what_is_retried_too_often_becomes_a_letter() {
    let scene = Scene::new();
    scene.produce_numbers(&scene.topic, 0..32, 16);
    let mut options = options(&scene);
    options.max_attempts = Some(3);
    let consumer = for_each(&scene, options, |record| match key_and_value(record).1 {
        3 => Outcome::retry(Failure::new("not yet")),
        4 => Outcome::Reject(Failure::new("never")),
        _ => Outcome::Done,
    });
    until("all are worked on", || (consumer.state().processed == 32).then_some(()));
    let mut letters: Vec<_> = scene.inbox().list(StatusFilter::Parked, None, 10).unwrap().items;
    letters.sort_by_key(|letter| letter.value.clone());
    let contexts: Vec<_> = letters.into_iter().map(|letter| letter.context.unwrap()).collect();
    assert_eq!((contexts[0].error.as_str(), contexts[0].attempts), ("not yet", 3));
    assert_eq!(contexts[0].causes, ["given up after 3 attempts"]);
    assert_eq!((contexts[1].error.as_str(), contexts[1].attempts), ("never", 1));
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn batches_run_side_by_side_and_a_failed_one_comes_again() {
    struct Batches {
        log: Arc<Log>,
        failing_calls: AtomicUsize,
    }
    impl SharedBatchHandler for Batches {
        fn handle(&self, batch: &[ReceivedRecord]) -> Result<Vec<Outcome>, HandlerError> {
            let left =
                self.failing_calls.fetch_update(Atomic::SeqCst, Atomic::SeqCst, |left| left.checked_sub(1));
            if left.is_ok() {
                return Err(HandlerError::transient("store down"));
            }
            batch.iter().for_each(|record| self.log.done(record));
            Ok(Vec::new())
        }
    }
    let scene = Scene::new();
    scene.produce_numbers(&scene.topic, 0..5_000, 16);
    let log = Arc::new(Log::default());
    let handler = Batches { log: Arc::clone(&log), failing_calls: AtomicUsize::new(5) };
    let consumer =
        Consumer::for_each_batch(&scene.cluster, scene.producer.clone(), options(&scene), handler).unwrap();
    until("all are done", || (log.count() == 5_000).then_some(()));
    assert!(consumer.state().retries >= 5);
    consumer.stop(STOP_LIMIT).unwrap();
    for (key, values) in &*log.by_key.lock().unwrap() {
        assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "{key} out of order or repeated");
    }
}

#[test]
fn a_handler_that_is_slower_than_the_group_allows_keeps_its_place() {
    // Shorter than a session: the clients that ask beside the member must not take it for theirs. Long enough for a member that
    // a busy machine keeps waiting.
    const LIMIT: Duration = Duration::from_secs(3);
    let mut scene = Scene::new();
    scene.cluster = scene.cluster.set("max.poll.interval.ms", LIMIT.as_millis().to_string());
    scene.produce_numbers(&scene.topic, 0..40, 4);
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let mut options = options(&scene);
    options.protocol = GroupProtocol::Consumer;
    // More than may be in hand at once, so that partitions are paused meanwhile.
    options.max_buffered_records = 4;
    let consumer = for_each(&scene, options, move |record| {
        seen.fetch_add(1, Atomic::SeqCst);
        if key_and_value(record).1 == 0 {
            let begun = Instant::now();
            until("the limit is long over", || (begun.elapsed() > 3 * LIMIT).then_some(()));
        }
        Outcome::Done
    });
    until("all are done", || (consumer.state().processed == 40).then_some(()));
    assert_eq!((calls.load(Atomic::SeqCst), consumer.state().phase), (40, Phase::Running));
    until("all are committed", || (consumer.state().lag() == Some(0)).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn a_poll_limit_below_the_session_is_refused_where_the_client_says_so() {
    let scene = Scene::new();
    let too_short = scene.cluster.clone().set("max.poll.interval.ms", "500");
    let refused =
        Consumer::for_each(&too_short, scene.producer.clone(), options(&scene), |_: &ReceivedRecord| {
            Outcome::Done
        });
    let error = refused.expect_err("a classic member needs a session within that").to_string();
    assert!(error.contains("max.poll.interval.ms") && error.contains("session.timeout.ms"), "{error}");
}

#[test]
fn settings_that_no_client_can_be_made_of_end_a_consumer_instead_of_being_tried_for_ever() {
    let scene = Scene::new();
    // A consumer can be made of it; the transactions that keep the order of keys cannot.
    let cluster = scene.cluster.clone().set("enable.idempotence", "false");
    let options = options(&scene).preserve_key_order();
    let done = |_: &ReceivedRecord| Outcome::Done;
    let consumer = Consumer::for_each(&cluster, scene.producer.clone(), options, done).unwrap();
    let reason = until("it gives up", || match consumer.state().phase {
        Phase::Failed { reason } => Some(reason),
        _ => None,
    });
    assert!(reason.contains("enable.idempotence"), "{reason}");
}

#[test]
fn topics_that_match_a_pattern_join_and_failure_topics_do_not() {
    let scene = Scene::new();
    let (first, second) = (format!("{}-first", scene.topic), format!("{}-second", scene.topic));
    scene.admin.create_topic(&TopicSpec::new(&first, 1)).unwrap();
    scene.produce_numbers(&first, 0..10, 2);
    let log = Arc::new(Log::default());
    let seen = Arc::clone(&log);
    let mut options = options(&scene);
    options.topics = vec![format!("^{}-.*", scene.topic)];
    options.topics_refresh = Duration::from_millis(100);
    let consumer = for_each(&scene, options, move |record| {
        seen.done(record);
        if key_and_value(record).1 == 0 { Outcome::Reject(Failure::new("no")) } else { Outcome::Done }
    });
    until("the first topic is done", || (log.count() == 10).then_some(()));
    scene.admin.create_topic(&TopicSpec::new(&second, 1)).unwrap();
    scene.produce_numbers(&second, 0..10, 2);
    until("the second topic is done", || (log.count() >= 20).then_some(()));
    until("both letters are written", || (consumer.state().rejected == 2).then_some(()));
    until("all are told", || (consumer.state().processed >= 20).then_some(()));
    assert_eq!((log.count(), consumer.state().processed), (20, 20), "letters are not worked on");
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn members_of_every_protocol_come_and_go_and_lose_nothing() {
    for protocol in [GroupProtocol::Eager, GroupProtocol::Cooperative, GroupProtocol::Consumer] {
        let scene = Scene::new();
        let log = Arc::new(Log::default());
        let member = || {
            let seen = Arc::clone(&log);
            let mut options = options(&scene);
            options.instance_id = None;
            options.protocol = protocol;
            // Longer than a busy machine needs for a record.
            options.revoke_wait = Duration::from_secs(10);
            for_each(&scene, options, move |record| {
                seen.done(record);
                Outcome::Done
            })
        };
        let owns = |consumer: &Consumer| consumer.state().partitions.len();
        let first = member();
        until("the first owns all", || (owns(&first) == 4).then_some(()));
        scene.produce_numbers(&scene.topic, 0..2_000, 16);
        let second = member();
        until("both own some", || (owns(&first) > 0 && owns(&second) > 0).then_some(()));
        scene.produce_numbers(&scene.topic, 2_000..4_000, 16);
        until("all are done", || (distinct(&log) == 4_000).then_some(()));
        scene.until_committed(4_000);
        second.stop(STOP_LIMIT).unwrap();
        scene.produce_numbers(&scene.topic, 4_000..4_500, 16);
        until("the first does the rest", || (distinct(&log) == 4_500).then_some(()));
        first.stop(STOP_LIMIT).unwrap();
        assert_eq!(
            log.count(),
            4_500,
            "{protocol:?}: handlers end within a rebalance, so nothing is repeated"
        );
    }
}

fn distinct(log: &Log) -> usize {
    let by_key = log.by_key.lock().unwrap();
    by_key.values().map(|values| values.iter().collect::<BTreeSet<_>>().len()).sum()
}

/// What a killed member leaves behind: one line for each record done.
pub fn ledger(path: &Path) -> Vec<usize> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // A kill may cut the last line; its record was not answered as done.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| line.parse().unwrap()).collect()
}

/// What a record takes, so that a member is killed before it is through.
pub const WORK: Duration = Duration::from_millis(2);

/// The member that is killed: runs in a process of its own until then. Not a test by itself: nothing happens where nobody
/// gives it arguments.
#[test]
#[ignore = "a process that other tests start and kill"]
fn member_process() {
    if std::env::var_os("XTASK_MEMBER_BOOTSTRAP").is_none() {
        return;
    }
    let argument = |name: &str| std::env::var(format!("XTASK_MEMBER_{name}")).unwrap();
    let cluster = Cluster::new(argument("BOOTSTRAP")).set("session.timeout.ms", "6000");
    let producer = Producer::new(&cluster, ProducerOptions::default()).unwrap();
    let mut options = ConsumerOptions::new(argument("GROUP"), [argument("TOPIC")])
        .ordering(Ordering::Key)
        .max_concurrency(32);
    options.instance_id = Some(argument("INSTANCE")).filter(|instance| !instance.is_empty());
    let stuck: usize = argument("STUCK").parse().unwrap();
    let work = Duration::from_millis(argument("WORK_MS").parse().unwrap());
    let ledger = OpenOptions::new().append(true).create(true).open(argument("LEDGER")).unwrap();
    let handler = move |record: &ReceivedRecord| {
        let (_, value) = key_and_value(record);
        if value == stuck {
            loop {
                std::thread::park();
            }
        }
        std::thread::sleep(work);
        (&ledger).write_all(format!("{value}\n").as_bytes()).unwrap();
        Outcome::Done
    };
    let _consumer = Consumer::for_each(&cluster, producer, options, handler).unwrap();
    loop {
        std::thread::park();
    }
}

/// A static member in a process of its own; `stuck` is the value whose handler never returns.
fn start_member(scene: &Scene, topic: &str, ledger: &Path, stuck: usize) -> Child {
    start_named_member(scene, topic, ledger, stuck, "only", WORK)
}

/// The same with a name that outlives it, or without one, and with what a record takes.
pub fn start_named_member(
    scene: &Scene,
    topic: &str,
    ledger: &Path,
    stuck: usize,
    instance_id: &str,
    work: Duration,
) -> Child {
    let mut command = process_of("concurrency::member_process");
    command.env("XTASK_MEMBER_BOOTSTRAP", scene.cluster.bootstrap()).env("XTASK_MEMBER_GROUP", &scene.group);
    command.env("XTASK_MEMBER_TOPIC", topic).env("XTASK_MEMBER_LEDGER", ledger);
    command.env("XTASK_MEMBER_STUCK", stuck.to_string()).env("XTASK_MEMBER_INSTANCE", instance_id);
    command.env("XTASK_MEMBER_WORK_MS", work.as_millis().to_string());
    command.spawn().unwrap()
}

pub fn kill(mut member: Child) {
    member.kill().unwrap();
    member.wait().unwrap();
}

/// The committed offset and metadata of the only partition.
pub fn committed(scene: &Scene, topic: &str) -> (i64, String) {
    let mut asked = rdkafka::TopicPartitionList::new();
    asked.add_partition(topic, 0);
    let answer = Kafka::new(scene.cluster.bootstrap()).committed_in(&scene.group, &asked);
    let element = &answer.elements()[0];
    (element.offset().to_raw().unwrap_or(-1), element.metadata().to_string())
}

#[test]
fn what_was_done_out_of_order_survives_a_kill() {
    let scene = Scene::new();
    let topic = format!("{}-single", scene.topic);
    scene.admin.create_topic(&TopicSpec::new(&topic, 1)).unwrap();
    // The first record is stuck and alone with its key, so that everything behind it gets done.
    let first = Record::new(topic.as_str()).key("stuck").value("0");
    scene.producer.send_batch_blocking(&[first], PATIENCE).remove(0).unwrap();
    scene.produce_numbers(&topic, 1..1_001, 20);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    let member = start_member(&scene, &topic, &path, 0);
    until("all but the first are done", || (ledger(&path).len() == 1_000).then_some(()));
    // One offset that is not done, then a thousand that are.
    let expect = (0, "tidings1rAegH".to_string());
    until("that is committed", || (committed(&scene, &topic) == expect).then_some(()));
    kill(member);
    let member = start_member(&scene, &topic, &path, usize::MAX);
    until("the first is done", || ledger(&path).contains(&0).then_some(()));
    until("that is committed", || (committed(&scene, &topic) == (1_001, String::new())).then_some(()));
    kill(member);
    assert_eq!(ledger(&path).len(), 1_001, "nothing was done twice");
}

#[test]
fn members_killed_at_any_moment_lose_nothing_and_keep_the_order_of_keys() {
    const COUNT: usize = 20_000;
    let scene = Scene::new();
    let topic = format!("{}-single", scene.topic);
    scene.admin.create_topic(&TopicSpec::new(&topic, 1)).unwrap();
    scene.produce_numbers(&topic, 0..COUNT, 20);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger");
    // How much was done at each kill, and the offset that the group had then.
    let mut kills = Vec::new();
    // A value that sticks for this member alone, so that commits have gaps to remember.
    for stuck in [100, 3_000, 7_777, 12_345] {
        let before = ledger(&path).len();
        let member = start_member(&scene, &topic, &path, stuck);
        until("some are done", || (ledger(&path).len() > before + 1_500).then_some(()));
        kill(member);
        kills.push((ledger(&path).len(), committed(&scene, &topic).0));
    }
    let member = start_member(&scene, &topic, &path, usize::MAX);
    let end = (COUNT as i64, String::new());
    until("everything is done and committed", || (committed(&scene, &topic) == end).then_some(()));
    kill(member);
    let done = ledger(&path);
    assert_eq!(done.iter().collect::<BTreeSet<_>>().len(), COUNT, "every record is done");
    let mut last_first: BTreeMap<usize, usize> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for value in &done {
        if seen.insert(*value) {
            let last = last_first.insert(value % 20, *value);
            assert!(
                last.is_none_or(|last| last < *value),
                "{value} was done first after a later one of its key"
            );
        }
    }
    let repeated = done.len() - COUNT;
    println!("{} kills, {repeated} of {COUNT} records repeated", kills.len());
    for (done_before, committed_offset) in kills {
        // Nothing else is in the partition: values are offsets.
        let is_committed = |value: &&usize| (**value as i64) < committed_offset;
        let again = done[done_before..].iter().find(is_committed);
        assert_eq!(again, None, "committed up to {committed_offset}, and done again");
    }
}
