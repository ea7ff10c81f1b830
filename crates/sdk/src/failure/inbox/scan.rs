//! Reading letters, page by page, without reading what the status already excludes.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::{FailureInbox, InboxError};
use crate::failure::status::StatusBook;
use crate::failure::{Letter, LetterId, StatusFilter};
use crate::reader::{Bounds, TopicReader};
use crate::record::ReceivedRecord;

/// Bytes of letters on one page: a page ends early behind the letter that exceeds them.
const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Letters passed over before the reader jumps instead of reading on.
const JUMP_LETTERS: i64 = 256;

/// One pass over the dead letter topic, up to the ends it had when the pass began.
pub(super) struct Scan<'a> {
    pub(super) inbox: &'a FailureInbox,
    pub(super) reader: TopicReader,
    pub(super) bounds: BTreeMap<i32, Bounds>,
}

impl Scan<'_> {
    /// Letters from `from` on, and where to go on; `None` at the end. An error if nothing at all could be read in time: who goes
    /// on where a page ended must not do so for ever.
    pub(super) fn page(
        &mut self,
        book: &StatusBook,
        filter: StatusFilter,
        from: LetterId,
        limit: usize,
    ) -> Result<(Vec<Letter>, Option<LetterId>), InboxError> {
        let deadline = Instant::now() + self.inbox.timeout;
        let mut letters = Vec::new();
        let mut bytes_left = MAX_PAGE_BYTES;
        let mut has_read = false;
        let partitions: Vec<_> =
            self.bounds.range(from.partition..).map(|(id, bounds)| (*id, *bounds)).collect();
        for (partition, bounds) in partitions {
            let first = if partition == from.partition { from.offset } else { 0 };
            let mut next = LetterId { partition, offset: first.max(bounds.start_offset) };
            let mut assigned_at = None;
            loop {
                next = book.next_admitted(filter, next);
                if next.offset >= bounds.end_offset {
                    break;
                }
                if letters.len() >= limit || bytes_left == 0 || (has_read && Instant::now() >= deadline) {
                    return Ok((letters, Some(next)));
                }
                if assigned_at.is_none_or(|at| next.offset - at > JUMP_LETTERS) {
                    self.seek(next)?;
                }
                let Some(record) = self.read(partition, deadline)? else {
                    // Behind the last record, below the end: only gaps are left.
                    if self.reader.is_at_end() {
                        has_read = true;
                        break;
                    }
                    return if has_read { Ok((letters, Some(next))) } else { Err(self.timed_out()) };
                };
                has_read = true;
                assigned_at = Some(record.offset);
                if record.offset < next.offset {
                    continue;
                }
                next.offset = record.offset;
                let resolution = book.get(next);
                if filter.admits(resolution.is_some()) {
                    bytes_left = bytes_left.saturating_sub(record.size_bytes());
                    letters.push(Letter::from_record(&self.inbox.topics.source, record, resolution));
                }
                next.offset += 1;
            }
        }
        Ok((letters, None))
    }

    pub(super) fn letter(&mut self, book: &StatusBook, id: LetterId) -> Result<Letter, InboxError> {
        let unknown = || InboxError::UnknownLetter { id, letters: self.inbox.topics.letters.to_string() };
        let bounds = self.bounds.get(&id.partition).copied().ok_or_else(unknown)?;
        if !(bounds.start_offset..bounds.end_offset).contains(&id.offset) {
            return Err(unknown());
        }
        self.seek(id)?;
        let found = self.read(id.partition, Instant::now() + self.inbox.timeout)?;
        match found {
            Some(record) if record.offset == id.offset => {
                Ok(Letter::from_record(&self.inbox.topics.source, record, book.get(id)))
            }
            Some(_) => Err(InboxError::UnknownLetter { id, letters: self.inbox.topics.letters.to_string() }),
            None if self.reader.is_at_end() => {
                Err(InboxError::UnknownLetter { id, letters: self.inbox.topics.letters.to_string() })
            }
            None => Err(self.timed_out()),
        }
    }

    fn timed_out(&self) -> InboxError {
        let (topic, waited) = (self.inbox.topics.letters.to_string(), self.inbox.timeout);
        InboxError::TimedOut { topic, waited }
    }

    fn seek(&mut self, to: LetterId) -> Result<(), InboxError> {
        Ok(self.reader.restart(&HashMap::from([(to.partition, to.offset)]))?)
    }

    fn read(&mut self, partition: i32, deadline: Instant) -> Result<Option<ReceivedRecord>, InboxError> {
        let left = deadline.saturating_duration_since(Instant::now());
        let record = self.reader.next_until_end(left)?;
        Ok(record.filter(|record| record.partition == partition))
    }
}
