//! Claim checks: a large value lies in a store, and its record carries a ticket for it.
//!
//! A ticket is the header `tidings.claim`, JSON `{"name": "<topic>/<uuid v7>", "bytes": …, "crc32c": …}`; the record's value is
//! empty. The value is written and synced before the record is produced, so a record never refers to what was not there.
//!
//! **Invariant:** a value is deleted only when no record of its topic, no parked letter, no retry and no delayed record can
//! refer to it. **Invariant:** names come from records, which strangers write: none leads out of the store.

mod collect;
mod directory;

use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::record::{Headers, ReceivedRecord, Record};
pub use collect::{CollectError, Collected};
pub use directory::DirectoryStore;

/// The header that carries the ticket.
pub const CLAIM_HEADER: &str = "tidings.claim";

/// Where large values lie. Implement it for an object store; [`DirectoryStore`] is a directory.
///
/// Names are `<topic>/<uuid>`: letters, digits, `.`, `_`, `-` and the one slash.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::io;
/// use std::sync::Mutex;
/// use tidings::Record;
/// use tidings::claim_check::{CLAIM_HEADER, ClaimCheck, PayloadStore};
///
/// #[derive(Default)]
/// struct Memory(Mutex<BTreeMap<String, Vec<u8>>>);
///
/// impl PayloadStore for Memory {
///     fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
///         self.0.lock().unwrap().insert(name.into(), bytes.into());
///         Ok(())
///     }
///     fn get(&self, name: &str, _bytes_len: u64) -> io::Result<Vec<u8>> {
///         self.0.lock().unwrap().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
///     }
///     fn list(&self, topic: &str) -> io::Result<Vec<String>> {
///         let names = self.0.lock().unwrap();
///         Ok(names.keys().filter(|name| name.starts_with(&format!("{topic}/"))).cloned().collect())
///     }
///     fn delete(&self, name: &str) -> io::Result<()> {
///         self.0.lock().unwrap().remove(name);
///         Ok(())
///     }
/// }
///
/// let claims = ClaimCheck::new(Memory::default(), 10);
/// let record = claims.check_in(Record::new("scans").value("more than ten bytes"))?;
/// assert!(record.headers.last(CLAIM_HEADER).is_some());
/// # Ok::<(), tidings::claim_check::ClaimCheckError>(())
/// ```
pub trait PayloadStore: Send + Sync {
    /// Keeps bytes under a new name. Durable on return.
    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// The bytes under a name, of which there are `bytes_len`; [`io::ErrorKind::NotFound`] if there are none.
    fn get(&self, name: &str, bytes_len: u64) -> io::Result<Vec<u8>>;
    /// All names of a topic.
    fn list(&self, topic: &str) -> io::Result<Vec<String>>;
    /// Deletes what is under a name. No error if nothing is.
    fn delete(&self, name: &str) -> io::Result<()>;
}

/// Why a large value was not kept, or not found.
///
/// ```
/// use tidings::claim_check::ClaimCheckError;
///
/// fn advice(error: &ClaimCheckError) -> &'static str {
///     match error {
///         error if error.is_transient() => "try again later",
///         ClaimCheckError::Missing { .. } => "look for it in a backup",
///         _ => "somebody has to look at the record",
///     }
/// }
///
/// let error = ClaimCheckError::Missing { name: "scans/018f3c5e-0000-7000-8000-000000000000".into() };
/// assert_eq!(advice(&error), "look for it in a backup");
/// ```
#[derive(Debug, Error)]
pub enum ClaimCheckError {
    /// The store failed; waiting may help.
    #[error("payload {name}: the store failed")]
    Store {
        /// The payload.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store does not have it.
    #[error("payload {name} is missing: restore it into the store and redrive the record, or discard it")]
    Missing {
        /// The payload.
        name: String,
    },
    /// The store has something else under its name.
    #[error(
        "payload {name} is damaged: {found_bytes} bytes with checksum {found_crc32c:08x}, expected {bytes} with \
         {crc32c:08x}; restore it into the store and redrive the record, or discard it"
    )]
    Damaged {
        /// The payload.
        name: String,
        /// How many bytes it should have.
        bytes: u64,
        /// How many were found.
        found_bytes: u64,
        /// The checksum it should have.
        crc32c: u32,
        /// The one it has.
        found_crc32c: u32,
    },
    /// The ticket makes no sense.
    #[error("header {CLAIM_HEADER} is no ticket for a payload: {reason}")]
    BadTicket {
        /// Why.
        reason: String,
    },
}

