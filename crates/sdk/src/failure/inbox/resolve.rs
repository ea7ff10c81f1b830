//! Redriving and discarding: the original goes to the retry topic, and the decision to the status topic with it.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::queues::{Queues, place};
use super::scan::Scan;
use super::{FailureInbox, InboxError, MAX_SELECTED_PAGE, Skipped, Summary};
use crate::failure::context::redriven_record;
use crate::failure::status::{StatusBook, status_record};
use crate::failure::{
    FailureContext, Letter, LetterId, Parked, Resolution, ResolutionKind, Standing, gone_record,
    parked_record,
};
use crate::record::{Record, now_ms};

/// Skipped letters that a summary names; it counts all.
const MAX_SKIPPED_NAMED: usize = 100;
/// Redrives after which a letter is left alone: its record fails every time.
const MAX_REDRIVES: u32 = 10;

/// How fast a redrive goes, for a target that has just recovered.
///
/// ```
/// use std::num::NonZeroU32;
/// use std::time::Duration;
/// use tidings::failure::Pace;
///
/// let pace = Pace::per_second(NonZeroU32::new(20).unwrap()).at_most(Duration::from_secs(10));
/// assert_eq!(pace.at_most, Some(Duration::from_secs(10)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Letters a second at most.
    pub max_per_second: NonZeroU32,
    /// How long it may take, about; `None` is as long as it takes.
    pub at_most: Option<Duration>,
}

impl Pace {
    /// So many letters a second, for as long as it takes.
    pub fn per_second(max_per_second: NonZeroU32) -> Self {
        Self { max_per_second, at_most: None }
    }

    /// Sets how long it may take; what is left then is told by [`Summary::more`].
    pub fn at_most(self, at_most: Duration) -> Self {
        Self { at_most: Some(at_most), ..self }
    }
}

/// Which letters of a selection are taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    All,
    /// Those that wait behind others.
    Behind,
    /// The others.
    Rest,
}

impl Pass {
    /// What is discarded from behind is not let go before it is: its group would work on it.
    pub(super) fn of(kind: ResolutionKind) -> &'static [Self] {
        match kind {
            ResolutionKind::Redriven => &[Self::All],
            ResolutionKind::Discarded => &[Self::Behind, Self::Rest],
        }
    }

    fn takes(self, letter: &Letter) -> bool {
        let standing = letter.context.as_ref().and_then(|context| context.standing);
        match self {
            Self::All => true,
            Self::Behind => standing == Some(Standing::Behind),
            Self::Rest => standing != Some(Standing::Behind),
        }
    }
}

/// A redrive or discard under way.
pub(super) struct Work<'a> {
    pub(super) inbox: &'a FailureInbox,
    pub(super) queues: Queues<'a>,
    pub(super) book: &'a mut StatusBook,
    pub(super) kind: ResolutionKind,
    pub(super) by: Arc<str>,
    pub(super) pass: Pass,
    /// Since when, and how many letters a second at most.
    pub(super) pace: Option<(Instant, Pace)>,
    pub(super) summary: &'a mut Summary,
}

/// What a decision about a letter writes, besides its status.
enum Step {
    Write(Option<Record>),
    /// Nothing: the letter follows another one.
    Follows,
    /// Nothing, for this reason.
    Skip(String),
}

