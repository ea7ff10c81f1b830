//! Typed events: CloudEvents 1.0 on Kafka, its attributes in headers and its data in the value (binary content mode).
//!
//! [`Event`] is what an application makes and gets; [`Events`] is a handler that calls one function for each type. Data is
//! JSON unless another [`Codec`] is given. Events whose attributes and data stand in the value together (structured mode,
//! `application/cloudevents+json`) are read as well, where the data is JSON.
//!
//! **Invariant:** what is written here is a CloudEvents event for everybody else, too.
//! [`names`] has the names of headers that all parts share.
//!
//! What is not here: a schema registry.

mod attributes;
mod codec;
mod events;
pub mod names;

use jiff::Timestamp;
use thiserror::Error;
use uuid::Uuid;

use crate::record::{ReceivedRecord, Record};
use attributes::Attributes;
pub use codec::{Codec, CodecError, Json};
pub use events::{Events, Unreadable};

/// What says which events carry a type: the name goes into the attribute `type`, and does not change any more.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings::event::{Event, EventType};
///
/// #[derive(Serialize, Deserialize)]
/// struct OrderPlaced {
///     total: u32,
/// }
///
/// impl EventType for OrderPlaced {
///     const TYPE: &'static str = "com.example.order.placed.v1";
///     const SCHEMA: Option<&'static str> = Some("https://example.com/schemas/order-placed-v1.json");
/// }
///
/// let placed = Event::new("/orders", OrderPlaced { total: 12 });
/// let record = placed.to_record("orders")?;
/// assert_eq!(record.headers.last_str("ce_type"), Some(OrderPlaced::TYPE));
/// assert_eq!(record.headers.last_str("ce_dataschema"), OrderPlaced::SCHEMA);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait EventType {
    /// The type, as others see it: `com.example.order.placed.v1`.
    const TYPE: &'static str;
    /// A URI of the schema that the data follows.
    const SCHEMA: Option<&'static str> = None;
}

/// Something that has happened.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings::event::{Event, EventType};
///
/// #[derive(Serialize, Deserialize)]
/// struct OrderPlaced {
///     total: u32,
/// }
///
/// impl EventType for OrderPlaced {
///     const TYPE: &'static str = "com.example.order.placed.v1";
/// }
///
/// let placed = Event::new("/orders", OrderPlaced { total: 12 }).subject("order-17");
/// let record = placed.to_record("orders")?.key("customer-7");
/// assert_eq!(record.headers.last_str("ce_type"), Some("com.example.order.placed.v1"));
/// assert_eq!(record.value.as_deref(), Some(br#"{"total":12}"#.as_slice()));
/// # Ok::<(), tidings::event::CodecError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<T> {
    /// With the source it names one event: whoever gets the two again has had this event before.
    pub id: String,
    /// Where it happened, as a URI reference.
    pub source: String,
    /// What it happened to, within the source.
    pub subject: Option<String>,
    /// When it happened.
    pub time: Option<Timestamp>,
    /// The same in all events that go back to one cause from outside.
    pub correlation_id: Option<String>,
    /// The id of the event that was the reason for this one.
    pub causation_id: Option<String>,
    /// A URI of the schema that the data follows.
    pub schema: Option<String>,
    /// What happened.
    pub data: T,
}

/// Why a record is no event of the type that was asked for.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings::ReceivedRecord;
/// use tidings::consumer::Outcome;
/// use tidings::event::{Event, EventError, EventType};
/// use tidings::failure::Failure;
///
/// #[derive(Serialize, Deserialize)]
/// struct OrderPlaced {
///     total: u32,
/// }
///
/// impl EventType for OrderPlaced {
///     const TYPE: &'static str = "com.example.order.placed.v1";
/// }
///
/// fn handle(record: &ReceivedRecord) -> Outcome {
///     match Event::<OrderPlaced>::from_record(record) {
///         Ok(placed) => println!("{} for {}", placed.id, placed.data.total),
///         Err(EventError::UnknownType { found }) => println!("{found} is for others"),
///         Err(error) => return Outcome::Reject(Failure::from_error(&error)),
///     }
///     Outcome::Done
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EventError {
    /// An attribute that every event has is missing.
    #[error("not a CloudEvents event: {attribute} is missing")]
    Missing {
        /// Its name, without a prefix.
        attribute: &'static str,
    },
    /// An attribute has a value that it cannot have.
    #[error("not a CloudEvents 1.0 event: {attribute} is {found:?}")]
    Attribute {
        /// Its name, without a prefix.
        attribute: &'static str,
        /// Its value.
        found: String,
    },
    /// The value does not hold attributes and data, as its content type says.
    #[error("not a CloudEvents event in JSON: {reason}")]
    Envelope {
        /// What is wrong with it.
        reason: String,
    },
    /// It is an event of another type.
    #[error("unknown event type {found}")]
    UnknownType {
        /// The type.
        found: String,
    },
    /// The data cannot be decoded.
    #[error("the data of an event {kind} cannot be decoded: {source}")]
    Data {
        /// The type.
        kind: String,
        /// Why.
        source: CodecError,
    },
}

