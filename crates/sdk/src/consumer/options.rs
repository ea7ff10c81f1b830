//! How a consumer behaves.

use std::time::Duration;

use super::ConsumerMetrics;

/// Where a group begins in a partition that it has no offset for.
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
    /// Source topics. Their retry topics are subscribed to as well.
    pub topics: Vec<String>,
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
    /// Waits between attempts after a transient failure.
    pub backoff: Backoff,
    /// Shortest time between two commits while records flow; the end of a flow is committed as well.
    pub commit_interval: Duration,
    /// Partitions of the dead letter topics, if they have to be created.
    pub letter_partitions: i32,
    /// Where to count.
    pub metrics: ConsumerMetrics,
}

impl ConsumerOptions {
    /// The defaults for a group and its topics.
    pub fn new(group: impl Into<String>, topics: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            group: group.into(),
            topics: topics.into_iter().map(Into::into).collect(),
            instance_id: None,
            start_at: StartAt::default(),
            max_batch_records: 500,
            max_batch_bytes: 1024 * 1024,
            max_wait: Duration::from_millis(5),
            backoff: Backoff::default(),
            commit_interval: Duration::from_millis(50),
            letter_partitions: 1,
            metrics: ConsumerMetrics::default(),
        }
    }
}
