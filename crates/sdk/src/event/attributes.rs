//! The attributes of an event, in headers or beside its data.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Event, EventError, EventType, names};
use crate::record::{Headers, ReceivedRecord};

/// An event whose data is not decoded yet.
#[derive(Debug)]
pub(super) struct Attributes<'a> {
    pub(super) id: String,
    pub(super) source: String,
    pub(super) kind: String,
    pub(super) subject: Option<String>,
    pub(super) time: Option<Timestamp>,
    pub(super) correlation_id: Option<String>,
    pub(super) causation_id: Option<String>,
    pub(super) schema: Option<String>,
    pub(super) data: Cow<'a, [u8]>,
}

pub(super) fn write<T: EventType>(event: &Event<T>, content_type: &str, headers: &mut Headers) {
    headers.push(names::CONTENT_TYPE, content_type);
    headers.push(names::SPECVERSION, names::SPEC_VERSION);
    headers.push(names::ID, &event.id);
    headers.push(names::SOURCE, &event.source);
    headers.push(names::TYPE, T::TYPE);
    let time = event.time.map(|time| time.to_string());
    let optional = [
        (names::SUBJECT, &event.subject),
        (names::TIME, &time),
        (names::DATASCHEMA, &event.schema),
        (names::CORRELATION_ID, &event.correlation_id),
        (names::CAUSATION_ID, &event.causation_id),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            headers.push(name, value);
        }
    }
}

impl<'a> Attributes<'a> {
    pub(super) fn read(record: &'a ReceivedRecord) -> Result<Self, EventError> {
        let value = record.value.as_deref().unwrap_or_default();
        let content_type = record.headers.last_str(names::CONTENT_TYPE).unwrap_or_default();
        match content_type.starts_with(names::STRUCTURED_CONTENT_TYPE) {
            true => Self::beside_data(value),
            false => Self::in_headers(&record.headers, value),
        }
    }

    fn in_headers(headers: &Headers, value: &'a [u8]) -> Result<Self, EventError> {
        let text = |name: &str| headers.last_str(name).map(str::to_owned);
        let needed = |name: &'static str| required(text(name), attribute(name));
        check_version(&needed(names::SPECVERSION)?)?;
        Ok(Self {
            id: needed(names::ID)?,
            source: needed(names::SOURCE)?,
            kind: needed(names::TYPE)?,
            subject: text(names::SUBJECT),
            time: text(names::TIME).map(|time| parse_time(&time)).transpose()?,
            correlation_id: text(names::CORRELATION_ID),
            causation_id: text(names::CAUSATION_ID),
            schema: text(names::DATASCHEMA),
            data: Cow::Borrowed(value),
        })
    }

    fn beside_data(value: &'a [u8]) -> Result<Self, EventError> {
        let envelope: Envelope<'a> = serde_json::from_slice(value)
            .map_err(|error| EventError::Envelope { reason: error.to_string() })?;
        check_version(&required(envelope.specversion, "specversion")?)?;
        Ok(Self {
            id: required(envelope.id, "id")?,
            source: required(envelope.source, "source")?,
            kind: required(envelope.kind, "type")?,
            subject: envelope.subject,
            time: envelope.time.map(|time| parse_time(&time)).transpose()?,
            correlation_id: envelope.correlationid,
            causation_id: envelope.causationid,
            schema: envelope.dataschema,
            data: Cow::Borrowed(envelope.data.map_or("null", RawValue::get).as_bytes()),
        })
    }
}

/// What stands around the data in structured mode, as far as it is used here.
#[derive(Deserialize)]
struct Envelope<'a> {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    subject: Option<String>,
    time: Option<String>,
    dataschema: Option<String>,
    correlationid: Option<String>,
    causationid: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// CloudEvents allows no empty attributes.
fn required(value: Option<String>, attribute: &'static str) -> Result<String, EventError> {
    value.filter(|value| !value.is_empty()).ok_or(EventError::Missing { attribute })
}

fn attribute(header: &'static str) -> &'static str {
    header.strip_prefix("ce_").unwrap_or(header)
}

fn check_version(found: &str) -> Result<(), EventError> {
    match found == names::SPEC_VERSION {
        true => Ok(()),
        false => Err(EventError::Attribute { attribute: "specversion", found: found.to_owned() }),
    }
}

fn parse_time(found: &str) -> Result<Timestamp, EventError> {
    found.parse().map_err(|_| EventError::Attribute { attribute: "time", found: found.to_owned() })
}
