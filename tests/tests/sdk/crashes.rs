//! Handlers that panic: the consumer ends, tells, and loses nothing; or the record counts as rejected.

use std::sync::{Arc, Mutex};

use tidings::ReceivedRecord;
use tidings::consumer::{
    Consumer, ConsumerOptions, Crash, CrashHandler, Ordering, Outcome, Phase, StopError,
};
use tidings::failure::{Selection, StatusFilter};
use tidings_tests::until;

use crate::support::{STOP_LIMIT, Scene};

const COUNT: usize = 64;
const KEYS: usize = 16;
/// The value whose handler panics.
const POISON: usize = 3;

type Done = Arc<Mutex<Vec<usize>>>;
type Crashes = Arc<Mutex<Vec<(String, String)>>>;

fn start(
    scene: &Scene,
    mut options: ConsumerOptions,
    done: &Done,
    crashes: &Crashes,
    is_bad: bool,
) -> Consumer {
    let (done, crashes) = (Arc::clone(done), Arc::clone(crashes));
    options.on_crash = Some(CrashHandler::new(move |crash: &Crash<'_>| {
        crashes.lock().unwrap().push((crash.group.to_string(), crash.reason.to_string()));
    }));
    let handler = move |record: &ReceivedRecord| {
        let value = std::str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse().unwrap();
        assert!(!is_bad || value != POISON, "no order is called {value}");
        done.lock().unwrap().push(value);
        Outcome::Done
    };
    let options = options.ordering(Ordering::Key).max_concurrency(8);
    Consumer::for_each(&scene.cluster, scene.producer.clone(), options, handler).unwrap()
}

#[test]
fn a_panic_ends_the_consumer_tells_where_it_was_and_loses_nothing() {
    let scene = Scene::new();
    scene.produce_numbers(&scene.topic, 0..COUNT, KEYS);
    let (done, crashes) = (Done::default(), Crashes::default());
    let consumer = start(&scene, scene.options(), &done, &crashes, true);
    let reason = until("it ends", || match consumer.state().phase {
        Phase::Failed { reason } => Some(reason),
        _ => None,
    });
    assert!(reason.starts_with(&scene.topic), "{reason}");
    assert!(reason.ends_with(": the handler panicked: no order is called 3"), "{reason}");
    let stopped = consumer.stop(STOP_LIMIT);
    assert_eq!(stopped, Err(StopError::Failed { group: scene.group.clone(), reason: reason.clone() }));
    assert_eq!(*crashes.lock().unwrap(), [(scene.group.clone(), reason)]);

    let before = done.lock().unwrap().len();
    let consumer = start(&scene, scene.options(), &done, &crashes, false);
    until("all are done", || (done.lock().unwrap().len() >= COUNT).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
    let mut done = done.lock().unwrap().clone();
    done.sort_unstable();
    assert_eq!(
        done,
        (0..COUNT).collect::<Vec<_>>(),
        "what was done before the panic, {before}, is committed"
    );
    assert_eq!(crashes.lock().unwrap().len(), 1, "a stop is no crash");
}

#[test]
fn a_record_that_makes_its_handler_panic_becomes_a_letter_where_that_is_asked_for() {
    let scene = Scene::new();
    scene.produce_numbers(&scene.topic, 0..COUNT, KEYS);
    let (done, crashes) = (Done::default(), Crashes::default());
    let mut options = scene.options().preserve_key_order();
    options.reject_panics = true;
    let consumer = start(&scene, options.clone(), &done, &crashes, true);
    let waiting = COUNT / KEYS;
    until("all other keys are done", || (done.lock().unwrap().len() == COUNT - waiting).then_some(()));
    until("its key waits", || (consumer.state().rejected == waiting as u64).then_some(()));
    assert_eq!(consumer.state().phase, Phase::Running);
    consumer.stop(STOP_LIMIT).unwrap();
    let inbox = scene.inbox();
    // The ends of a transaction come to its topics one by one.
    let letters = until("its letters can be read", || {
        let letters = inbox.list(StatusFilter::Parked, None, 10).unwrap().items;
        (letters.len() == waiting).then_some(letters)
    });
    let errors: Vec<_> = letters.into_iter().filter_map(|letter| Some(letter.context?.error)).collect();
    let told = "the handler panicked: no order is called 3";
    assert_eq!(errors.iter().filter(|error| *error == told).count(), 1, "{errors:?}");
    let consumer = start(&scene, options, &done, &crashes, false);
    inbox.redrive(&Selection::All, "ann", false).unwrap();
    until("all are done", || (done.lock().unwrap().len() == COUNT).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
    assert!(done.lock().unwrap().iter().filter(|value| *value % KEYS == POISON).is_sorted());
    assert!(crashes.lock().unwrap().is_empty());
}
