//! What became of each letter: the state rebuilt from the status topic.
//!
//! A status record: key `partition-offset` of the letter, value JSON
//! `{"status": "redriven"|"discarded", "by": …, "at_ms": …}`. The topic is compacted; the last record of a key counts.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::LetterId;
use crate::record::{ReceivedRecord, Record};

/// How a letter left the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResolutionKind {
    /// Its original was written to the retry topic.
    Redriven,
    /// Somebody decided that it is not needed.
    Discarded,
}

impl ResolutionKind {
    /// `redriven` or `discarded`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Redriven => "redriven",
            Self::Discarded => "discarded",
        }
    }
}

/// Who decided about a letter, and when.
///
/// ```
/// use tidings::failure::{Resolution, ResolutionKind};
///
/// let resolution = Resolution { kind: ResolutionKind::Discarded, by: "ann".into(), at_ms: 1_764_200_000_000 };
/// assert_eq!(format!("{} by {}", resolution.kind.name(), resolution.by), "discarded by ann");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Resolution {
    /// What was done.
    pub kind: ResolutionKind,
    /// By whom, in the words of the caller.
    #[serde(serialize_with = "as_text")]
    pub by: Arc<str>,
    /// When, milliseconds since the epoch.
    pub at_ms: i64,
}

fn as_text<S: serde::Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

/// Which letters to list.
///
/// ```
/// use tidings::failure::{FailureInbox, StatusFilter};
/// use tidings::{Cluster, Producer, ProducerOptions};
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// let producer = Producer::new(&cluster, ProducerOptions::default())?;
/// let inbox = FailureInbox::new(&cluster, producer, "orders");
/// # inbox.ensure_topics(1)?;
/// for letter in inbox.list(StatusFilter::Resolved, None, 50)?.items {
///     let resolution = letter.resolution.expect("only those are asked for");
///     println!("{} {} by {}", letter.id, resolution.kind.name(), resolution.by);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StatusFilter {
    /// Those nobody has decided about.
    #[default]
    Parked,
    /// Those that were redriven or discarded.
    Resolved,
    /// All.
    Any,
}

