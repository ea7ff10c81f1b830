//! The way past the topic while the cluster takes nothing: into the store, or else into the spool.
//!
//! Owns one thread that writes for all requests: what waits together is stored together, because each transaction costs a
//! sync. Invariants: what is answered as kept is synced, in the store with the mark that it is to be published, or in the
//! spool; a request waits no longer than [`FALLBACK_TIMEOUT`]; the requests that wait are bounded, and more are refused.
//! Publishing what was kept is `publisher`'s.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::oneshot;

use crate::activity::Activity;
use crate::cloud_event;
use crate::limits::{FALLBACK_BATCH_EVENTS, FALLBACK_TIMEOUT, FALLBACK_WAITING};
use crate::live::StoredBell;
use crate::metrics::ActivityMetrics;
use crate::publisher::Wake;
use crate::spool::Spool;
use crate::store::Store;
use crate::timestamp::Timestamp;

/// How an activity was made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// By the topic.
    Stream,
    /// By the store; the topic gets it later.
    Fallback,
    /// By the spool; store and topic get it later.
    Spool,
}

impl Via {
    /// As it is answered.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Fallback => "fallback",
            Self::Spool => "spool",
        }
    }
}

/// Why events could not be kept either.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeepError {
    /// The store refused, and so did the spool or there is none.
    #[error("the store does not take it either{}", if *spool { ", nor does the spool" } else { "" })]
    Refused {
        /// Whether there is a spool.
        spool: bool,
    },
    /// As many requests wait already as may.
    #[error("too many others wait for the store")]
    Busy,
    /// No answer came in time: it may be kept all the same.
    #[error("the store did not answer within {} ms", FALLBACK_TIMEOUT.as_millis())]
    Late,
}

/// Hands events to the thread. Cheap to clone; the thread ends with the last one.
#[derive(Debug, Clone)]
pub struct Fallback {
    jobs: SyncSender<Job>,
}

#[derive(Debug)]
struct Job {
    /// CloudEvents, as they would stand on the topic.
    events: Vec<Vec<u8>>,
    answer: oneshot::Sender<Result<Via, KeepError>>,
}

/// What the thread writes into.
pub struct Keeper {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The spool, if one is wanted.
    pub spool: Option<Spool>,
    /// Told of what was kept.
    pub wake: Arc<Wake>,
    /// Told of what was stored.
    pub stored: StoredBell,
    /// Where to count.
    pub metrics: ActivityMetrics,
}

impl Fallback {
    /// Starts the thread.
    pub fn start(keeper: Keeper) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(FALLBACK_WAITING);
        std::thread::Builder::new()
            .name("activity fallback".to_owned())
            .spawn(move || keeper.run(&waiting))?;
        Ok(Self { jobs })
    }

    /// Keeps events, all of them in the same place.
    pub async fn keep(&self, events: Vec<Vec<u8>>) -> Result<Via, KeepError> {
        let (answer, answered) = oneshot::channel();
        self.jobs.try_send(Job { events, answer }).map_err(|_| KeepError::Busy)?;
        match tokio::time::timeout(FALLBACK_TIMEOUT, answered).await {
            Ok(Ok(kept)) => kept,
            Ok(Err(_)) | Err(_) => Err(KeepError::Late),
        }
    }
}

impl Keeper {
    fn run(self, waiting: &Receiver<Job>) {
        while let Ok(job) = waiting.recv() {
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
            let events: Vec<&[u8]> = jobs.iter().flat_map(|job| &job.events).map(Vec::as_slice).collect();
            if events.is_empty() {
                continue;
            }
            let kept = self.keep(&events);
            for job in jobs {
                // Nobody waits any more: it is kept, and its caller may send it again.
                let _ = job.answer.send(kept.clone());
            }
        }
    }

    /// Into the store; into the spool if that takes nothing, and while the spool has older ones: they are to come first.
    fn keep(&self, events: &[&[u8]]) -> Result<Via, KeepError> {
        let spools = self.spool.as_ref().is_some_and(|spool| spool.pending_bytes() > 0);
        let has_spool = self.spool.is_some();
        let kept = if spools {
            self.spool(events).or_else(|| self.store(events))
        } else {
            self.store(events).or_else(|| self.spool(events))
        };
        if kept.is_some() {
            self.wake.ring();
        }
        kept.ok_or(KeepError::Refused { spool: has_spool })
    }

