//! The context of a failure as headers, in letters (`tidings.dlq.…`) and in redriven records (`tidings.redrive.…`).
//!
//! ```text
//! letter:   original headers …, tidings.dlq.headers = <count of the original headers>, tidings.dlq.…
//! redriven: original headers …, tidings.redrive.headers = <count>, tidings.redrive.…
//! ```
//!
//! **Invariant:** our headers come last and say how many came before them, so the original headers are restored
//! exactly, even if they carry such names themselves: the last occurrence of a name is ours.
//!
//! Times are milliseconds since the epoch, numbers are decimal text. Letters and redriven records carry the time of
//! their own writing as Kafka timestamp: with the original's, retention by time could delete them at once.

use crate::failure::{Failure, FailureTopics, LetterId, Standing};
use crate::record::{Headers, ReceivedRecord, Record};

/// Bytes kept of an error and of each cause.
///
/// ```
/// use tidings::failure::{Failure, MAX_CAUSES, MAX_ERROR_BYTES};
///
/// /// Whether a letter keeps all of it.
/// fn is_kept(failure: &Failure) -> bool {
///     let is_short = |text: &String| text.len() <= MAX_ERROR_BYTES;
///     is_short(&failure.error) && failure.causes.len() <= MAX_CAUSES && failure.causes.iter().all(is_short)
/// }
///
/// assert!(!is_kept(&Failure::new("x".repeat(5_000))));
/// ```
pub const MAX_ERROR_BYTES: usize = 4 * 1024;
/// Causes kept of a failure.
pub const MAX_CAUSES: usize = 16;

const DLQ_HEADERS: &str = "tidings.dlq.headers";
const DLQ_ERROR: &str = "tidings.dlq.error";
const DLQ_CAUSE: &str = "tidings.dlq.cause";
const DLQ_TOPIC: &str = "tidings.dlq.topic";
const DLQ_PARTITION: &str = "tidings.dlq.partition";
const DLQ_OFFSET: &str = "tidings.dlq.offset";
const DLQ_TIMESTAMP: &str = "tidings.dlq.timestamp-ms";
const DLQ_GROUP: &str = "tidings.dlq.group";
const DLQ_ATTEMPTS: &str = "tidings.dlq.attempts";
const DLQ_REDRIVES: &str = "tidings.dlq.redrives";
const DLQ_FIRST_FAILURE: &str = "tidings.dlq.first-failure-ms";
const DLQ_LAST_FAILURE: &str = "tidings.dlq.last-failure-ms";
const DLQ_STANDING: &str = "tidings.dlq.standing";

/// When a record is to be handed out, in milliseconds since the epoch: set by whoever produces it.
///
/// ```
/// use tidings::failure::DUE_HEADER;
/// use tidings::{Record, now_ms};
///
/// // As clients in any language can say it; `Record::due_at_ms` does the same.
/// let due_ms = now_ms() + 60_000;
/// let record = Record::new("reminders").header(DUE_HEADER, due_ms.to_string());
/// assert_eq!(record, Record::new("reminders").due_at_ms(due_ms));
/// ```
pub const DUE_HEADER: &str = "tidings.due-ms";
const DELAY_UNTIL: &str = "tidings.delay.until-ms";
const DELAY_ATTEMPTS: &str = "tidings.delay.attempts";

const REDRIVE_HEADERS: &str = "tidings.redrive.headers";
const REDRIVE_COUNT: &str = "tidings.redrive.count";
const REDRIVE_LETTER: &str = "tidings.redrive.letter";
const REDRIVE_TOPIC: &str = "tidings.redrive.topic";
const REDRIVE_PARTITION: &str = "tidings.redrive.partition";
const REDRIVE_OFFSET: &str = "tidings.redrive.offset";
const REDRIVE_TIMESTAMP: &str = "tidings.redrive.timestamp-ms";
const REDRIVE_ATTEMPTS: &str = "tidings.redrive.attempts";
const REDRIVE_FIRST_FAILURE: &str = "tidings.redrive.first-failure-ms";

/// Why and where a record failed, as kept with its letter.
///
/// ```
/// use tidings::failure::FailureContext;
///
/// /// Whether another redrive is worth a try.
/// fn is_worth_a_redrive(context: &FailureContext) -> bool {
///     context.redrives < 3 && context.error.contains("timed out")
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FailureContext {
    /// What went wrong, the last time.
    pub error: String,
    /// What that was caused by, outermost first.
    pub causes: Vec<String>,
    /// The topic the record was produced to.
    pub topic: String,
    /// Its partition there.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// Its timestamp there.
    pub timestamp_ms: Option<i64>,
    /// The group whose handler rejected it.
    pub group: String,
    /// How often it was handed to the handler altogether, redrives included.
    pub attempts: u32,
    /// How often it was redriven.
    pub redrives: u32,
    /// When it failed first.
    pub first_failure_ms: i64,
    /// When it failed last.
    pub last_failure_ms: i64,
    /// Whether it failed itself or waits behind earlier records of its key; `None` where its group does not preserve the
    /// order of keys.
    pub standing: Option<Standing>,
}

