//! The way past the topic while the cluster takes nothing: into the store, or else into the spool.
//!
//! Each place has a thread that writes for all requests (`place`), so that a store that hangs does not hold up the spool; in
//! front of the store is a circuit breaker (`store`). Invariants: what is answered as kept is synced, in the store with the
//! mark that it is to be published, or in the spool; a request waits no longer than [`FALLBACK_TIMEOUT`], and not at all for a
//! store that is known to hang; the requests that wait are bounded, and more are refused. Publishing what was kept is
//! `publisher`'s.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings::breaker::BreakerOptions;

use crate::activity::Activity;
use crate::cloud_event;
use crate::limits::{FALLBACK_STORE_TIMEOUT, FALLBACK_TIMEOUT};
use crate::live::StoredBell;
use crate::metrics::ActivityMetrics;
use crate::publisher::Wake;
use crate::spool::Spool;
use crate::store::Store;
use crate::timestamp::Timestamp;
use place::{Events, NotKept};
use spool::SpoolPlace;
use store::StorePlace;

mod place;
mod spool;
mod store;

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
#[derive(Debug, Clone)]
pub struct KeepError {
    store: NotKept,
    /// If there is a spool.
    spool: Option<NotKept>,
}

impl KeepError {
    /// Whether they may be kept all the same.
    pub fn may_be_kept(&self) -> bool {
        self.store.may_be_kept() || self.spool.is_some_and(NotKept::may_be_kept)
    }

    /// How long until the store is tried again, if it is left alone.
    pub fn retry_after(&self) -> Duration {
        match self.store {
            NotKept::LeftAlone { wait_ms } => Duration::from_millis(wait_ms.into()),
            _ => Duration::ZERO,
        }
    }
}

impl std::error::Error for KeepError {}

impl Display for KeepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store {}", self.store)?;
        self.spool.map_or(Ok(()), |spool| write!(f, "; the spool {spool}"))
    }
}

/// Hands events to the threads. Cheap to clone; they end with the last one.
#[derive(Debug, Clone)]
pub struct Fallback {
    store: StorePlace,
    spool: Option<SpoolPlace>,
}

/// What the threads write into.
#[derive(Clone)]
pub struct Keeper {
    /// The store.
    pub store: Arc<dyn Store>,
    /// When the store is left alone.
    pub breaker: BreakerOptions,
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
    /// Starts the threads.
    pub fn start(keeper: Keeper) -> std::io::Result<Self> {
        let spool = keeper.spool.clone().map(|spool| SpoolPlace::start(spool, &keeper)).transpose()?;
        Ok(Self { store: StorePlace::start(keeper)?, spool })
    }

    /// Keeps events, all of them in the same place: in the store; in the spool if that takes nothing, and while the spool has
    /// older ones, which are to come first.
    pub async fn keep(&self, events: Vec<Vec<u8>>) -> Result<Via, KeepError> {
        let deadline = Instant::now() + FALLBACK_TIMEOUT;
        let left = || deadline.saturating_duration_since(Instant::now());
        let events = Events::from(events);
        let Some(spool) = &self.spool else {
            let kept = self.store.keep(&events, left()).await;
            return kept.map(|()| Via::Fallback).map_err(|store| KeepError { store, spool: None });
        };
        if spool.has_older() {
            let Err(full) = spool.keep(&events, left()).await else { return Ok(Via::Spool) };
            let kept = self.store.keep(&events, left()).await;
            return kept.map(|()| Via::Fallback).map_err(|store| KeepError { store, spool: Some(full) });
        }
        let Err(store) = self.store.keep(&events, FALLBACK_STORE_TIMEOUT).await else {
            return Ok(Via::Fallback);
        };
        let kept = spool.keep(&events, left()).await;
        kept.map(|()| Via::Spool).map_err(|spool| KeepError { store, spool: Some(spool) })
    }

    /// Why the store is left alone, if it is. Asks nobody.
    pub fn fault(&self) -> Option<String> {
        self.store.fault()
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

    const OPEN_FOR: Duration = Duration::from_millis(500);

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
            let (wake, metrics, stored) =
                (Arc::clone(&self.wake), self.metrics.clone(), StoredBell::default());
            let breaker = BreakerOptions { open_for: OPEN_FOR, ..BreakerOptions::default() };
            Fallback::start(Keeper { store, breaker, spool, wake, stored, metrics }).unwrap()
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
        let refused = without.keep(vec![event("1")]).await.unwrap_err();
        assert_eq!((refused.store, refused.spool), (NotKept::Away, None));
        assert_eq!(with.keep(vec![event("2"), event("3")]).await.unwrap(), Via::Spool);
        assert_eq!(spool.next_frame().unwrap().unwrap().events, [event("2"), event("3")]);
        let much: Vec<_> = (0..500).map(|number| event(&format!("much-{number}"))).collect();
        let refused = with.keep(much).await.unwrap_err();
        assert_eq!((refused.store, refused.spool), (NotKept::Away, Some(NotKept::Refused)));
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

    /// It was stored in a file without a name, and gone with the process.
    #[tokio::test]
    async fn a_store_whose_file_was_removed_keeps_nothing() {
        let scene = Scene::new();
        let spool = scene.spool();
        let (with, without) = (scene.start(Some(spool.clone())), scene.start(None));
        assert_eq!(without.keep(vec![event("before")]).await.unwrap(), Via::Fallback);
        std::fs::remove_file(scene.folder.path().join("activities.db")).unwrap();
        let refused = without.keep(vec![event("1")]).await.unwrap_err();
        assert_eq!((refused.store, refused.spool), (NotKept::Away, None));
        assert_eq!(with.keep(vec![event("2")]).await.unwrap(), Via::Spool);
        assert_eq!(scene.store.count(None).unwrap(), 1);
        // What only the lost file has can still be published.
        let unpublished = scene.store.unpublished(10).unwrap();
        assert_eq!(unpublished[0].activity.id, "before");
        scene.store.mark_published(&[unpublished[0].arrival]).unwrap();
        assert_eq!(scene.store.unpublished_count().unwrap(), 0);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_store_that_hangs_until_it_is_back() {
        let scene = Scene::new();
        let fallback = scene.start(None);
        let down = scene.store_down();
        for number in 0..5 {
            assert!(fallback.fault().is_none());
            let error = fallback.keep(vec![event(&format!("{number}"))]).await.unwrap_err();
            assert!(error.may_be_kept() && error.retry_after() == Duration::ZERO, "{error}");
        }
        assert!(fallback.fault().is_some());
        let asked = Instant::now();
        let error = fallback.keep(vec![event("open")]).await.unwrap_err();
        assert!(asked.elapsed() < Duration::from_millis(200), "{:?}", asked.elapsed());
        assert!(!error.may_be_kept(), "{error}");
        assert!(error.retry_after() > Duration::ZERO && error.retry_after() <= OPEN_FOR, "{error}");
        drop(down);
        // Nobody brings anything meanwhile.
        while fallback.fault().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(fallback.keep(vec![event("back")]).await.unwrap(), Via::Fallback);
        assert_eq!(scene.store.count(None).unwrap(), 1);
    }
}
