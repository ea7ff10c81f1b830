//! Brings to the topic what was kept past it, once the cluster is back.
//!
//! Owns one thread. It empties the spool (into the store if that is back, else onto the topic), then sends what the store
//! has marked as unpublished, oldest first, and takes the marks off. Invariants: a mark goes only after the
//! acknowledgement, or when the topic does not take the activity at all; the spool lets go only of what is in the store or on
//! the topic; nothing is sent again in one run of the program because a mark could not be taken off. Should the
//! program end between the two, records come twice, with the same id: the writer, and whoever reads the topic, know them
//! by that. While nothing is kept the thread sleeps; where other instances write into the store as well, it looks now and
//! then, since one that has died leaves what it kept to the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tidings::{Record, ResilientProducer};
use tokio::sync::watch;

use crate::activity::Activity;
use crate::api::Topics;
use crate::fallback;
use crate::ingest;
use crate::limits::PUBLISH_BATCH;
use crate::live::StoredBell;
use crate::metrics::ActivityMetrics;
use crate::spool::{Frame, Spool};
use crate::store::{Arrival, Arrived, Store, StoreError};

/// Between two attempts while the cluster, or the store, takes nothing.
const RETRY: Duration = Duration::from_millis(250);
/// Between two counts of the marks, which may be many.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// Wakes and ends the publisher.
#[derive(Debug, Default)]
pub struct Wake {
    state: Mutex<WakeState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct WakeState {
    rung: bool,
    stopping: bool,
    ended: bool,
}

impl Wake {
    /// There is something to publish.
    pub fn ring(&self) {
        self.state.lock().rung = true;
        self.changed.notify_all();
    }

    /// Asks the publisher to end, and waits for that until `deadline`.
    pub fn stop(&self, deadline: Instant) {
        let mut state = self.state.lock();
        state.stopping = true;
        self.changed.notify_all();
        self.changed.wait_while_until(&mut state, |state| !state.ended, deadline);
    }

    fn is_stopping(&self) -> bool {
        self.state.lock().stopping
    }

    /// Waits until it is rung, or for `limit` if there is one.
    fn wait(&self, limit: Option<Duration>) {
        let mut state = self.state.lock();
        let is_idle = |state: &mut WakeState| !state.rung && !state.stopping;
        match limit {
            Some(limit) => drop(self.changed.wait_while_for(&mut state, is_idle, limit)),
            None => self.changed.wait_while(&mut state, is_idle),
        }
        state.rung = false;
    }

    /// Waits for as long as this. What rings meanwhile could do no more than the end of it will.
    fn pause(&self, pause: Duration) {
        let mut state = self.state.lock();
        self.changed.wait_while_for(&mut state, |state| !state.stopping, pause);
        state.rung = false;
    }
}

/// What the thread needs.
pub struct Publisher {
    /// Sends; its breaker is everybody's, so that this is what finds out that the cluster is back.
    pub producer: ResilientProducer,
    /// The topic.
    pub topic: Arc<str>,
    /// Nothing is sent before the topic exists: sending would create it with other settings.
    pub topics: watch::Receiver<Topics>,
    /// What is marked.
    pub store: Arc<dyn Store>,
    /// After how long without anything to do it looks whether others have left something in the store; `None` if nobody
    /// else writes into it.
    pub look_interval: Option<Duration>,
    /// What the store did not take.
    pub spool: Option<Spool>,
    /// Wakes and ends it.
    pub wake: Arc<Wake>,
    /// Told of what moved from the spool into the store.
    pub stored: StoredBell,
    /// Where to count.
    pub metrics: ActivityMetrics,
}

enum Step {
    /// There may be more.
    Progress,
    /// Nothing is left.
    Idle,
    /// Something does not take anything now.
    Blocked,
}

enum Found {
    Some(Vec<Arrived>),
    /// There is nothing to send.
    Nothing,
    /// There may be something, for later or for somebody else.
    Later,
}

/// What the topic said to an event of the spool.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// Nothing yet.
    Not,
    /// It has it.
    OnTopic,
    /// It does not take it: only the store can.
    Refused,
}

struct Run {
    publisher: Publisher,
    /// How the events of the spool's next frame stand; empty before the first attempt.
    frame: Vec<Sent>,
    /// On the topic, and still marked.
    published: Vec<Arrival>,
    /// After a failure one record at a time finds out whether it goes on.
    failing: bool,
    /// When the marks were last counted.
    counted_at: Option<Instant>,
    /// Whether it has been told that the store does not answer.
    has_told: bool,
    /// Whether there was something to publish since it was told that nothing is left.
    behind: bool,
}

impl Publisher {
    /// Starts the thread.
    pub fn start(self) -> std::io::Result<()> {
        let mut run = Run {
            publisher: self,
            frame: Vec::new(),
            published: Vec::new(),
            failing: false,
            counted_at: None,
            has_told: false,
            behind: false,
        };
        std::thread::Builder::new()
            .name("activity publisher".to_owned())
            .spawn(move || {
                run.run();
                let mut state = run.publisher.wake.state.lock();
                state.ended = true;
                run.publisher.wake.changed.notify_all();
            })
            .map(drop)
    }

    fn topics_ready(&self) -> bool {
        *self.topics.borrow() == Topics::Ready
    }
}

impl Run {
    fn run(&mut self) {
        while !self.publisher.wake.is_stopping() {
            match self.step() {
                Step::Progress => self.behind = true,
                Step::Idle => {
                    if std::mem::take(&mut self.behind) {
                        tracing::info!("what the fallback has kept is on the topic");
                    }
                    self.publisher.wake.wait(self.publisher.look_interval);
                }
                Step::Blocked => self.publisher.wake.pause(RETRY),
            }
        }
    }