/// Where a record really comes from: itself, or the letter it was redriven from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: Option<i64>,
    /// Attempts before this one.
    pub(crate) attempts: u32,
    pub(crate) redrives: u32,
    pub(crate) first_failure_ms: Option<i64>,
    /// What it waits for, if its group preserves the order of keys.
    pub(crate) standing: Option<Standing>,
    /// How many of the record's headers are its own.
    own_headers: usize,
}

impl Origin {
    /// `retry_topic_of` names the source of a retry topic, and nothing for other topics: a stranger's
    /// headers count only where none but a redrive writes.
    pub(crate) fn of(record: &ReceivedRecord, is_retry_topic: bool) -> Self {
        is_retry_topic.then(|| Self::redriven(record)).flatten().unwrap_or_else(|| Self {
            topic: record.topic.to_string(),
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            attempts: 0,
            redrives: 0,
            first_failure_ms: None,
            standing: None,
            own_headers: record.headers.len(),
        })
    }

    fn push_to(&self, headers: &mut Headers) {
        headers.push(REDRIVE_HEADERS, headers.len().to_string());
        headers.push(REDRIVE_COUNT, self.redrives.to_string());
        headers.push(REDRIVE_TOPIC, &self.topic);
        headers.push(REDRIVE_PARTITION, self.partition.to_string());
        headers.push(REDRIVE_OFFSET, self.offset.to_string());
        if let Some(timestamp_ms) = self.timestamp_ms {
            headers.push(REDRIVE_TIMESTAMP, timestamp_ms.to_string());
        }
        headers.push(REDRIVE_ATTEMPTS, self.attempts.to_string());
        if let Some(first_failure_ms) = self.first_failure_ms {
            headers.push(REDRIVE_FIRST_FAILURE, first_failure_ms.to_string());
        }
    }

    fn redriven(record: &ReceivedRecord) -> Option<Self> {
        let headers = &record.headers;
        Some(Self {
            topic: headers.last_str(REDRIVE_TOPIC)?.to_string(),
            partition: number(headers, REDRIVE_PARTITION)?,
            offset: number(headers, REDRIVE_OFFSET)?,
            timestamp_ms: number(headers, REDRIVE_TIMESTAMP),
            attempts: number(headers, REDRIVE_ATTEMPTS)?,
            redrives: number(headers, REDRIVE_COUNT)?,
            first_failure_ms: number(headers, REDRIVE_FIRST_FAILURE),
            standing: None,
            own_headers: number(headers, REDRIVE_HEADERS)?,
        })
    }
}

/// The letter for a rejected record. `deliveries` counts how often the handler saw it since it was read.
pub(crate) fn letter_record(
    record: &ReceivedRecord,
    origin: &Origin,
    failure: &Failure,
    group: &str,
    deliveries: u32,
    now_ms: i64,
) -> Record {
    let mut headers = record.headers.prefix(origin.own_headers);
    headers.push(DLQ_HEADERS, headers.len().to_string());
    headers.push(DLQ_ERROR, truncated(&failure.error));
    for cause in failure.causes.iter().take(MAX_CAUSES) {
        headers.push(DLQ_CAUSE, truncated(cause));
    }
    headers.push(DLQ_TOPIC, &origin.topic);
    headers.push(DLQ_PARTITION, origin.partition.to_string());
    headers.push(DLQ_OFFSET, origin.offset.to_string());
    if let Some(timestamp_ms) = origin.timestamp_ms {
        headers.push(DLQ_TIMESTAMP, timestamp_ms.to_string());
    }
    headers.push(DLQ_GROUP, group);
    headers.push(DLQ_ATTEMPTS, origin.attempts.saturating_add(deliveries).to_string());
    headers.push(DLQ_REDRIVES, origin.redrives.to_string());
    headers.push(DLQ_FIRST_FAILURE, origin.first_failure_ms.unwrap_or(now_ms).to_string());
    headers.push(DLQ_LAST_FAILURE, now_ms.to_string());
    if let Some(standing) = origin.standing {
        headers.push(DLQ_STANDING, standing.name());
    }
    Record {
        topic: FailureTopics::of(&origin.topic).letters,
        partition: None,
        key: record.key.clone(),
        value: record.value.clone(),
        headers,
        timestamp_ms: Some(now_ms),
    }
}

/// Splits a letter's headers into the original's and the context. A letter of another tool has no context.
pub(super) fn parse_letter(headers: &Headers) -> (Headers, Option<FailureContext>) {
    match parse_context(headers) {
        Some((own_headers, context)) => (headers.prefix(own_headers), Some(context)),
        None => (headers.clone(), None),
    }
}

