//! What clients did and were told, in one order, and what that says about the broker.
//!
//! Owns the events and the rules. The model: each producer numbers its records 0, 1, 2… on each partition and
//! never gives one up, so that a partition must hold, for each producer, its numbers in order, each once, up to
//! some number that is not smaller than any acknowledged one. What a consumer was shown must stay, at its offset.
//! What a group was told is committed must never be less later. An event is entered when the client knows it: a
//! send before it leaves, an answer after it came. So of two events of different clients, the later one may have
//! happened first, but never the other way round where the rules need it.
//!
//! A record outside transactions has a [`Fate`]; transactions have a [`Ledger`] of their own.
//!
//! Does not talk to a broker.

mod check;
mod ledger;
mod made;
mod record;
#[cfg(test)]
mod tests;

pub use check::{Findings, check};
pub use ledger::{Ledger, Outcome, Transaction};
pub use made::check_made;
pub use record::{Record, Unreadable};

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use std::sync::Mutex;

/// A partition of the one topic that a laboratory's round uses.
pub type Partition = i32;

/// Something that a client did or learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A producer is about to send these of its numbers for the first time.
    Sent {
        /// Who.
        producer: u32,
        /// Where to.
        partition: Partition,
        /// Its numbers.
        numbers: Range<u64>,
    },
    /// A producer was told that these are durable.
    Acknowledged {
        /// Who.
        producer: u32,
        /// Where.
        partition: Partition,
        /// Its numbers.
        numbers: Range<u64>,
        /// The offset of the first one, where the answer said it.
        base_offset: Option<i64>,
    },
    /// A consumer was given a record.
    Read {
        /// Whose progress it is: a group, or a reader of its own.
        reader: Arc<str>,
        /// Where.
        partition: Partition,
        /// Where in the partition.
        offset: i64,
        /// What.
        record: Result<Record, Unreadable>,
    },
    /// A group was told that its offset is committed.
    Committed {
        /// Which group.
        group: Arc<str>,
        /// Where.
        partition: Partition,
        /// The next offset to read.
        offset: i64,
    },
    /// A producer was told that its oldest unanswered request was not written, in part or as a whole.
    Refused {
        /// Who.
        producer: u32,
        /// Kafka's code.
        code: i16,
    },
    /// A producer was told that a number does not follow, though everything before it was acknowledged.
    Forgotten {
        /// Who.
        producer: u32,
        /// Where.
        partition: Partition,
        /// The number that was refused.
        number: u64,
    },
    /// A group asked what it has committed, and got this answer.
    Resumed {
        /// Which group.
        group: Arc<str>,
        /// Where.
        partition: Partition,
        /// The answer; none where it said that nothing is committed.
        offset: Option<i64>,
        /// How many events there were when it asked.
        asked_at: usize,
    },
}

/// What a producer knows of a record it has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// No answer, or one that settles nothing: it may be there or not.
    Unknown,
    /// It must be there, at this offset if one was told.
    Acknowledged(Option<i64>),
}

/// What the partitions hold in the end, by offset.
pub type Contents = BTreeMap<Partition, BTreeMap<i64, Result<Record, Unreadable>>>;

/// A shared list of events.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    events: Vec<Event>,
    /// How far each producer's numbers are acknowledged on each partition.
    acknowledged_ends: HashMap<(u32, Partition), u64>,
    commits_count: usize,
    /// Whether the machine has no power, and what it said nevertheless.
    dark: bool,
    unheard: Vec<Event>,
}

impl History {
    /// Enters an event. False when nobody can have heard it: then the client must go on as if nothing had come.
    #[must_use = "a client that goes on with what nobody heard knows too much"]
    pub fn enter(&self, event: Event) -> bool {
        let mut entries = self.lock();
        if entries.dark && !matches!(event, Event::Sent { .. }) {
            entries.unheard.push(event);
            return false;
        }
        entries.count(&event);
        entries.events.push(event);
        true
    }

    /// The power is about to be cut. In the laboratory the machine goes on for a moment, and a sync that was under way
    /// may then return as if it had succeeded (ext4 gives up its journal while others wait for it). Nobody hears a
    /// machine without power, so what it says from here on promises nothing.
    pub fn power_is_cut(&self) {
        self.lock().dark = true;
    }

    /// Whether nobody can hear the machine.
    pub fn is_dark(&self) -> bool {
        self.lock().dark
    }

    /// The power is back.
    pub fn power_is_back(&self) {
        self.lock().dark = false;
    }

    /// How many events there are; the moment of a question, for [`Event::Resumed`].
    pub fn len(&self) -> usize {
        self.lock().events.len()
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many records were acknowledged so far; one that was sent and acknowledged again counts once.
    pub fn acknowledged_count(&self) -> u64 {
        self.lock().acknowledged_ends.values().sum()
    }

    /// How many commits were acknowledged so far.
    pub fn commits_count(&self) -> usize {
        self.lock().commits_count
    }

    /// Whether each of these producers was refused with this code after the first `since` events.
    pub fn are_refused(&self, producers: Range<u32>, code: i16, since: usize) -> bool {
        let entries = self.lock();
        let later = &entries.events[since..];
        producers.into_iter().all(|producer| later.contains(&Event::Refused { producer, code }))
    }

    /// Holds what was told against what is there.
    pub fn check(&self, contents: &Contents) -> Findings {
        let entries = self.lock();
        let mut findings = check(&entries.events, contents);
        findings.lost_after_the_cut = check::lost(&entries.unheard, contents);
        findings
    }

    /// Holds what groups were told against what a `read_committed` reader finds in the end. What producers did stands in
    /// a [`Ledger`].
    pub fn check_groups(&self, committed: &Contents) -> Findings {
        check::check_groups(&self.lock().events, committed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Entries {
    fn count(&mut self, event: &Event) {
        match event {
            Event::Acknowledged { producer, partition, numbers, .. } => {
                let end = self.acknowledged_ends.entry((*producer, *partition)).or_default();
                *end = numbers.end.max(*end);
            }
            Event::Committed { .. } => self.commits_count += 1,
            _ => {}
        }
    }
}