    fn store(&self, events: &[&[u8]]) -> Option<Via> {
        let activities = read(events.iter().copied());
        if let Err(error) = self.store.insert_unpublished(&activities) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the store takes no fallback writes");
            return None;
        }
        self.stored.ring();
        self.metrics.fallback.inc_by(events.len() as u64);
        Some(Via::Fallback)
    }

    fn spool(&self, events: &[&[u8]]) -> Option<Via> {
        let spool = self.spool.as_ref()?;
        if let Err(error) = spool.append(events) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "the spool takes nothing");
            return None;
        }
        self.metrics.spooled.inc_by(events.len() as u64);
        self.metrics.spool_bytes.set(spool.pending_bytes() as i64);
        Some(Via::Spool)
    }
}

/// The activities of events that this program has written.
pub fn read<'a>(events: impl Iterator<Item = &'a [u8]>) -> Vec<Activity<'a>> {
    let now = Timestamp::now();
    let read = events.filter_map(|event| match cloud_event::read(Some(event), now) {
        Ok(activity) => Some(activity),
        Err(error) => {
            // Records are made of checked activities; what they say of themselves can be read again.
            debug_assert!(false, "{error}");
            tracing::error!(%error, "an event of this program cannot be read");
            None
        }
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud_event::CloudEvent;
    use crate::sqlite::SqliteStore;
    use crate::testing::activity;

    fn event(id: &str) -> Vec<u8> {
        CloudEvent::new(&activity(&format!(r#"{{"id":"{id}","tenant":"t","action":"a"}}"#))).to_json()
    }

    struct Scene {
        folder: tempfile::TempDir,
        store: Arc<SqliteStore>,
        metrics: ActivityMetrics,
        wake: Arc<Wake>,
    }

    impl Scene {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Arc::new(SqliteStore::open(&folder.path().join("activities.db")).unwrap());
            Self { folder, store, metrics: ActivityMetrics::default(), wake: Arc::default() }
        }

        fn spool(&self) -> Spool {
            Spool::open(&self.folder.path().join("activities.spool"), 100_000).unwrap()
        }

        fn start(&self, spool: Option<Spool>) -> Fallback {
            let store = Arc::clone(&self.store) as Arc<dyn Store>;
            let (wake, metrics) = (Arc::clone(&self.wake), self.metrics.clone());
            Fallback::start(Keeper { store, spool, wake, stored: StoredBell::default(), metrics }).unwrap()
        }

        /// Another connection holds the only place for a writer.
        fn store_down(&self) -> rusqlite::Connection {
            let connection = rusqlite::Connection::open(self.folder.path().join("activities.db")).unwrap();
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            connection
        }
    }

    #[tokio::test]
    async fn keeps_in_the_store_once_and_marked() {
        let scene = Scene::new();
        let fallback = scene.start(None);
        let kept: Vec<_> = (0..50).map(|number| fallback.keep(vec![event(&format!("{number}"))])).collect();
        for kept in futures_util::future::join_all(kept).await {
            assert_eq!(kept.unwrap(), Via::Fallback);
        }
        fallback.keep(vec![event("1"), event("x")]).await.unwrap();
        assert_eq!(scene.store.count(Some("t")).unwrap(), 51);
        assert_eq!(scene.store.unpublished_count().unwrap(), 51);
        assert_eq!(scene.metrics.fallback.get(), 52);
    }

    #[tokio::test]
    async fn the_spool_is_the_last_resort_if_there_is_one() {
        let scene = Scene::new();
        let spool = scene.spool();
        let (with, without) = (scene.start(Some(spool.clone())), scene.start(None));
        let down = scene.store_down();
        assert!(matches!(without.keep(vec![event("1")]).await, Err(KeepError::Refused { spool: false })));
        assert_eq!(with.keep(vec![event("2"), event("3")]).await.unwrap(), Via::Spool);
        assert_eq!(spool.next_frame().unwrap().unwrap().events, [event("2"), event("3")]);
        let much: Vec<_> = (0..500).map(|number| event(&format!("much-{number}"))).collect();
        assert!(matches!(with.keep(much).await, Err(KeepError::Refused { spool: true })));
        assert_eq!(scene.metrics.spooled.get(), 2);
        drop(down);
        // The older ones come first, so what follows goes where they are, until somebody has moved them.
        assert_eq!(with.keep(vec![event("4")]).await.unwrap(), Via::Spool);
        while let Some(frame) = spool.next_frame().unwrap() {
            spool.done(&frame).unwrap();
        }
        assert_eq!(with.keep(vec![event("5")]).await.unwrap(), Via::Fallback);
        assert_eq!(scene.store.count(None).unwrap(), 1);
    }
}
