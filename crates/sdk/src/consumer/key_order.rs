//! The order of keys through failures: what a key's records wait for, and letting them go in their order.
//!
//! A record that is rejected parks its key: its later records become letters, too, and are handed to nobody. A redrive of
//! the first one lets the partition's owner hand it out again, from the letter, then the next one, until the queue is
//! empty; from then on the key's records flow again. Who waits for whom stands in the group's `parked` topic
//! ([`crate::failure`]), read by every member (`tail`) and written in transactions (`writer`).
//!
//! **Invariant:** a member changes what it knows by reading the topic only, its own writes included. **Invariant:** letter,
//! parked state and offset are one transaction, which the group refuses from a member that does not own the partition.
//! **Invariant:** a partition's records are given out only when everything that its former owner parked is known.

mod tail;
mod writer;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rdkafka::consumer::BaseConsumer;
use thiserror::Error;

use super::board::Board;
use super::membership::{Membership, PartitionKey};
use super::options::{ConsumerOptions, Unprotected};
use super::scheduler::Note;
use super::transactional::OpenError;
use crate::cluster::{Cluster, ClusterError};
use crate::error::KafkaFault;
use crate::failure::{
    Applied, BARRIER, Failure, FailureTopics, LetterId, Origin, Parked, ParkedBook, Resolution,
    ResolutionKind, Standing, letter_record, status_record,
};
use crate::producer::{Producer, SendError};
use crate::record::{ReceivedRecord, Record, now_ms};
use tail::Tail;
use writer::{NewLetter, Request, Writer};

/// Why records could not be parked, or let go. They come again.
#[derive(Debug, Clone, Error)]
pub(super) enum KeyOrderError {
    #[error("{limit} records of {topic} wait in the failure inbox: redrive or discard some of them")]
    Full { topic: Arc<str>, limit: usize },
    #[error("the partition was taken away")]
    NotOwner,
    #[error("a transaction whose end is unknown was settled")]
    Settled,
    #[error("the group's parked records were not read to their end in time")]
    Behind,
    #[error("the Kafka client could not be made: {0}")]
    Client(#[from] ClusterError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the transaction that parks records failed: {fault}; {}", fault.hint())]
    Transaction { fault: KafkaFault },
}

impl KeyOrderError {
    /// Whether somebody should know; the rest passes with the next attempt.
    pub(super) fn is_trouble(&self) -> bool {
        !matches!(self, Self::NotOwner | Self::Settled)
    }

    /// Whether only what takes no more room can be written.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
}

/// What to do with a record.
pub(super) enum Route {
    /// Hand it to the handler.
    Work,
    /// Park it behind this letter.
    Behind(LetterId),
    /// Leave it to those before it.
    Skip,
}

/// A parked record that is handed out again.
#[derive(Debug)]
pub(super) struct Released {
    letter: LetterId,
    standing: Standing,
    origin: Origin,
}

pub(super) struct KeyOrder {
    cluster: Cluster,
    group: String,
    /// Writes barriers.
    producer: Producer,
    board: Arc<Board>,
    max_parked_records: usize,
    unprotected: Unprotected,
    watched: Mutex<HashMap<Arc<str>, Watched>>,
    changed: Condvar,
    writer: Writer,
    is_stopping: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What is known of a source topic.
struct Watched {
    topics: FailureTopics,
    parked: Arc<str>,
    book: ParkedBook,
    /// Everything before it was read.
    next_offset: i64,
    /// Parked records that were handed out, by the assignment of their partition.
    in_hand: HashMap<(i32, i64), u64>,
}

impl KeyOrder {
    pub(super) fn new(
        cluster: &Cluster,
        producer: Producer,
        options: &ConsumerOptions,
        board: Arc<Board>,
    ) -> Arc<Self> {
        let group = &options.group;
        // A static member that comes back ends at once what its former life had open.
        let member = options.instance_id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let writer = Writer::new(format!("tidings-key-order-{group}-{member}"));
        Arc::new(Self {
            cluster: cluster.clone(),
            group: group.clone(),
            producer,
            board,
            max_parked_records: options.max_parked_records,
            unprotected: options.unprotected.clone(),
            watched: Mutex::default(),
            changed: Condvar::new(),
            writer,
            is_stopping: AtomicBool::new(false),
            thread: Mutex::default(),
        })
    }

