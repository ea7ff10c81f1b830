//! The order of keys through failures: what is parked, what waits behind it, and how it comes back, whatever is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tidings::admin::TopicSpec;
use tidings::consumer::{Consumer, ConsumerOptions, Ordering, Outcome};
use tidings::failure::{
    Failure, FailureInbox, Letter, ResolutionKind, Selection, Standing, StatusFilter, Summary,
};
use tidings::{Cluster, Producer, ProducerOptions, ReceivedRecord, Record};
use tidings_tests::{LONG, until, until_within};

use crate::support::{Member, PATIENCE, STOP_LIMIT, Scene, process_of};

const KEYS: usize = 16;

/// What was done, in the order in which it was: topic and value.
type Done = Vec<(String, usize)>;

/// What is wrong with the order of keys in what was done, and how often something was done again.
fn check(done: &Done) -> (Vec<String>, usize) {
    let mut last = BTreeMap::new();
    let (mut seen, mut broken, mut repeated) = (BTreeSet::new(), Vec::new(), 0);
    for (topic, value) in done {
        if !seen.insert((topic, value)) {
            repeated += 1;
            continue;
        }
        let before = last.insert((topic, value % KEYS), *value).filter(|before| before > value);
        broken.extend(before.map(|before| format!("{topic}: {value} after {before}")));
    }
    (broken, repeated)
}

fn value_of(record: &ReceivedRecord) -> usize {
    std::str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse().unwrap()
}

fn inbox(scene: &Scene, topic: &str) -> FailureInbox {
    FailureInbox::new(&scene.cluster, scene.producer.clone(), topic).timeout(PATIENCE)
}

fn parked(inbox: &FailureInbox) -> Vec<Letter> {
    // Before the consumer has started there is no inbox.
    inbox.list(StatusFilter::Parked, None, 500).map(|page| page.items).unwrap_or_default()
}

/// So many parked letters, once it can be read who waits for whom: the ends of a transaction come to its topics one by one.
#[track_caller]
fn until_parked(inbox: &FailureInbox, count: usize) -> Vec<Letter> {
    until("they are parked, and wait in line", || {
        let letters = parked(inbox);
        (letters.len() == count && letters.iter().all(|letter| letter.line.is_some())).then_some(letters)
    })
}

fn standing(letter: &Letter) -> Option<Standing> {
    letter.context.as_ref().unwrap().standing
}

fn value_of_letter(letter: &Letter) -> usize {
    std::str::from_utf8(letter.value.as_deref().unwrap()).unwrap().parse().unwrap()
}

/// A group over several topics that rejects some values until it is told not to.
struct Group {
    done: Arc<Mutex<Done>>,
    /// Values that leave 3 when divided by 100 are rejected.
    is_bad: Arc<AtomicBool>,
    consumer: Consumer,
}

impl Group {
    fn start(scene: &Scene, topics: &[String], preserves: bool) -> Self {
        let (done, is_bad) = (Arc::<Mutex<Done>>::default(), Arc::new(AtomicBool::new(true)));
        let mut options =
            ConsumerOptions::new(&scene.group, topics).ordering(Ordering::Key).max_concurrency(16);
        options.preserve_key_order = preserves;
        options.backoff.initial = Duration::from_millis(5);
        let (log, bad) = (Arc::clone(&done), Arc::clone(&is_bad));
        let handler = move |record: &ReceivedRecord| {
            let value = value_of(record);
            if value % 100 == 3 && bad.load(Atomic::SeqCst) {
                return Outcome::Reject(Failure::new("no"));
            }
            let topic = record.topic.split(".").next().unwrap().to_string();
            log.lock().unwrap().push((topic, value));
            Outcome::Done
        };
        let consumer = Consumer::for_each(&scene.cluster, scene.producer.clone(), options, handler).unwrap();
        Self { done, is_bad, consumer }
    }

    fn until_done(&self, count: usize) {
        until(&format!("{count} are done"), || (self.done.lock().unwrap().len() >= count).then_some(()));
    }

    fn done(&self) -> Done {
        self.done.lock().unwrap().clone()
    }
}

