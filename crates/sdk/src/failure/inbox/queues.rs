//! Who waits for whom, as the groups that preserve the order of keys have written it.

use std::collections::HashMap;
use std::time::Duration;

use super::{FailureInbox, InboxError};
use crate::cluster::Cluster;
use crate::failure::letter::Line;
use crate::failure::{FailureContext, Letter, LetterId, Parked, ParkedBook, Standing};
use crate::reader::{ReadError, ReadFrom, TopicReader};

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

/// The queues of each group, read when a letter of it is met first. For one call: they change all the time.
pub(super) struct Queues<'a> {
    inbox: &'a FailureInbox,
    by_group: HashMap<String, ParkedBook>,
}

impl<'a> Queues<'a> {
    pub(super) fn new(inbox: &'a FailureInbox) -> Self {
        Self { inbox, by_group: HashMap::new() }
    }

    /// Says where a letter stands in its queue.
    pub(super) fn place(&mut self, letter: &mut Letter) -> Result<(), InboxError> {
        if let Some(context) = &letter.context
            && self.parked(context, letter.id)?.is_some()
            && let Some((first_place, first, waiting)) =
                self.by_group[&context.group].queue_of(place(context))
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
        if !self.by_group.contains_key(&context.group) {
            let book = self.read(&context.group)?;
            self.by_group.insert(context.group.clone(), book);
        }
        let parked = self.by_group[&context.group].get(place(context));
        Ok(parked.filter(|parked| parked.letter == letter))
    }

    /// The queues of all groups. Groups are known by the names of their topics.
    pub(super) fn all(&self) -> Result<Vec<Queue>, InboxError> {
        let topics = self.inbox.admin()?.list_topics()?;
        let source = &self.inbox.topics.source;
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
            queues.extend(self.read_topic(topic)?.queues().map(|(partition, key, first, waiting)| Queue {
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

    fn read(&self, group: &str) -> Result<ParkedBook, InboxError> {
        self.read_topic(&self.inbox.topics.parked(group))
    }

    fn read_topic(&self, topic: &str) -> Result<ParkedBook, InboxError> {
        let timeout = self.inbox.timeout;
        match read_parked(&self.inbox.cluster, topic, timeout)? {
            Some(book) => Ok(book),
            None => Err(InboxError::TimedOut { topic: topic.to_string(), waited: timeout }),
        }
    }
}

/// The queues in a `parked` topic, empty where there is none; `None` if it was not read to its end in time.
pub(crate) fn read_parked(
    cluster: &Cluster,
    topic: &str,
    timeout: Duration,
) -> Result<Option<ParkedBook>, ReadError> {
    let mut book = ParkedBook::default();
    let mut reader = match TopicReader::open(cluster, topic, ReadFrom::Earliest, timeout) {
        Err(ReadError::UnknownTopic { .. }) => return Ok(Some(book)),
        opened => opened?,
    };
    while let Some(record) = reader.next_until_end(timeout)? {
        book.apply(record.key.as_deref(), record.value.as_deref());
    }
    Ok(reader.is_at_end().then_some(book))
}

/// Where the record of a letter stands in its source topic.
pub(super) fn place(context: &FailureContext) -> (i32, i64) {
    (context.partition, context.offset)
}
