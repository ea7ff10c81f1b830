//! Parking, listing, redriving and discarding.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thiserror::Error;

use super::context::{Origin, cut_at_character, letter_record, redriven_record};
use super::status::{StatusBook, status_record};
use super::{
    Failure, FailureTopics, Letter, LetterId, LetterIdError, Resolution, ResolutionKind, StatusFilter,
};
use crate::admin::{Admin, AdminError};
use crate::cluster::Cluster;
use crate::producer::{Delivered, Producer, SendError};
use crate::reader::{Bounds, ReadError, ReadFrom, TopicReader};
use crate::record::{ReceivedRecord, Record, now_ms};

/// Letters on one page at most.
const MAX_PAGE_LETTERS: usize = 500;
/// Bytes of letters on one page: a page ends early behind the letter that exceeds them.
const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Letters that one call may name.
const MAX_SELECTED_IDS: usize = 10_000;
/// Skipped letters that a summary names; it counts all.
const MAX_SKIPPED_NAMED: usize = 100;
/// Redrives after which a letter is left alone: its record fails every time.
const MAX_REDRIVES: u32 = 10;
/// Letters passed over before the reader jumps instead of reading on.
const JUMP_LETTERS: i64 = 256;
/// Bytes kept of the name of who decided.
const MAX_BY_BYTES: usize = 256;

/// Why a call on the inbox failed.
#[derive(Debug, Clone, Error)]
pub enum InboxError {
    /// The source topic has no dead letter topic.
    #[error("topic {source_topic} has no failure inbox: {letters} does not exist")]
    NoInbox {
        /// The source topic.
        source_topic: String,
        /// Its dead letter topic.
        letters: String,
    },
    /// There is no such letter, or it is no longer kept.
    #[error("no letter {id} in {letters}")]
    UnknownLetter {
        /// The letter.
        id: LetterId,
        /// The dead letter topic.
        letters: String,
    },
    /// The cursor is none that a page gave.
    #[error("bad cursor: {0}")]
    BadCursor(#[from] LetterIdError),
    /// More letters named than one call may.
    #[error("{found} letters named, at most {limit} allowed")]
    TooManyIds {
        /// How many were named.
        found: usize,
        /// How many may be.
        limit: usize,
    },
    /// The cluster did not deliver the letters in time.
    #[error("{topic}: not read to its end within {} ms", waited.as_millis())]
    TimedOut {
        /// The topic.
        topic: String,
        /// How long was waited.
        waited: Duration,
    },
    /// Reading failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Creating the topics failed.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Writing failed. What was done before stays done.
    #[error("stopped after {done} letters: {error}")]
    Send {
        /// Letters finished before.
        done: u64,
        /// Why writing failed.
        #[source]
        error: SendError,
    },
}

/// Which letters to redrive or discard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Ids(Vec<LetterId>),
    /// All that are parked when the call begins.
    All,
}

/// A page of letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The letters, oldest first within each partition.
    pub items: Vec<Letter>,
    /// Where the next page begins; `None` if there is none. A page may be short, or even empty, and still have a next.
    pub next_cursor: Option<String>,
}

/// A letter that was left alone.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Skipped {
    /// The letter.
    pub id: LetterId,
    /// Why.
    pub reason: String,
}

/// What a redrive or a discard did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Letters redriven or discarded (with `dry_run`: that would be).
    pub done: u64,
    /// Letters left alone.
    pub skipped: u64,
    /// The first hundred of them, with the reason.
    pub skipped_letters: Vec<Skipped>,
    /// Whether nothing was changed.
    pub dry_run: bool,
}

/// The failure inbox of one source topic. All calls block; see the crate's documentation.
///
/// ```no_run
/// use tidings::failure::{FailureInbox, Selection, StatusFilter};
/// use tidings::{Cluster, Producer, ProducerOptions};
///
/// let cluster = Cluster::new("localhost:9092");
/// let producer = Producer::new(&cluster, ProducerOptions::default())?;
/// let inbox = FailureInbox::new(&cluster, producer, "orders");
/// for letter in inbox.list(StatusFilter::Parked, None, 50)?.items {
///     println!("{}: {:?}", letter.id, letter.context.map(|context| context.error));
/// }
/// let summary = inbox.redrive(&Selection::All, "ann", false)?;
/// println!("{} redriven, {} skipped", summary.done, summary.skipped);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FailureInbox {
    cluster: Cluster,
    producer: Producer,
    topics: FailureTopics,
    timeout: Duration,
    /// Held during a whole redrive or discard, so that two calls in this process cannot both take a letter.
    book: Mutex<StatusBook>,
    ready_groups: Mutex<BTreeSet<String>>,
}

impl FailureInbox {
    /// The inbox of a source topic. Opens no connection yet.
    pub fn new(cluster: &Cluster, producer: Producer, source_topic: &str) -> Self {
        Self {
            cluster: cluster.clone(),
            producer,
            topics: FailureTopics::of(source_topic),
            timeout: Duration::from_secs(10),
            book: Mutex::default(),
            ready_groups: Mutex::default(),
        }
    }

