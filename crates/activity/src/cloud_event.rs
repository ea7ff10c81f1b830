//! An activity on the wire: a CloudEvents 1.0 event in JSON, with its attributes as record headers too.
//!
//! Owns the record format of the topic: key = tenant, value = the event in structured mode, headers `content-type`
//! and `ce_…`, so that a consumer can route a record without parsing it. Others may write binary mode as well: the attributes in
//! headers only, and the activity as the value. Invariant: `source` and `id` together name
//! one activity, as CloudEvents asks, because the source holds the tenant. Attributes that we do not know are
//! extensions and are ignored; unknown fields inside `data` are refused, since storing would drop them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tidings::Headers;
use tidings::event::names;
use tidings_http::FieldErrors;

use crate::activity::{Activity, Draft};
use crate::diagnose;
use crate::limits::MAX_RECORD_BYTES;
use crate::rules::{self, Origin};
use crate::text::Text;
use crate::timestamp::Timestamp;

/// The version of CloudEvents spoken.
pub const SPEC_VERSION: &str = names::SPEC_VERSION;
/// The type of every event written here.
pub const EVENT_TYPE: &str = "tidings.activity.v1";
/// The media type of the record's value.
pub const CONTENT_TYPE: &str = names::STRUCTURED_CONTENT_TYPE;

/// An event as it is written: the value of a record.
#[derive(Debug, Serialize)]
pub struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    #[serde(rename = "type")]
    kind: &'static str,
    subject: &'a str,
    time: Timestamp,
    datacontenttype: &'static str,
    data: &'a Activity<'a>,
}

impl<'a> CloudEvent<'a> {
    /// The event of `activity`.
    pub fn new(activity: &'a Activity<'a>) -> Self {
        Self {
            specversion: SPEC_VERSION,
            id: &activity.id,
            source: source(&activity.tenant),
            kind: EVENT_TYPE,
            subject: &activity.action,
            time: activity.occurred_at,
            datacontenttype: "application/json",
            data: activity,
        }
    }

    /// The attributes as headers, in the spelling of CloudEvents' Kafka binding.
    pub fn headers(&self) -> [(&'static str, Cow<'a, str>); 7] {
        [
            (names::CONTENT_TYPE, Cow::Borrowed(CONTENT_TYPE)),
            (names::SPECVERSION, Cow::Borrowed(self.specversion)),
            (names::ID, Cow::Borrowed(self.id)),
            (names::SOURCE, Cow::Owned(self.source.clone())),
            (names::TYPE, Cow::Borrowed(self.kind)),
            (names::SUBJECT, Cow::Borrowed(self.subject)),
            (names::TIME, Cow::Owned(self.time.to_string())),
        ]
    }

    /// The value of the record.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = Vec::with_capacity(1024);
        // Writing strings and raw JSON into memory cannot fail.
        let written = serde_json::to_writer(&mut json, self);
        debug_assert!(written.is_ok());
        // Thousands of them may wait for the cluster together.
        json.shrink_to_fit();
        json
    }
}

/// `/tenants/{tenant}/activities` as a URI reference.
fn source(tenant: &str) -> String {
    use std::fmt::Write;
    let mut source = String::with_capacity(tenant.len() + 21);
    source.push_str("/tenants/");
    for byte in tenant.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => source.push(byte as char),
            other => {
                // Writing into a String cannot fail.
                let _ = write!(source, "%{other:02X}");
            }
        }
    }
    source.push_str("/activities");
    source
}

/// An event as it is read.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    specversion: Text<'a>,
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow, default)]
    time: Option<Text<'a>>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Why a record of the topic is no activity.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The record has no value.
    #[error("expected a CloudEvents event, found a record without a value")]
    Empty,
    /// The value is longer than any activity.
    #[error("the value has {found} bytes, more than the {MAX_RECORD_BYTES} allowed")]
    TooLarge {
        /// Bytes of the value.
        found: usize,
    },
    /// The value is not JSON.
    #[error("the value is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// The value is JSON, but no CloudEvents event.
    #[error("the value is not a CloudEvents {SPEC_VERSION} event: {0}")]
    NotAnEvent(String),
    /// The event's data is no activity.
    #[error("the data is not an activity: {}", rules::summary(.0))]
    NotAnActivity(FieldErrors),
}

/// Reads the activity out of a record, in whichever mode it is; `record_time` stands in for times that the event leaves out.
pub fn read_record<'a>(
    value: Option<&'a [u8]>,
    headers: &'a Headers,
    record_time: Timestamp,
) -> Result<Activity<'a>, RecordError> {
    match read(value, record_time) {
        // A value that is an event by itself is one whatever its headers say: nobody's data has a `specversion`.
        Err(RecordError::NotAnEvent(_)) if is_binary(headers) => {
            read_binary(value.unwrap_or_default(), headers, record_time)
        }
        read => read,
    }
}

