//! Takes activities and never makes their giver wait.
//!
//! Owns the bounded queue and the counts; [`crate::worker`] empties it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::Uri;
use thiserror::Error;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::activity::Activity;
use crate::worker::Worker;

/// How a recorder behaves.
///
/// ```
/// use std::time::Duration;
/// use tidings_tower::RecorderOptions;
///
/// let options = RecorderOptions { timeout: Duration::from_secs(1), ..RecorderOptions::default() };
/// # drop(options);
/// ```
#[derive(Debug, Clone)]
pub struct RecorderOptions {
    /// Activities that may wait; further ones are dropped and counted. 10,000.
    pub max_queued: usize,
    /// Bytes of JSON that may wait, likewise. 32 MB.
    pub max_queued_bytes: usize,
    /// Activities of one request. 500.
    pub max_batch: usize,
    /// How long a request may take. 5 s.
    pub timeout: Duration,
    /// The longest pause between two tries. 10 s.
    pub max_retry_delay: Duration,
}

impl Default for RecorderOptions {
    fn default() -> Self {
        Self {
            max_queued: 10_000,
            max_queued_bytes: 32_000_000,
            max_batch: 500,
            timeout: Duration::from_secs(5),
            max_retry_delay: Duration::from_secs(10),
        }
    }
}

/// The address of a platform cannot be used.
///
/// ```
/// use tidings_tower::{BadAddress, Recorder, RecorderOptions};
///
/// let error: BadAddress = Recorder::start("tidings.lan", RecorderOptions::default()).unwrap_err();
/// assert!(error.to_string().starts_with("expected an address such as http://127.0.0.1:8080"));
/// ```
#[derive(Debug, Error)]
#[error("expected an address such as http://127.0.0.1:8080, found {found:?}: {why}")]
pub struct BadAddress {
    found: String,
    why: &'static str,
}

/// What has become of activities so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Durable at the platform.
    pub sent: u64,
    /// Refused by the platform, or none that it could take; the log says why.
    pub refused: u64,
    /// Found the queue full, came after the end, or their description panicked.
    pub dropped: u64,
    /// Tries after the first.
    pub retries: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub sent: AtomicU64,
    pub refused: AtomicU64,
    pub dropped: AtomicU64,
    pub retries: AtomicU64,
    /// Of the lines that wait or are on their way.
    pub queued_bytes: AtomicUsize,
}

/// Brings activities to the platform in the background, in the order in which they were recorded; cheap to clone.
///
/// They wait in memory while the platform is away. What waits when the process ends is lost, unless
/// [`Recorder::close`] was awaited: where that must not happen, post the activity yourself before you answer.
///
/// ```no_run
/// use std::time::Duration;
/// use tidings_tower::{Activity, Counts, Recorder, RecorderOptions};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let recorder = Recorder::start("http://127.0.0.1:8080", RecorderOptions::default())?;
/// recorder.record(Activity::new("acme", "report.sent").actor("job", "nightly"));
/// let left_count = recorder.close(Duration::from_secs(10)).await;
/// let Counts { sent, refused, dropped, .. } = recorder.counts();
/// println!("{sent} sent, {refused} refused, {dropped} dropped, {left_count} lost");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Recorder {
    /// Of JSON: whatever could go wrong in making it has gone wrong before.
    queue: mpsc::Sender<Vec<u8>>,
    max_queued_bytes: usize,
    counters: Arc<Counters>,
    /// Until when the worker goes on; none while nobody has closed it.
    end: Arc<watch::Sender<Option<Instant>>>,
    worker: Arc<Mutex<Option<JoinHandle<usize>>>>,
}

impl Recorder {
    /// Starts to work in the background, on the runtime that this is called in.
    pub fn start(platform: &str, options: RecorderOptions) -> Result<Self, BadAddress> {
        let authority = authority(platform)?;
        let (queue, receiver) = mpsc::channel(options.max_queued.max(1));
        let (end, end_seen) = watch::channel(None);
        let counters = Arc::<Counters>::default();
        let max_queued_bytes = options.max_queued_bytes;
        let worker = Worker::new(authority, options, receiver, end_seen, counters.clone());
        let worker = Arc::new(Mutex::new(Some(tokio::spawn(worker.run()))));
        Ok(Self { queue, max_queued_bytes, counters, end: Arc::new(end), worker })
    }

    /// Takes an activity; never waits and never fails.
    pub fn record(&self, activity: Activity) {
        let json = match activity.into_json() {
            Ok(json) => json,
            Err(why) => {
                self.counters.refused.fetch_add(1, Relaxed);
                tracing::warn!(why, "an activity cannot be recorded");
                return;
            }
        };
        let bytes = json.len();
        let before = self.counters.queued_bytes.fetch_add(bytes, Relaxed);
        let dropped = if before + bytes > self.max_queued_bytes {
            Some("too much waits")
        } else {
            self.queue.try_send(json).err().map(|error| match error {
                TrySendError::Full(_) => "the queue is full",
                TrySendError::Closed(_) => "it was closed",
            })
        };
        if let Some(why) = dropped {
            self.counters.queued_bytes.fetch_sub(bytes, Relaxed);
            self.drop_one(why);
        }
    }

    /// Counts an activity that is lost.
    pub(crate) fn drop_one(&self, why: &str) {
        // The first of many says it all.
        if self.counters.dropped.fetch_add(1, Relaxed) == 0 {
            tracing::warn!("an activity was dropped: {why}; further ones are only counted");
        }
    }

    /// What has become of activities so far.
    pub fn counts(&self) -> Counts {
        let Counters { sent, refused, dropped, retries, .. } = &*self.counters;
        let [sent, refused, dropped, retries] =
            [sent, refused, dropped, retries].map(|count| count.load(Relaxed));
        Counts { sent, refused, dropped, retries }
    }

    /// Sends what waits, for at most `limit`, and answers how many activities were left behind. Later ones are dropped.
    pub async fn close(&self, limit: Duration) -> usize {
        self.end.send_replace(Some(Instant::now() + limit));
        match self.worker.lock().await.take() {
            Some(worker) => worker.await.unwrap_or_else(|error| {
                tracing::error!(%error, "sending activities ended early");
                0
            }),
            None => 0,
        }
    }
}

fn authority(platform: &str) -> Result<String, BadAddress> {
    let bad = |why| BadAddress { found: platform.to_owned(), why };
    let uri: Uri = platform.parse().map_err(|_| bad("it is no address"))?;
    if uri.scheme_str() != Some("http") {
        return Err(bad("it must begin with http://"));
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
        return Err(bad("it must have no path"));
    }
    let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
    Ok(format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_and_a_host() {
        assert_eq!(authority("http://127.0.0.1:8080").unwrap(), "127.0.0.1:8080");
        assert_eq!(authority("http://[::1]:8080/").unwrap(), "[::1]:8080");
        assert_eq!(authority("http://tidings.lan").unwrap(), "tidings.lan:80");
        for bad in ["", "127.0.0.1:8080", "https://tidings.lan", "http://tidings.lan/api", "http://a b"] {
            let error = authority(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("found {bad:?}")), "{error}");
        }
    }
}