    /// Sets how long a call waits for the cluster (10 s). Reading a page takes at most about twice that.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The topics of this inbox.
    pub fn topics(&self) -> &FailureTopics {
        &self.topics
    }

    /// Creates the topics of the inbox if they are missing.
    pub fn ensure_topics(&self, letter_partitions: i32) -> Result<(), InboxError> {
        self.admin()?.ensure_topics(&self.topics.specs(letter_partitions))?;
        Ok(())
    }

    /// Parks a record that a handler of `group` rejected. Durable on return.
    pub fn park(
        &self,
        record: &ReceivedRecord,
        failure: &Failure,
        group: &str,
    ) -> Result<LetterId, InboxError> {
        let origin = Origin::of(record, *record.topic == *self.topics.retry(group));
        let mut letter = letter_record(record, &origin, failure, group, 1, now_ms());
        letter.topic = Arc::clone(&self.topics.letters);
        let Delivered { partition, offset } = self.send(&[letter], 0)?[0];
        Ok(LetterId { partition, offset })
    }

    /// A page of letters: at most `limit` (1 to 500), from `cursor` on, which is `next_cursor` of the page before.
    pub fn list(&self, filter: StatusFilter, cursor: Option<&str>, limit: usize) -> Result<Page, InboxError> {
        let from = cursor.map(str::parse).transpose()?.unwrap_or(LetterId { partition: 0, offset: 0 });
        let mut book = self.book.lock();
        let mut scan = self.scan(&mut book)?;
        let (items, next) = scan.page(&book, filter, from, limit.clamp(1, MAX_PAGE_LETTERS))?;
        Ok(Page { items, next_cursor: next.map(|next| next.to_string()) })
    }

    /// One letter, whatever its status.
    pub fn get(&self, id: LetterId) -> Result<Letter, InboxError> {
        let mut book = self.book.lock();
        self.scan(&mut book)?.letter(&book, id)
    }

    /// How many letters are parked: the kept ones that nobody has decided about.
    pub fn parked_count(&self) -> Result<u64, InboxError> {
        let mut book = self.book.lock();
        let scan = self.scan(&mut book)?;
        let kept: i64 = scan.bounds.values().map(|bounds| bounds.end_offset - bounds.start_offset).sum();
        Ok(u64::try_from(kept).unwrap_or(0).saturating_sub(book.len() as u64))
    }

    /// Writes the originals of parked letters to the retry topics of their groups, and marks the letters.
    ///
    /// Letters already decided about, letters of other tools and letters redriven ten times are skipped.
    /// `by` says who does it.
    pub fn redrive(&self, selection: &Selection, by: &str, dry_run: bool) -> Result<Summary, InboxError> {
        self.resolve(ResolutionKind::Redriven, selection, by, dry_run)
    }

    /// Marks parked letters as not needed. They stay in the dead letter topic.
    pub fn discard(&self, selection: &Selection, by: &str, dry_run: bool) -> Result<Summary, InboxError> {
        self.resolve(ResolutionKind::Discarded, selection, by, dry_run)
    }

    fn resolve(
        &self,
        kind: ResolutionKind,
        selection: &Selection,
        by: &str,
        dry_run: bool,
    ) -> Result<Summary, InboxError> {
        let by = cut_at_character(by, MAX_BY_BYTES);
        let mut book = self.book.lock();
        let mut scan = self.scan(&mut book)?;
        let mut summary = Summary { dry_run, ..Summary::default() };
        let mut work = Work { inbox: self, book: &mut book, kind, by: by.into(), summary: &mut summary };
        match selection {
            Selection::Ids(ids) if ids.len() > MAX_SELECTED_IDS => {
                return Err(InboxError::TooManyIds { found: ids.len(), limit: MAX_SELECTED_IDS });
            }
            Selection::Ids(ids) => {
                for id in ids.iter().copied().collect::<BTreeSet<_>>() {
                    match scan.letter(work.book, id) {
                        Ok(letter) => work.take(vec![letter])?,
                        Err(InboxError::UnknownLetter { .. }) => work.skip(id, "no such letter"),
                        Err(error) => return Err(error),
                    }
                }
            }
            // The ends were read before: letters that come back while this runs wait for the next call.
            Selection::All => {
                let mut from = Some(LetterId { partition: 0, offset: 0 });
                while let Some(begin) = from {
                    let (letters, next) =
                        scan.page(work.book, StatusFilter::Parked, begin, MAX_PAGE_LETTERS)?;
                    work.take(letters)?;
                    from = next;
                }
            }
        }
        Ok(summary)
    }