impl Work<'_> {
    /// Takes letters by their ids.
    pub(super) fn take_named(&mut self, scan: &mut Scan<'_>, ids: &[LetterId]) -> Result<(), InboxError> {
        let mut letters = Vec::new();
        for id in ids.iter().copied().collect::<BTreeSet<_>>() {
            if self.is_over() {
                break;
            }
            match scan.letter(self.book, id) {
                Ok(letter) => letters.push(letter),
                Err(InboxError::UnknownLetter { .. }) if self.pass != Pass::Behind => {
                    self.skip(id, "no such letter");
                }
                Err(InboxError::UnknownLetter { .. }) => {}
                Err(error) => return Err(error),
            }
            if letters.len() == MAX_SELECTED_PAGE {
                self.take(std::mem::take(&mut letters))?;
            }
        }
        self.take(letters)
    }

    /// Whether the time of its pace is over; there is more to look at then.
    pub(super) fn is_over(&mut self) -> bool {
        let at_most = self.pace.and_then(|(begun, pace)| Some((begun, pace.at_most?)));
        let is_over = at_most.is_some_and(|(begun, at_most)| begun.elapsed() >= at_most);
        self.summary.more |= is_over;
        is_over
    }

    pub(super) fn take(&mut self, letters: Vec<Letter>) -> Result<(), InboxError> {
        let mut originals = Vec::new();
        let mut ids = Vec::with_capacity(letters.len());
        let pass = self.pass;
        for letter in letters.into_iter().filter(|letter| pass.takes(letter)) {
            let id = letter.id;
            match self.step(letter)? {
                Step::Write(original) => {
                    originals.extend(original);
                    ids.push(id);
                }
                Step::Follows => self.summary.behind += 1,
                Step::Skip(reason) => self.skip(id, &reason),
            }
        }
        if !self.summary.dry_run && !ids.is_empty() {
            self.make_durable(originals, &ids)?;
        }
        self.summary.done += ids.len() as u64;
        if let Some((begun, pace)) = self.pace {
            let per_second = f64::from(pace.max_per_second.get());
            let due = begun + Duration::from_secs_f64(self.summary.done as f64 / per_second);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        Ok(())
    }

    fn step(&mut self, letter: Letter) -> Result<Step, InboxError> {
        if let Some(resolution) = &letter.resolution {
            return Ok(Step::Skip(format!("already {} by {}", resolution.kind.name(), resolution.by)));
        }
        let parked = match &letter.context {
            Some(context) => self.queues.surely_parked(context, letter.id)?,
            None => None,
        };
        if let (Some(context), Some(parked)) = (&letter.context, parked) {
            return Ok(self.step_in_order(&letter, context, parked));
        }
        if self.kind == ResolutionKind::Discarded {
            return Ok(Step::Write(None));
        }
        let original = self.original(letter);
        Ok(original.map_or_else(Step::Skip, |original| Step::Write(Some(original))))
    }

    /// The step of a letter whose group preserves the order of keys.
    fn step_in_order(&self, letter: &Letter, context: &FailureContext, parked: Parked) -> Step {
        let topic = self.inbox.topics.parked(&context.group);
        match (self.kind, parked.standing) {
            (ResolutionKind::Discarded, _) => {
                Step::Write(Some(gone_record(&topic, place(context)).partition(0)))
            }
            (ResolutionKind::Redriven, Standing::Behind | Standing::Released) => Step::Follows,
            (ResolutionKind::Redriven, Standing::Failed) if context.redrives >= MAX_REDRIVES => {
                Step::Skip(format!("redriven {} times already", context.redrives))
            }
            (ResolutionKind::Redriven, Standing::Failed) => {
                let released = Parked { standing: Standing::Released, ..parked };
                let key = letter.key.as_deref().unwrap_or_default();
                Step::Write(Some(parked_record(&topic, place(context), key, released).partition(0)))
            }
        }
    }

    /// What a redrive writes to the retry topic. An error says why the letter is skipped.
    fn original(&self, letter: Letter) -> Result<Record, String> {
        let context = letter.context.ok_or("written by another tool: it names no group to redrive to")?;
        if context.standing.is_some() {
            return Err("it waits no more: its group has gone on without it".into());
        }
        if context.redrives >= MAX_REDRIVES {
            return Err(format!("redriven {} times already", context.redrives));
        }
        let retry = self.inbox.topics.retry(&context.group);
        if !self.summary.dry_run {
            self.inbox.ensure_retry_topic(&context.group).map_err(|error| error.to_string())?;
        }
        Ok(redriven_record(letter.id, letter.key, letter.value, &letter.headers, &context, retry))
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
