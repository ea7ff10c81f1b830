//! Who waits for whom, as the groups that preserve the order of keys have written it.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::{FailureInbox, InboxError};
use crate::cluster::Cluster;
use crate::failure::letter::Line;
use crate::failure::{FailureContext, FailureTopics, Letter, LetterId, Parked, ParkedBook, Standing};
use crate::reader::{ReadError, ReadFrom, TopicReader, settle};

/// A key whose records wait for each other.
///
/// ```
/// use tidings::failure::{FailureInbox, Queue, Standing};
/// use tidings::{Cluster, Producer, ProducerOptions};
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// let producer = Producer::new(&cluster, ProducerOptions::default())?;
/// let inbox = FailureInbox::new(&cluster, producer, "orders");
/// # inbox.ensure_topics(1)?;
/// let is_undecided = |queue: &&Queue| queue.standing == Standing::Failed;
/// println!("{} keys wait for a person", inbox.queues(10)?.iter().filter(is_undecided).count());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The group that waits, by the name that its topics carry.
    pub group: String,
    /// Partition of the source topic.
    pub partition: i32,
    /// The key.
    pub key: Vec<u8>,
    /// The letter of the first record, which is the one to decide about.
    pub first: LetterId,
    /// What that waits for.
    pub standing: Standing,
    /// How many wait behind it.
    pub waiting: u64,
}

/// Queues that were read before are read on from there, if that was not longer ago: compaction takes away, after a day, what
/// says that something waits no more.
const MAX_BOOK_AGE: Duration = Duration::from_secs(600);

/// The queues of one group, as far as they were read.
#[derive(Debug)]
pub(super) struct Book {
    parked: ParkedBook,
    next_offset: i64,
    read_at: Instant,
}

/// The queues of each group, read to their end when a letter of it is met first. For one call: they change all the time.
pub(super) struct Queues<'a> {
    inbox: &'a FailureInbox,
    /// By `parked` topic.
    books: MutexGuard<'a, HashMap<String, Book>>,
    /// Those that this call has read to their end.
    fresh: HashSet<String>,
    /// Those in which all transactions had ended when they were read.
    settled: HashSet<String>,
}

impl<'a> Queues<'a> {
    pub(super) fn new(inbox: &'a FailureInbox) -> Self {
        Self { inbox, books: inbox.parked.lock(), fresh: HashSet::new(), settled: HashSet::new() }
    }

    /// Says where a letter stands in its queue.
    pub(super) fn place(&mut self, letter: &mut Letter) -> Result<(), InboxError> {
        if let Some(context) = &letter.context
            && self.parked(context, letter.id)?.is_some()
            && let Some((first_place, first, waiting)) =
                self.book(&self.topic_of(context))?.queue_of(place(context))
        {
            let behind = (first_place != place(context)).then_some(first.letter);
            letter.line = Some(Line { behind, waiting: waiting as u64 });
        }
        Ok(())
    }

    /// What the record of this letter waits for, if it does.
    pub(super) fn parked(
        &mut self,
        context: &FailureContext,
        letter: LetterId,
    ) -> Result<Option<Parked>, InboxError> {
        if context.standing.is_none() {
            return Ok(None);
        }
        let parked = self.book(&self.topic_of(context))?.get(place(context));
        Ok(parked.filter(|parked| parked.letter == letter))
    }

    /// The same, to decide about the letter. One that waits no more looks like one whose record is still on its way: the transaction
    /// that has written both ends in one topic before it does in the other.
    pub(super) fn surely_parked(
        &mut self,
        context: &FailureContext,
        letter: LetterId,
    ) -> Result<Option<Parked>, InboxError> {
        let topic = self.topic_of(context);
        let parked = self.parked(context, letter)?;
        if parked.is_some() || context.standing.is_none() || self.settled.contains(&topic) {
            return Ok(parked);
        }
        let timeout = self.inbox.timeout;
        if !settle(&self.inbox.cluster, &topic, timeout)? {
            return Err(InboxError::TimedOut { topic, waited: timeout });
        }
        self.fresh.remove(&topic);
        self.settled.insert(topic);
        self.parked(context, letter)
    }

