//! Where the polling thread and the workers meet: the scheduler behind one short lock.
//!
//! A worker that finishes a job takes the next one in the same step, so a busy lane goes from record to record without
//! waking anybody. At most one idle worker watches the clock for the others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::key_order::Released;
use super::membership::PartitionKey;
use super::scheduler::{Fate, Job, Limits, Next, Scheduler};

pub(super) struct Board {
    state: Mutex<State>,
    /// There is something to take, or the end.
    work: Condvar,
    /// A worker that gathers a batch has enough.
    gathered: Condvar,
    /// Records of a partition that is taken away are done.
    settled: Condvar,
}

pub(super) struct State {
    pub(super) scheduler: Scheduler,
    idle_workers: usize,
    is_gathering: bool,
    /// When the worker that watches the clock wakes.
    timer_at: Option<Instant>,
    is_stopping: bool,
    /// Why the consumer cannot go on.
    fatal: Option<String>,
}

impl Board {
    pub(super) fn new(limits: Limits) -> Self {
        let state = State {
            scheduler: Scheduler::new(limits),
            idle_workers: 0,
            is_gathering: false,
            timer_at: None,
            is_stopping: false,
            fatal: None,
        };
        let (work, gathered, settled) = (Condvar::new(), Condvar::new(), Condvar::new());
        Self { state: Mutex::new(state), work, gathered, settled }
    }

    /// The scheduler, for the polling thread. Held shortly.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Hands over records of one partition. Answers whether a partition should be paused, and how many workers are missing.
    pub(super) fn push(&self, source: Arc<str>, records: Vec<crate::ReceivedRecord>) -> (bool, usize) {
        let mut state = self.state.lock();
        state.scheduler.push(source, records, Instant::now());
        self.wake_one(&state);
        (state.scheduler.is_over(), state.missing_workers())
    }

    /// Hands a record of the failure inbox over.
    pub(super) fn push_released(&self, epoch: u64, record: crate::ReceivedRecord, released: Released) {
        let mut state = self.state.lock();
        state.scheduler.push_released(epoch, record, released, Instant::now());
        self.wake_one(&state);
    }

    /// Goes on in a partition from what the group has committed there.
    pub(super) fn resume(&self, key: &PartitionKey, committed_offset: Option<i64>, metadata: &[u8]) {
        let mut state = self.state.lock();
        state.scheduler.resume(key, committed_offset, metadata, Instant::now());
        self.wake_one(&state);
    }

    fn wake_one(&self, state: &State) {
        if state.is_gathering {
            if state.scheduler.has_full_batch() {
                self.gathered.notify_one();
            }
        } else if state.idle_workers > 0 && state.scheduler.has_ready() {
            self.work.notify_one();
        }
    }

    /// Waits for a job; `None` if there will be none.
    pub(super) fn take(&self) -> Option<Job> {
        self.take_locked(self.state.lock())
    }

    /// Gives a job back and waits for the next one.
    pub(super) fn finish_and_take(&self, job: Job, fates: &[Fate]) -> Option<Job> {
        let mut state = self.state.lock();
        state.scheduler.finish(job, fates, Instant::now());
        self.settled.notify_all();
        self.take_locked(state)
    }

    /// The same with a job whose offsets the group has already.
    pub(super) fn finish_committed_and_take(&self, job: Job, fates: &[Fate]) -> Option<Job> {
        let mut state = self.state.lock();
        state.scheduler.finish(job, fates, Instant::now());
        for due in state.scheduler.uncommitted() {
            state.scheduler.committed(due);
        }
        self.settled.notify_all();
        self.take_locked(state)
    }

    fn take_locked(&self, mut state: MutexGuard<'_, State>) -> Option<Job> {
        loop {
            if state.is_stopping {
                return None;
            }
            match state.scheduler.next(Instant::now()) {
                Next::Work(job) => {
                    // Whoever takes one looks after the rest, and after the clock.
                    let has_more = state.scheduler.has_ready();
                    let clock_is_alone = state.scheduler.has_waiting() && state.timer_at.is_none();
                    if state.idle_workers > 0 && (has_more || clock_is_alone) {
                        self.work.notify_one();
                    }
                    return Some(job);
                }
                Next::Gather(until) if !state.is_gathering => {
                    state.is_gathering = true;
                    self.gathered.wait_until(&mut state, until);
                    state.is_gathering = false;
                }
                Next::Gather(_) => self.wait(&mut state, None),
                Next::Wait(until) => self.wait(&mut state, until),
            }
        }
    }

    fn wait(&self, state: &mut MutexGuard<'_, State>, until: Option<Instant>) {
        let until = until.filter(|until| state.timer_at.is_none_or(|timer_at| *until < timer_at));
        state.idle_workers += 1;
        if let Some(until) = until {
            state.timer_at = Some(until);
            self.work.wait_until(state, until);
            if state.timer_at == Some(until) {
                state.timer_at = None;
            }
        } else {
            self.work.wait(state);
        }
        state.idle_workers -= 1;
    }

    /// Gives no further record of these partitions out, and waits until those with handlers are done, for at most `wait`.
    pub(super) fn settle(&self, keys: &[PartitionKey], wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let mut state = self.state.lock();
        state.scheduler.stop_partitions(keys);
        while state.scheduler.is_running(keys) {
            if self.settled.wait_until(&mut state, deadline).timed_out() {
                return !state.scheduler.is_running(keys);
            }
        }
        true
    }

    /// Waits until no handler is at work, for at most `wait`. Whether that is so.
    pub(super) fn wait_for_handlers(&self, wait: Duration) -> bool {
        let deadline = Instant::now() + wait;
        let mut state = self.state.lock();
        while state.scheduler.in_hand_counts().1 > 0 {
            if self.settled.wait_until(&mut state, deadline).timed_out() {
                return state.scheduler.in_hand_counts().1 == 0;
            }
        }
        true
    }

    /// No job is given out any more, and nothing taken in.
    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        state.is_stopping = true;
        state.scheduler.close();
        drop(state);
        self.work.notify_all();
        self.gathered.notify_all();
    }

    /// Ends the consumer for a reason that waiting does not heal.
    pub(super) fn fail(&self, reason: String) {
        self.state.lock().fatal.get_or_insert(reason);
        self.stop();
    }

    pub(super) fn fatal(&self) -> Option<String> {
        self.state.lock().fatal.clone()
    }
}

impl State {
    /// For how many jobs there are records and nobody who waits for them.
    pub(super) fn missing_workers(&self) -> usize {
        if self.idle_workers > 0 || self.is_gathering || self.is_stopping {
            0
        } else {
            // Nobody watches the clock while all workers are busy.
            self.scheduler.jobs_at(Instant::now())
        }
    }
}