impl ClaimCheckError {
    /// Whether the same may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Store { .. })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Ticket {
    name: String,
    bytes: u64,
    crc32c: u32,
}

impl Ticket {
    /// `None` for a record that carries its value itself.
    fn of_headers(headers: &Headers) -> Option<Result<Self, ClaimCheckError>> {
        let header = headers.last(CLAIM_HEADER)?;
        let bad = |reason: String| ClaimCheckError::BadTicket { reason };
        let ticket: Result<Self, _> =
            serde_json::from_slice(header.unwrap_or_default()).map_err(|error| bad(error.to_string()));
        Some(ticket.and_then(|ticket| match is_name(&ticket.name) {
            true => Ok(ticket),
            false => Err(bad(format!("{:?} is no name of a payload", ticket.name))),
        }))
    }
}

/// `<topic>/<uuid>`, and nothing that means something to a file system.
fn is_name(name: &str) -> bool {
    let is_plain = |part: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        !part.is_empty() && part.len() <= 255 && part != "." && part != ".." && part.bytes().all(is_allowed)
    };
    name.split_once('/').is_some_and(|(topic, id)| is_plain(topic) && id.parse::<uuid::Uuid>().is_ok())
}

/// Puts large values into a store, and gets them back. Cheap to clone.
///
/// ```no_run
/// use std::time::Duration;
/// use tidings::claim_check::{ClaimCheck, DirectoryStore};
/// use tidings::consumer::ConsumerOptions;
/// use tidings::{Cluster, Producer, ProducerOptions, Record};
///
/// let claims = ClaimCheck::new(DirectoryStore::open("/srv/payloads")?, 256 * 1024);
/// let producer = Producer::new(&Cluster::new("localhost:9092"), ProducerOptions::default())?;
/// let record = claims.check_in(Record::new("scans").key("scan-7").value(vec![0; 50_000_000]))?;
/// producer.send_batch_blocking(&[record], Duration::from_secs(5)).remove(0)?;
///
/// let mut options = ConsumerOptions::new("ocr", ["scans"]);
/// options.claim_check = Some(claims); // its handler sees 50 MB
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ClaimCheck {
    store: Arc<dyn PayloadStore>,
    threshold_bytes: usize,
}

impl std::fmt::Debug for ClaimCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClaimCheck").field("threshold_bytes", &self.threshold_bytes).finish_non_exhaustive()
    }
}

impl ClaimCheck {
    /// Values above so many bytes go to this store.
    pub fn new(store: impl PayloadStore + 'static, threshold_bytes: usize) -> Self {
        Self { store: Arc::new(store), threshold_bytes }
    }

    /// Keeps the value of a record if it is large. Then it is durable on return, and the answer is what to produce. Blocks.
    pub fn check_in(&self, record: Record) -> Result<Record, ClaimCheckError> {
        let Some(value) = record.value.as_deref().filter(|value| value.len() > self.threshold_bytes) else {
            return Ok(record);
        };
        let name = format!("{}/{}", record.topic, uuid::Uuid::now_v7());
        let stored = self.store.put(&name, value);
        let ticket = Ticket { bytes: value.len() as u64, crc32c: crc32c::crc32c(value), name };
        stored.map_err(|source| ClaimCheckError::Store { name: ticket.name.clone(), source })?;
        let json = serde_json::to_vec(&ticket).expect("plain fields always serialise");
        Ok(Record { value: Some(Vec::new()), ..record }.header(CLAIM_HEADER, json))
    }

    pub(crate) fn is_claimed(&self, record: &ReceivedRecord) -> bool {
        record.headers.last(CLAIM_HEADER).is_some()
    }