/// The same out of a value alone, in structured mode.
pub fn read(value: Option<&[u8]>, record_time: Timestamp) -> Result<Activity<'_>, RecordError> {
    let value = value.ok_or(RecordError::Empty)?;
    if value.len() > MAX_RECORD_BYTES {
        return Err(RecordError::TooLarge { found: value.len() });
    }
    let envelope: Envelope<'_> = serde_json::from_slice(value).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => RecordError::NotAnEvent(diagnose::reason(&error)),
        _ => RecordError::NotJson(error),
    })?;
    if envelope.specversion != SPEC_VERSION {
        let found = format!("specversion is {:?}", envelope.specversion.as_str());
        return Err(RecordError::NotAnEvent(found));
    }
    read_data(envelope.data.get(), envelope.id, envelope.time, record_time)
}

fn is_binary(headers: &Headers) -> bool {
    let content_type = headers.last_str(names::CONTENT_TYPE).unwrap_or_default();
    !content_type.starts_with(CONTENT_TYPE) && headers.last_str(names::SPECVERSION).is_some()
}

fn read_binary<'a>(
    value: &'a [u8],
    headers: &'a Headers,
    record_time: Timestamp,
) -> Result<Activity<'a>, RecordError> {
    let attribute = |name| headers.last_str(name).map(Text::from);
    let needed =
        |name| attribute(name).ok_or_else(|| RecordError::NotAnEvent(format!("there is no header `{name}`")));
    let version = needed(names::SPECVERSION)?;
    if version != SPEC_VERSION {
        let found = format!("the header `{}` is {:?}", names::SPECVERSION, version.as_str());
        return Err(RecordError::NotAnEvent(found));
    }
    let data = std::str::from_utf8(value).map_err(|error| RecordError::NotAnEvent(error.to_string()))?;
    read_data(data, needed(names::ID)?, attribute(names::TIME), record_time)
}