fn parse_context(headers: &Headers) -> Option<(usize, FailureContext)> {
    let own_headers: usize = number(headers, DLQ_HEADERS)?;
    let causes = headers.iter().skip(own_headers).filter(|(name, _)| *name == DLQ_CAUSE.as_bytes());
    let context = FailureContext {
        error: headers.last_str(DLQ_ERROR)?.to_string(),
        causes: causes
            .map(|(_, value)| String::from_utf8_lossy(value.unwrap_or_default()).into_owned())
            .collect(),
        topic: headers.last_str(DLQ_TOPIC)?.to_string(),
        partition: number(headers, DLQ_PARTITION)?,
        offset: number(headers, DLQ_OFFSET)?,
        timestamp_ms: number(headers, DLQ_TIMESTAMP),
        group: headers.last_str(DLQ_GROUP)?.to_string(),
        attempts: number(headers, DLQ_ATTEMPTS)?,
        redrives: number(headers, DLQ_REDRIVES).unwrap_or(0),
        first_failure_ms: number(headers, DLQ_FIRST_FAILURE)?,
        last_failure_ms: number(headers, DLQ_LAST_FAILURE)?,
        standing: own(headers, own_headers, DLQ_STANDING).and_then(Standing::of_name),
    };
    Some((own_headers, context))
}

/// The record of which a letter tells, as it stood in its topic, and its origin for the next letter. `None` for letters of
/// other tools. `is_redriven`: a person sent it back.
pub(crate) fn original_record(letter: ReceivedRecord, is_redriven: bool) -> Option<(ReceivedRecord, Origin)> {
    let (headers, context) = parse_letter(&letter.headers);
    let context = context?;
    let origin = Origin {
        topic: context.topic,
        partition: context.partition,
        offset: context.offset,
        timestamp_ms: context.timestamp_ms,
        attempts: context.attempts,
        redrives: context.redrives.saturating_add(u32::from(is_redriven)),
        first_failure_ms: (context.standing != Some(Standing::Behind)).then_some(context.first_failure_ms),
        standing: Some(Standing::Failed),
        own_headers: headers.len(),
    };
    let original = ReceivedRecord {
        topic: origin.topic.as_str().into(),
        partition: origin.partition,
        offset: origin.offset,
        timestamp_ms: origin.timestamp_ms,
        key: letter.key,
        value: letter.value,
        headers,
    };
    Some((original, origin))
}

/// The record that a redrive writes: the original, and behind its headers where it came from.
pub(super) fn redriven_record(
    letter_id: LetterId,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    original: &Headers,
    context: &FailureContext,
    retry_topic: std::sync::Arc<str>,
) -> Record {
    let origin = Origin {
        topic: context.topic.clone(),
        partition: context.partition,
        offset: context.offset,
        timestamp_ms: context.timestamp_ms,
        attempts: context.attempts,
        redrives: context.redrives.saturating_add(1),
        first_failure_ms: Some(context.first_failure_ms),
        standing: None,
        own_headers: original.len(),
    };
    let mut headers = original.clone();
    origin.push_to(&mut headers);
    headers.push(REDRIVE_LETTER, letter_id.to_string());
    Record { topic: retry_topic, partition: None, key, value, headers, timestamp_ms: None }
}

/// The record that waits in a delay topic and comes back through the retry topic. `attempts` were made since it was read,
/// `attempts_in_row` since somebody sent it.
pub(crate) fn delayed_record(
    record: &ReceivedRecord,
    origin: &Origin,
    until_ms: i64,
    attempts: u32,
    attempts_in_row: u32,
    delay_topic: std::sync::Arc<str>,
) -> Record {
    let mut headers = record.headers.prefix(origin.own_headers);
    let attempts = origin.attempts.saturating_add(attempts);
    Origin { attempts, ..origin.clone() }.push_to(&mut headers);
    headers.push(DELAY_UNTIL, until_ms.to_string());
    headers.push(DELAY_ATTEMPTS, attempts_in_row.to_string());
    let (key, value) = (record.key.clone(), record.value.clone());
    Record { topic: delay_topic, partition: None, key, value, headers, timestamp_ms: None }
}

/// Until when a record of a delay topic waits, or one of a retry topic has waited, and attempts before that.
pub(crate) fn delayed_until(headers: &Headers) -> Option<(i64, u32)> {
    let own_headers: usize = number(headers, REDRIVE_HEADERS)?;
    let until_ms = own(headers, own_headers, DELAY_UNTIL)?.parse().ok()?;
    Some((until_ms, own(headers, own_headers, DELAY_ATTEMPTS)?.parse().ok()?))
}

