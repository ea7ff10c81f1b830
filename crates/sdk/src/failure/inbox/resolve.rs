//! Redriving and discarding: the original goes to the retry topic, and the decision to the status topic with it.

use std::sync::Arc;

use super::{FailureInbox, InboxError, Skipped, Summary};
use crate::failure::context::redriven_record;
use crate::failure::status::{StatusBook, status_record};
use crate::failure::{Letter, LetterId, Resolution, ResolutionKind};
use crate::record::{Record, now_ms};

/// Skipped letters that a summary names; it counts all.
const MAX_SKIPPED_NAMED: usize = 100;
/// Redrives after which a letter is left alone: its record fails every time.
const MAX_REDRIVES: u32 = 10;

/// A redrive or discard under way.
pub(super) struct Work<'a> {
    pub(super) inbox: &'a FailureInbox,
    pub(super) book: &'a mut StatusBook,
    pub(super) kind: ResolutionKind,
    pub(super) by: Arc<str>,
    pub(super) summary: &'a mut Summary,
}

impl Work<'_> {
    pub(super) fn take(&mut self, letters: Vec<Letter>) -> Result<(), InboxError> {
        let mut originals = Vec::new();
        let mut ids = Vec::with_capacity(letters.len());
        for letter in letters {
            let id = letter.id;
            match self.original(letter) {
                Ok(original) => {
                    originals.extend(original);
                    ids.push(id);
                }
                Err(reason) => self.skip(id, &reason),
            }
        }
        if !self.summary.dry_run && !ids.is_empty() {
            self.make_durable(originals, &ids)?;
        }
        self.summary.done += ids.len() as u64;
        Ok(())
    }

    /// What to write for a letter besides its status: nothing for a discard. An error says why it is skipped.
    fn original(&self, letter: Letter) -> Result<Option<Record>, String> {
        if let Some(resolution) = &letter.resolution {
            return Err(format!("already {} by {}", resolution.kind.name(), resolution.by));
        }
        if self.kind == ResolutionKind::Discarded {
            return Ok(None);
        }
        let context = letter.context.ok_or("written by another tool: it names no group to redrive to")?;
        if context.redrives >= MAX_REDRIVES {
            return Err(format!("redriven {} times already", context.redrives));
        }
        let retry = self.inbox.topics.retry(&context.group);
        if !self.summary.dry_run {
            self.inbox.ensure_retry_topic(&context.group).map_err(|error| error.to_string())?;
        }
        Ok(Some(redriven_record(letter.id, letter.key, letter.value, &letter.headers, &context, retry)))
    }

    fn make_durable(&mut self, originals: Vec<Record>, ids: &[LetterId]) -> Result<(), InboxError> {
        let resolution = Resolution { kind: self.kind, by: Arc::clone(&self.by), at_ms: now_ms() };
        let status = |id: &LetterId| status_record(Arc::clone(&self.inbox.topics.status), *id, &resolution);
        let records: Vec<_> = originals.into_iter().chain(ids.iter().map(status)).collect();
        self.inbox.write(&records, self.summary.done)?;
        for id in ids {
            self.book.insert(*id, &resolution);
        }
        Ok(())
    }

    pub(super) fn skip(&mut self, id: LetterId, reason: &str) {
        self.summary.skipped += 1;
        if self.summary.skipped_letters.len() < MAX_SKIPPED_NAMED {
            self.summary.skipped_letters.push(Skipped { id, reason: reason.to_string() });
        }
    }
}
