//! A place for events, and the thread that writes into it for all requests: what waits together is written together, because
//! each write costs a sync.
//!
//! Invariants: what nobody waits for any more is not written, nor held while it waits in the queue; as many wait as
//! [`FALLBACK_WAITING`] says, and no more.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;
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
    events: Arc<Asked>,
    answer: oneshot::Sender<Result<(), NotKept>>,
}

/// The events of a job, until nobody waits for it.
#[derive(Debug, Default)]
struct Asked(Mutex<Option<Events>>);

/// Takes the events out of the queue with whoever waits for them.
struct Waiting<'a>(&'a Asked);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.0.lock().take();
    }
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
        let asked = Arc::new(Asked(Mutex::new(Some(Arc::clone(events)))));
        let _waiting = Waiting(&asked);
        let job = Job { events: Arc::clone(&asked), answer };
        self.jobs.try_send(job).map_err(|_| NotKept::Busy)?;
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(_)) | Err(_) => Err(NotKept::Late),
        }
    }

    /// Has the thread ask for its patience anew. One that is busy does so anyway.
    pub fn wake(&self) {
        let (answer, _) = oneshot::channel();
        let _ = self.jobs.try_send(Job { events: Arc::default(), answer });
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
    let mut count = 0;
    let mut jobs = Vec::new();
    let mut next = Some(job);
    while let Some(job) = next.take() {
        // Whoever has been told that it is late is not kept after all.
        let events = job.events.0.lock().take();
        if let Some(events) = events {
            count += events.len();
            jobs.push((events, job.answer));
        }
        if count < FALLBACK_BATCH_EVENTS {
            next = waiting.try_recv().ok();
        }
    }
    let events: Vec<&[u8]> = jobs.iter().flat_map(|(events, _)| events.iter()).map(Vec::as_slice).collect();
    if events.is_empty() {
        return;
    }
    let kept = keep.keep(&events);
    for (_, answer) in jobs {
        // Nobody waits any more: it is kept, and its caller may send it again.
        let _ = answer.send(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hangs until it is told otherwise.
    struct Hangs {
        begun: std::sync::mpsc::Sender<usize>,
        go_on: Mutex<Receiver<()>>,
    }

    impl Keep for Hangs {
        fn keep(&self, events: &[&[u8]]) -> Result<(), NotKept> {
            self.begun.send(events.len()).unwrap();
            self.go_on.lock().recv().unwrap();
            Ok(())
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_held_by_a_place_that_hangs() {
        let (begun, began) = std::sync::mpsc::channel();
        let (go_on, wait) = std::sync::mpsc::channel();
        let place = Place::start("a place", Hangs { begun, go_on: Mutex::new(wait) }).unwrap();
        let events = |count: usize| Events::from(vec![b"event".to_vec(); count]);
        let keep = |events: Events| {
            let place = place.clone();
            tokio::spawn(async move { place.keep(&events, Duration::from_secs(30)).await })
        };
        let first = keep(events(1));
        tokio::task::yield_now().await;
        assert_eq!(began.recv().unwrap(), 1);
        let queued = events(2);
        assert_eq!(place.keep(&queued, Duration::from_millis(5)).await, Err(NotKept::Late));
        assert_eq!(Arc::strong_count(&queued), 1, "the queue has let go of it");
        let last = keep(events(3));
        tokio::task::yield_now().await;
        go_on.send(()).unwrap();
        assert_eq!(began.recv().unwrap(), 3, "what was late is not written");
        go_on.send(()).unwrap();
        assert_eq!((first.await.unwrap(), last.await.unwrap()), (Ok(()), Ok(())));
    }
}
