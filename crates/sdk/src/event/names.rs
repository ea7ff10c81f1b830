//! Names of headers, as CloudEvents' Kafka binding and its correlation extension spell them.
//!
//! ```
//! use tidings::Record;
//! use tidings::event::names;
//!
//! let record = Record::new("orders").header(names::TYPE, "com.example.order.placed.v1");
//! assert_eq!(record.headers.last_str("ce_type"), Some("com.example.order.placed.v1"));
//! ```

/// The version of CloudEvents spoken.
pub const SPEC_VERSION: &str = "1.0";
/// The media type of a value that holds attributes and data together.
pub const STRUCTURED_CONTENT_TYPE: &str = "application/cloudevents+json";

/// What the value is.
pub const CONTENT_TYPE: &str = "content-type";
/// The version of CloudEvents.
pub const SPECVERSION: &str = "ce_specversion";
/// Names the event within its source.
pub const ID: &str = "ce_id";
/// Where it happened.
pub const SOURCE: &str = "ce_source";
/// What kind of event it is.
pub const TYPE: &str = "ce_type";
/// What it happened to.
pub const SUBJECT: &str = "ce_subject";
/// When it happened, in RFC 3339.
pub const TIME: &str = "ce_time";
/// The schema of the data.
pub const DATASCHEMA: &str = "ce_dataschema";
/// The same in all events that go back to one cause.
pub const CORRELATION_ID: &str = "ce_correlationid";
/// The event that was the reason.
pub const CAUSATION_ID: &str = "ce_causationid";