fn number<T: std::str::FromStr>(headers: &Headers, name: &str) -> Option<T> {
    headers.last_str(name)?.parse().ok()
}

/// A header of ours that older letters lack: one of the original's does not stand for it.
fn own<'a>(headers: &'a Headers, own_headers: usize, name: &str) -> Option<&'a str> {
    let ours = headers.iter().skip(own_headers).filter(|(found, _)| *found == name.as_bytes());
    ours.last().and_then(|(_, value)| std::str::from_utf8(value?).ok())
}

fn truncated(text: &str) -> &str {
    cut_at_character(text, MAX_ERROR_BYTES)
}

/// The longest beginning of a text that ends at a character and within so many bytes.
pub(super) fn cut_at_character(text: &str, max_bytes: usize) -> &str {
    let end = (0..=max_bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(topic: &str, offset: i64, headers: Headers) -> ReceivedRecord {
        ReceivedRecord {
            topic: topic.into(),
            partition: 2,
            offset,
            timestamp_ms: Some(1_000),
            key: Some(b"k".to_vec()),
            value: Some(vec![0xff, 0x00]),
            headers,
        }
    }

    fn as_received(record: Record, offset: i64) -> ReceivedRecord {
        ReceivedRecord {
            topic: record.topic,
            partition: 0,
            offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key,
            value: record.value,
            headers: record.headers,
        }
    }

    #[test]
    fn a_letter_restores_the_original_even_if_that_was_a_letter_itself() {
        let mut original = Headers::new();
        original.push("a", "1");
        original.push([0xff], [0xfe]);
        original.push_null("a");
        original.push("tidings.dlq.headers", "7");
        original.push("tidings.dlq.cause", "forged");
        let record = received("orders", 41, original.clone());
        let failure = Failure::new("not JSON").caused_by("line 1").caused_by("column 2");
        let letter = letter_record(&record, &Origin::of(&record, false), &failure, "billing", 1, 5_000);
        assert_eq!(&*letter.topic, "orders.dlq");
        assert_eq!((&letter.key, &letter.value), (&record.key, &record.value));
        let (headers, context) = parse_letter(&letter.headers);
        assert_eq!(headers, original);
        let context = context.unwrap();
        assert_eq!(context.causes, ["line 1", "column 2"]);
        assert_eq!((context.partition, context.offset, context.timestamp_ms), (2, 41, Some(1_000)));
        assert_eq!((context.group.as_str(), context.attempts, context.redrives), ("billing", 1, 0));
        assert_eq!((context.first_failure_ms, context.last_failure_ms), (5_000, 5_000));
    }

    #[test]
    fn a_redriven_record_that_fails_again_keeps_its_origin_and_counts() {
        let mut original = Headers::new();
        original.push("a", "1");
        let record = received("orders", 41, original.clone());
        let failure = Failure::new("no");
        let first = letter_record(&record, &Origin::of(&record, false), &failure, "billing", 3, 5_000);
        let (headers, context) = parse_letter(&first.headers);
        let id = LetterId { partition: 0, offset: 9 };
        let retry = FailureTopics::of("orders").retry("billing");
        let redriven = redriven_record(id, first.key, first.value, &headers, &context.unwrap(), retry);
        assert_eq!(redriven.headers.last_str(REDRIVE_LETTER), Some("0-9"));
        let redriven = as_received(redriven, 0);
        let second = letter_record(&redriven, &Origin::of(&redriven, true), &failure, "billing", 1, 9_000);
        assert_eq!(&*second.topic, "orders.dlq");
        let (headers, context) = parse_letter(&second.headers);
        let context = context.unwrap();
        assert_eq!(headers, original);
        assert_eq!((context.topic.as_str(), context.partition, context.offset), ("orders", 2, 41));
        assert_eq!((context.attempts, context.redrives), (4, 1));
        assert_eq!((context.first_failure_ms, context.last_failure_ms), (5_000, 9_000));
    }

    #[test]
    fn redrive_headers_count_only_in_a_retry_topic() {
        let mut headers = Headers::new();
        headers.push(REDRIVE_TOPIC, "payroll");
        let record = received("orders", 41, headers);
        assert_eq!(Origin::of(&record, false).topic, "orders");
        assert_eq!(Origin::of(&record, true).topic, "orders", "incomplete headers are not ours");
    }

    #[test]
    fn long_errors_are_cut_at_a_character() {
        let long = "é".repeat(MAX_ERROR_BYTES);
        assert!(truncated(&long).len() <= MAX_ERROR_BYTES);
        assert_eq!(truncated("short"), "short");
    }

    #[test]
    fn a_letter_of_another_tool_has_no_context() {
        let mut headers = Headers::new();
        headers.push("x-error", "boom");
        assert_eq!(parse_letter(&headers), (headers.clone(), None));
    }
}