    /// The value of a record that carries a ticket; `None` if it carries its value itself. Verified. Blocks.
    ///
    /// ```
    /// use tidings::claim_check::{ClaimCheck, DirectoryStore};
    /// use tidings::{ReceivedRecord, Record};
    ///
    /// # let directory = tempfile::tempdir()?;
    /// let claims = ClaimCheck::new(DirectoryStore::open(directory.path())?, 1024);
    /// let sent = claims.check_in(Record::new("scans").value(vec![7; 5_000]))?;
    /// // What somebody reads of it later, without the consumer runtime, which would do this by itself:
    /// let read = ReceivedRecord {
    ///     topic: sent.topic,
    ///     partition: 0,
    ///     offset: 0,
    ///     timestamp_ms: None,
    ///     key: sent.key,
    ///     value: sent.value,
    ///     headers: sent.headers,
    /// };
    /// assert_eq!(claims.check_out(&read)?, Some(vec![7; 5_000]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check_out(&self, record: &ReceivedRecord) -> Result<Option<Vec<u8>>, ClaimCheckError> {
        let Some(ticket) = Ticket::of_headers(&record.headers) else { return Ok(None) };
        let Ticket { name, bytes, crc32c } = ticket?;
        let value = match self.store.get(&name, bytes) {
            Ok(value) => value,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ClaimCheckError::Missing { name });
            }
            Err(source) => return Err(ClaimCheckError::Store { name, source }),
        };
        let (found_bytes, found_crc32c) = (value.len() as u64, crc32c::crc32c(&value));
        if (found_bytes, found_crc32c) != (bytes, crc32c) {
            return Err(ClaimCheckError::Damaged { name, bytes, found_bytes, crc32c, found_crc32c });
        }
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(record: Record) -> ReceivedRecord {
        let Record { topic, key, value, headers, .. } = record;
        ReceivedRecord { topic, partition: 0, offset: 0, timestamp_ms: None, key, value, headers }
    }

    fn claims(directory: &std::path::Path) -> ClaimCheck {
        ClaimCheck::new(DirectoryStore::open(directory).unwrap(), 10)
    }

    #[test]
    fn a_large_value_comes_back_and_a_small_one_never_leaves() {
        let directory = tempfile::tempdir().unwrap();
        let claims = claims(directory.path());
        let small = Record::new("t").value("0123456789");
        assert_eq!(claims.check_in(small.clone()).unwrap(), small);
        assert_eq!(claims.check_out(&received(small)).unwrap(), None);
        let large = claims.check_in(Record::new("t").key("k").value("0123456789a")).unwrap();
        assert_eq!((large.value.as_deref(), large.headers.len()), (Some(&b""[..]), 1));
        assert_eq!(claims.check_out(&received(large)).unwrap().unwrap(), b"0123456789a");
    }

    #[test]
    fn what_is_gone_or_damaged_is_told_with_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let claims = claims(directory.path());
        let record = received(claims.check_in(Record::new("t").value(vec![7; 100])).unwrap());
        let name = claims.store.list("t").unwrap().remove(0);
        for (damage, expect) in
            [(vec![7; 99], "damaged"), (vec![8; 100], "damaged"), (vec![7; 101], "damaged")]
        {
            std::fs::write(directory.path().join(&name), damage).unwrap();
            let error = claims.check_out(&record).unwrap_err();
            assert!(error.to_string().contains(expect) && !error.is_transient(), "{error}");
        }
        claims.store.delete(&name).unwrap();
        claims.store.delete(&name).unwrap();
        let error = claims.check_out(&record).unwrap_err();
        assert!(error.to_string().contains("is missing: restore it"), "{error}");
    }

    #[test]
    fn strangers_tickets_lead_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let claims = claims(&directory.path().join("store"));
        std::fs::write(directory.path().join("secret"), "secret").unwrap();
        let id = uuid::Uuid::now_v7();
        for name in
            ["../secret", "secret", "", "/", "t/../secret", "..", &format!("../{id}"), &format!("a/b/{id}")]
        {
            let ticket = serde_json::json!({"name": name, "bytes": 6, "crc32c": crc32c::crc32c(b"secret")});
            let record = received(Record::new("t").header(CLAIM_HEADER, ticket.to_string()));
            let error = claims.check_out(&record).unwrap_err();
            assert!(matches!(error, ClaimCheckError::BadTicket { .. }), "{name}: {error}");
        }
        let record = received(Record::new("t").header(CLAIM_HEADER, "{"));
        assert!(matches!(claims.check_out(&record), Err(ClaimCheckError::BadTicket { .. })));
    }
}