impl StatusFilter {
    pub(super) fn admits(self, is_resolved: bool) -> bool {
        match self {
            Self::Parked => !is_resolved,
            Self::Resolved => is_resolved,
            Self::Any => true,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct StatusValue {
    status: ResolutionKind,
    #[serde(default)]
    by: String,
    #[serde(default)]
    at_ms: i64,
}

/// The record that makes a resolution durable.
pub(crate) fn status_record(topic: Arc<str>, id: LetterId, resolution: &Resolution) -> Record {
    let value =
        StatusValue { status: resolution.kind, by: resolution.by.to_string(), at_ms: resolution.at_ms };
    let json = serde_json::to_vec(&value).expect("plain fields always serialise");
    Record::new(topic).key(id.to_string()).value(json)
}

/// All resolutions, from the status records read so far.
#[derive(Debug, Default)]
pub(super) struct StatusBook {
    /// The next offset to read from each partition of the status topic.
    pub(super) next_offsets: HashMap<i32, i64>,
    by_letter: BTreeMap<LetterId, Entry>,
    people: Vec<Arc<str>>,
    people_index: HashMap<Arc<str>, u32>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    at_ms: i64,
    by_index: u32,
    kind: ResolutionKind,
}

impl StatusBook {
    /// Applies a status record. Records that are none of ours are passed over: they can only be a person's mistake,
    /// and must not make the inbox unreadable.
    pub(super) fn apply(&mut self, record: &ReceivedRecord) {
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let Some(id) = key.and_then(|key| key.parse::<LetterId>().ok()) else {
            tracing::warn!(at = record.position(), "status record without a letter id");
            return;
        };
        let Some(value) = &record.value else {
            self.by_letter.remove(&id);
            return;
        };
        match serde_json::from_slice::<StatusValue>(value) {
            Ok(value) => {
                self.insert(id, &Resolution { kind: value.status, by: value.by.into(), at_ms: value.at_ms })
            }
            Err(error) => tracing::warn!(at = record.position(), %error, "status record not understood"),
        }
    }

    pub(super) fn insert(&mut self, id: LetterId, resolution: &Resolution) {
        let by_index = match self.people_index.get(&resolution.by) {
            Some(index) => *index,
            None => {
                let index = self.people.len() as u32;
                self.people.push(Arc::clone(&resolution.by));
                self.people_index.insert(Arc::clone(&resolution.by), index);
                index
            }
        };
        self.by_letter.insert(id, Entry { at_ms: resolution.at_ms, by_index, kind: resolution.kind });
    }

    pub(super) fn get(&self, id: LetterId) -> Option<Resolution> {
        let entry = self.by_letter.get(&id)?;
        let by = Arc::clone(&self.people[entry.by_index as usize]);
        Some(Resolution { kind: entry.kind, by, at_ms: entry.at_ms })
    }

    /// The first offset of the partition, from this one on, that the filter may admit: skips resolved letters
    /// without reading them.
    pub(super) fn next_admitted(&self, filter: StatusFilter, from: LetterId) -> LetterId {
        let later = self.by_letter.range(from..);
        let mut later = later.take_while(|(id, _)| id.partition == from.partition).map(|(id, _)| *id);
        match filter {
            StatusFilter::Any => from,
            StatusFilter::Resolved => later.next().unwrap_or(LetterId { offset: i64::MAX, ..from }),
            StatusFilter::Parked => {
                let mut parked = from;
                for resolved in later {
                    if resolved != parked {
                        break;
                    }
                    parked.offset = parked.offset.saturating_add(1);
                }
                parked
            }
        }
    }

    /// Forgets letters that the dead letter topic no longer holds.
    pub(super) fn forget_before(&mut self, partition: i32, start_offset: i64) {
        self.by_letter.retain(|id, _| id.partition != partition || id.offset >= start_offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(offset: i64) -> LetterId {
        LetterId { partition: 0, offset }
    }

    fn received(record: Record) -> ReceivedRecord {
        ReceivedRecord {
            topic: record.topic,
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: record.key,
            value: record.value,
            headers: record.headers,
        }
    }

    #[test]
    fn a_status_survives_its_record() {
        let mut book = StatusBook::default();
        let resolution = Resolution { kind: ResolutionKind::Redriven, by: "ann".into(), at_ms: 7 };
        book.apply(&received(status_record("t".into(), id(4), &resolution)));
        assert_eq!(book.get(id(4)), Some(resolution));
        let mut gone = received(Record::new("t").key("0-4"));
        book.apply(&gone);
        assert_eq!(book.get(id(4)), None, "a tombstone parks the letter again");
        gone.key = Some(vec![0xff]);
        book.apply(&gone);
        gone.key = Some(b"0-4".to_vec());
        gone.value = Some(b"{".to_vec());
        book.apply(&gone);
        assert_eq!(book.get(id(4)), None, "nonsense changes nothing");
    }

    #[test]
    fn resolved_letters_are_skipped_without_reading() {
        let mut book = StatusBook::default();
        let discarded = Resolution { kind: ResolutionKind::Discarded, by: "".into(), at_ms: 0 };
        for offset in [0, 1, 2, 5] {
            book.insert(id(offset), &discarded);
        }
        book.insert(LetterId { partition: 1, offset: 3 }, &discarded);
        let check = |filter, from, expect| assert_eq!(book.next_admitted(filter, id(from)).offset, expect);
        check(StatusFilter::Parked, 0, 3);
        check(StatusFilter::Parked, 4, 4);
        check(StatusFilter::Parked, 5, 6);
        check(StatusFilter::Any, 0, 0);
        check(StatusFilter::Resolved, 3, 5);
        check(StatusFilter::Resolved, 6, i64::MAX);
        book.forget_before(0, 5);
        assert_eq!(book.get(id(2)), None);
        assert!(book.get(id(5)).is_some());
    }
}
