//! Parking, listing, redriving and discarding.

mod queues;
mod resolve;
mod scan;
mod transaction;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use thiserror::Error;

use super::context::{Origin, cut_at_character, letter_record};
use super::status::StatusBook;
use super::{Failure, FailureTopics, Letter, LetterId, LetterIdError, ResolutionKind, StatusFilter};
use crate::admin::{Admin, AdminError};
use crate::cluster::Cluster;
use crate::error::KafkaFault;
use crate::producer::{Delivered, Producer, SendError};
use crate::reader::{Bounds, ReadError, ReadFrom, TopicReader};
use crate::record::{ReceivedRecord, Record, now_ms};
pub use queues::Queue;
pub(crate) use queues::read_parked;
use queues::{Book, Queues};
pub use resolve::Pace;
use resolve::{Pass, Work};
use scan::Scan;
use transaction::{TransactionError, Transactions};

/// Letters on one page at most.
const MAX_PAGE_LETTERS: usize = 500;
/// Named letters that one transaction holds: each is an original and a decision.
const MAX_SELECTED_PAGE: usize = 16;
/// Letters that one call may name.
const MAX_SELECTED_IDS: usize = 10_000;
/// Bytes kept of the name of who decided.
const MAX_BY_BYTES: usize = 256;

/// Why a call on the inbox failed.
///
/// ```
/// use tidings::failure::{FailureInbox, InboxError};
/// use tidings::{Cluster, Producer, ProducerOptions};
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// let producer = Producer::new(&cluster, ProducerOptions::default())?;
/// match FailureInbox::new(&cluster, producer, "orders").parked_count() {
///     Ok(count) => println!("{count} letters"),
///     Err(InboxError::NoInbox { letters, .. }) => println!("nothing can have failed: there is no {letters}"),
///     Err(error) => return Err(error.into()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    /// The transaction failed that writes letters' originals and decisions. What was done before stays done; of the rest,
    /// nothing or all of one page may be, and listing tells.
    #[error("stopped after {done} letters: {fault}")]
    Transaction {
        /// Letters finished before.
        done: u64,
        /// Why it failed.
        #[source]
        fault: KafkaFault,
    },
    /// Another process decides about letters of the same inbox. What was done before stays done.
    #[error("stopped after {done} letters: another process redrives or discards letters of {source_topic}")]
    Overtaken {
        /// Letters finished before.
        done: u64,
        /// The source topic.
        source_topic: String,
    },
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
///
/// ```
/// use tidings::failure::{FailureInbox, Selection};
/// use tidings::{Cluster, Producer, ProducerOptions};
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// let producer = Producer::new(&cluster, ProducerOptions::default())?;
/// let inbox = FailureInbox::new(&cluster, producer, "orders");
/// # inbox.ensure_topics(1)?;
/// let would = inbox.discard(&Selection::Ids(vec!["0-42".parse()?]), "ann", true)?;
/// println!("{} would be discarded", would.done);
/// inbox.redrive(&Selection::All, "ann", false)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Ids(Vec<LetterId>),
    /// All that are parked when the call begins.
    All,
}