    /// The queues of all groups, of an inbox that exists. Groups are known by the names of their topics.
    pub(super) fn all(&mut self) -> Result<Vec<Queue>, InboxError> {
        let topics = self.inbox.admin()?.list_topics()?;
        let FailureTopics { source, letters, .. } = &self.inbox.topics;
        if !topics.iter().any(|topic| *topic.name == **letters) {
            // A typing error would read as if nothing waited.
            return Err(self.inbox.no_inbox());
        }
        // Another source may be called like this one with a dot behind.
        let longer = |topic: &str| {
            let names = topics.iter().filter_map(|found| found.name.strip_suffix(".dlq"));
            let mut longer = names.filter(|name| name.len() > source.len());
            longer.any(|name| topic.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
        };
        let mut queues = Vec::new();
        for topic in topics.iter().map(|topic| topic.name.as_str()).filter(|topic| !longer(topic)) {
            let group = topic.strip_prefix(&**source).and_then(|rest| rest.strip_prefix('.'));
            let Some(group) = group.and_then(|rest| rest.strip_suffix(".parked")) else { continue };
            queues.extend(self.book(topic)?.queues().map(|(partition, key, first, waiting)| Queue {
                group: group.to_string(),
                partition,
                key: key.to_vec(),
                first: first.letter,
                standing: first.standing,
                waiting: waiting as u64,
            }));
        }
        Ok(queues)
    }

    fn topic_of(&self, context: &FailureContext) -> String {
        self.inbox.topics.parked(&context.group).to_string()
    }

    /// The queues in a `parked` topic, read to its end once in a call.
    fn book(&mut self, topic: &str) -> Result<&ParkedBook, InboxError> {
        if !self.fresh.contains(topic) {
            let timeout = self.inbox.timeout;
            let before = self.books.remove(topic).filter(|book| book.read_at.elapsed() < MAX_BOOK_AGE);
            let Some(book) = read_on(&self.inbox.cluster, topic, before, timeout)? else {
                return Err(InboxError::TimedOut { topic: topic.to_string(), waited: timeout });
            };
            self.books.insert(topic.to_string(), book);
            self.fresh.insert(topic.to_string());
        }
        Ok(&self.books[topic].parked)
    }
}

/// The queues in a `parked` topic, once all transactions have ended there; empty where there is none, `None` if it was not read to
/// its end in time.
pub(crate) fn read_parked(
    cluster: &Cluster,
    topic: &str,
    timeout: Duration,
) -> Result<Option<ParkedBook>, ReadError> {
    if !settle(cluster, topic, timeout)? {
        return Ok(None);
    }
    Ok(read_on(cluster, topic, None, timeout)?.map(|book| book.parked))
}

/// Reads the queues in a `parked` topic to its end, on from what is known of them. `None` where that took too long.
fn read_on(
    cluster: &Cluster,
    topic: &str,
    before: Option<Book>,
    timeout: Duration,
) -> Result<Option<Book>, ReadError> {
    let read_at = Instant::now();
    let nothing = || Book { parked: ParkedBook::default(), next_offset: 0, read_at };
    let mut book = Book { read_at, ..before.unwrap_or_else(nothing) };
    let from = ReadFrom::Offsets(HashMap::from([(0, book.next_offset)]));
    let mut reader = match TopicReader::open(cluster, topic, from, timeout) {
        Err(ReadError::UnknownTopic { .. }) => return Ok(Some(nothing())),
        opened => opened?,
    };
    if reader.bounds().get(&0).is_some_and(|bounds| bounds.end_offset < book.next_offset) {
        // It was made anew.
        book = nothing();
        reader.restart(&HashMap::from([(0, 0)]))?;
    }
    while let Some(record) = reader.next_until_end(timeout)? {
        book.parked.apply(record.key.as_deref(), record.value.as_deref());
    }
    book.next_offset = reader.next_offsets().get(&0).copied().unwrap_or(0);
    Ok(reader.is_at_end().then_some(book))
}

/// Where the record of a letter stands in its source topic.
pub(super) fn place(context: &FailureContext) -> (i32, i64) {
    (context.partition, context.offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::parked_record;
    use crate::producer::{TransactionalOptions, TransactionalProducer};
    use crate::testing::Broker;
    use crate::{Producer, ProducerOptions};

    fn context(standing: Standing) -> FailureContext {
        FailureContext {
            error: "no".into(),
            causes: Vec::new(),
            topic: "orders".into(),
            partition: 0,
            offset: 5,
            timestamp_ms: None,
            group: "billing".into(),
            attempts: 1,
            redrives: 0,
            first_failure_ms: 0,
            last_failure_ms: 0,
            standing: Some(standing),
        }
    }

    /// It was taken for one that waits no more, and discarded with nothing that would let its key go on.
    #[test]
    fn a_letter_whose_record_is_on_its_way_is_not_decided_about() {
        let broker = Broker::start().unwrap();
        let topics = FailureTopics::of("orders");
        let parked_topic = topics.parked("billing");
        broker.create_topic(&parked_topic, 1).unwrap();
        let cluster = broker.cluster();
        let producer = Producer::new(&cluster, ProducerOptions::default()).unwrap();
        let inbox = FailureInbox::new(&cluster, producer, "orders").timeout(Duration::from_secs(2));
        let letter = LetterId { partition: 0, offset: 3 };
        let context = context(Standing::Failed);
        let options = TransactionalOptions::default();
        let mut writer = TransactionalProducer::open(&cluster, "billing-0", options).unwrap();
        let mut transaction = writer.begin().unwrap();
        let parked = Parked { letter, standing: Standing::Failed };
        transaction.send(&parked_record(&parked_topic, place(&context), b"ada", parked)).unwrap();
        let ask = || Queues::new(&inbox).surely_parked(&context, letter);
        // As soon as the topic has its record.
        let until = Instant::now() + Duration::from_secs(60);
        while !matches!(ask(), Err(InboxError::TimedOut { .. })) {
            assert!(Instant::now() < until, "nobody waits for the transaction");
        }
        transaction.commit().unwrap();
        assert_eq!(ask().unwrap().map(|parked| parked.letter), Some(letter));
        let other = LetterId { offset: 4, ..letter };
        assert!(Queues::new(&inbox).surely_parked(&context, other).unwrap().is_none());
    }
}
