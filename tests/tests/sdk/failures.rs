//! What a handler rejects waits in the inbox until somebody decides, and comes back only to its own group.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use tidings::consumer::{Consumer, StartAt};
use tidings::failure::{
    FailureInbox, InboxError, Letter, LetterId, Pace, ResolutionKind, Selection, StatusFilter,
};
use tidings::reader::{ReadFrom, TopicReader};
use tidings::{Cluster, Producer, ProducerOptions, Record, now_ms};
use tidings_tests::{Kafka, until};

use crate::support::{PATIENCE, Remembering, STOP_LIMIT, Scene, process_of};

/// A group that rejects every tenth of a hundred records; answers when all are done.
fn ten_letters(scene: &Scene) -> (Remembering, Consumer) {
    let handler = Remembering::default();
    handler.with(|memory| memory.rejects = Some(|value| value.ends_with('7')));
    scene.produce((0..100).map(|index| format!("value-{index:02}")));
    let consumer = scene.consume(scene.options(), &handler);
    until("all are worked on", || (consumer.state().processed == 100).then_some(()));
    assert_eq!(consumer.state().rejected, 10);
    (handler, consumer)
}

fn text(letter: &Letter) -> String {
    String::from_utf8(letter.value.clone().unwrap()).unwrap()
}

#[test]
fn letters_are_listed_page_by_page_with_their_context() {
    let scene = Scene::new();
    let (_, consumer) = ten_letters(&scene);
    let inbox = scene.inbox();
    let first = inbox.list(StatusFilter::Parked, None, 4).unwrap();
    let second = inbox.list(StatusFilter::Parked, first.next_cursor.as_deref(), 4).unwrap();
    let third = inbox.list(StatusFilter::Parked, second.next_cursor.as_deref(), 4).unwrap();
    assert_eq!([first.items.len(), second.items.len(), third.items.len()], [4, 4, 2]);
    assert_eq!(third.next_cursor, None);
    let mut values: Vec<_> =
        [&first, &second, &third].iter().flat_map(|page| page.items.iter().map(text)).collect();
    values.sort();
    assert_eq!(values, (0..10).map(|ten| format!("value-{:02}", ten * 10 + 7)).collect::<Vec<_>>());
    let letter = inbox.get(first.items[0].id).unwrap();
    assert_eq!(letter, first.items[0]);
    let context = letter.context.unwrap();
    assert_eq!(
        (context.topic, context.group, context.attempts),
        (scene.topic.clone(), scene.group.clone(), 1)
    );
    assert_eq!(
        (context.error.as_str(), context.causes),
        ("cannot be worked on", vec!["the test says so".to_string()])
    );
    let nothing = LetterId { partition: 0, offset: 99 };
    assert!(matches!(inbox.get(nothing), Err(InboxError::UnknownLetter { .. })));
    assert!(matches!(inbox.list(StatusFilter::Any, Some("x"), 1), Err(InboxError::BadCursor(_))));
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn a_redrive_comes_back_once_and_a_second_one_does_nothing() {
    let scene = Scene::new();
    let (handler, consumer) = ten_letters(&scene);
    let inbox = scene.inbox();
    let letter = inbox.list(StatusFilter::Parked, None, 1).unwrap().items.remove(0);
    let one = Selection::Ids(vec![letter.id, letter.id, LetterId { partition: 0, offset: 99 }]);

    let summary = inbox.redrive(&one, "ann", true).unwrap();
    assert_eq!(
        (summary.done, summary.skipped, inbox.parked_count().unwrap()),
        (1, 1, 10),
        "a dry run changes nothing"
    );
    handler.with(|memory| memory.rejects = None);
    let before_ms = now_ms();
    assert_eq!(inbox.redrive(&one, "ann", false).unwrap().done, 1);
    until("it is done", || (handler.counts().0 == 91).then_some(()));
    let again = scene.inbox().redrive(&one, "bob", false).unwrap();
    assert_eq!((again.done, again.skipped), (0, 2), "a fresh inbox knows it from the status topic");
    let resolution = inbox.get(letter.id).unwrap().resolution.unwrap();
    assert_eq!((resolution.kind, &*resolution.by), (ResolutionKind::Redriven, "ann"));
    assert!((before_ms..=now_ms()).contains(&resolution.at_ms), "{resolution:?}");
    assert_eq!(inbox.list(StatusFilter::Parked, None, 500).unwrap().items.len(), 9);
    assert_eq!(inbox.list(StatusFilter::Resolved, None, 500).unwrap().items.len(), 1);

    assert_eq!(inbox.redrive(&Selection::All, "ann", false).unwrap().done, 9);
    until("all are done", || (handler.counts() == (100, 1)).then_some(()));
    assert_eq!(inbox.redrive(&Selection::All, "ann", false).unwrap().done, 0);
    assert_eq!(inbox.parked_count().unwrap(), 0);
    consumer.stop(STOP_LIMIT).unwrap();
}

/// A group that begins behind the last record began so in its retry topics, too: a redrive that came before it had read one there
/// was skipped, and counted as redriven.
#[test]
fn a_redrive_reaches_a_group_that_begins_late_and_is_away() {
    let scene = Scene::new();
    let handler = Remembering::default();
    handler.with(|memory| memory.rejects = Some(|_| true));
    let mut options = scene.options();
    options.start_at = StartAt::Latest;
    let consumer = scene.consume(options.clone(), &handler);
    let inbox = scene.inbox();
    until("it has begun, and rejected something", || {
        scene.produce(["late".to_owned()]);
        (inbox.parked_count().ok()? > 0).then_some(())
    });
    consumer.stop(STOP_LIMIT).unwrap();
    handler.with(|memory| memory.rejects = None);
    assert!(inbox.redrive(&Selection::All, "ann", false).unwrap().done > 0);
    let consumer = scene.consume(options, &handler);
    until("it is done", || (handler.counts().0 == 1).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn a_redrive_at_a_pace_stops_when_its_time_is_over_and_says_that_there_is_more() {
    let scene = Scene::new();
    let (_handler, consumer) = ten_letters(&scene);
    consumer.stop(STOP_LIMIT).unwrap();
    let (inbox, begun) = (scene.inbox(), Instant::now());
    let pace = Pace::per_second(NonZeroU32::new(5).unwrap());
    // Less than five of them take, and more than a thread has to wait until it begins.
    let at_most = Duration::from_millis(500);
    let summary = inbox.redrive_slowly(&Selection::All, "ann", pace.at_most(at_most)).unwrap();
    assert_eq!((summary.done, summary.more, inbox.parked_count().unwrap()), (5, true, 5));
    assert!(begun.elapsed() >= Duration::from_secs(1), "five of them take a second");
    let fast = Pace::per_second(NonZeroU32::new(1_000).unwrap());
    let summary = inbox.redrive_slowly(&Selection::All, "ann", fast).unwrap();
    assert_eq!((summary.done, summary.more), (5, false));
}

#[test]
fn a_record_that_fails_again_counts_on() {
    let scene = Scene::new();
    let (_handler, consumer) = ten_letters(&scene);
    let inbox = scene.inbox();
    let first = inbox.list(StatusFilter::Parked, None, 1).unwrap().items.remove(0);
    inbox.redrive(&Selection::Ids(vec![first.id]), "ann", false).unwrap();
    until("it is rejected again", || (consumer.state().rejected == 11).then_some(()));
    let letters = inbox.list(StatusFilter::Parked, None, 500).unwrap().items;
    let second = letters.iter().find(|letter| letter.value == first.value).unwrap();
    let (before, after) = (first.context.unwrap(), second.context.clone().unwrap());
    assert_ne!(second.id, first.id);
    assert_eq!((after.attempts, after.redrives), (2, 1));
    assert_eq!(
        (&after.topic, after.partition, after.offset),
        (&before.topic, before.partition, before.offset)
    );
    assert_eq!((after.first_failure_ms, &second.headers), (before.first_failure_ms, &first.headers));
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn a_record_that_always_fails_is_left_alone_after_ten_redrives() {
    let scene = Scene::new();
    let handler = Remembering::default();
    handler.with(|memory| memory.rejects = Some(|_| true));
    scene.produce(["never".to_string()]);
    let consumer = scene.consume(scene.options(), &handler);
    let inbox = scene.inbox();
    for redrives in 0..10 {
        until("it is rejected", || (consumer.state().rejected == redrives + 1).then_some(()));
        assert_eq!(inbox.redrive(&Selection::All, "a loop", false).unwrap().done, 1, "redrive {redrives}");
    }
    until("it is rejected once more", || (consumer.state().rejected == 11).then_some(()));
    let summary = inbox.redrive(&Selection::All, "a loop", false).unwrap();
    assert_eq!((summary.done, summary.skipped), (0, 1));
    assert_eq!(summary.skipped_letters[0].reason, "redriven 10 times already");
    let letter = inbox.list(StatusFilter::Parked, None, 10).unwrap().items.remove(0);
    let context = letter.context.unwrap();
    assert_eq!((context.attempts, context.redrives), (11, 10));
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn a_discarded_letter_is_neither_listed_nor_redriven() {
    let scene = Scene::new();
    let (_, consumer) = ten_letters(&scene);
    let inbox = scene.inbox();
    let letter = inbox.list(StatusFilter::Parked, None, 1).unwrap().items.remove(0);
    let one = Selection::Ids(vec![letter.id]);
    assert_eq!(inbox.discard(&one, "ann", false).unwrap().done, 1);
    let refused = inbox.redrive(&one, "ann", false).unwrap();
    assert_eq!((refused.done, refused.skipped_letters[0].reason.as_str()), (0, "already discarded by ann"));
    assert_eq!(inbox.discard(&Selection::All, "ann", false).unwrap().done, 9);
    assert!(inbox.list(StatusFilter::Parked, None, 500).unwrap().items.is_empty());
    consumer.stop(STOP_LIMIT).unwrap();
}

#[test]
fn letters_of_other_tools_are_shown_but_not_redriven() {
    let scene = Scene::new();
    let inbox = scene.inbox();
    assert!(matches!(inbox.list(StatusFilter::Parked, None, 1), Err(InboxError::NoInbox { .. })));
    inbox.ensure_topics(1).unwrap();
    let foreign = Record::new(&*inbox.topics().letters).value("boom").header("x-error", "E42");
    scene.producer.send_batch_blocking(&[foreign], PATIENCE).remove(0).unwrap();
    let letter = inbox.list(StatusFilter::Parked, None, 1).unwrap().items.remove(0);
    assert_eq!((letter.context, letter.headers.last_str("x-error")), (None, Some("E42")));
    let summary = inbox.redrive(&Selection::All, "ann", false).unwrap();
    assert_eq!((summary.done, summary.skipped), (0, 1));
    assert_eq!(inbox.discard(&Selection::All, "ann", false).unwrap().done, 1);
}

/// A group that has rejected so many records and stopped.
fn letters_of_a_stopped_group(scene: &Scene, count: usize) {
    let handler = Remembering::default();
    handler.with(|memory| memory.rejects = Some(|_| true));
    scene.produce((0..count).map(|index| format!("value-{index}")));
    let consumer = scene.consume(scene.options(), &handler);
    until("all are parked", || (consumer.state().rejected == count as u64).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
}

/// How often each value stands in the group's retry topic, for readers of committed records.
fn redriven(scene: &Scene) -> BTreeMap<String, u32> {
    let retry = scene.inbox().topics().retry(&scene.group);
    let mut reader = TopicReader::open(&scene.cluster, &retry, ReadFrom::Earliest, PATIENCE).unwrap();
    let mut counts = BTreeMap::new();
    while let Some(record) = reader.next_until_end(PATIENCE).unwrap() {
        *counts.entry(String::from_utf8(record.value.unwrap()).unwrap()).or_default() += 1;
    }
    assert!(reader.is_at_end());
    counts
}

/// The same once all are redriven: a transaction counts before its ends have come to all of its topics.
#[track_caller]
fn until_redriven(scene: &Scene, count: usize) -> BTreeMap<String, u32> {
    until("all are redriven, and none is parked", || {
        let seen = redriven(scene);
        (seen.len() == count && scene.inbox().parked_count().unwrap() == 0).then_some(seen)
    })
}

/// The process that is killed while it redrives. Not a test by itself: nothing happens where nobody gives it arguments.
#[test]
#[ignore = "a process that another test starts and kills"]
fn redrive_process() {
    if std::env::var_os("XTASK_REDRIVE_BOOTSTRAP").is_none() {
        return;
    }
    let argument = |name: &str| std::env::var(format!("XTASK_REDRIVE_{name}")).unwrap();
    let cluster = Cluster::new(argument("BOOTSTRAP"));
    let producer = Producer::new(&cluster, ProducerOptions::default()).unwrap();
    let inbox = FailureInbox::new(&cluster, producer, &argument("TOPIC")).timeout(PATIENCE);
    inbox.redrive(&Selection::All, "the killed one", false).unwrap();
    loop {
        std::thread::park();
    }
}

#[test]
fn a_redrive_that_is_killed_has_redriven_each_letter_once_or_not_at_all() {
    // On a busy machine a kill may come when all is done.
    let is_shown = (0..3).any(|_| redrives_once_though_it_is_killed());
    assert!(is_shown, "no kill came before the end: this showed nothing");
}

/// Whether a kill came before the end.
fn redrives_once_though_it_is_killed() -> bool {
    const COUNT: usize = 3_000;
    let scene = Scene::new();
    letters_of_a_stopped_group(&scene, COUNT);
    let retry = scene.inbox().topics().retry(&scene.group);
    let kafka = Kafka::new(scene.cluster.bootstrap());
    let mut interrupted_count = 0;
    for round in 0..3 {
        if scene.inbox().parked_count().unwrap() == 0 {
            break;
        }
        let begun = kafka.watermarks(&retry, 0).1;
        let mut process = process_of("failures::redrive_process")
            .env("XTASK_REDRIVE_BOOTSTRAP", scene.cluster.bootstrap())
            .env("XTASK_REDRIVE_TOPIC", &scene.topic)
            .spawn()
            .unwrap();
        // In the middle of a transaction, most times: something of it is written.
        until("the redrive writes", || (kafka.watermarks(&retry, 0).1 > begun + 1).then_some(()));
        process.kill().unwrap();
        process.wait().unwrap();
        // A dry run changes nothing, so what the kill left open stays open; readers of committed records do not see it.
        let parked = usize::try_from(scene.inbox().parked_count().unwrap()).unwrap();
        let seen = redriven(&scene);
        assert!(seen.values().all(|times| *times == 1), "round {round}: a letter was redriven twice");
        // Committed or not, as of two moments: what is decided is written, and nothing else is.
        interrupted_count += usize::from(parked > 0);
        println!("round {round}: {} of {COUNT} redriven, {parked} parked", seen.len());
    }
    let summary = scene.inbox().redrive(&Selection::All, "ann", false).unwrap();
    let seen = until_redriven(&scene, COUNT);
    assert!(seen.values().all(|times| *times == 1), "a letter was redriven twice");
    println!("{} were left for the last redrive", summary.done);
    interrupted_count > 0
}

#[test]
fn processes_that_redrive_at_the_same_time_redrive_each_letter_once() {
    const COUNT: usize = 600;
    let scene = Scene::new();
    letters_of_a_stopped_group(&scene, COUNT);
    let (inboxes, topic) = ([scene.inbox(), scene.inbox(), scene.inbox()], &scene.topic);
    std::thread::scope(|scope| {
        for inbox in &inboxes {
            scope.spawn(move || {
                loop {
                    match inbox.redrive(&Selection::All, "somebody", false) {
                        Ok(_) => return,
                        Err(InboxError::Overtaken { source_topic, .. }) => assert_eq!(&source_topic, topic),
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let seen = until_redriven(&scene, COUNT);
    assert!(seen.values().all(|times| *times == 1), "a letter was redriven twice");
}
