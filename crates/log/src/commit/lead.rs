//! The one who is alone commits: an appender's thread syncs its own append.
//!
//! Owns the decision who is alone, and the lead. While one small request at a time comes in, handing it to the
//! committer and back costs two wake-ups and two switches of threads; under load the committer gathers more than a
//! leader could. Invariants: at most one thread leads; the committer takes no round meanwhile and goes on with what
//! has gathered; a leader that panics fails its round and all later ones.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::{Committer, Dirty, FailOnPanic, Round};
use crate::config::CommitHere;
use crate::storage::Storage;

impl Committer {
    /// Commits `round` on this thread if nobody else is at work or has appended to it or to the round before;
    /// otherwise wakes the committer, as [`Committer::begin`] does.
    pub(super) fn lead(&self, storage: &Storage, round: &Round) {
        let Some((round, dirty)) = self.take_lead(storage, round) else {
            self.begin();
            return;
        };
        let _lead = Lead { committer: self, storage };
        let outcome = {
            let _bail = FailOnPanic(&round);
            self.commit(storage, &dirty)
        };
        round.finish(outcome);
    }

    /// Whether the disk is fast, and busy for at most half of the time: at a higher load the next append would come
    /// before this one's sync has ended, and wait for its thread.
    fn is_idle(&self, since: Instant) -> bool {
        let sync = Duration::from_micros(self.sync_us.load(Relaxed));
        sync <= MAX_SYNC && since.elapsed() >= sync
    }

    fn take_lead(&self, storage: &Storage, round: &Round) -> Option<(Arc<Round>, Vec<Dirty>)> {
        let mut queue = self.queue.lock();
        let alone = queue.asleep
            && !queue.led
            && queue.open.id() == round.id()
            && queue.tickets_count == 1
            && queue.tickets_before_count <= 1
            && queue.dirty.len() == 1
            && match storage.options.commit_here {
                CommitHere::WhenIdle => self.is_idle(queue.idle_since),
                CommitHere::Always => true,
            };
        alone.then(|| {
            queue.led = true;
            queue.take_round()
        })
    }
}

/// Nobody leads while the last sync took longer: a leader has other work on its thread.
const MAX_SYNC: Duration = Duration::from_millis(1);

/// The right to commit in the committer's place, given back when dropped.
struct Lead<'a> {
    committer: &'a Committer,
    storage: &'a Storage,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The committer is well, and fails whatever it finds from now on.
            self.storage.health.fail("a commit has panicked".to_owned());
        }
        let mut queue = self.committer.queue.lock();
        queue.led = false;
        queue.idle_since = Instant::now();
        if queue.asleep && (queue.closed || !queue.dirty.is_empty()) {
            queue.asleep = false;
            drop(queue);
            self.committer.wake.notify_one();
        }
    }
}