    /// Brings the status up to date and opens the dead letter topic.
    fn scan(&self, book: &mut StatusBook) -> Result<Scan<'_>, InboxError> {
        self.refresh(book)?;
        // Nothing is read before the first page says where.
        let nowhere = ReadFrom::Offsets(HashMap::new());
        let opened = TopicReader::open(&self.cluster, &self.topics.letters, nowhere, self.timeout);
        let reader = opened.map_err(|error| match error {
            ReadError::UnknownTopic { topic } => {
                InboxError::NoInbox { source_topic: self.topics.source.to_string(), letters: topic }
            }
            other => other.into(),
        })?;
        let bounds: BTreeMap<i32, Bounds> =
            reader.bounds().iter().map(|(id, bounds)| (*id, *bounds)).collect();
        for (partition, bounds) in &bounds {
            book.forget_before(*partition, bounds.start_offset);
        }
        Ok(Scan { inbox: self, reader, bounds })
    }

    /// Reads the status records written since the last time, by whomever.
    fn refresh(&self, book: &mut StatusBook) -> Result<(), InboxError> {
        let from = match book.next_offsets.is_empty() {
            true => ReadFrom::Earliest,
            false => ReadFrom::Offsets(book.next_offsets.clone()),
        };
        let mut reader = match TopicReader::open(&self.cluster, &self.topics.status, from, self.timeout) {
            // Nobody has decided about anything yet.
            Err(ReadError::UnknownTopic { .. }) => return Ok(()),
            opened => opened?,
        };
        while let Some(record) = reader.next_until_end(self.timeout)? {
            book.apply(&record);
        }
        if !reader.is_at_end() {
            return Err(InboxError::TimedOut { topic: self.topics.status.to_string(), waited: self.timeout });
        }
        book.next_offsets = reader.next_offsets().clone();
        Ok(())
    }

    fn send(&self, records: &[Record], done: u64) -> Result<Vec<Delivered>, InboxError> {
        let results = self.producer.send_batch_blocking(records, self.timeout);
        results.into_iter().collect::<Result<_, _>>().map_err(|error| InboxError::Send { done, error })
    }

    fn admin(&self) -> Result<Admin, InboxError> {
        Ok(Admin::new(&self.cluster, self.timeout).map_err(AdminError::from)?)
    }

    fn ensure_retry_topic(&self, group: &str) -> Result<(), InboxError> {
        let mut ready = self.ready_groups.lock();
        if !ready.contains(group) {
            self.admin()?.ensure_topics(&[self.topics.retry_spec(group)])?;
            ready.insert(group.to_string());
        }
        Ok(())
    }
}

/// One pass over the dead letter topic, up to the ends it had when the pass began.
struct Scan<'a> {
    inbox: &'a FailureInbox,
    reader: TopicReader,
    bounds: BTreeMap<i32, Bounds>,
}

impl Scan<'_> {
    /// Letters from `from` on, and where to go on; `None` at the end.
    fn page(
        &mut self,
        book: &StatusBook,
        filter: StatusFilter,
        from: LetterId,
        limit: usize,
    ) -> Result<(Vec<Letter>, Option<LetterId>), InboxError> {
        let deadline = Instant::now() + self.inbox.timeout;
        let mut letters = Vec::new();
        let mut bytes_left = MAX_PAGE_BYTES;
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
                if letters.len() >= limit || bytes_left == 0 || Instant::now() >= deadline {
                    return Ok((letters, Some(next)));
                }
                if assigned_at.is_none_or(|at| next.offset - at > JUMP_LETTERS) {
                    self.seek(next)?;
                }
                let Some(record) = self.read(partition, deadline)? else {
                    // Behind the last record, below the end: only gaps are left.
                    if self.reader.is_at_end() { break } else { return Ok((letters, Some(next))) }
                };
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

    fn letter(&mut self, book: &StatusBook, id: LetterId) -> Result<Letter, InboxError> {
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
            None => Err(InboxError::TimedOut {
                topic: self.inbox.topics.letters.to_string(),
                waited: self.inbox.timeout,
            }),
        }
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

/// A redrive or discard under way.
struct Work<'a> {
    inbox: &'a FailureInbox,
    book: &'a mut StatusBook,
    kind: ResolutionKind,
    by: Arc<str>,
    summary: &'a mut Summary,
}

impl Work<'_> {
    fn take(&mut self, letters: Vec<Letter>) -> Result<(), InboxError> {
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
            self.make_durable(&originals, &ids)?;
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

    fn make_durable(&mut self, originals: &[Record], ids: &[LetterId]) -> Result<(), InboxError> {
        let done = self.summary.done;
        self.inbox.send(originals, done)?;
        let resolution = Resolution { kind: self.kind, by: Arc::clone(&self.by), at_ms: now_ms() };
        let status = |id: &LetterId| status_record(Arc::clone(&self.inbox.topics.status), *id, &resolution);
        let statuses: Vec<_> = ids.iter().map(status).collect();
        self.inbox.send(&statuses, done)?;
        for id in ids {
            self.book.insert(*id, &resolution);
        }
        Ok(())
    }

    fn skip(&mut self, id: LetterId, reason: &str) {
        self.summary.skipped += 1;
        if self.summary.skipped_letters.len() < MAX_SKIPPED_NAMED {
            self.summary.skipped_letters.push(Skipped { id, reason: reason.to_string() });
        }
    }
}
