//! A lane: records that must be worked on one after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::consumer::key_order::Released;
use crate::consumer::options::Ordering;
use crate::failure::Failure;
use crate::record::ReceivedRecord;

/// What keeps records in order among each other.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct LaneKey {
    topic: Arc<str>,
    part: Part,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Part {
    Key(Vec<u8>),
    Partition(i32),
    Record(i32, i64),
}

impl LaneKey {
    /// The lane of a record. `source` is the topic in which its key has an order: for a retry topic the original one.
    pub(super) fn of(ordering: Ordering, source: Arc<str>, record: &ReceivedRecord) -> Self {
        let topic = Arc::clone(&record.topic);
        match (ordering, &record.key) {
            (Ordering::Key, Some(key)) => Self { topic: source, part: Part::Key(key.clone()) },
            (Ordering::Partition, _) => Self { topic, part: Part::Partition(record.partition) },
            (Ordering::Key, None) | (Ordering::Unordered, _) => {
                Self { topic, part: Part::Record(record.partition, record.offset) }
            }
        }
    }
}

/// Records of one lane. It is ready (in the queue of lanes), busy (with a worker) or neither (waiting for its time).
///
/// **Invariant:** records of the failure inbox stand before the others, which are later ones, and may have to wait until those
/// have made room.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) queue: VecDeque<Entry>,
    pub(super) is_ready: bool,
    pub(super) is_busy: bool,
}

impl Lane {
    pub(super) fn with(entries: impl Iterator<Item = Entry>) -> Self {
        Self { queue: entries.collect(), is_ready: false, is_busy: false }
    }

    /// Adds a record of the failure inbox behind those that are there. Whether it is the first now.
    pub(super) fn add_released(&mut self, entry: Entry) -> bool {
        let index = self.released_count();
        self.queue.insert(index, entry);
        index == 0
    }

    /// Takes a record back that was the first of its kind. Whether it is the first of all.
    pub(super) fn put_back(&mut self, entry: Entry) -> bool {
        let index = if entry.released.is_some() { 0 } else { self.released_count() };
        self.queue.insert(index, entry);
        index == 0
    }

    fn released_count(&self) -> usize {
        self.queue.partition_point(|entry| entry.released.is_some())
    }
}

/// A record in a lane.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: ReceivedRecord,
    /// The assignment of its partition under which it was delivered.
    pub(super) epoch: u64,
    pub(super) attempts: u32,
    pub(super) rejected: Option<Box<Failure>>,
    /// It comes from the failure inbox, not from its topic.
    pub(super) released: Option<Box<Released>>,
    /// The handler is done with it, but the failure inbox does not know yet.
    pub(super) is_done: bool,
}

impl Entry {
    pub(super) fn new(record: ReceivedRecord, epoch: u64) -> Self {
        Self { record, epoch, attempts: 0, rejected: None, released: None, is_done: false }
    }
}
