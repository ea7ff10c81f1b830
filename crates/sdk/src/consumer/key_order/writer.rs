//! The transactions that park records and let them go: letters, parked state, status and offsets together.
//!
//! What several workers want at the same time shares a transaction: one of them writes for all. The others wait for their
//! answers, and not for whoever writes next.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::{KeyOrder, KeyOrderError};
use crate::cluster::Cluster;
use crate::consumer::membership::{Membership, PartitionKey};
use crate::consumer::scheduler::Due;
use crate::consumer::transactional::{STEP_TIMEOUT, Transactional};
use crate::failure::{LetterId, Parked, Standing, gone_record, parked_record};
use crate::producer::Delivered;
use crate::record::Record;

/// How long whoever writes waits for as many requests as were written last: their workers come back with the next ones.
const GATHER_WAIT: Duration = Duration::from_millis(2);

/// What one worker wants to be written.
#[derive(Default)]
pub(super) struct Request {
    pub(super) letters: Vec<NewLetter>,
    /// Places that wait no more, with their `parked` topics.
    pub(super) gone: Vec<(Arc<str>, (i32, i64))>,
    pub(super) statuses: Vec<Record>,
    /// Records that are done with this, by the assignment of their partition.
    pub(super) offsets: Vec<(PartitionKey, u64, i64)>,
}

/// A record that parks.
pub(super) struct NewLetter {
    pub(super) letter: Record,
    pub(super) parked: Arc<str>,
    pub(super) place: (i32, i64),
    pub(super) key: Vec<u8>,
    pub(super) standing: Standing,
}

type Answer = Arc<Mutex<Option<Result<(), KeyOrderError>>>>;

pub(super) struct Writer {
    transactional_id: String,
    consumer: Mutex<Weak<BaseConsumer<Membership>>>,
    queue: Mutex<Queue>,
    /// A request came.
    came: Condvar,
    /// Answers were given, and nobody writes.
    answered: Condvar,
    /// `None` after a failure: the next one begins anew, which ends whatever was open.
    producer: Mutex<Option<Transactional>>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<(Request, Answer)>,
    is_being_written: bool,
    /// Requests in the last transaction.
    last_count: usize,
}

/// Held by whoever writes. Lets the others go on, whatever happens.
struct Turn<'a>(&'a Writer);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.queue.lock().is_being_written = false;
        self.0.answered.notify_all();
    }
}

impl Writer {
    pub(super) fn new(transactional_id: String) -> Self {
        Self {
            transactional_id,
            consumer: Mutex::default(),
            queue: Mutex::default(),
            came: Condvar::new(),
            answered: Condvar::new(),
            producer: Mutex::default(),
        }
    }

    pub(super) fn set_consumer(&self, consumer: Weak<BaseConsumer<Membership>>) {
        *self.consumer.lock() = consumer;
    }

    /// Ends what a former life under the same id has open.
    pub(super) fn open(&self, cluster: &Cluster) -> Result<(), KeyOrderError> {
        let mut producer = self.producer.lock();
        if producer.is_none() {
            *producer = Some(Transactional::open(cluster, &self.transactional_id)?);
        }
        Ok(())
    }

    /// Writes a request, with whatever else waits.
    pub(super) fn write(&self, order: &KeyOrder, request: Request) -> Result<(), KeyOrderError> {
        let answer = Answer::default();
        let mut queue = self.queue.lock();
        queue.waiting.push((request, Arc::clone(&answer)));
        self.came.notify_one();
        while queue.is_being_written {
            self.answered.wait(&mut queue);
            if let Some(answer) = answer.lock().take() {
                return answer;
            }
        }
        queue.is_being_written = true;
        let until = Instant::now() + GATHER_WAIT;
        while queue.waiting.len() < queue.last_count && !self.came.wait_until(&mut queue, until).timed_out() {
        }
        let waiting = std::mem::take(&mut queue.waiting);
        queue.last_count = waiting.len();
        drop(queue);
        let turn = Turn(self);
        let (requests, answers): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let results = self.run(order, &mut self.producer.lock(), requests);
        for (answer, result) in answers.iter().zip(results) {
            *answer.lock() = Some(result);
        }
        drop(turn);
        let own = answer.lock().take();
        own.unwrap_or(Err(KeyOrderError::Settled))
    }