    /// The consumer whose membership fences transactions.
    pub(super) fn set_consumer(&self, consumer: Weak<BaseConsumer<Membership>>) {
        self.writer.set_consumer(consumer);
    }

    /// Watches these source topics, whose `parked` topics exist.
    pub(super) fn watch(self: &Arc<Self>, sources: &[Arc<str>]) -> Result<(), KeyOrderError> {
        {
            let mut watched = self.watched.lock();
            for source in sources {
                watched.entry(Arc::clone(source)).or_insert_with(|| Watched::new(source, &self.group));
            }
        }
        self.writer.open(&self.cluster)?;
        let mut thread = self.thread.lock();
        if thread.is_none() {
            let tail = Tail::new(Arc::clone(self), &self.cluster)?;
            let name = format!("parked {}", self.group);
            match std::thread::Builder::new().name(name).spawn(move || tail.run()) {
                Ok(started) => *thread = Some(started),
                Err(error) => self.board.fail(format!("cannot start a thread: {error}")),
            }
        }
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.lock().take() {
            // What it panicked with was said by itself.
            let _ = thread.join();
        }
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Waits until everything is known that was parked in these partitions' topics before now, for at most twice `wait`.
    /// Called after the group's commits were read: those wait for transactions of former owners.
    pub(super) fn catch_up(&self, partitions: &[PartitionKey], wait: Duration) -> bool {
        if self.unprotected.without_barrier {
            return true;
        }
        let topics: Vec<Arc<str>> = {
            let watched = self.watched.lock();
            let of =
                |(topic, _): &PartitionKey| watched.get(topic).map(|watched| Arc::clone(&watched.parked));
            partitions.iter().filter_map(of).collect::<std::collections::BTreeSet<_>>().into_iter().collect()
        };
        match self.barrier(&topics, wait) {
            Ok(is_reached) => is_reached,
            Err(error) => {
                tracing::warn!(group = self.group, %error, "parked records not known yet; asking again");
                false
            }
        }
    }

    /// Reads these topics to where they are now. Writing that down, and reading it, may take `wait` each.
    fn barrier(&self, parked_topics: &[Arc<str>], wait: Duration) -> Result<bool, SendError> {
        let record = |topic: &Arc<str>| Record::new(Arc::clone(topic)).partition(0).key(BARRIER).value("");
        let records: Vec<_> = parked_topics.iter().map(record).collect();
        let sent = self.producer.send_batch_blocking(&records, wait);
        let mut ends = HashMap::new();
        for (topic, delivered) in parked_topics.iter().zip(sent) {
            ends.insert(Arc::clone(topic), delivered?.offset + 1);
        }
        Ok(self.wait_for(&ends, wait))
    }

    /// Waits until the `parked` topics are read up to these offsets.
    fn wait_for(&self, ends: &HashMap<Arc<str>, i64>, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let mut watched = self.watched.lock();
        loop {
            let is_read =
                |watched: &Watched| ends.get(&watched.parked).is_none_or(|end| watched.next_offset >= *end);
            if watched.values().all(is_read) {
                return true;
            }
            if self.changed.wait_until(&mut watched, deadline).timed_out() {
                return watched.values().all(is_read);
            }
        }
    }

    /// Whether nothing is left to do for a record: it is parked already, or a released one is not what is parked any more.
    pub(super) fn is_settled(&self, record: &ReceivedRecord, note: &Note) -> bool {
        let mut watched = self.watched.lock();
        let Some(watched) = watched.get_mut(&record.topic).filter(|_| record.key.is_some()) else {
            return false;
        };
        let place = (record.partition, record.offset);
        let parked = watched.book.get(place);
        let Some(released) = &note.released else { return parked.is_some() };
        let is_settled = parked.is_none_or(|parked| parked.letter != released.letter);
        if is_settled {
            watched.in_hand.remove(&place);
        }
        is_settled
    }

    /// What to do with a record that is not settled and about to be handled. Those of its queue that are `done` and still
    /// known to wait are let go with it.
    pub(super) fn route(&self, record: &ReceivedRecord, note: &Note, is_done: impl Fn(i64) -> bool) -> Route {
        let Some(key) = &record.key else { return Route::Work };
        let mut watched = self.watched.lock();
        let Some(watched) = watched.get_mut(&record.topic) else { return Route::Work };
        let place = (record.partition, record.offset);
        if note.released.is_none() {
            let first = watched.book.first_of(record.partition, key);
            return first.map_or(Route::Work, |first| Route::Behind(first.letter));
        }
        // It may stand behind one that has failed again.
        let is_next = watched
            .book
            .around(place)
            .is_some_and(|(mut before, _)| before.all(|(offset, _)| is_done(*offset)));
        if is_next {
            return Route::Work;
        }
        watched.in_hand.remove(&place);
        Route::Skip
    }

    /// Whether a rejected record of this kind parks its key: one with a key, from a source topic.
    pub(super) fn is_ordered(&self, record: &ReceivedRecord) -> bool {
        record.key.is_some() && self.watched.lock().contains_key(&record.topic)
    }

    /// Parks records and lets go of released ones that are done: all in one transaction, known to this member on return.
    pub(super) fn write(&self, moves: Vec<Move<'_>>) -> Result<(), KeyOrderError> {
        let mut request = Request::default();
        {
            let watched = self.watched.lock();
            for one in moves {
                self.add(&mut request, one, &watched)?;
            }
        }
        self.writer.write(self, request)
    }

    fn add(
        &self,
        request: &mut Request,
        one: Move<'_>,
        watched: &HashMap<Arc<str>, Watched>,
    ) -> Result<(), KeyOrderError> {
        let Move { record, note, end } = one;
        let Some(watched) = watched.get(&record.topic) else { return Err(KeyOrderError::NotOwner) };
        let place = (record.partition, record.offset);
        request.offsets.push(((Arc::clone(&record.topic), record.partition), note.epoch, record.offset));
        if let Some(released) = &note.released
            && released.standing == Standing::Behind
        {
            let by: Arc<str> = format!("{} (in the order of its key)", self.group).into();
            let resolution = Resolution { kind: ResolutionKind::Redriven, by, at_ms: now_ms() };
            let status = Arc::clone(&watched.topics.status);
            request.statuses.push(status_record(status, released.letter, &resolution));
        }
        let (failure, standing, deliveries) = match end {
            End::Done => {
                request.gone.push((Arc::clone(&watched.parked), place));
                return Ok(());
            }
            End::Rejected(failure) => (failure.clone(), Standing::Failed, note.attempts),
            End::Behind(letter) => (Failure::new(format!("waits behind {letter}")), Standing::Behind, 0),
        };
        let limit = self.max_parked_records;
        if watched.book.len() + request.letters.len() >= limit && note.released.is_none() {
            return Err(KeyOrderError::Full { topic: Arc::clone(&record.topic), limit });
        }
        let mut origin = note
            .released
            .as_ref()
            .map_or_else(|| Origin::of(record, false), |released| released.origin.clone());
        origin.standing = Some(standing);
        request.letters.push(NewLetter {
            letter: letter_record(record, &origin, &failure, &self.group, deliveries, now_ms()),
            parked: Arc::clone(&watched.parked),
            place,
            key: record.key.clone().unwrap_or_default(),
            standing,
        });
        Ok(())
    }
}

/// A record whose state changes.
pub(super) struct Move<'a> {
    pub(super) record: &'a ReceivedRecord,
    pub(super) note: &'a Note,
    pub(super) end: End<'a>,
}

/// What became of it.
pub(super) enum End<'a> {
    /// A released one is done: it waits no more.
    Done,
    /// It parks its key.
    Rejected(&'a Failure),
    /// It waits behind this letter.
    Behind(LetterId),
}

impl Watched {
    fn new(source: &Arc<str>, group: &str) -> Self {
        let topics = FailureTopics::of(source);
        let parked = topics.parked(group);
        Self { topics, parked, book: ParkedBook::default(), next_offset: 0, in_hand: HashMap::new() }
    }

    fn apply(&mut self, record: &ReceivedRecord) {
        self.next_offset = record.offset + 1;
        match self.book.apply(record.key.as_deref(), record.value.as_deref()) {
            // Whatever was moved is not in hand any more, or is to be handed out anew.
            Applied::To(place) => {
                let parked = self.book.get(place);
                if parked.is_none_or(|Parked { standing, .. }| standing == Standing::Failed) {
                    self.in_hand.remove(&place);
                }
            }
            Applied::Barrier => {}
            Applied::NotOurs => {
                tracing::warn!(at = record.position(), "record of a parked topic not understood");
            }
        }
    }
}
