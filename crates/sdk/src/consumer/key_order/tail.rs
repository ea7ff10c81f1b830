//! The thread that reads the `parked` topics, and hands out again what they release.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::{KeyOrder, KeyOrderError, Released};
use crate::cluster::{Cluster, LogContext};
use crate::consumer::membership::PartitionKey;
use crate::drop_later::DropLater;
use crate::failure::{LetterId, Parked, Standing, gone_record, original_record};
use crate::native;
use crate::outsider::outsider;
use crate::record::ReceivedRecord;

/// How long the thread waits for news: bounds the time until a new assignment is looked at, and until the end.
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// Letters read in one turn.
const MAX_TURN_LETTERS: usize = 64;
/// Parked records handed out and not done. From the half on, one of a key.
const MAX_IN_HAND: usize = 1_000;
/// Records of a key that are handed out together.
const MAX_KEY_IN_HAND: usize = 100;
/// How long to wait after a letter that did not arrive.
const LETTER_RETRY: Duration = Duration::from_secs(1);
/// How long a letter may take to arrive.
const LETTER_WAIT: Duration = Duration::from_secs(2);
/// Letters passed over before the reader jumps instead of reading on.
const JUMP_LETTERS: i64 = 500;
/// Letters passed over that are kept, for they may be wanted next, and their bytes.
const MAX_KEPT_LETTERS: usize = 2_000;
const MAX_KEPT_BYTES: usize = 8 * 1024 * 1024;
/// How long the cluster may hold an empty fetch. A reader that jumps waits for the fetch before it.
const FETCH_WAIT_MAX_MS: &str = "20";

pub(super) struct Tail {
    order: Arc<KeyOrder>,
    consumer: DropLater<BaseConsumer<LogContext>>,
    /// `parked` topics read, and their sources.
    assigned: HashMap<Arc<str>, Arc<str>>,
    letters: Letters,
    /// The assignments that records were handed out under.
    epochs: HashMap<PartitionKey, u64>,
    /// Nothing is handed out before.
    next_letters: Instant,
}

/// Reads single letters, cheaply if they follow each other.
struct Letters {
    consumer: DropLater<BaseConsumer<LogContext>>,
    /// Where it stands.
    at: Option<(Arc<str>, LetterId)>,
    /// Letters it has passed over.
    kept: HashMap<(Arc<str>, LetterId), ReceivedRecord>,
    kept_bytes: usize,
}

/// A parked record that is to be handed out.
struct Wanted {
    source: Arc<str>,
    letters: Arc<str>,
    parked_topic: Arc<str>,
    place: (i32, i64),
    parked: Parked,
    epoch: u64,
}

enum Found {
    Letter(Box<ReceivedRecord>),
    /// Its topic holds later ones, and not this one.
    Gone,
    NotYet,
}

impl Tail {
    pub(super) fn new(order: Arc<KeyOrder>, cluster: &Cluster) -> Result<Self, KeyOrderError> {
        let mut config = cluster.reader_config("tidings-reader")?;
        config.set("auto.offset.reset", "earliest");
        let consumer = outsider(cluster, &config)?;
        config.set("fetch.wait.max.ms", FETCH_WAIT_MAX_MS);
        let letters =
            Letters { consumer: outsider(cluster, &config)?, at: None, kept: HashMap::new(), kept_bytes: 0 };
        let (assigned, epochs) = (HashMap::new(), HashMap::new());
        Ok(Self { order, consumer, assigned, letters, epochs, next_letters: Instant::now() })
    }

    pub(super) fn run(mut self) {
        let mut wait = IDLE_WAIT;
        while !self.order.is_stopping() {
            self.assign();
            if self.order.unprotected.is_deaf.load(Ordering::Relaxed) {
                std::thread::sleep(IDLE_WAIT);
                continue;
            }
            while let Some(polled) = self.consumer.poll(wait) {
                wait = Duration::ZERO;
                match polled {
                    Ok(message) => {
                        let topic = message.topic();
                        let Some((parked, source)) = self.assigned.get_key_value(topic) else { continue };
                        let record = native::to_received(&message, Arc::clone(parked));
                        if let Some(watched) = self.order.watched.lock().get_mut(source) {
                            watched.apply(&record);
                        }
                        self.order.changed.notify_all();
                    }
                    Err(error) => tracing::debug!(group = self.order.group, %error, "parked topic not read"),
                }
            }
            wait = if self.hand_out() { Duration::ZERO } else { IDLE_WAIT };
        }
    }

