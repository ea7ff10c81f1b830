//! The failure inbox: a dead letter topic that a person can list, understand, redrive and discard.
//!
//! A record that a handler rejects is written to `<topic>.dlq`: key, value and headers untouched, the context of the
//! failure appended as headers (`context`). A redrive writes the original record to `<topic>.<group>.retry`, which
//! only that group reads. What became of a letter is kept in the compacted topic `<topic>.dlq.status`, keyed by the
//! letter's id, and is durable before a call returns.
//!
//! **Invariant:** a letter is never changed or removed by this module: its status is. **Invariant:** memory is
//! bounded: 16 bytes for each letter that was ever redriven or discarded, and one page of letters.
//!
//! **Invariant:** a letter counts as redriven if and only if its original was written: both are one transaction, and of
//! two processes that decide at the same time one fails and does nothing.
//!
//! Groups that preserve the order of keys park later records of a key behind a failed one, as letters of their own. Who
//! waits for whom is kept in `<topic>.<group>.parked` (`parked`); a redrive releases the first of a key there, and the group
//! lets the others follow.

mod context;
mod inbox;
mod letter;
mod parked;
mod status;

use std::sync::Arc;

use crate::admin::TopicSpec;
use crate::cluster::RECORD_MAX_BYTES;
pub use context::{DUE_HEADER, FailureContext, MAX_CAUSES, MAX_ERROR_BYTES};
pub(crate) use context::{Origin, delayed_record, delayed_until, letter_record, original_record};
pub(crate) use inbox::read_parked;
pub use inbox::{FailureInbox, InboxError, Pace, Page, Queue, Selection, Skipped, Summary};
pub use letter::{Letter, LetterId, LetterIdError, Line};
pub use parked::Standing;
pub(crate) use parked::{Applied, BARRIER, Parked, ParkedBook, gone_record, parked_record};
pub(crate) use status::status_record;
pub use status::{Resolution, ResolutionKind, StatusFilter};

/// Partitions of a delay topic, each four times as long as the one before: the last one is three days.
pub(crate) const DELAY_PARTITIONS: i32 = 11;

/// Why a handler rejects a record.
///
/// ```
/// use tidings::failure::Failure;
///
/// let error = "x".parse::<u32>().unwrap_err();
/// let failure = Failure::from_error(&error).caused_by("field 'total'");
/// assert_eq!(failure.error, "invalid digit found in string");
/// assert_eq!(failure.causes, ["field 'total'"]);
/// assert_eq!(Failure::new("not billed").caused_by("no address").chain(), "not billed: no address");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong, in one sentence.
    pub error: String,
    /// What that was caused by, outermost first.
    pub causes: Vec<String>,
}

impl Failure {
    /// A failure without causes.
    pub fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), causes: Vec::new() }
    }

    /// A failure from an error and the chain of its sources.
    pub fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        let sources = std::iter::successors(error.source(), |error| error.source());
        Self { error: error.to_string(), causes: sources.take(MAX_CAUSES).map(ToString::to_string).collect() }
    }

    /// Appends a cause.
    pub fn caused_by(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// The error and its causes, separated by colons.
    pub fn chain(&self) -> String {
        self.causes.iter().fold(self.error.clone(), |text, cause| format!("{text}: {cause}"))
    }
}

/// The topics that belong to the failures of one source topic.
///
/// ```
/// use tidings::failure::FailureTopics;
///
/// let topics = FailureTopics::of("orders");
/// assert_eq!(&*topics.letters, "orders.dlq");
/// assert_eq!(&*topics.retry("billing"), "orders.billing.retry");
/// assert_eq!(&*topics.delay("billing"), "orders.billing.delay");
/// assert_eq!(&*topics.parked("billing"), "orders.billing.parked");
///
/// // What to create for a group that may not create topics itself:
/// let mut specs = topics.specs(3);
/// specs.extend([topics.retry_spec("billing"), topics.delay_spec("billing"), topics.parked_spec("billing")]);
/// assert_eq!(specs.len(), 5);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureTopics {
    /// The topic whose records fail.
    pub source: Arc<str>,
    /// Where they are parked.
    pub letters: Arc<str>,
    /// Where the status of each letter is kept.
    pub status: Arc<str>,
}