/// A page of letters.
///
/// ```
/// use tidings::failure::{FailureInbox, Page, StatusFilter};
/// use tidings::{Cluster, Producer, ProducerOptions};
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// let producer = Producer::new(&cluster, ProducerOptions::default())?;
/// let inbox = FailureInbox::new(&cluster, producer, "orders");
/// # inbox.ensure_topics(1)?;
/// let mut cursor = None;
/// loop {
///     let Page { items, next_cursor } = inbox.list(StatusFilter::Parked, cursor.as_deref(), 100)?;
///     items.iter().for_each(|letter| println!("{}", letter.id));
///     match next_cursor {
///         Some(next) => cursor = Some(next),
///         None => break,
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
///
/// ```
/// use tidings::failure::{FailureInbox, Selection, Skipped, Summary};
/// use tidings::{Cluster, Producer, ProducerOptions};
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// let producer = Producer::new(&cluster, ProducerOptions::default())?;
/// let inbox = FailureInbox::new(&cluster, producer, "orders");
/// # inbox.ensure_topics(1)?;
/// let would: Summary = inbox.redrive(&Selection::All, "ann", true)?;
/// println!("{} would be redriven, {} would follow them", would.done, would.behind);
/// for Skipped { id, reason } in &would.skipped_letters {
///     println!("{id} would not: {reason}");
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Summary {
    /// Letters redriven or discarded (with `dry_run`: that would be).
    pub done: u64,
    /// Letters that wait behind an earlier one of their key, and follow it by themselves.
    pub behind: u64,
    /// Letters left alone.
    pub skipped: u64,
    /// The first hundred of them, with the reason.
    pub skipped_letters: Vec<Skipped>,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Whether the time of its [`Pace`] was over before all were looked at: call again.
    pub more: bool,
}