    /// Reads the topics that are to be read, each from where it is.
    fn assign(&mut self) {
        let watched = self.order.watched.lock();
        if watched.len() == self.assigned.len() {
            return;
        }
        let mut list = TopicPartitionList::with_capacity(watched.len());
        for watched in watched.values() {
            let offset = match watched.next_offset {
                0 => Offset::Beginning,
                next => Offset::Offset(next),
            };
            if let Err(error) = list.add_partition_offset(&watched.parked, 0, offset) {
                tracing::warn!(%error, "parked topic not assigned");
            }
        }
        match self.consumer.assign(&list) {
            Ok(()) => {
                let pair = |(source, watched): (&Arc<str>, &super::Watched)| {
                    (Arc::clone(&watched.parked), Arc::clone(source))
                };
                self.assigned = watched.iter().map(pair).collect();
            }
            Err(error) => tracing::warn!(group = self.order.group, %error, "parked topics not assigned"),
        }
    }

    /// Hands out the first records of queues that wait for the group, in partitions that are ours. Whether there are more.
    fn hand_out(&mut self) -> bool {
        if Instant::now() < self.next_letters {
            return false;
        }
        let (epochs, is_full) = {
            let board = self.order.board.lock();
            (board.scheduler.resumed_epochs(), board.scheduler.is_full_now())
        };
        if epochs != self.epochs {
            self.forget_former(&epochs);
            self.epochs = epochs;
        }
        let wanted = self.wanted(is_full);
        let has_more = wanted.len() == MAX_TURN_LETTERS;
        for wanted in wanted {
            let Wanted { source, letters, parked, place, epoch, .. } = &wanted;
            let is_redriven = parked.standing == Standing::Released;
            let found = match self.letters.read(letters, parked.letter) {
                Found::Letter(letter) => original_record(*letter, is_redriven),
                Found::Gone => None,
                Found::NotYet => {
                    tracing::warn!(letter = %parked.letter, topic = %source, "letter not read; its key waits");
                    self.next_letters = Instant::now() + LETTER_RETRY;
                    return false;
                }
            };
            let Some((mut record, origin)) = found else {
                self.give_up(&wanted);
                continue;
            };
            record.topic = Arc::clone(source);
            let released = Released { letter: parked.letter, standing: parked.standing, origin };
            // In hand before it can be done: otherwise that would be forgotten.
            if let Some(watched) = self.order.watched.lock().get_mut(source) {
                watched.in_hand.insert(*place, *epoch);
            }
            self.order.board.push_released(*epoch, record, released);
        }
        has_more
    }

    /// Lets a key go on without a record whose letter somebody has removed from the dead letter topic.
    fn give_up(&mut self, wanted: &Wanted) {
        let Wanted { source, letters, parked_topic, parked, place, .. } = wanted;
        tracing::error!(
            letter = %parked.letter, topic = %letters, at = format!("{source}-{}@{}", place.0, place.1),
            "the letter of a parked record was removed; its key goes on without it"
        );
        let gone = gone_record(parked_topic, *place).partition(0);
        if let Some(Err(error)) = self.order.producer.send_batch_blocking(&[gone], LETTER_WAIT).pop() {
            tracing::warn!(%error, "parked state not written");
        }
        self.next_letters = Instant::now() + LETTER_RETRY;
    }

    /// What was handed out under assignments that are over is in nobody's hand.
    fn forget_former(&self, epochs: &HashMap<PartitionKey, u64>) {
        for (source, watched) in &mut *self.order.watched.lock() {
            let is_held = |place: &(i32, i64), epoch: &mut u64| {
                epochs.get(&(Arc::clone(source), place.0)) == Some(&*epoch)
            };
            watched.in_hand.retain(is_held);
        }
    }

