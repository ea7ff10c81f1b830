//! The live tail's heart: tells listeners what the store has received.
//!
//! Owns one task, which runs while anybody listens. It asks the store what arrived after the last it knows, once for all
//! listeners, whenever the bell rings, and every [`LIVE_POLL`] for what another instance has stored. Invariants: what is
//! handed out is in the store; batches are in order of arrival, and each says after which place it begins, so that a listener
//! that missed one knows it and reads the store; the batches kept for slow listeners are at most [`LIVE_BATCHES`] of about
//! [`LIVE_BATCH_BYTES`].

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, watch};

use crate::limits::{
    LIVE_BATCH_BYTES, LIVE_BATCHES, LIVE_HEARTBEAT, LIVE_PAGE_ITEMS, LIVE_POLL, MAX_LISTENERS,
};
use crate::store::{Arrival, Arrived, Store, StoreError};

/// Rung by whoever has stored activities.
#[derive(Debug, Clone, Default)]
pub struct StoredBell(Arc<Notify>);

impl StoredBell {
    /// There is something new.
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

/// Lets listeners in. Cheap to clone.
#[derive(Clone)]
pub struct Live {
    shared: Arc<Shared>,
}

struct Shared {
    store: Arc<dyn Store>,
    bell: StoredBell,
    heartbeat: Duration,
    places: Arc<Semaphore>,
    /// There while the task runs.
    batches: Mutex<Option<broadcast::Sender<Arc<Batch>>>>,
    ending: watch::Sender<bool>,
}

/// What arrived after a place.
#[derive(Debug)]
pub struct Batch {
    /// The place.
    pub after: Arrival,
    /// The last place that is in here, or the same.
    pub last: Arrival,
    /// In order of arrival, of all tenants.
    pub items: Vec<Arrived>,
}

/// A listener's end; its place is free when it is dropped.
pub struct Listening {
    batches: broadcast::Receiver<Arc<Batch>>,
    ending: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

/// What a listener hears next.
pub enum Heard {
    /// Activities, if they begin where the last ended.
    Batch(Arc<Batch>),
    /// The listener was too slow: the store knows what it missed.
    Missed,
    /// The service ends.
    End,
}

impl Live {
    /// For `store`, whose writers ring `bell`.
    pub fn new(store: Arc<dyn Store>, bell: StoredBell) -> Self {
        Self::with_heartbeat(store, bell, LIVE_HEARTBEAT)
    }

    /// The same with a heartbeat of the test's.
    pub(crate) fn with_heartbeat(store: Arc<dyn Store>, bell: StoredBell, heartbeat: Duration) -> Self {
        let places = Arc::new(Semaphore::new(MAX_LISTENERS));
        let (ending, _) = watch::channel(false);
        let shared = Shared { store, bell, heartbeat, places, batches: Mutex::new(None), ending };
        Self { shared: Arc::new(shared) }
    }

    /// How often listeners to whom nothing is sent get a sign of life.
    pub fn heartbeat(&self) -> Duration {
        self.shared.heartbeat
    }

    /// Lets a listener in, or `None` if all places are taken. What arrives from now on is heard, or known to be missed.
    pub fn listen(&self) -> Option<Listening> {
        let place = Arc::clone(&self.shared.places).try_acquire_owned().ok()?;
        let mut batches = self.shared.batches.lock();
        let receiver = match &*batches {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, receiver) = broadcast::channel(LIVE_BATCHES);
                tokio::spawn(run(Arc::clone(&self.shared), sender.clone()));
                *batches = Some(sender);
                receiver
            }
        };
        Some(Listening { batches: receiver, ending: self.shared.ending.subscribe(), _place: place })
    }

    /// Tells all listeners, and those to come, that it is over.
    pub fn end(&self) {
        self.shared.ending.send_replace(true);
    }
}

impl Listening {
    /// What comes next. Nothing is lost if this is not waited for to its end.
    pub async fn next(&mut self) -> Heard {
        tokio::select! {
            biased;
            _ = self.ending.wait_for(|ending| *ending) => Heard::End,
            batch = self.batches.recv() => match batch {
                Ok(batch) => Heard::Batch(batch),
                Err(broadcast::error::RecvError::Lagged(_)) => Heard::Missed,
                Err(broadcast::error::RecvError::Closed) => Heard::End,
            },
        }
    }
}

async fn run(shared: Arc<Shared>, sender: broadcast::Sender<Arc<Batch>>) {
    let mut position = None;
    let mut failing = false;
    loop {
        let found = match position {
            None => beginning(&shared).await,
            Some(after) => arrived_after(&shared, after).await,
        };
        let mut full = false;
        match found {
            Ok(found) => {
                full = found.items.len() >= LIVE_PAGE_ITEMS;
                position = Some(found.last);
                failing = false;
                send(&sender, found);
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(error, "what arrived cannot be read; listeners wait");
                }
            }
        }
        if sender.receiver_count() == 0 && leave(&shared, &sender) {
            return;
        }
        if !full {
            // Only a wake-up: what is to be told is in the store.
            let _ = tokio::time::timeout(LIVE_POLL, shared.bell.0.notified()).await;
        }
    }
}

/// Ends the task, unless somebody came just now.
fn leave(shared: &Shared, sender: &broadcast::Sender<Arc<Batch>>) -> bool {
    let mut batches = shared.batches.lock();
    let is_over = sender.receiver_count() == 0;
    if is_over {
        *batches = None;
    }
    is_over
}

/// An empty batch at the store's end: whoever has not come so far reads the store.
async fn beginning(shared: &Arc<Shared>) -> Result<Batch, String> {
    let last = ask(shared, |store| store.last_arrival()).await?;
    Ok(Batch { after: last, last, items: Vec::new() })
}

async fn arrived_after(shared: &Arc<Shared>, after: Arrival) -> Result<Batch, String> {
    let items = ask(shared, move |store| store.arrived_after(after, LIVE_PAGE_ITEMS)).await?;
    Ok(Batch { after, last: items.last().map_or(after, |arrived| arrived.arrival), items })
}

async fn ask<T: Send + 'static>(
    shared: &Arc<Shared>,
    question: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, String> {
    let store = Arc::clone(&shared.store);
    match tokio::task::spawn_blocking(move || question(&*store)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Sends a batch in pieces that may be kept.
fn send(sender: &broadcast::Sender<Arc<Batch>>, batch: Batch) {
    let Batch { mut after, last, items } = batch;
    let mut piece = Vec::new();
    let mut bytes = 0;
    for arrived in items {
        bytes += arrived.activity.held_bytes();
        piece.push(arrived);
        if bytes >= LIVE_BATCH_BYTES {
            after = send_piece(sender, after, std::mem::take(&mut piece));
            bytes = 0;
        }
    }
    if !piece.is_empty() || after == last {
        send_piece(sender, after, piece);
    }
}

fn send_piece(sender: &broadcast::Sender<Arc<Batch>>, after: Arrival, items: Vec<Arrived>) -> Arrival {
    let last = items.last().map_or(after, |arrived| arrived.arrival);
    // Nobody listens: the task is about to end.
    let _ = sender.send(Arc::new(Batch { after, last, items }));
    last
}
