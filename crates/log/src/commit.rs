//! Group commit: one thread makes the appends of all partitions durable, round by round.
//!
//! Owns the open round, the segments it has to sync, and the committer thread. Invariants: a ticket's
//! round begins its sync after the append that got the ticket; a high watermark moves only to an end
//! that was read before a sync that succeeded; after a failed sync no round succeeds. Appenders never
//! wait here unless they ask to (see [`lead`]), and they wake the committer only when it sleeps. Does not
//! decide what recovery must read: checkpoints do.

mod lead;
mod ticket;

pub use ticket::{CommitError, CommitTicket};

pub(crate) use ticket::Round;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::disk::DiskFile;
use crate::partition_log::PartitionLog;
use crate::segment::Segment;
use crate::storage::Storage;

/// A segment with bytes that are not durable. Holding the file keeps its descriptor, which a
/// write-back error is reported to, open until the sync.
#[derive(Debug)]
struct Dirty {
    log: Arc<PartitionLog>,
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
}

#[derive(Debug)]
struct Queue {
    /// The round that tickets are given for.
    open: Arc<Round>,
    dirty: Vec<Dirty>,
    /// Tickets given for the open round, and for the one before it.
    tickets_count: usize,
    tickets_before_count: usize,
    asleep: bool,
    /// Since when nobody has had anything to do.
    idle_since: Instant,
    /// Whether a thread of an appender commits a round. Until it has ended, nobody takes the next one:
    /// rounds end in order.
    led: bool,
    closed: bool,
}

/// The committer's half that appenders see.
#[derive(Debug)]
pub(crate) struct Committer {
    queue: Mutex<Queue>,
    wake: Condvar,
    /// How long the last sync took.
    sync_us: AtomicU64,
}

impl Committer {
    pub fn new() -> Self {
        let open = Arc::new(Round::new(1));
        let queue = Queue {
            open,
            dirty: Vec::new(),
            tickets_count: 0,
            tickets_before_count: 0,
            asleep: false,
            idle_since: Instant::now(),
            led: false,
            closed: false,
        };
        Self { queue: Mutex::new(queue), wake: Condvar::new(), sync_us: AtomicU64::new(0) }
    }

    /// Notes that `segment` has bytes to make durable and returns the ticket of the round that will. With
    /// `more` to follow, a sleeping committer goes on sleeping until [`Committer::begin`].
    pub fn submit(
        &self,
        log: &Arc<PartitionLog>,
        storage: &Arc<Storage>,
        segment: &Arc<Segment>,
        file: Arc<dyn DiskFile>,
        more: bool,
    ) -> CommitTicket {
        let mut queue = self.queue.lock();
        if queue.closed {
            return CommitTicket::failed(CommitError::Closed);
        }
        // The mark is read and written under the queue's lock only, so it is exact.
        if segment.dirty_round.swap(queue.open.id(), Relaxed) != queue.open.id() {
            queue.dirty.push(Dirty { log: log.clone(), segment: segment.clone(), file });
        }
        queue.tickets_count += 1;
        let ticket = CommitTicket::of(queue.open.clone(), (more && queue.asleep).then(|| storage.clone()));
        if !more {
            self.wake_up(queue);
        }
        ticket
    }

    /// Wakes the committer if it sleeps while there is work.
    pub fn begin(&self) {
        let queue = self.queue.lock();
        if !queue.dirty.is_empty() {
            self.wake_up(queue);
        }
    }

    fn wake_up(&self, mut queue: MutexGuard<'_, Queue>) {
        if queue.asleep && !queue.led {
            queue.asleep = false;
            drop(queue);
            self.wake.notify_one();
        }
    }

    /// Lets the thread end after what was submitted is durable.
    pub fn close(&self) {
        self.queue.lock().closed = true;
        self.wake.notify_one();
    }

    /// The thread's body.
    pub fn run(&self, storage: &Storage) {
        let _bail = Bail { committer: self, storage };
        while let Some((round, dirty)) = self.next_round() {
            let outcome = {
                let _bail = FailOnPanic(&round);
                self.commit(storage, &dirty)
            };
            round.finish(outcome);
        }
    }

    /// Waits for work and opens the next round.
    fn next_round(&self) -> Option<(Arc<Round>, Vec<Dirty>)> {
        let mut queue = self.queue.lock();
        while queue.dirty.is_empty() || queue.led {
            if queue.closed && !queue.led {
                return None;
            }
            queue.asleep = true;
            queue.idle_since = Instant::now();
            self.wake.wait(&mut queue);
        }
        queue.asleep = false;
        Some(queue.take_round())
    }

    /// Makes `dirty` durable and moves the high watermarks.
    fn commit(&self, storage: &Storage, dirty: &[Dirty]) -> Result<(), CommitError> {
        if let Some(why) = storage.health.failure() {
            return Err(CommitError::Storage { why: why.clone() });
        }
        // The ends come first: what is appended during the sync may miss it.
        let ends: Vec<_> = dirty.iter().map(|dirty| dirty.segment.end()).collect();
        let begun = Instant::now();
        sync(storage, dirty).map_err(|error| CommitError::Storage { why: storage.health.fail(error) })?;
        self.sync_us.store(begun.elapsed().as_micros() as u64, Relaxed);
        for (Dirty { log, segment, .. }, end) in dirty.iter().zip(ends) {
            log.committed(segment, end);
        }
        Ok(())
    }
}

