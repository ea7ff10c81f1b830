//! How a consumer behaves.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::ConsumerMetrics;
use super::crash::CrashHandler;
use super::handler::Handler;
use super::scheduler::Limits;
use super::tracker;
use crate::claim_check::ClaimCheck;

/// How far records may be done ahead of one that is not, where nothing of it is remembered.
const SPAN_WITHOUT_METADATA: i64 = 20_000;

/// Where a group begins in a partition that it has no offset for; in its retry topics at the first record, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAt {
    /// At the first record: nothing is missed.
    #[default]
    Earliest,
    /// Behind the last record: only what arrives from now on.
    Latest,
}

impl StartAt {
    pub(super) fn setting(self) -> &'static str {
        match self {
            Self::Earliest => "earliest",
            Self::Latest => "latest",
        }
    }
}

/// Which records are worked on one after the other.
///
/// ```
/// use std::time::Duration;
/// use tidings::consumer::{ConsumerOptions, GroupProtocol, Ordering, StartAt};
///
/// let mut options = ConsumerOptions::new("mails", ["orders"]).ordering(Ordering::Unordered).max_concurrency(50);
/// options.protocol = GroupProtocol::Consumer;
/// options.start_at = StartAt::Latest;
/// options.backoff.max = Duration::from_secs(60);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ordering {
    /// Those of one key of a topic; records without a key have no order. A key's redriven records keep theirs, too.
    Key,
    /// Those of one partition.
    #[default]
    Partition,
    /// None.
    Unordered,
}

/// How the group shares its partitions out. All members of a group use the same, or, while they are restarted one by
/// one, an old and a new one that Kafka lets live together (`Eager` and `Cooperative` do not).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupProtocol {
    /// Everybody lets go of everything, then the leader assigns: `range` and `roundrobin`.
    #[default]
    Eager,
    /// Only what moves is let go of (KIP-429): `cooperative-sticky`.
    Cooperative,
    /// The broker assigns, and members move one by one (KIP-848).
    Consumer,
}

impl GroupProtocol {
    pub(super) fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Eager => &[("partition.assignment.strategy", "range,roundrobin")],
            Self::Cooperative => &[("partition.assignment.strategy", "cooperative-sticky")],
            Self::Consumer => &[("group.protocol", "consumer")],
        }
    }
}

/// Waiting times between attempts: doubled each time up to a cap, each shortened by up to a half at random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second attempt.
    pub initial: Duration,
    /// The longest.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_millis(100), max: Duration::from_secs(10) }
    }
}

impl Backoff {
    /// The wait after `failed_attempts` (from 1 on). `jitter` is 0 (none) to 1 (half as long).
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::consumer::Backoff;
    ///
    /// let backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(1) };
    /// assert_eq!(backoff.wait(1, 0.0), Duration::from_millis(100));
    /// assert_eq!(backoff.wait(3, 0.0), Duration::from_millis(400));
    /// assert_eq!(backoff.wait(60, 0.0), Duration::from_secs(1));
    /// assert_eq!(backoff.wait(1, 1.0), Duration::from_millis(50));
    /// ```
    pub fn wait(&self, failed_attempts: u32, jitter: f64) -> Duration {
        let doublings = failed_attempts.saturating_sub(1).min(30);
        let full = self.initial.saturating_mul(1 << doublings).min(self.max);
        full.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
    }
}

