//! A place for events, and the thread that writes into it for all requests: what waits together is written together, because
//! each write costs a sync.
//!
//! Invariants: what nobody waits for any more is not written; as many wait as [`FALLBACK_WAITING`] says, and no more.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::limits::{FALLBACK_BATCH_EVENTS, FALLBACK_WAITING};

/// CloudEvents, as they would stand on the topic.
pub type Events = Arc<[Vec<u8>]>;

/// Why a place does not have events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// It refused them.
    #[error("does not take it either")]
    Refused,
    /// It cannot be used by anybody.
    #[error("is down or hangs")]
    Away,
    /// No answer came in time.
    #[error("did not answer in time")]
    Late,
    /// As many requests wait already as may.
    #[error("has too many others waiting")]
    Busy,
    /// It did not answer others, and is not asked for so long.
    #[error("did not answer, and is left alone for {wait_ms} ms more")]
    LeftAlone { wait_ms: u32 },
}

impl NotKept {
    /// Whether it may have them all the same.
    pub fn may_be_kept(self) -> bool {
        matches!(self, Self::Late | Self::Away)
    }
}

/// What a thread does.
pub trait Keep: Send + 'static {
    /// Makes events durable, all or none.
    fn keep(&self, events: &[&[u8]]) -> Result<(), NotKept>;

    /// How long to wait for events before a look at the place, or for ever.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// Looks at the place.
    fn look(&self) {}
}

/// Hands events to a thread, which ends with the last one. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Place {
    jobs: SyncSender<Job>,
}

#[derive(Debug)]
struct Job {
    events: Events,
    answer: oneshot::Sender<Result<(), NotKept>>,
}

impl Place {
    /// Starts the thread.
    pub fn start(name: &str, keep: impl Keep) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(FALLBACK_WAITING);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&keep, &waiting))?;
        Ok(Self { jobs })
    }

    /// Has events written; answers when they are durable, have failed, or `limit` is over.
    pub async fn keep(&self, events: &Events, limit: Duration) -> Result<(), NotKept> {
        let (answer, answered) = oneshot::channel();
        let job = Job { events: Arc::clone(events), answer };
        self.jobs.try_send(job).map_err(|_| NotKept::Busy)?;
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(_)) | Err(_) => Err(NotKept::Late),
        }
    }

    /// Has the thread ask for its patience anew. One that is busy does so anyway.
    pub fn wake(&self) {
        let (answer, _) = oneshot::channel();
        let _ = self.jobs.try_send(Job { events: Events::default(), answer });
    }
}

fn run(keep: &impl Keep, waiting: &Receiver<Job>) {
    loop {
        let next = match keep.patience() {
            Some(patience) => waiting.recv_timeout(patience),
            None => waiting.recv().map_err(RecvTimeoutError::from),
        };
        match next {
            Ok(job) => keep_together(keep, job, waiting),
            Err(RecvTimeoutError::Timeout) => keep.look(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn keep_together(keep: &impl Keep, job: Job, waiting: &Receiver<Job>) {
    let mut count = job.events.len();
    let mut jobs = vec![job];
    while count < FALLBACK_BATCH_EVENTS
        && let Ok(job) = waiting.try_recv()
    {
        count += job.events.len();
        jobs.push(job);
    }
    // Whoever has been told that it is late is not kept after all.
    jobs.retain(|job| !job.answer.is_closed());
    let events: Vec<&[u8]> = jobs.iter().flat_map(|job| job.events.iter()).map(Vec::as_slice).collect();
    if events.is_empty() {
        return;
    }
    let kept = keep.keep(&events);
    for job in jobs {
        // Nobody waits any more: it is kept, and its caller may send it again.
        let _ = job.answer.send(kept);
    }
}
