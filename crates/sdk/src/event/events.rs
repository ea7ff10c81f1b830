//! A handler that calls one function for each type of event.

use std::collections::HashMap;

use super::attributes::Attributes;
use super::{Codec, Event, EventError, EventType, Json};
use crate::consumer::{Outcome, RecordHandler};
use crate::failure::Failure;
use crate::record::ReceivedRecord;

/// What becomes of a record that no function is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It counts as done.
    Skip,
    /// It goes to the failure inbox.
    Park,
    /// The consumer stops, with the record not done: somebody has to look before anything goes on.
    Fail,
}

type Handle = Box<dyn Fn(Attributes<'_>) -> Result<Outcome, EventError> + Send + Sync>;

/// Calls the function of an event's type. What cannot be decoded is parked, and other types are skipped, unless told
/// otherwise.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tidings::consumer::{Outcome, RecordHandler};
/// use tidings::event::{Event, EventType, Events, Unreadable};
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
/// let events = Events::new()
///     .on(|placed: &Event<OrderPlaced>| {
///         println!("{}: {}", placed.id, placed.data.total);
///         Outcome::Done
///     })
///     .unknown(Unreadable::Park)
///     .undecodable(Unreadable::Fail);
/// // Consumer::for_each(&cluster, producer, options, events)?;
/// # fn is_handler(_: &impl RecordHandler) {}
/// # is_handler(&events);
/// ```
pub struct Events {
    by_type: HashMap<&'static str, Handle>,
    unknown: Unreadable,
    undecodable: Unreadable,
}

impl Default for Events {
    fn default() -> Self {
        Self { by_type: HashMap::new(), unknown: Unreadable::Skip, undecodable: Unreadable::Park }
    }
}

impl Events {
    /// No functions yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Calls this function for events of its type, whose data is JSON.
    pub fn on<T>(self, handle: impl Fn(&Event<T>) -> Outcome + Send + Sync + 'static) -> Self
    where
        T: EventType + 'static,
        Json: Codec<T>,
    {
        self.on_with(Json, handle)
    }

    /// Calls this function for events of its type, whose data the codec understands.
    ///
    /// ```
    /// use tidings::consumer::Outcome;
    /// use tidings::event::{Codec, CodecError, Event, EventType, Events};
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
    /// let events = Events::new().on_with(Text, |note: &Event<Note>| {
    ///     println!("{}", note.data.0);
    ///     Outcome::Done
    /// });
    /// # drop(events);
    /// ```
    pub fn on_with<T: EventType + 'static>(
        mut self,
        codec: impl Codec<T> + 'static,
        handle: impl Fn(&Event<T>) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        let handle = move |attributes: Attributes<'_>| {
            Event::from_attributes(attributes, &codec).map(|event| handle(&event))
        };
        self.by_type.insert(T::TYPE, Box::new(handle));
        self
    }

    /// Says what becomes of events that no function is for.
    pub fn unknown(mut self, unknown: Unreadable) -> Self {
        self.unknown = unknown;
        self
    }

    /// Says what becomes of records that are no events, or whose data cannot be decoded.
    pub fn undecodable(mut self, undecodable: Unreadable) -> Self {
        self.undecodable = undecodable;
        self
    }

    fn try_handle(&self, record: &ReceivedRecord) -> Result<Outcome, EventError> {
        let attributes = Attributes::read(record)?;
        match self.by_type.get(attributes.kind.as_str()) {
            Some(handle) => handle(attributes),
            None => Err(EventError::UnknownType { found: attributes.kind }),
        }
    }
}

impl RecordHandler for Events {
    fn handle(&self, record: &ReceivedRecord) -> Outcome {
        let error = match self.try_handle(record) {
            Ok(outcome) => return outcome,
            Err(error) => error,
        };
        let policy = match error {
            EventError::UnknownType { .. } => self.unknown,
            _ => self.undecodable,
        };
        match policy {
            Unreadable::Skip => {
                tracing::debug!(at = record.position(), %error, "record skipped");
                Outcome::Done
            }
            Unreadable::Park => Outcome::Reject(Failure::from_error(&error)),
            Unreadable::Fail => Outcome::Fail(Failure::from_error(&error)),
        }
    }
}