impl<T: EventType> Event<T> {
    /// Something that happens now, with an id of its own.
    pub fn new(source: impl Into<String>, data: T) -> Self {
        Self {
            id: Uuid::now_v7().to_string(),
            source: source.into(),
            subject: None,
            time: Some(Timestamp::now()),
            correlation_id: None,
            causation_id: None,
            schema: T::SCHEMA.map(str::to_owned),
            data,
        }
    }

    /// Sets what it happened to.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets another event as the reason for this one, and goes on with its correlation.
    ///
    /// ```
    /// use tidings::event::{Event, EventType};
    ///
    /// struct Placed;
    /// impl EventType for Placed {
    ///     const TYPE: &'static str = "com.example.order.placed.v1";
    /// }
    ///
    /// struct Billed;
    /// impl EventType for Billed {
    ///     const TYPE: &'static str = "com.example.order.billed.v1";
    /// }
    ///
    /// let placed = Event::new("/orders", Placed);
    /// let billed = Event::new("/billing", Billed).because_of(&placed);
    /// assert_eq!(billed.causation_id, Some(placed.id.clone()));
    /// assert_eq!(billed.correlation_id, Some(placed.id)); // where it all began
    /// ```
    pub fn because_of<U>(mut self, cause: &Event<U>) -> Self {
        self.causation_id = Some(cause.id.clone());
        self.correlation_id = Some(cause.correlation_id.as_ref().unwrap_or(&cause.id).clone());
        self
    }

    /// The record of the event, with its data in JSON. It has no key yet.
    pub fn to_record(&self, topic: &str) -> Result<Record, CodecError>
    where
        Json: Codec<T>,
    {
        self.to_record_with(topic, &Json)
    }

    /// The record of the event, with its data as the codec writes it.
    ///
    /// ```
    /// use tidings::ReceivedRecord;
    /// use tidings::event::{Codec, CodecError, Event, EventType};
    ///
    /// struct Note(String);
    ///
    /// impl EventType for Note {
    ///     const TYPE: &'static str = "com.example.note.v1";
    /// }
    ///
    /// /// Notes as plain text.
    /// struct Text;
    ///
    /// impl Codec<Note> for Text {
    ///     fn content_type(&self) -> &str {
    ///         "text/plain; charset=utf-8"
    ///     }
    ///
    ///     fn encode(&self, note: &Note) -> Result<Vec<u8>, CodecError> {
    ///         Ok(note.0.clone().into_bytes())
    ///     }
    ///
    ///     fn decode(&self, bytes: &[u8]) -> Result<Note, CodecError> {
    ///         let text = String::from_utf8(bytes.to_vec());
    ///         text.map(Note).map_err(|error| CodecError::new(error.to_string()))
    ///     }
    /// }
    ///
    /// let sent = Event::new("/desk", Note("call back".into())).to_record_with("notes", &Text)?;
    /// assert_eq!(sent.value.as_deref(), Some(b"call back".as_slice()));
    /// # let (topic, value, headers) = (sent.topic, sent.value, sent.headers);
    /// # let received = ReceivedRecord { topic, partition: 0, offset: 0, timestamp_ms: None, key: None, value, headers };
    /// let note = Event::from_record_with(&received, &Text)?;
    /// assert_eq!(note.data.0, "call back");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn to_record_with(&self, topic: &str, codec: &impl Codec<T>) -> Result<Record, CodecError> {
        let mut record = Record::new(topic).value(codec.encode(&self.data)?);
        attributes::write(self, codec.content_type(), &mut record.headers);
        Ok(record)
    }

    /// Reads an event whose data is JSON.
    pub fn from_record(record: &ReceivedRecord) -> Result<Self, EventError>
    where
        Json: Codec<T>,
    {
        Self::from_record_with(record, &Json)
    }

    /// Reads an event whose data the codec understands.
    pub fn from_record_with(record: &ReceivedRecord, codec: &impl Codec<T>) -> Result<Self, EventError> {
        let attributes = Attributes::read(record)?;
        if attributes.kind != T::TYPE {
            return Err(EventError::UnknownType { found: attributes.kind });
        }
        Self::from_attributes(attributes, codec)
    }

    fn from_attributes(attributes: Attributes<'_>, codec: &impl Codec<T>) -> Result<Self, EventError> {
        let Attributes { id, source, kind, subject, time, correlation_id, causation_id, schema, data } =
            attributes;
        let data = codec.decode(&data).map_err(|source| EventError::Data { kind, source })?;
        Ok(Self { id, source, subject, time, correlation_id, causation_id, schema, data })
    }
}

#[cfg(test)]
mod tests;
