//! Names of headers, as CloudEvents' Kafka binding and its correlation extension spell them.
//!
//! ```
//! use tidings::Record;
//! use tidings::event::names;
//!
//! // An event as any client can write it:
//! let record = Record::new("orders")
//!     .value(r#"{"total":12}"#)
//!     .header(names::SPECVERSION, names::SPEC_VERSION)
//!     .header(names::ID, "4711")
//!     .header(names::SOURCE, "/orders")
//!     .header(names::TYPE, "com.example.order.placed.v1")
//!     .header(names::SUBJECT, "order-7")
//!     .header(names::TIME, "2026-11-27T09:00:00Z")
//!     .header(names::DATASCHEMA, "https://example.com/schemas/order-placed-v1.json")
//!     .header(names::CORRELATION_ID, "4710")
//!     .header(names::CAUSATION_ID, "4710")
//!     .header(names::CONTENT_TYPE, "application/json");
//! let is_structured = record.headers.last_str(names::CONTENT_TYPE) == Some(names::STRUCTURED_CONTENT_TYPE);
//! assert!(!is_structured);
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