#[test]
fn in_every_topic_only_the_key_of_a_bad_record_waits_and_comes_back_in_order() {
    let scene = Scene::new();
    let topics: Vec<String> = (0..3).map(|number| format!("{}-{number}", scene.topic)).collect();
    let specs: Vec<_> = topics.iter().map(|topic| TopicSpec::new(topic, 2)).collect();
    scene.admin.ensure_topics(&specs).unwrap();
    topics.iter().for_each(|topic| scene.produce_numbers(topic, 0..96, KEYS));
    let group = Group::start(&scene, &topics, true);
    // Of 96 values, 3 and what comes behind it with the same key: 3, 19, 35, 51, 67, 83.
    group.until_done(topics.len() * 90);
    for topic in &topics {
        let inbox = inbox(&scene, topic);
        let letters = until_parked(&inbox, 6);
        let first = letters.iter().find(|letter| standing(letter) == Some(Standing::Failed)).unwrap();
        assert_eq!((value_of_letter(first), first.line.unwrap().behind), (3, None));
        for letter in letters.iter().filter(|letter| letter.id != first.id) {
            let line = letter.line.unwrap();
            assert_eq!(
                (standing(letter), line.behind, line.waiting),
                (Some(Standing::Behind), Some(first.id), 5)
            );
        }
        let queues = inbox.queues(10).unwrap();
        let [queue] = queues.as_slice() else { panic!("{queues:?}") };
        assert_eq!((&queue.key[..], &queue.group, queue.first), (&b"key-3"[..], &scene.group, first.id));
        assert_eq!((queue.standing, queue.waiting), (Standing::Failed, 5));
        let would = inbox.redrive(&Selection::All, "ann", true).unwrap();
        assert_eq!((would.done, would.behind, would.skipped, inbox.parked_count().unwrap()), (1, 5, 0, 6));
    }
    assert_eq!(group.done().len(), topics.len() * 90, "the others are all that is done");

    group.is_bad.store(false, Atomic::SeqCst);
    for topic in &topics {
        let inbox = inbox(&scene, topic);
        assert_eq!(inbox.redrive(&Selection::All, "ann", false).unwrap().done, 1);
        // What arrives meanwhile comes behind what is parked.
        scene.produce_numbers(topic, 96..160, KEYS);
    }
    group.until_done(topics.len() * 160);
    for topic in &topics {
        let inbox = inbox(&scene, topic);
        until("nothing is parked any more", || (inbox.parked_count().unwrap() == 0).then_some(()));
        let resolved = until("nobody waits in line any more", || {
            let letters = inbox.list(StatusFilter::Resolved, None, 500).unwrap().items;
            letters.iter().all(|letter| letter.line.is_none()).then_some(letters)
        });
        for letter in resolved {
            let resolution = letter.resolution.as_ref().unwrap();
            assert_eq!((resolution.kind, letter.line), (ResolutionKind::Redriven, None));
            assert_eq!(
                &*resolution.by == "ann",
                standing(&letter) == Some(Standing::Failed),
                "{resolution:?}"
            );
        }
    }
    assert_eq!(check(&group.done()), (Vec::new(), 0));
    group.consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn without_the_mode_the_same_breaks_the_order_and_the_check_sees_it() {
    let scene = Scene::new();
    scene.produce_numbers(&scene.topic, 0..96, KEYS);
    let group = Group::start(&scene, std::slice::from_ref(&scene.topic), false);
    group.until_done(95);
    let inbox = inbox(&scene, &scene.topic);
    until("the other one is parked", || (parked(&inbox).len() == 1).then_some(()));
    group.is_bad.store(false, Atomic::SeqCst);
    assert_eq!(inbox.redrive(&Selection::All, "ann", false).unwrap().done, 1);
    group.until_done(96);
    let (broken, repeated) = check(&group.done());
    assert_eq!((broken, repeated), (vec![format!("{}: 3 after 83", scene.topic)], 0));
    group.consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn letters_are_discarded_in_the_middle_and_what_fails_again_keeps_its_place() {
    let scene = Scene::new();
    // One key: 3, 19, 35, 51, 67, 83, and with 103 another one that fails by itself: 103 % 16 == 7.
    scene.produce_numbers(&scene.topic, 0..112, KEYS);
    let group = Group::start(&scene, std::slice::from_ref(&scene.topic), true);
    let inbox = inbox(&scene, &scene.topic);
    // 7 of the first key (99 as well) and 103 alone.
    let letters = until_parked(&inbox, 8);
    group.until_done(112 - 8);
    let named = |value: usize| letters.iter().find(|letter| value_of_letter(letter) == value).unwrap().id;
    assert_eq!(inbox.discard(&Selection::Ids(vec![named(51), named(103)]), "ann", false).unwrap().done, 2);
    // Still bad: it comes back to its place with a new letter.
    let first = Selection::Ids(vec![named(3)]);
    assert_eq!(inbox.redrive(&first, "ann", false).unwrap().done, 1);
    let again = until("it has failed again, and has its place", || {
        let mut new =
            parked(&inbox).into_iter().filter(|letter| letter.id != named(3) && letter.line.is_some());
        new.find(|letter| value_of_letter(letter) == 3)
    });
    let context = again.context.clone().unwrap();
    assert_eq!((context.attempts, context.redrives, context.standing), (2, 1, Some(Standing::Failed)));
    assert_eq!(again.line.unwrap().waiting, 5);
    let Summary { done, behind, skipped, .. } =
        inbox.redrive(&Selection::Ids(vec![named(19), named(51)]), "ann", false).unwrap();
    assert_eq!((done, behind, skipped), (0, 1, 1), "19 follows by itself, 51 is discarded");
    assert_eq!(group.done().len(), 112 - 8);

    // The one that blocks is given up: the others follow.
    assert_eq!(inbox.discard(&Selection::Ids(vec![again.id]), "ann", false).unwrap().done, 1);
    group.until_done(112 - 3);
    until("nothing is parked any more", || (inbox.parked_count().unwrap() == 0).then_some(()));
    let done = group.done();
    assert_eq!(check(&done), (Vec::new(), 0));
    let missing: Vec<_> = (0..112).filter(|value| done.iter().all(|(_, found)| found != value)).collect();
    assert_eq!(missing, [3, 51, 103]);

    // Everything discarded at once: nothing of it is done.
    scene.produce_numbers(&scene.topic, 200..264, KEYS);
    let letters = until_parked(&inbox, 4);
    assert_eq!(inbox.discard(&Selection::All, "ann", false).unwrap().done, letters.len() as u64);
    scene.produce_numbers(&scene.topic, 264..280, KEYS);
    group.until_done(112 - 3 + 60 + 16);
    assert_eq!(check(&group.done()), (Vec::new(), 0));
    group.consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn records_without_a_key_wait_for_nobody() {
    let scene = Scene::new();
    let record = |value: usize| Record::new(scene.topic.as_str()).partition(0).value(value.to_string());
    let records: Vec<_> = (0..10).map(record).collect();
    scene.send(&records);
    let group = Group::start(&scene, std::slice::from_ref(&scene.topic), true);
    group.until_done(9);
    let inbox = inbox(&scene, &scene.topic);
    let letter = until("it is parked", || parked(&inbox).pop());
    assert_eq!((value_of_letter(&letter), standing(&letter), letter.line), (3, None, None));
    group.is_bad.store(false, Atomic::SeqCst);
    assert_eq!(inbox.redrive(&Selection::All, "ann", false).unwrap().done, 1);
    group.until_done(10);
    group.consumer.stop(STOP_LIMIT).unwrap();
}

/// What a record takes, so that few are done within a commit's interval.
const WORK: Duration = Duration::from_millis(8);

/// A member that is killed or stopped: runs in a process of its own until then. It writes what it does into a ledger, and
/// rejects every value that leaves 3 when divided by 100 until the file `healed` exists beside that.
#[test]
#[ignore = "a process that other tests start and kill"]
fn order_process() {
    if std::env::var_os("XTASK_ORDER_BOOTSTRAP").is_none() {
        return;
    }
    let argument = |name: &str| std::env::var(format!("XTASK_ORDER_{name}")).unwrap();
    let cluster = Cluster::new(argument("BOOTSTRAP")).set("session.timeout.ms", "6000");
    let producer = Producer::new(&cluster, ProducerOptions::default()).unwrap();
    let mut options =
        ConsumerOptions::new(argument("GROUP"), [argument("TOPIC")]).max_concurrency(8).preserve_key_order();
    options.instance_id = Some(argument("INSTANCE")).filter(|instance| !instance.is_empty());
    options.backoff.initial = Duration::from_millis(5);
    let path = argument("LEDGER");
    let healed = Path::new(&path).with_file_name("healed");
    let ledger = OpenOptions::new().append(true).create(true).open(&path).unwrap();
    let handler = move |record: &ReceivedRecord| {
        std::thread::sleep(WORK);
        let value = value_of(record);
        if value % 100 == 3 && !healed.exists() {
            return Outcome::Reject(Failure::new("no"));
        }
        (&ledger).write_all(format!("{value}\n").as_bytes()).unwrap();
        Outcome::Done
    };
    let _consumer = Consumer::for_each(&cluster, producer, options, handler).unwrap();
    loop {
        std::thread::park();
    }
}

struct Members<'a> {
    scene: &'a Scene,
    directory: tempfile::TempDir,
}

impl Members<'_> {
    fn start(&self, instance: &str) -> Member {
        let mut command = process_of("key_order::order_process");
        command.env("XTASK_ORDER_BOOTSTRAP", self.scene.cluster.bootstrap());
        command.env("XTASK_ORDER_GROUP", &self.scene.group).env("XTASK_ORDER_TOPIC", &self.scene.topic);
        command.env("XTASK_ORDER_INSTANCE", instance);
        command.env("XTASK_ORDER_LEDGER", self.directory.path().join("ledger"));
        Member::start(&mut command)
    }

    fn done(&self) -> Done {
        let text = std::fs::read_to_string(self.directory.path().join("ledger")).unwrap_or_default();
        // A kill may cut the last line; its record was not answered as done.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| (self.scene.topic.clone(), line.parse().unwrap())).collect()
    }

    fn distinct(&self) -> usize {
        self.done().into_iter().collect::<BTreeSet<_>>().len()
    }

    fn heal(&self) {
        std::fs::write(self.directory.path().join("healed"), "").unwrap();
    }
}

#[test]
fn members_killed_while_they_park_and_let_go_lose_nothing_and_keep_the_order() {
    const COUNT: usize = 1_500;
    let scene = Scene::new();
    scene.produce_numbers(&scene.topic, 0..COUNT, KEYS);
    let members = Members { scene: &scene, directory: tempfile::tempdir().unwrap() };
    let inbox = inbox(&scene, &scene.topic);
    let count = || inbox.parked_count().unwrap_or(0);
    // While they park: every key is poisoned in the end but those whose values never end in 03 (of 16 keys: 12).
    for kill_at in [1, 50, 150] {
        let member = members.start("only");
        until("some are parked", || (count() >= kill_at).then_some(()));
        drop(member);
    }
    // While they let go.
    let member = members.start("only");
    until_within(2 * LONG, "everything is done or parked", || {
        (members.distinct() as u64 + count() == COUNT as u64).then_some(())
    });
    drop(member);
    println!("{} parked", count());
    members.heal();
    assert!(inbox.redrive(&Selection::All, "ann", false).unwrap().done > 0);
    let before = members.distinct();
    for more in [1, 40, 120] {
        let member = members.start("only");
        until("some are let go", || (members.distinct() >= (before + more).min(COUNT)).then_some(()));
        drop(member);
    }
    let member = members.start("only");
    until_within(2 * LONG, "everything is done", || (members.distinct() == COUNT).then_some(()));
    until("nothing is parked any more", || (count() == 0).then_some(()));
    drop(member);
    let (broken, repeated) = check(&members.done());
    assert_eq!(broken, [] as [String; 0]);
    println!("6 kills, {repeated} of {COUNT} repeated");
    assert!(repeated < 6 * 200, "at most what was under way, or done within a commit's interval: {repeated}");
}

#[test]
fn a_member_stopped_past_its_session_parks_nothing_when_it_goes_on() {
    const COUNT: usize = 1_000;
    let scene = Scene::new();
    let members = Members { scene: &scene, directory: tempfile::tempdir().unwrap() };
    let inbox = inbox(&scene, &scene.topic);
    let count = || inbox.parked_count().unwrap_or(0);
    let sleeper = members.start("");
    scene.produce_numbers(&scene.topic, 0..COUNT / 2, KEYS);
    until("some are parked", || (count() > 0).then_some(()));
    sleeper.signal(Signal::STOP);
    scene.produce_numbers(&scene.topic, COUNT / 2..COUNT, KEYS);
    let other = members.start("");
    until("the other has done or parked the rest", || {
        (members.distinct() as u64 + count() == COUNT as u64).then_some(())
    });
    sleeper.signal(Signal::CONT);
    members.heal();
    inbox.redrive(&Selection::All, "ann", false).unwrap();
    until("everything is done", || (members.distinct() == COUNT).then_some(()));
    until("nothing is parked any more", || (count() == 0).then_some(()));
    scene.produce_numbers(&scene.topic, COUNT..COUNT + 100, KEYS);
    until("and goes on", || (members.distinct() == COUNT + 100).then_some(()));
    drop((sleeper, other));
    let (broken, repeated) = check(&members.done());
    assert_eq!(broken, [] as [String; 0]);
    println!("{repeated} of {COUNT} repeated");
    // It goes on with what it had in hand until it hears that it is no member: nothing that came while it slept.
    assert!(repeated < COUNT / 2, "more than was ever in the sleeper's hands: {repeated}");
}