    fn step(&mut self) -> Step {
        let Publisher { store, spool, metrics, .. } = &self.publisher;
        if !self.published.is_empty() {
            if let Err(error) = store.mark_published(&self.published) {
                return self.blocked(&error, "marks cannot be taken off");
            }
            self.published.clear();
        }
        if let Some(spool) = spool.clone() {
            metrics.spool_bytes.set(spool.pending_bytes() as i64);
            match spool.next_frame() {
                Ok(None) => {}
                Ok(Some(frame)) => return self.empty_spool(&spool, &frame),
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "the spool cannot be read");
                    return Step::Blocked;
                }
            }
        }
        self.publish()
    }

    fn empty_spool(&mut self, spool: &Spool, frame: &Frame) -> Step {
        let activities = fallback::read(frame.events.iter().map(Vec::as_slice));
        if self.publisher.store.insert_unpublished(&activities).is_ok() {
            self.publisher.stored.ring();
        } else if !self.send_frame(&activities) {
            return Step::Blocked;
        }
        match spool.done(frame) {
            Ok(()) => {
                self.frame.clear();
                Step::Progress
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the spool cannot be emptied");
                Step::Blocked
            }
        }
    }

    /// Sends what the topic has not answered for yet of the spool's next frame; whether all of it is there.
    fn send_frame(&mut self, activities: &[Activity<'_>]) -> bool {
        let Publisher { producer, topic, .. } = &self.publisher;
        if !self.publisher.topics_ready() {
            return false;
        }
        self.frame.resize(activities.len(), Sent::Not);
        let waiting = || self.frame.iter().zip(activities).filter(|(sent, _)| **sent == Sent::Not);
        let records: Vec<Record> = waiting().map(|(_, activity)| ingest::record(topic, activity)).collect();
        let results = producer.send_batch_blocking(&records);
        let waiting = self.frame.iter_mut().zip(activities).filter(|(sent, _)| **sent == Sent::Not);
        for ((sent, activity), result) in waiting.zip(results) {
            match result {
                Ok(_) => *sent = Sent::OnTopic,
                // Told only of one that was sent alone: it must not hold up the others for ever.
                Err(error) if error.is_too_large() => {
                    let id = activity.id.as_str();
                    tracing::warn!(%error, id, "an activity stays in the spool until the store takes it");
                    *sent = Sent::Refused;
                }
                Err(error) => tracing::debug!(%error, "what was spooled cannot be published yet"),
            }
        }
        self.frame.iter().all(|sent| *sent == Sent::OnTopic)
    }

    fn publish(&mut self) -> Step {
        let found = match self.find() {
            Ok(Found::Some(found)) => found,
            Ok(Found::Nothing) => {
                self.has_told = false;
                return Step::Idle;
            }
            Ok(Found::Later) => return Step::Blocked,
            Err(error) => return self.blocked(&error, "what is unpublished cannot be read"),
        };
        self.has_told = false;
        let Publisher { producer, topic, metrics, .. } = &self.publisher;
        if !self.publisher.topics_ready() {
            return Step::Blocked;
        }
        let records: Vec<Record> =
            found.iter().map(|arrived| ingest::record(topic, &arrived.activity)).collect();
        let results = producer.send_batch_blocking(&records);
        self.failing = false;
        for (arrived, result) in found.iter().zip(results) {
            match result {
                Ok(_) => {
                    metrics.published.inc();
                }
                Err(error) if error.is_too_large() => {
                    let id = arrived.activity.id.as_str();
                    metrics.unpublishable.inc();
                    tracing::error!(%error, id, "an activity is in the store and will not be on the topic");
                }
                Err(error) => {
                    tracing::debug!(%error, "what was kept cannot be published yet");
                    self.failing = true;
                    continue;
                }
            }
            self.published.push(arrived.arrival);
        }
        if self.published.is_empty() { Step::Blocked } else { Step::Progress }
    }
}

impl Run {
    /// The oldest of what is to be sent.
    fn find(&mut self) -> Result<Found, StoreError> {
        let Publisher { store, producer, .. } = &self.publisher;
        if self.counted_at.is_none_or(|at| at.elapsed() >= COUNT_INTERVAL) {
            self.counted_at = Some(Instant::now());
            // Which is all that a look costs where nothing is kept.
            if self.count()? == 0 {
                return Ok(Found::Nothing);
            }
        }
        if producer.is_refusing() {
            // What cannot be sent now need not be read.
            return Ok(Found::Later);
        }
        let found = store.unpublished(if self.failing { 1 } else { PUBLISH_BATCH })?;
        if !found.is_empty() {
            return Ok(Found::Some(found));
        }
        // Those that are left are another instance's to publish, for as long as it lives.
        Ok(if self.count()? == 0 { Found::Nothing } else { Found::Later })
    }

    fn count(&self) -> Result<u64, StoreError> {
        let count = self.publisher.store.unpublished_count()?;
        self.publisher.metrics.unpublished.set(count as i64);
        Ok(count)
    }

    /// Tells it once, until something succeeds: attempts are many.
    fn blocked(&mut self, error: &StoreError, what: &str) -> Step {
        let error = error as &dyn std::error::Error;
        if self.has_told {
            tracing::debug!(error, "{what}");
        } else {
            tracing::warn!(error, "{what} yet; it is tried again");
        }
        self.has_told = true;
        Step::Blocked
    }
}

#[cfg(test)]
mod tests;