/// Options of a [`super::Consumer`]. Begin with [`ConsumerOptions::new`] and change fields.
///
/// ```
/// use tidings::consumer::ConsumerOptions;
///
/// let mut options = ConsumerOptions::new("activity-writer", ["activities"]);
/// options.instance_id = Some("activity-writer-1".into());
/// options.max_batch_records = 1_000;
/// ```
#[derive(Debug, Clone)]
pub struct ConsumerOptions {
    /// The group.
    pub group: String,
    /// Source topics. Their retry topics are subscribed to as well. A name that begins with `^` is a regular expression
    /// for the whole of a name; it matches no topics of failure inboxes (`.dlq`, `.dlq.status`, `.retry`) and none that
    /// begin with two underscores.
    pub topics: Vec<String>,
    /// How often topics that match a pattern are looked for.
    pub topics_refresh: Duration,
    /// How partitions are shared out.
    pub protocol: GroupProtocol,
    /// Which records are worked on one after the other. [`super::Consumer::start`] takes one batch at a time whatever
    /// this says.
    pub ordering: Ordering,
    /// Calls of the handler at the same time, at most. Each takes a thread, started when it is first needed.
    pub max_concurrency: usize,
    /// Attempts after which a record that is to be retried goes to the failure inbox instead; `None` retries for ever.
    pub max_attempts: Option<u32>,
    /// Makes the member static (KIP-345): a restart within the session timeout resumes at once. Each running member
    /// needs its own.
    pub instance_id: Option<String>,
    /// Where to begin without a committed offset.
    pub start_at: StartAt,
    /// Records in a batch at most.
    pub max_batch_records: usize,
    /// Bytes in a batch at most; a single larger record is a batch of its own.
    pub max_batch_bytes: usize,
    /// How long a batch waits for more records after its first. Zero takes what is there.
    pub max_wait: Duration,
    /// Records fetched and not done at most, about: partitions are paused beyond.
    pub max_buffered_records: usize,
    /// Bytes of them at most, about.
    pub max_buffered_bytes: usize,
    /// The cluster's `offset.metadata.max.bytes`: what is done out of order is remembered there. 0 writes none; then a
    /// restart repeats what was done behind the first record that was not.
    pub offset_metadata_max_bytes: usize,
    /// How long a rebalance waits for records of partitions that are taken away and are with the handler; at most a quarter of
    /// `max.poll.interval.ms`.
    pub revoke_wait: Duration,
    /// Waits between attempts after a transient failure.
    pub backoff: Backoff,
    /// Shortest time between two commits while records flow; the end of a flow is committed as well.
    pub commit_interval: Duration,
    /// Hands records with a due time ([`crate::Record::due_at_ms`]) out then, and not before; others do not wait for them.
    /// Without it the time is ignored.
    pub delayed_delivery: bool,
    /// Has retries wait in a topic where they block nobody: later records of their key (or partition) overtake them. Waits
    /// below a quarter of a second stay in place. Not together with [`ConsumerOptions::preserve_key_order`], which
    /// keeps them in place.
    pub delayed_retries: bool,
    /// Gets large values from where they lie before the handler sees their records. What is missing or damaged goes to the
    /// failure inbox.
    pub claim_check: Option<ClaimCheck>,
    /// Once a record is rejected, later records of its key park behind it, and a redrive releases them in their order
    /// (`docs/guides/failure-inbox.md`). Orders by key whatever [`ConsumerOptions::ordering`] says, and a batch holds one
    /// record of a key at most. Records without a key wait for nobody. Set it for all members of a group, and unset it
    /// only when nothing is parked.
    pub preserve_key_order: bool,
    /// Records of a topic that may wait for a group where the order of keys is kept, about: members that park at the same time may
    /// pass it by what they have in hand. Each takes some 150 bytes in every member, and some 500 where it is alone with its key.
    /// Beyond, a record that would have to park waits where it is, and its partition with it in the end.
    pub max_parked_records: usize,
    /// A handler that panics over a record has rejected it, and the rest goes on. Otherwise the consumer ends: what a panic
    /// leaves behind in the handler is not known. Only for calls with a single record, and not for `exactly_once` and
    /// `stored`.
    pub reject_panics: bool,
    /// Called when the consumer has ended without being asked to.
    pub on_crash: Option<CrashHandler>,
    /// Partitions of the dead letter topics, if they have to be created.
    pub letter_partitions: i32,
    /// Where to count.
    pub metrics: ConsumerMetrics,
    /// For tests that have to see themselves fail.
    #[doc(hidden)]
    pub unprotected: Unprotected,
}

/// What keeps the order of keys, switched off.
#[doc(hidden)]
#[derive(Debug, Clone, Default)]
pub struct Unprotected {
    /// A member parks records of partitions that are not its own any more.
    pub without_fence: bool,
    /// A new owner begins before it knows what is parked.
    pub without_barrier: bool,
    /// No switch: while this is set, a member hears no news of what is parked.
    pub is_deaf: Arc<AtomicBool>,
}