impl FailureTopics {
    /// The topics of a source, by their default names.
    pub fn of(source: &str) -> Self {
        Self {
            source: source.into(),
            letters: format!("{source}.dlq").into(),
            status: format!("{source}.dlq.status").into(),
        }
    }

    /// Where the redriven records of a group go.
    ///
    /// Kafka allows fewer characters in the name of a topic than in that of a group: others become `_`, and a
    /// checksum keeps such names apart.
    pub fn retry(&self, group: &str) -> Arc<str> {
        self.of_group(group, "retry")
    }

    /// Where a group that preserves the order of keys keeps who waits for whom. Names as those of retry topics.
    pub fn parked(&self, group: &str) -> Arc<str> {
        self.of_group(group, "parked")
    }

    /// Where records of a group wait that are due later. Names as those of retry topics.
    pub fn delay(&self, group: &str) -> Arc<str> {
        self.of_group(group, "delay")
    }

    fn of_group(&self, group: &str, suffix: &str) -> Arc<str> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if group.chars().all(is_allowed) {
            return format!("{}.{group}.{suffix}", self.source).into();
        }
        let plain: String = group.chars().map(|c| if is_allowed(c) { c } else { '_' }).collect();
        format!("{}.{plain}-{:08x}.{suffix}", self.source, fnv1a(group.as_bytes())).into()
    }

    /// What to create for the letters and their status. Letters are kept until somebody decides about them, and are
    /// allowed to be larger than their originals.
    pub fn specs(&self, letter_partitions: i32) -> Vec<TopicSpec> {
        let max_bytes = RECORD_MAX_BYTES.to_string();
        vec![
            TopicSpec::new(&*self.letters, letter_partitions)
                .config("retention.ms", "-1")
                .config("max.message.bytes", max_bytes),
            TopicSpec::new(&*self.status, 1).config("cleanup.policy", "compact"),
        ]
    }

    /// What to create for the redriven records of a group.
    pub fn retry_spec(&self, group: &str) -> TopicSpec {
        TopicSpec::new(&*self.retry(group), 1).config("max.message.bytes", RECORD_MAX_BYTES.to_string())
    }

    /// What to create for the delayed records of a group. They are kept until they have moved on, however long that takes.
    pub fn delay_spec(&self, group: &str) -> TopicSpec {
        TopicSpec::new(&*self.delay(group), DELAY_PARTITIONS)
            .config("retention.ms", "-1")
            .config("max.message.bytes", RECORD_MAX_BYTES.to_string())
    }

    /// What to create for the queues of a group. One partition: its order is what tells who waits for whom.
    pub fn parked_spec(&self, group: &str) -> TopicSpec {
        TopicSpec::new(&*self.parked(group), 1).config("cleanup.policy", "compact")
    }
}

/// FNV-1a, 32 bits: the standard library's hashes may change between releases, topic names must not.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_topics_have_names_that_kafka_allows() {
        let topics = FailureTopics::of("orders");
        assert_eq!(&*topics.retry("a.b_c-1"), "orders.a.b_c-1.retry");
        let (slash, colon) = (topics.retry("a/b"), topics.retry("a:b"));
        assert!(slash.starts_with("orders.a_b-") && slash.ends_with(".retry"), "{slash}");
        assert_ne!(slash, colon);
    }

    #[test]
    fn a_failure_takes_the_chain_of_sources() {
        let inner = std::io::Error::other("disk on fire");
        let outer = std::io::Error::other(inner);
        let failure = Failure::from_error(&outer);
        assert_eq!(failure.error, "disk on fire");
        let fault = crate::SendError::Refused { topic: "t".into(), fault: crate::KafkaFault::UnknownTopic };
        let failure = Failure::from_error(&fault);
        assert_eq!(failure.causes, ["unknown topic or partition"]);
    }
}
