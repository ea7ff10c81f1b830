//! Who waits for whom, as the groups that preserve the order of keys have written it.

use std::collections::HashMap;

use super::{FailureInbox, InboxError};
use crate::failure::letter::Line;
use crate::failure::{FailureContext, Letter, LetterId, Parked, ParkedBook};
use crate::reader::{ReadError, ReadFrom, TopicReader};

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

    fn read(&self, group: &str) -> Result<ParkedBook, InboxError> {
        let topic = self.inbox.topics.parked(group);
        let mut book = ParkedBook::default();
        let timeout = self.inbox.timeout;
        let mut reader = match TopicReader::open(&self.inbox.cluster, &topic, ReadFrom::Earliest, timeout) {
            Err(ReadError::UnknownTopic { .. }) => return Ok(book),
            opened => opened?,
        };
        while let Some(record) = reader.next_until_end(timeout)? {
            book.apply(record.key.as_deref(), record.value.as_deref());
        }
        if !reader.is_at_end() {
            return Err(InboxError::TimedOut { topic: topic.to_string(), waited: timeout });
        }
        Ok(book)
    }
}

/// Where the record of a letter stands in its source topic.
pub(super) fn place(context: &FailureContext) -> (i32, i64) {
    (context.partition, context.offset)
}