impl ConsumerOptions {
    /// The defaults for a group and its topics.
    pub fn new(group: impl Into<String>, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            group: group.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            topics_refresh: Duration::from_secs(10),
            protocol: GroupProtocol::default(),
            ordering: Ordering::default(),
            max_concurrency: 16,
            max_attempts: None,
            instance_id: None,
            start_at: StartAt::default(),
            max_batch_records: 500,
            max_batch_bytes: 1024 * 1024,
            max_wait: Duration::from_millis(5),
            max_buffered_records: 5_000,
            max_buffered_bytes: 4 * 1024 * 1024,
            offset_metadata_max_bytes: 4096,
            revoke_wait: Duration::from_secs(2),
            backoff: Backoff::default(),
            commit_interval: Duration::from_millis(50),
            delayed_delivery: false,
            delayed_retries: false,
            claim_check: None,
            preserve_key_order: false,
            max_parked_records: 100_000,
            reject_panics: false,
            on_crash: None,
            letter_partitions: 1,
            metrics: ConsumerMetrics::default(),
            unprotected: Unprotected::default(),
        }
    }
    pub(super) fn limits(&self, handler: &Handler) -> Limits {
        let capacity = tracker::capacity(self.offset_metadata_max_bytes);
        let (max_batch_records, max_wait) = match handler.takes_batches() {
            true => (self.max_batch_records.max(1), self.max_wait),
            false => (1, Duration::ZERO),
        };
        let ordering = match (self.preserve_key_order, handler.is_exclusive()) {
            (true, _) => Ordering::Key,
            (false, true) => Ordering::Partition,
            (false, false) => self.ordering,
        };
        Limits {
            ordering,
            max_batch_records,
            max_batch_bytes: self.max_batch_bytes,
            max_wait,
            max_buffered_records: self.max_buffered_records.max(max_batch_records),
            max_buffered_bytes: self.max_buffered_bytes.max(self.max_batch_bytes),
            metadata_max_bytes: self.offset_metadata_max_bytes,
            max_span: if capacity == 0 { SPAN_WITHOUT_METADATA } else { capacity },
            one_per_lane: self.preserve_key_order,
            never_repeats: handler.atomic().is_some(),
            commits_beginnings: self.start_at == StartAt::Latest && !handler.commits_itself(),
        }
    }

    /// Sets which records are worked on one after the other.
    pub fn ordering(mut self, ordering: Ordering) -> Self {
        self.ordering = ordering;
        self
    }

    /// An option that is set and cannot be kept where work and offsets are one.
    pub(super) fn refused_with_transactions(&self) -> Option<&'static str> {
        let refused = [
            (self.preserve_key_order, "preserve_key_order"),
            (self.delayed_delivery, "delayed_delivery"),
            (self.delayed_retries, "delayed_retries"),
            (self.claim_check.is_some(), "claim_check"),
        ];
        refused.into_iter().find_map(|(is_set, option)| is_set.then_some(option))
    }

    /// Whether records are kept in topics until they are due.
    pub(super) fn delays(&self) -> bool {
        self.delayed_delivery || self.delays_retries()
    }

    pub(super) fn delays_retries(&self) -> bool {
        self.delayed_retries && !self.preserve_key_order
    }

    /// Keeps the order of keys through failures: later records of a rejected one's key park behind it.
    ///
    /// ```
    /// use tidings::consumer::ConsumerOptions;
    ///
    /// let options = ConsumerOptions::new("billing", ["orders"]).max_concurrency(100).preserve_key_order();
    /// assert!(options.preserve_key_order);
    /// ```
    pub fn preserve_key_order(mut self) -> Self {
        self.preserve_key_order = true;
        self
    }

    /// Sets how many calls of the handler there may be at the same time.
    pub fn max_concurrency(mut self, max_concurrency: usize) -> Self {
        self.max_concurrency = max_concurrency;
        self
    }
}
