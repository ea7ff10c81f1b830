//! Typed events: the function of their type is called, and what cannot be read parks or stops, as told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};
use tidings::Record;
use tidings::consumer::{Consumer, ConsumerState, Outcome, Phase};
use tidings::event::{Codec, CodecError, Event, EventType, Events, Unreadable};
use tidings::failure::StatusFilter;
use tidings_tests::until;

use crate::support::{STOP_LIMIT, Scene};

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    total: u32,
}

impl EventType for OrderPlaced {
    const TYPE: &'static str = "com.example.order.placed.v1";
}

/// Ten events, one of another type, and one that is none.
fn produce(scene: &Scene) {
    let event = |total: u32| {
        Event::new("/orders", OrderPlaced { total }).to_record(&scene.topic).unwrap().key(total.to_string())
    };
    let mut records: Vec<_> = (1..=10).map(event).collect();
    records.push(event(100).header("ce_type", "com.example.order.cancelled.v1"));
    records.push(Record::new(scene.topic.as_str()).value("boom"));
    scene.send(&records);
}

/// A handler that adds up what was placed.
fn adding(sum: &Arc<AtomicU32>) -> Events {
    let sum = Arc::clone(sum);
    Events::new().on(move |placed: &Event<OrderPlaced>| {
        sum.fetch_add(placed.data.total, Ordering::Relaxed);
        Outcome::Done
    })
}

#[test]
fn events_are_worked_on_by_type_and_what_is_none_is_parked() {
    let scene = Scene::new();
    produce(&scene);
    let sum = Arc::new(AtomicU32::new(0));
    let consumer =
        Consumer::for_each(&scene.cluster, scene.producer.clone(), scene.options(), adding(&sum)).unwrap();
    until("all are worked on", || (consumer.state().processed == 12).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
    assert_eq!(sum.load(Ordering::Relaxed), 55);
    let letters = scene.inbox().list(StatusFilter::Parked, None, 10).unwrap().items;
    assert_eq!(letters.len(), 1);
    let error = letters[0].context.clone().unwrap().error;
    assert_eq!(error, "not a CloudEvents event: specversion is missing");
}

/// Starts consumers of groups of their own over the same records, one for each policy.
#[test]
fn each_policy_does_what_it_says_with_unknown_types_and_with_what_is_no_event() {
    let scene = Scene::new();
    produce(&scene);
    for (unknown, undecodable, letters) in [
        (Unreadable::Skip, Unreadable::Skip, &[][..]),
        (Unreadable::Park, Unreadable::Skip, &["unknown event type com.example.order.cancelled.v1"][..]),
        (Unreadable::Skip, Unreadable::Park, &["not a CloudEvents event: specversion is missing"][..]),
        (Unreadable::Skip, Unreadable::Fail, &[][..]),
    ] {
        let sum = Arc::new(AtomicU32::new(0));
        let mut options = scene.options();
        options.group = format!("{}-{unknown:?}-{undecodable:?}", scene.group);
        let events = adding(&sum).unknown(unknown).undecodable(undecodable);
        let group = options.group.clone();
        let consumer = Consumer::for_each(&scene.cluster, scene.producer.clone(), options, events).unwrap();
        let failure = until("all are worked on, or it stops", || match consumer.state() {
            ConsumerState { phase: Phase::Failed { reason }, .. } => Some(Some(reason)),
            ConsumerState { processed: 12, .. } => Some(None),
            _ => None,
        });
        let stopped = consumer.stop(STOP_LIMIT);
        assert_eq!(stopped.is_err(), undecodable == Unreadable::Fail);
        assert_eq!(failure.is_some(), undecodable == Unreadable::Fail, "{failure:?}");
        assert!(failure.is_none_or(|reason| reason.contains("specversion is missing")));
        let found: Vec<_> = match scene.inbox().list(StatusFilter::Parked, None, 10) {
            Ok(page) => page.items.into_iter().filter_map(|letter| letter.context).collect(),
            Err(error) => panic!("{error}"),
        };
        let errors: Vec<_> =
            found.iter().filter(|context| context.group == group).map(|context| &*context.error).collect();
        assert_eq!(errors, letters, "{unknown:?} {undecodable:?}");
    }
}

#[test]
fn a_consumer_that_may_not_pass_an_unknown_type_stops_and_says_why() {
    let scene = Scene::new();
    produce(&scene);
    let sum = Arc::new(AtomicU32::new(0));
    let start = |events: Events| {
        Consumer::for_each(&scene.cluster, scene.producer.clone(), scene.options(), events).unwrap()
    };
    let consumer = start(adding(&sum).unknown(Unreadable::Fail));
    let reason = until("it stops", || match consumer.state().phase {
        Phase::Failed { reason } => Some(reason),
        _ => None,
    });
    assert!(reason.contains("unknown event type com.example.order.cancelled.v1"), "{reason}");
    assert!(reason.contains(&scene.topic), "{reason}");
    assert!(consumer.stop(STOP_LIMIT).is_err());
    // Whoever knows the type, or may skip it, goes on with it: nothing is lost.
    let consumer = start(adding(&sum).unknown(Unreadable::Skip));
    until("all are worked on", || (sum.load(Ordering::Relaxed) >= 55).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
    assert_eq!(sum.load(Ordering::Relaxed), 55, "each event once");
}

/// Totals as text.
struct Text;

impl Codec<OrderPlaced> for Text {
    fn content_type(&self) -> &str {
        "text/plain; charset=utf-8"
    }

    fn encode(&self, placed: &OrderPlaced) -> Result<Vec<u8>, CodecError> {
        Ok(format!("total {}", placed.total).into_bytes())
    }

    fn decode(&self, bytes: &[u8]) -> Result<OrderPlaced, CodecError> {
        let text = std::str::from_utf8(bytes).ok().and_then(|text| text.strip_prefix("total "));
        let total =
            text.and_then(|total| total.parse().ok()).ok_or_else(|| CodecError::new("not a total"))?;
        Ok(OrderPlaced { total })
    }
}

#[test]
fn data_of_any_form_is_read_by_the_codec_that_wrote_it() {
    let scene = Scene::new();
    let placed = Event::new("/orders", OrderPlaced { total: 12 });
    let because = Event::new("/orders", OrderPlaced { total: 30 }).because_of(&placed);
    let (id, cause) = (because.id.clone(), placed.id.clone());
    let mut records: Vec<_> =
        [&placed, &because].iter().map(|event| event.to_record_with(&scene.topic, &Text).unwrap()).collect();
    let mut broken = records[0].clone();
    broken.value = Some(b"twelve".to_vec());
    records.push(broken);
    scene.send(&records);
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let events = Events::new().on_with(Text, move |placed: &Event<OrderPlaced>| {
        log.lock().unwrap().push((placed.data.total, placed.id.clone(), placed.causation_id.clone()));
        Outcome::Done
    });
    let consumer =
        Consumer::for_each(&scene.cluster, scene.producer.clone(), scene.options(), events).unwrap();
    until("all are worked on", || (consumer.state().processed == 3).then_some(()));
    consumer.stop(STOP_LIMIT).unwrap();
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    assert_eq!(seen, [(12, cause.clone(), None), (30, id, Some(cause))]);
    let letters = scene.inbox().list(StatusFilter::Parked, None, 10).unwrap().items;
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(letter.value.as_deref(), Some(&b"twelve"[..]));
    assert_eq!(letter.headers.last_str("content-type"), Some("text/plain; charset=utf-8"));
    let context = letter.context.clone().unwrap();
    assert!(format!("{} {:?}", context.error, context.causes).contains("not a total"), "{context:?}");
}