    /// One result for each request.
    fn run(
        &self,
        order: &KeyOrder,
        slot: &mut Option<Transactional>,
        requests: Vec<Request>,
    ) -> Vec<Result<(), KeyOrderError>> {
        let count = requests.len();
        let Some(producer) = slot else {
            return vec![Err(self.settle(order, slot)); count];
        };
        // Before it is known that the partitions are ours: so the group refuses it if they are given away meanwhile.
        let metadata = self.consumer.lock().upgrade().and_then(|consumer| consumer.group_metadata());
        let Some(metadata) = metadata else { return vec![Err(KeyOrderError::NotOwner); count] };
        let mut due: HashMap<PartitionKey, Due> = HashMap::new();
        let mut results = Vec::with_capacity(count);
        let mut current = Vec::new();
        {
            let mut board = order.board.lock();
            let mut done = Vec::new();
            for request in requests {
                let is_current =
                    request.offsets.iter().all(|(key, epoch, _)| board.scheduler.is_current(key, *epoch));
                let is_current = is_current || order.unprotected.without_fence;
                results.push(if is_current { Ok(()) } else { Err(KeyOrderError::NotOwner) });
                if is_current {
                    done.extend(request.offsets.iter().map(|(key, _, offset)| (key.clone(), *offset)));
                    current.push(request);
                }
            }
            for one in board.scheduler.due_with(&done) {
                due.insert(one.key.clone(), one);
            }
        }
        if current.is_empty() {
            return results;
        }
        let written = write(producer, &current, &due, metadata);
        let result = match written {
            Ok(ends) if order.wait_for(&ends, STEP_TIMEOUT) => Ok(()),
            Ok(_) => Err(KeyOrderError::Behind),
            Err(error) => {
                let fault = producer.fault(&error);
                tracing::debug!(group = order.group, %error, "parking failed");
                if !producer.abort() {
                    // Whether it counts is not known: a new producer under the same id settles that.
                    *slot = None;
                }
                Err(KeyOrderError::Transaction { fault })
            }
        };
        for one in results.iter_mut().filter(|one| one.is_ok()) {
            *one = result.clone();
        }
        results
    }

    /// Makes a new producer after one whose last transaction may have gone either way, and reads which way it went.
    fn settle(&self, order: &KeyOrder, slot: &mut Option<Transactional>) -> KeyOrderError {
        let producer = match Transactional::open(&order.cluster, &self.transactional_id) {
            Ok(producer) => producer,
            Err(error) => return error.into(),
        };
        let topics: Vec<_> =
            order.watched.lock().values().map(|watched| Arc::clone(&watched.parked)).collect();
        match order.barrier(&topics, STEP_TIMEOUT) {
            Ok(true) => {
                *slot = Some(producer);
                KeyOrderError::Settled
            }
            _ => KeyOrderError::Behind,
        }
    }
}

/// The whole transaction. Answers how far the `parked` topics must be read to know of it.
fn write(
    producer: &Transactional,
    requests: &[Request],
    due: &HashMap<PartitionKey, Due>,
    metadata: ConsumerGroupMetadata,
) -> Result<HashMap<Arc<str>, i64>, KafkaError> {
    producer.begin()?;
    let letters: Vec<&NewLetter> = requests.iter().flat_map(|request| &request.letters).collect();
    let placed = producer.send(letters.iter().map(|new| &new.letter))?;
    let mut states = Vec::new();
    for (new, Delivered { partition, offset }) in letters.iter().zip(placed) {
        let parked = Parked { letter: LetterId { partition, offset }, standing: new.standing };
        states.push(parked_record(&new.parked, new.place, &new.key, parked).partition(0));
    }
    for (parked, place) in requests.iter().flat_map(|request| &request.gone) {
        states.push(gone_record(parked, *place).partition(0));
    }
    let statuses = requests.iter().flat_map(|request| &request.statuses);
    let placed = producer.send(states.iter().chain(statuses))?;
    let mut ends: HashMap<Arc<str>, i64> = HashMap::new();
    for (state, delivered) in states.iter().zip(placed) {
        let end = ends.entry(Arc::clone(&state.topic)).or_default();
        *end = (*end).max(delivered.offset + 1);
    }
    let mut offsets = TopicPartitionList::with_capacity(due.len());
    for Due { key: (topic, partition), next_offset, metadata, .. } in due.values() {
        let mut element = offsets.add_partition(topic, *partition);
        element.set_offset(Offset::Offset(*next_offset))?;
        if !metadata.is_empty() {
            element.set_metadata(metadata);
        }
    }
    producer.commit(offsets, metadata)?;
    Ok(ends)
}
