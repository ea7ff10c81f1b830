use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use super::*;
use crate::consumer::{Outcome, RecordHandler};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OrderPlaced {
    total: u32,
}

impl EventType for OrderPlaced {
    const TYPE: &'static str = "com.example.order.placed.v1";
    const SCHEMA: Option<&'static str> = Some("https://example.com/order-placed.json");
}

fn received(record: Record) -> ReceivedRecord {
    ReceivedRecord {
        topic: record.topic,
        partition: 0,
        offset: 7,
        timestamp_ms: None,
        key: record.key,
        value: record.value,
        headers: record.headers,
    }
}

fn placed() -> Event<OrderPlaced> {
    let cause = Event::new("/carts", OrderPlaced { total: 1 });
    Event::new("/orders", OrderPlaced { total: 12 }).subject("ordér-17").because_of(&cause)
}

#[test]
fn an_event_comes_back_as_it_was() {
    let event = placed();
    let record = event.to_record("orders").unwrap();
    let headers: Vec<_> =
        record.headers.iter().map(|(name, _)| String::from_utf8(name.to_vec()).unwrap()).collect();
    let expected = [
        "content-type",
        "ce_specversion",
        "ce_id",
        "ce_source",
        "ce_type",
        "ce_subject",
        "ce_time",
        "ce_dataschema",
        "ce_correlationid",
        "ce_causationid",
    ];
    assert_eq!(headers, expected);
    assert_eq!(record.headers.last_str("content-type"), Some("application/json"));
    assert_eq!(Event::from_record(&received(record)).unwrap(), event);
}

#[test]
fn what_follows_from_an_event_keeps_its_correlation() {
    let first = Event::new("/a", OrderPlaced { total: 1 });
    let second = Event::new("/b", OrderPlaced { total: 2 }).because_of(&first);
    let third = Event::new("/c", OrderPlaced { total: 3 }).because_of(&second);
    assert_eq!(second.correlation_id.as_ref(), Some(&first.id));
    assert_eq!((third.correlation_id, third.causation_id), (Some(first.id), Some(second.id)));
}

#[test]
fn attributes_beside_the_data_are_read_too() {
    let value = r#"{"specversion":"1.0","id":"1","source":"/x","type":"com.example.order.placed.v1",
        "time":"2013-01-01T05:17:00.25-05:00","data":{"total":3},"other":{"a":1}}"#;
    let record = Record::new("orders").header("content-type", "application/cloudevents+json; charset=utf-8");
    let event: Event<OrderPlaced> = Event::from_record(&received(record.value(value))).unwrap();
    assert_eq!((event.data.total, event.time.unwrap().to_string().as_str()), (3, "2013-01-01T10:17:00.25Z"));
}

/// A record with these headers and this value, and what is wrong with it.
fn check(change: impl Fn(Record) -> Record, expected: &str) {
    let bare = Record::new("orders")
        .header("ce_specversion", "1.0")
        .header("ce_id", "1")
        .header("ce_source", "/x")
        .header("ce_type", OrderPlaced::TYPE)
        .value(r#"{"total":3}"#);
    let error = Event::<OrderPlaced>::from_record(&received(change(bare))).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn what_is_no_such_event_is_said() {
    check(|_| Record::new("orders").value("x"), "not a CloudEvents event: specversion is missing");
    check(|record| record.header("ce_id", ""), "not a CloudEvents event: id is missing");
    check(|record| record.header("ce_id", [0xff]), "not a CloudEvents event: id is missing");
    check(
        |record| record.header("ce_specversion", "0.3"),
        r#"not a CloudEvents 1.0 event: specversion is "0.3""#,
    );
    check(|record| record.header("ce_time", "noon"), r#"not a CloudEvents 1.0 event: time is "noon""#);
    check(|record| record.header("ce_type", "other"), "unknown event type other");
    check(
        |record| record.value("{"),
        "the data of an event com.example.order.placed.v1 cannot be decoded: \
         EOF while parsing an object at line 1 column 1",
    );
    check(
        |record| record.header("content-type", "application/cloudevents+json").value("{}"),
        "not a CloudEvents event: specversion is missing",
    );
}

#[test]
fn the_function_of_the_type_is_called_and_the_rest_goes_as_told() {
    let event = received(placed().to_record("orders").unwrap());
    let other = {
        let mut record = placed().to_record("orders").unwrap();
        record.headers.push("ce_type", "com.example.order.cancelled.v1");
        received(record)
    };
    let broken = received(Record::new("orders").value("x"));
    let handler = |unreadable| {
        Events::new()
            .on(|placed: &Event<OrderPlaced>| {
                static CALLS: AtomicU32 = AtomicU32::new(0);
                CALLS.fetch_add(placed.data.total, Ordering::Relaxed);
                Outcome::Done
            })
            .unknown(unreadable)
            .undecodable(unreadable)
    };
    assert_eq!(Events::new().handle(&event), Outcome::Done, "other types are skipped by default");
    assert!(matches!(Events::new().handle(&broken), Outcome::Reject(_)), "what is no event is parked");
    for policy in [Unreadable::Skip, Unreadable::Park, Unreadable::Fail] {
        let events = handler(policy);
        assert_eq!(events.handle(&event), Outcome::Done);
        for record in [&other, &broken] {
            let outcome = events.handle(record);
            let is_as_told = match policy {
                Unreadable::Skip => outcome == Outcome::Done,
                Unreadable::Park => matches!(outcome, Outcome::Reject(_)),
                Unreadable::Fail => matches!(outcome, Outcome::Fail(_)),
            };
            assert!(is_as_told, "{policy:?}: {outcome:?}");
        }
    }
}
