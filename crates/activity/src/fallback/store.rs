//! The store as a place for events, behind a circuit breaker: a store that hangs costs a few requests their time, not all.
//!
//! Invariants: only a store that is down, hangs or is too slow trips the breaker, never one that refuses these events; a breaker
//! that is open is closed without a request's help, too: the thread looks at a store that is left alone when its time is
//! over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tidings::breaker::{Breaker, BreakerState, CallOutcome};

use super::place::{Events, Keep, NotKept, Place};
use super::{Keeper, read};
use crate::store::StoreError;

/// Between two looks whether the time of an open breaker is over.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The way into the store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StorePlace {
    place: Place,
    breaker: Arc<Breaker>,
}

impl StorePlace {
    /// Starts the thread.
    pub fn start(keeper: Keeper) -> std::io::Result<Self> {
        let breaker = Arc::new(Breaker::new(keeper.breaker.clone()));
        let into = IntoStore { keeper, breaker: Arc::clone(&breaker) };
        Ok(Self { place: Place::start("activity fallback", into)?, breaker })
    }

    /// Has events stored and marked: answers within `limit`, and at once while the breaker is open.
    pub async fn keep(&self, events: &Events, limit: Duration) -> Result<(), NotKept> {
        let permit = self.breaker.admit(Instant::now()).map_err(left_alone)?;
        let kept = self.place.keep(events, limit).await;
        permit.end(outcome(kept), Instant::now());
        if self.breaker.state() != BreakerState::Closed {
            self.place.wake();
        }
        kept
    }

    /// Why the store is left alone, if it is.
    pub fn fault(&self) -> Option<String> {
        let is_left_alone = self.breaker.state() != BreakerState::Closed;
        is_left_alone.then(|| "the store did not take what came past the topic, and is left alone".to_owned())
    }
}

fn not_kept(error: &StoreError) -> NotKept {
    match error.is_outage() {
        true => NotKept::Away,
        false => NotKept::Refused,
    }
}

fn outcome(kept: Result<(), NotKept>) -> CallOutcome {
    match kept {
        Ok(()) => CallOutcome::Success,
        Err(NotKept::Away | NotKept::Late) => CallOutcome::Failure,
        Err(NotKept::Refused | NotKept::Busy | NotKept::LeftAlone { .. }) => CallOutcome::Unknown,
    }
}

fn left_alone(wait: Duration) -> NotKept {
    NotKept::LeftAlone { wait_ms: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX) }
}

struct IntoStore {
    keeper: Keeper,
    breaker: Arc<Breaker>,
}

impl Keep for IntoStore {
    fn keep(&self, events: &[&[u8]]) -> Result<(), NotKept> {
        let Keeper { store, wake, stored, metrics, .. } = &self.keeper;
        let activities = read(events.iter().copied());
        if let Err(error) = store.insert_unpublished(&activities) {
            let not_kept = not_kept(&error);
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the store takes no fallback writes");
            return Err(not_kept);
        }
        stored.ring();
        metrics.fallback.inc_by(events.len() as u64);
        wake.ring();
        Ok(())
    }

    fn patience(&self) -> Option<Duration> {
        (self.breaker.state() != BreakerState::Closed).then_some(LOOK_INTERVAL)
    }

    fn look(&self) {
        let now = Instant::now();
        if self.breaker.is_refusing(now) {
            return;
        }
        let Ok(permit) = self.breaker.admit(now) else { return };
        let taken = self.keeper.store.insert_unpublished(&[]);
        let taken = taken.map(drop).map_err(|error| not_kept(&error));
        permit.end(outcome(taken), Instant::now());
    }
}