/// The attributes stand in for what the data leaves out, and obey the same rules.
fn read_data<'a>(
    data: &'a str,
    id: Text<'a>,
    time: Option<Text<'a>>,
    record_time: Timestamp,
) -> Result<Activity<'a>, RecordError> {
    let mut draft: Draft<'_> = serde_json::from_str(data)
        .map_err(|error| RecordError::NotAnActivity(diagnose::refused(data, &error)))?;
    draft.id = Some(draft.id.unwrap_or(id));
    draft.occurred_at = draft.occurred_at.or(time);
    draft.check(Origin::Record).map_err(RecordError::NotAnActivity)?;
    Ok(draft.complete(record_time, String::new))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TIME: i64 = 1_357_035_420_000_000;

    fn time() -> Timestamp {
        Timestamp::from_micros(TIME).unwrap()
    }

    fn check(value: &str, expected: &str) {
        let found = match read(Some(value.as_bytes()), time()) {
            Ok(activity) => serde_json::to_string(&activity).unwrap(),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn round_trips_with_every_field() {
        let draft = r#"{"id":"a/1","tenant":"acmé & co","actor":{"type":"user","id":"u1","name":"Ann"},
            "action":"invoice.created","targets":[{"type":"invoice","id":"i1"},{"id":"i2","name":"two"}],
            "context":{"ip":"::1","user_agent":"curl \"8\""},"metadata":{"amount": 12345678901234567890.10,
            "z":1,"a":2},"occurred_at":"2013-01-01T05:17:00.25-05:00"}"#;
        let draft: Draft<'_> = serde_json::from_str(draft).unwrap();
        let activity = draft.complete(time(), String::new);
        let event = CloudEvent::new(&activity);
        let json = event.to_json();
        assert!(!json.contains(&b'\n'));
        assert_eq!(json.capacity(), json.len());
        assert_eq!(read(Some(&json), Timestamp::MIN).unwrap(), activity);
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value["source"], "/tenants/acm%C3%A9%20%26%20co/activities");
        assert_eq!(value["time"], "2013-01-01T10:17:00.25Z");
        assert!(String::from_utf8(json).unwrap().contains("12345678901234567890.10"));
        for (name, text) in event.headers() {
            let attribute = name.trim_start_matches("ce_");
            let expected =
                if name == "content-type" { CONTENT_TYPE } else { value[attribute].as_str().unwrap() };
            assert_eq!(text, expected, "{name}");
        }
    }

    #[test]
    fn fills_in_from_the_envelope_and_the_record() {
        check(
            r#"{"specversion":"1.0","id":"7","source":"/x","type":"y","ext":{"a":1},"time":"2013-01-02T00:00:00Z",
                "data":{"tenant":"t","action":"a"}}"#,
            r#"{"id":"7","tenant":"t","action":"a","occurred_at":"2013-01-02T00:00:00Z","received_at":"2013-01-01T10:17:00Z"}"#,
        );
        check(
            r#"{"specversion":"1.0","id":"7","source":"/x","type":"y","data":{"id":"8","tenant":"t","action":"a"}}"#,
            r#"{"id":"8","tenant":"t","action":"a","occurred_at":"2013-01-01T10:17:00Z","received_at":"2013-01-01T10:17:00Z"}"#,
        );
    }

    #[test]
    fn says_what_is_wrong_with_a_record() {
        check("", "the value is not JSON: EOF while parsing a value at line 1 column 0");
        check("not json", "the value is not JSON: expected ident at line 1 column 2");
        check(
            "42",
            "the value is not a CloudEvents 1.0 event: invalid type: integer `42`, expected struct Envelope",
        );
        check(
            r#"{"tenant":"t","action":"a"}"#,
            "the value is not a CloudEvents 1.0 event: missing field `specversion`",
        );
        check(
            r#"{"specversion":"0.3","id":"7","data":{}}"#,
            r#"the value is not a CloudEvents 1.0 event: specversion is "0.3""#,
        );
        check(
            r#"{"specversion":"1.0","id":"7","data":{"tenant":7,"actor":[],"targets":[{"id":"1"},3],"extra":1}}"#,
            "the data is not an activity: tenant: expected a string, found a number; \
             actor: expected an object, found an array; action: is missing; \
             targets[1]: expected an object, found a number; extra: is unknown; known are id, tenant, actor, \
             action, targets, context, metadata, occurred_at, received_at",
        );
        check(
            r#"{"specversion":"1.0","id":"7","data":{"tenant":"t","tenant":"u","action":"a"}}"#,
            "the data is not an activity: duplicate field `tenant`",
        );
        check(
            r#"{"specversion":"1.0","id":"","data":{"tenant":"t","action":"a"}}"#,
            "the data is not an activity: id: is empty",
        );
        assert!(matches!(read(None, time()), Err(RecordError::Empty)));
        let large = vec![b' '; MAX_RECORD_BYTES + 1];
        assert!(matches!(read(Some(&large), time()), Err(RecordError::TooLarge { .. })));
        assert!(matches!(read(Some(b"{\"id\":\"\xff\"}"), time()), Err(RecordError::NotJson(_))));
    }

    #[test]
    fn reads_binary_mode_too() {
        let check = |headers: &[(&str, &str)], value: &str, expected: &str| {
            let mut kept = Headers::new();
            headers.iter().for_each(|(name, value)| kept.push(name, value));
            let found = match read_record(Some(value.as_bytes()), &kept, time()) {
                Ok(activity) => serde_json::to_string(&activity).unwrap(),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expected, "{headers:?} {value}");
        };
        let data = r#"{"tenant":"t","action":"a"}"#;
        let activity = |id: &str, day: u32, hour: &str| {
            format!(
                r#"{{"id":"{id}","tenant":"t","action":"a","occurred_at":"2013-01-0{day}T{hour}Z","received_at":"2013-01-01T10:17:00Z"}}"#
            )
        };
        let (version, id) = ((names::SPECVERSION, "1.0"), (names::ID, "7"));
        let json = (names::CONTENT_TYPE, "application/json");
        let at = (names::TIME, "2013-01-02T00:00:00Z");
        check(&[version, id, json, at, (names::TYPE, "y")], data, &activity("7", 2, "00:00:00"));
        check(&[version, id], data, &activity("7", 1, "10:17:00"));
        let own = r#"{"id":"8","tenant":"t","action":"a"}"#;
        check(&[version, id], own, &activity("8", 1, "10:17:00"));
        // In structured mode the value says it all.
        let event = format!(r#"{{"specversion":"1.0","id":"9","data":{data}}}"#);
        for headers in [vec![version, id], vec![version, id, (names::CONTENT_TYPE, CONTENT_TYPE)]] {
            check(&headers, &event, &activity("9", 1, "10:17:00"));
        }
        let refused = |why: &str| format!("the value is not a CloudEvents 1.0 event: {why}");
        check(&[version], data, &refused("there is no header `ce_id`"));
        check(&[(names::SPECVERSION, "0.3"), id], data, &refused(r#"the header `ce_specversion` is "0.3""#));
        check(&[id], data, &refused("missing field `specversion`"));
        let structured = (names::CONTENT_TYPE, "application/cloudevents+json; charset=utf-8");
        check(&[version, id, structured], data, &refused("missing field `specversion`"));
        check(&[version, id], "not json", "the value is not JSON: expected ident at line 1 column 2");
        check(&[version, id], r#"{"tenant":"t"}"#, "the data is not an activity: action: is missing");
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(Some(&bytes), Timestamp::MIN);
        }

        #[test]
        fn never_panics_on_data(data in crate::testing::arbitrary_json()) {
            let event = format!(r#"{{"specversion":"1.0","id":"1","data":{data}}}"#);
            let _ = read(Some(event.as_bytes()), Timestamp::MIN);
        }
    }
}