    /// What is to be handed out now: queue by queue, each in its order; the queues by the letters of their first records, for
    /// letters are read cheaply in their order.
    fn wanted(&self, is_full: bool) -> Vec<Wanted> {
        let watched = self.order.watched.lock();
        let in_hand_count: usize = watched.values().map(|watched| watched.in_hand.len()).sum();
        if in_hand_count >= MAX_IN_HAND {
            return Vec::new();
        }
        // Of those that are in hand already each has at least one there, so that a turn does not grow with what waits.
        let most = in_hand_count + MAX_TURN_LETTERS;
        let mut firsts = BTreeMap::new();
        for ((source, partition), epoch) in &self.epochs {
            let Some((source, watched)) = watched.get_key_value(source) else { continue };
            for (letter, offset) in watched.book.released(*partition).take(most) {
                firsts.insert((source, letter), (watched, (*partition, offset), *epoch));
            }
        }
        let mut wanted = Vec::new();
        for ((source, _), (watched, place, epoch)) in firsts {
            let left = MAX_IN_HAND.saturating_sub(in_hand_count + wanted.len());
            let depth = if is_full || left < MAX_IN_HAND / 2 { 1 } else { MAX_KEY_IN_HAND };
            let room = left.min(MAX_TURN_LETTERS - wanted.len());
            if room == 0 {
                break;
            }
            let Some((_, queue)) = watched.book.around(place) else { continue };
            let queue = queue.take(depth).map(|(offset, parked)| ((place.0, *offset), *parked));
            let queue = queue.filter(|(place, _)| watched.in_hand.get(place) != Some(&epoch));
            wanted.extend(queue.take(room).map(|(place, parked)| Wanted {
                source: Arc::clone(source),
                letters: Arc::clone(&watched.topics.letters),
                parked_topic: Arc::clone(&watched.parked),
                place,
                parked,
                epoch,
            }));
        }
        wanted
    }
}

impl Letters {
    fn read(&mut self, topic: &Arc<str>, letter: LetterId) -> Found {
        if let Some(kept) = self.kept.remove(&(Arc::clone(topic), letter)) {
            self.kept_bytes -= kept.size_bytes();
            return Found::Letter(Box::new(kept));
        }
        let reads_on = self.at.as_ref().is_some_and(|(at_topic, at)| {
            at_topic == topic
                && at.partition == letter.partition
                && (0..=JUMP_LETTERS).contains(&(letter.offset - at.offset))
        });
        if !reads_on {
            let mut list = TopicPartitionList::with_capacity(1);
            let added = list.add_partition_offset(topic, letter.partition, Offset::Offset(letter.offset));
            if let Err(error) = added.and_then(|()| self.consumer.assign(&list)) {
                tracing::warn!(%error, "dead letter topic not assigned");
                return Found::NotYet;
            }
        }
        self.at = None;
        let deadline = Instant::now() + LETTER_WAIT;
        while Instant::now() < deadline {
            let polled = self.consumer.poll(deadline.saturating_duration_since(Instant::now()));
            let Some(Ok(message)) = polled else { continue };
            let found = LetterId { partition: message.partition(), offset: message.offset() };
            let is_wanted = message.topic() == &**topic && found.partition == letter.partition;
            if !is_wanted {
                continue;
            }
            if found.offset < letter.offset {
                self.keep(topic, found, native::to_received(&message, Arc::clone(topic)));
                continue;
            }
            self.at = Some((Arc::clone(topic), LetterId { offset: found.offset + 1, ..found }));
            return match found == letter {
                true => Found::Letter(Box::new(native::to_received(&message, Arc::clone(topic)))),
                false => Found::Gone,
            };
        }
        Found::NotYet
    }

    fn keep(&mut self, topic: &Arc<str>, letter: LetterId, record: ReceivedRecord) {
        if self.kept.len() >= MAX_KEPT_LETTERS || self.kept_bytes >= MAX_KEPT_BYTES {
            self.kept.clear();
            self.kept_bytes = 0;
        }
        self.kept_bytes += record.size_bytes();
        if let Some(before) = self.kept.insert((Arc::clone(topic), letter), record) {
            self.kept_bytes -= before.size_bytes();
        }
    }
}