/// The failure inbox of one source topic. All calls block; see the crate's documentation.
///
/// ```
/// use std::time::Duration;
/// use tidings::failure::{FailureInbox, Selection, StatusFilter};
/// use tidings::{Cluster, Producer, ProducerOptions};
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// let producer = Producer::new(&cluster, ProducerOptions::default())?;
/// let inbox = FailureInbox::new(&cluster, producer, "orders").timeout(Duration::from_secs(30));
/// inbox.ensure_topics(1)?;
/// println!("{} letters wait in {}", inbox.parked_count()?, inbox.topics().letters);
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
    /// Who waits for whom, as last read, by `parked` topic. Locked after `book`.
    parked: Mutex<HashMap<String, Book>>,
    ready_groups: Mutex<BTreeSet<String>>,
    /// Made with the first decision, and anew after a failure. Locked after `book`.
    transactions: Mutex<Option<Transactions>>,
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
            parked: Mutex::default(),
            ready_groups: Mutex::default(),
            transactions: Mutex::default(),
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
    ///
    /// ```
    /// use tidings::failure::{Failure, FailureInbox};
    /// use tidings::{Cluster, Headers, Producer, ProducerOptions, ReceivedRecord};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// let producer = Producer::new(&cluster, ProducerOptions::default())?;
    /// let inbox = FailureInbox::new(&cluster, producer, "orders");
    /// # inbox.ensure_topics(1)?;
    /// let record = ReceivedRecord {
    ///     topic: "orders".into(),
    ///     partition: 0,
    ///     offset: 4_711,
    ///     timestamp_ms: None,
    ///     key: Some(b"customer-7".to_vec()),
    ///     value: Some(b"placed".to_vec()),
    ///     headers: Headers::new(),
    /// };
    /// let id = inbox.park(&record, &Failure::new("no such customer"), "billing")?;
    /// let letter = inbox.get(id)?;
    /// assert_eq!(letter.context.map(|context| context.offset), Some(4_711));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
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
        let (mut items, next) = scan.page(&book, filter, from, limit.clamp(1, MAX_PAGE_LETTERS))?;
        let mut queues = Queues::new(self);
        items.iter_mut().try_for_each(|letter| queues.place(letter))?;
        Ok(Page { items, next_cursor: next.map(|next| next.to_string()) })
    }

    /// One letter, whatever its status.
    pub fn get(&self, id: LetterId) -> Result<Letter, InboxError> {
        let mut book = self.book.lock();
        let mut letter = self.scan(&mut book)?.letter(&book, id)?;
        Queues::new(self).place(&mut letter)?;
        Ok(letter)
    }

    /// How many letters are parked: the kept ones that nobody has decided about. Reads them all: the offsets between them are
    /// not all letters.
    pub fn parked_count(&self) -> Result<u64, InboxError> {
        let mut book = self.book.lock();
        let mut scan = self.scan(&mut book)?;
        let (mut count, mut from) = (0, Some(LetterId { partition: 0, offset: 0 }));
        while let Some(begin) = from {
            let (letters, next) = scan.page(&book, StatusFilter::Parked, begin, MAX_PAGE_LETTERS)?;
            count += letters.len() as u64;
            from = next;
        }
        Ok(count)
    }

    /// Writes the originals of parked letters to the retry topics of their groups, and marks the letters: each page of
    /// letters in one transaction, so that a letter is marked if and only if its original was written. Handlers that read
    /// committed records (all consumers here do) see each redrive once, whatever crashes.
    ///
    /// Letters already decided about, letters of other tools and letters redriven ten times are skipped.
    /// `by` says who does it.
    ///
    /// Where a group preserves the order of keys, its members hand the record out again themselves, and then those that
    /// wait behind it, one by one; naming such a one changes nothing.
    pub fn redrive(&self, selection: &Selection, by: &str, dry_run: bool) -> Result<Summary, InboxError> {
        self.resolve(ResolutionKind::Redriven, selection, by, dry_run, None)
    }

    /// [`FailureInbox::redrive`] at a pace. Blocks for as long as that takes, and other calls on the same inbox wait for it.
    ///
    /// ```
    /// use std::num::NonZeroU32;
    /// use tidings::failure::{FailureInbox, Pace, Selection};
    /// use tidings::{Cluster, Producer, ProducerOptions};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// let producer = Producer::new(&cluster, ProducerOptions::default())?;
    /// let inbox = FailureInbox::new(&cluster, producer, "orders");
    /// # inbox.ensure_topics(1)?;
    /// inbox.redrive_slowly(&Selection::All, "ann", Pace::per_second(NonZeroU32::new(20).unwrap()))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn redrive_slowly(&self, selection: &Selection, by: &str, pace: Pace) -> Result<Summary, InboxError> {
        self.resolve(ResolutionKind::Redriven, selection, by, false, Some(pace))
    }

    /// The keys whose records wait for each other, in all groups that preserve their order; those with the most waiting first,
    /// at most `limit`.
    ///
    /// ```
    /// use tidings::failure::FailureInbox;
    /// use tidings::{Cluster, Producer, ProducerOptions};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// let producer = Producer::new(&cluster, ProducerOptions::default())?;
    /// let inbox = FailureInbox::new(&cluster, producer, "orders");
    /// # inbox.ensure_topics(1)?;
    /// for queue in inbox.queues(10)? {
    ///     println!("{} wait behind {}", queue.waiting, queue.first);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn queues(&self, limit: usize) -> Result<Vec<Queue>, InboxError> {
        let mut queues = Queues::new(self).all()?;
        queues.sort_by(|a, b| b.waiting.cmp(&a.waiting).then(a.first.cmp(&b.first)));
        queues.truncate(limit);
        Ok(queues)
    }

    /// Marks parked letters as not needed. They stay in the dead letter topic. What waits behind one of them waits for it no
    /// more.
    pub fn discard(&self, selection: &Selection, by: &str, dry_run: bool) -> Result<Summary, InboxError> {
        self.resolve(ResolutionKind::Discarded, selection, by, dry_run, None)
    }

    fn resolve(
        &self,
        kind: ResolutionKind,
        selection: &Selection,
        by: &str,
        dry_run: bool,
        pace: Option<Pace>,
    ) -> Result<Summary, InboxError> {
        if let Selection::Ids(ids) = selection
            && ids.len() > MAX_SELECTED_IDS
        {
            return Err(InboxError::TooManyIds { found: ids.len(), limit: MAX_SELECTED_IDS });
        }
        let by: Arc<str> = cut_at_character(by, MAX_BY_BYTES).into();
        let mut book = self.book.lock();
        let mut attempt = || self.try_resolve(&mut book, kind, selection, &by, dry_run, pace);
        match attempt() {
            // A process that decided since our last time took the id over; with a new start we take it back.
            Err(InboxError::Overtaken { done: 0, .. }) => attempt(),
            resolved => resolved,
        }
    }

    fn try_resolve(
        &self,
        book: &mut StatusBook,
        kind: ResolutionKind,
        selection: &Selection,
        by: &Arc<str>,
        dry_run: bool,
        pace: Option<Pace>,
    ) -> Result<Summary, InboxError> {
        if !dry_run {
            // Before anything is read: from here on nobody else decides unnoticed.
            self.open_transactions()?;
        }
        let mut scan = self.scan(book)?;
        let mut summary = Summary { dry_run, ..Summary::default() };
        let page_letters = pace.map_or(MAX_PAGE_LETTERS, |pace| pace.max_per_second.get().min(50) as usize);
        let mut work = Work {
            inbox: self,
            queues: Queues::new(self),
            book,
            kind,
            by: Arc::clone(by),
            pass: Pass::All,
            pace: pace.map(|pace| (Instant::now(), pace)),
            summary: &mut summary,
        };
        for pass in Pass::of(kind) {
            work.pass = *pass;
            match selection {
                Selection::Ids(ids) => work.take_named(&mut scan, ids)?,
                // The ends were read before: letters that come back while this runs wait for the next call.
                Selection::All => {
                    let mut from = Some(LetterId { partition: 0, offset: 0 });
                    while let Some(begin) = from.filter(|_| !work.is_over()) {
                        let (letters, next) =
                            scan.page(work.book, StatusFilter::Parked, begin, page_letters)?;
                        work.take(letters)?;
                        from = next;
                    }
                }
            }
        }
        drop(work);
        Ok(summary)
    }

    fn open_transactions(&self) -> Result<(), InboxError> {
        let mut transactions = self.transactions.lock();
        if transactions.is_none() {
            let opened = Transactions::open(&self.cluster, &self.topics.source, self.timeout);
            *transactions = Some(opened.map_err(|error| self.not_written(error, 0))?);
        }
        Ok(())
    }

    /// Writes records in one transaction. After a failure the next call starts with a new producer.
    fn write(&self, records: &[Record], done: u64) -> Result<(), InboxError> {
        let mut transactions = self.transactions.lock();
        // Opened before the letters were read; only that keeps others from deciding about them meanwhile.
        let written =
            transactions.as_ref().map_or(Err(TransactionError::Overtaken), |open| open.write(records));
        if written.is_err() {
            *transactions = None;
        }
        written.map_err(|error| self.not_written(error, done))
    }

    fn not_written(&self, error: TransactionError, done: u64) -> InboxError {
        match error {
            TransactionError::Cluster(error) => AdminError::from(error).into(),
            TransactionError::Overtaken => {
                InboxError::Overtaken { done, source_topic: self.topics.source.to_string() }
            }
            TransactionError::Kafka(fault) => InboxError::Transaction { done, fault },
        }
    }

    /// Brings the status up to date and opens the dead letter topic.
    fn scan(&self, book: &mut StatusBook) -> Result<Scan<'_>, InboxError> {
        self.refresh(book)?;
        // Nothing is read before the first page says where.
        let nowhere = ReadFrom::Offsets(HashMap::new());
        let opened = TopicReader::open(&self.cluster, &self.topics.letters, nowhere, self.timeout);
        let reader = opened.map_err(|error| match error {
            ReadError::UnknownTopic { .. } => self.no_inbox(),
            other => other.into(),
        })?;
        let bounds: BTreeMap<i32, Bounds> =
            reader.bounds().iter().map(|(id, bounds)| (*id, *bounds)).collect();
        for (partition, bounds) in &bounds {
            book.forget_before(*partition, bounds.start_offset);
        }
        Ok(Scan { inbox: self, reader, bounds })
    }

    fn no_inbox(&self) -> InboxError {
        let FailureTopics { source, letters, .. } = &self.topics;
        InboxError::NoInbox { source_topic: source.to_string(), letters: letters.to_string() }
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