impl Queue {
    /// Closes the open round, which is then to be committed, and opens the next.
    fn take_round(&mut self) -> (Arc<Round>, Vec<Dirty>) {
        self.tickets_before_count = std::mem::take(&mut self.tickets_count);
        let next = Arc::new(Round::new(self.open.id() + 1));
        (std::mem::replace(&mut self.open, next), std::mem::take(&mut self.dirty))
    }
}

/// Nobody may wait for ever because of a bug of ours: without a committer there are no commits.
struct Bail<'a> {
    committer: &'a Committer,
    storage: &'a Storage,
}

impl Drop for Bail<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let why = self.storage.health.fail("the committer has panicked".to_owned());
            let mut queue = self.committer.queue.lock();
            queue.closed = true;
            queue.open.finish(Err(CommitError::Storage { why }));
        }
    }
}

struct FailOnPanic<'a>(&'a Round);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.finish(Err(CommitError::Storage { why: "the committer has panicked".into() }));
        }
    }
}

/// A file system that goes read-only may answer a sync with success (see [`DiskRoot::ensure_alive`]), so that counts only
/// if it is alive behind it.
///
/// [`DiskRoot::ensure_alive`]: crate::disk::DiskRoot::ensure_alive
fn sync(storage: &Storage, dirty: &[Dirty]) -> Result<(), String> {
    sync_dirty(storage, dirty)?;
    storage.commit_root.ensure_alive().map_err(|error| {
        format!("the file system of {} takes no writes any more: {error}", storage.root.display())
    })
}

/// One `syncfs` costs less than two `fdatasync`, and hardly more for a thousand files than for two; the
/// ADR on group commit has the figures.
fn sync_dirty(storage: &Storage, dirty: &[Dirty]) -> Result<(), String> {
    if dirty.len() >= storage.options.syncfs_from_files {
        for Dirty { segment, .. } in dirty {
            // Names are covered as well.
            segment.take_new_name();
        }
        return storage.commit_root.sync_all().map_err(|error| {
            format!("syncing the file system of {} failed: {error}", storage.root.display())
        });
    }
    let failed = |segment: &Segment, error: io::Error| {
        format!("syncing {} failed: {error}", segment.log_path().display())
    };
    for Dirty { segment, file, .. } in dirty {
        file.sync_data().map_err(|error| failed(segment, error))?;
        if segment.take_new_name() {
            sync_name(storage, segment).map_err(|error| failed(segment, error))?;
        }
    }
    Ok(())
}

/// That a directory can't be opened is no failed sync: there may be no descriptor left, or a deletion has just renamed it.
/// The file system's descriptor is open already, and its sync covers all names.
fn sync_name(storage: &Storage, segment: &Segment) -> io::Result<()> {
    match storage.disk.open_dir(segment.dir()) {
        Ok(dir) => dir.sync_names(),
        Err(_) => storage.commit_root.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StorageState;
    use crate::config::LogConfig;
    use crate::data_dir::DataDir;
    use crate::partition_log::Appended;
    use crate::testing::logs::{NOW_MS, append, append_durably, batch, create, log, open, partition};
    use crate::testing::{Loss, Operation, SimDisk};

    const EMFILE: i32 = 24;

    /// A log whose active segment is new, and no checkpoint to come.
    fn begin_segment(data_dir: &DataDir) -> Arc<PartitionLog> {
        let orders = create(data_dir, LogConfig::default());
        append_durably(&orders, batch(NOW_MS));
        orders.roll_now().expect("roll");
        while orders.recovery_point() == 0 {
            std::thread::yield_now();
        }
        orders
    }

    /// An append to it whose sync is held.
    fn append_held(disk: &SimDisk, orders: &Arc<PartitionLog>) -> Appended {
        disk.hold_syncs();
        let appended = append(orders, batch(NOW_MS));
        disk.wait_for_held_syncs(1);
        appended
    }

    /// The last descriptor went to a new segment, and none was left to make its name durable: all writes stopped.
    #[test]
    fn a_name_is_durable_when_no_descriptor_is_left() {
        let disk = SimDisk::new();
        let data_dir = open(&disk);
        let orders = begin_segment(&data_dir);
        let appended = append_held(&disk, &orders);
        disk.fail(Operation::Open, "", 0, usize::MAX, EMFILE);
        disk.release_syncs(false);
        appended.commit.wait_blocking().expect("commit");
        assert_eq!(data_dir.storage_state(), StorageState::Healthy);
        let disk = disk.crash(Loss::Unsynced);
        assert_eq!(log(&open(&disk)).log_end_offset(), 2);
    }

    /// The first append to a new segment was being synced when the topic was deleted.
    #[test]
    fn a_deletion_during_the_sync_of_a_new_segment_is_no_failure() {
        let disk = SimDisk::new();
        let data_dir = open(&disk);
        let orders = begin_segment(&data_dir);
        let appended = append_held(&disk, &orders);
        std::thread::scope(|scope| {
            let deletion = scope.spawn(|| data_dir.delete_logs(&[partition()]));
            // The deletion has renamed the folder and syncs that.
            disk.wait_for_held_syncs(2);
            disk.release_syncs(false);
            deletion.join().expect("no panic").expect("delete");
        });
        appended.commit.wait_blocking().expect("commit");
        assert_eq!(data_dir.storage_state(), StorageState::Healthy);
    }
}
