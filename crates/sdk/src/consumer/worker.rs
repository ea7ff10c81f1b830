//! A worker: takes jobs, has them handled, parks what is rejected, and tells what became of each record.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::BaseConsumer;

use super::board::Board;
use super::failures::Parking;
use super::handler::{Handler, Outcome};
use super::membership::{Membership, PartitionKey};
use super::metrics::GroupMetrics;
use super::options::Backoff;
use super::random::jitter;
use super::scheduler::{Fate, Job};
use super::state::{ConsumerMonitor, Phase};
use crate::error::KafkaFault;
use crate::failure::Failure;
use crate::producer::SendError;
use crate::record::now_ms;

/// What all workers of a consumer share.
pub(super) struct Workshop {
    pub(super) board: Arc<Board>,
    pub(super) handler: Handler,
    /// For what is asked or committed by workers.
    pub(super) consumer: Arc<BaseConsumer<Membership>>,
    /// Partitions in which it is to be found out what counts, before anything is worked on again.
    pub(super) unsettled: Mutex<HashSet<PartitionKey>>,
    pub(super) parking: Parking,
    pub(super) monitor: ConsumerMonitor,
    pub(super) metrics: Arc<GroupMetrics>,
    pub(super) backoff: Backoff,
    pub(super) max_attempts: Option<u32>,
}

/// What the records of a job came to.
pub(super) struct Results {
    pub(super) fates: Vec<Fate>,
    /// Records whose letters are to be written, by index.
    rejected: Vec<(usize, Failure)>,
    pub(super) retries_count: u64,
    /// Why the job failed as a whole, and after how many attempts.
    pub(super) trouble: Option<(String, u32)>,
}

impl Results {
    /// Those of so many records with the same fate.
    pub(super) fn of(records_count: usize, fate: Fate) -> Self {
        Self { fates: vec![fate; records_count], rejected: Vec::new(), retries_count: 0, trouble: None }
    }
}

impl Workshop {
    pub(super) fn work(&self) {
        let mut next = self.board.take();
        while let Some(job) = next {
            next = self.run(job);
        }
    }

    /// Works on a job and takes the next one.
    fn run(&self, mut job: Job) -> Option<Job> {
        if let Some(handler) = self.handler.atomic() {
            return self.run_atomic(handler, job);
        }
        let begun = Instant::now();
        let handled = catch_unwind(AssertUnwindSafe(|| self.handle(&mut job)));
        let Ok(mut results) = handled else {
            self.board.fail("the handler panicked".into());
            // Nothing of the job is done: it comes again with the next member.
            let fates = vec![Fate::Again(begun); job.records.len()];
            return self.board.finish_and_take(job, &fates);
        };
        self.metrics.handler_seconds.observe(begun.elapsed().as_secs_f64());
        self.park(&mut job, &mut results);
        let rejected_count = results.rejected.len() as u64;
        let done_count = results.fates.iter().filter(|fate| **fate == Fate::Done).count() as u64;
        self.tell(&job, &results, done_count, rejected_count);
        self.board.finish_and_take(job, &results.fates)
    }

    /// Calls the handler for the records that it has not rejected before.
    fn handle(&self, job: &mut Job) -> Results {
        let count = job.records.len();
        let mut results = Results::of(count, Fate::Done);
        if job.notes.iter().all(|note| note.rejected.is_none()) {
            self.call(job, 0..count, &mut results);
            return results;
        }
        let mut from = 0;
        while from < count {
            if let Some(failure) = job.notes[from].rejected.take() {
                results.rejected.push((from, failure));
                from += 1;
                continue;
            }
            let next = job.notes[from..].iter().position(|note| note.rejected.is_some());
            let end = next.map_or(count, |next| from + next);
            self.call(job, from..end, &mut results);
            from = end;
        }
        results
    }

    fn call(&self, job: &mut Job, range: std::ops::Range<usize>, results: &mut Results) {
        for note in &mut job.notes[range.clone()] {
            note.attempts = note.attempts.saturating_add(1);
        }
        match self.handler.handle(&job.records[range.clone()]) {
            Ok(outcomes) => {
                for (index, outcome) in range.zip(outcomes) {
                    self.take_outcome(job, index, outcome, results);
                }
            }
            Err(error) => {
                let attempts = job.notes[range.clone()].iter().map(|note| note.attempts).max().unwrap_or(1);
                let reason = error.to_string();
                let failure = error.into_failure();
                let again = Instant::now() + self.backoff.wait(attempts, jitter());
                if self.handler.is_exclusive() {
                    self.board.lock().scheduler.hold(again);
                }
                for index in range {
                    if self.is_given_up(job.notes[index].attempts) {
                        results.rejected.push((index, given_up(failure.clone(), job.notes[index].attempts)));
                    } else {
                        results.fates[index] = Fate::Again(again);
                    }
                }
                results.retries_count += 1;
                results.trouble = Some((reason, attempts));
            }
        }
    }

    fn take_outcome(&self, job: &Job, index: usize, outcome: Outcome, results: &mut Results) {
        let attempts = job.notes[index].attempts;
        match outcome {
            Outcome::Done => {}
            Outcome::Reject(failure) => results.rejected.push((index, failure)),
            Outcome::Fail(failure) => {
                self.board.fail(format!("{}: {}", job.records[index].position(), failure.chain()));
                results.fates[index] = Fate::Again(Instant::now());
            }
            Outcome::Retry { failure, .. } if self.is_given_up(attempts) => {
                results.rejected.push((index, given_up(failure, attempts)));
            }
            Outcome::Retry { failure, after } => {
                let wait = after.unwrap_or_else(|| self.backoff.wait(attempts, jitter()));
                tracing::debug!(
                    at = job.records[index].position(),
                    attempts,
                    wait_ms = wait.as_millis() as u64,
                    error = failure.chain(),
                    "record comes again"
                );
                results.fates[index] = Fate::Again(Instant::now() + wait);
                results.retries_count += 1;
            }
        }
    }

    fn is_given_up(&self, attempts: u32) -> bool {
        self.max_attempts.is_some_and(|max_attempts| attempts >= max_attempts)
    }

    /// Writes the letters of rejected records. Those that cannot be written come again, without another call.
    fn park(&self, job: &mut Job, results: &mut Results) {
        if results.rejected.is_empty() {
            return;
        }
        let letter = |(index, failure): &(usize, Failure)| {
            let record = &job.records[*index];
            tracing::warn!(at = record.position(), error = failure.error, "record rejected");
            self.parking.letter(record, failure, job.notes[*index].attempts)
        };
        let letters: Vec<_> = results.rejected.iter().map(letter).collect();
        let sent = self.parking.park(&letters);
        let Some(error) = sent.iter().find_map(|sent| sent.as_ref().err()) else { return };
        self.ensure_topics_after(error);
        let attempts = self.trouble_attempts() + 1;
        let wait: Duration = self.backoff.wait(attempts, jitter());
        let again = Instant::now() + wait;
        if self.handler.is_exclusive() {
            self.board.lock().scheduler.hold(again);
        }
        results.trouble =
            Some((format!("cannot park a rejected record: {error}; {}", error.hint()), attempts));
        results.retries_count += 1;
        let mut sent = sent.iter().map(Result::is_ok);
        results.rejected.retain_mut(|(index, failure)| {
            let is_parked = sent.next().unwrap_or(false);
            if !is_parked {
                results.fates[*index] = Fate::Again(again);
                job.notes[*index].rejected = Some(std::mem::replace(failure, Failure::new("")));
            }
            is_parked
        });
    }

    /// Makes the topics of the failure inbox anew if it was for them that a letter could not be written.
    pub(super) fn ensure_topics_after(&self, error: &SendError) {
        if matches!(error, SendError::Refused { fault: KafkaFault::UnknownTopic, .. })
            && let Err(error) = self.parking.ensure_topics()
        {
            tracing::warn!(%error, "dead letter topic missing and not created");
        }
    }

    /// How often the trouble that is shown was met so far.
    fn trouble_attempts(&self) -> u32 {
        match self.monitor.state().phase {
            Phase::Paused { attempts, .. } => attempts,
            _ => 0,
        }
    }

    pub(super) fn tell(&self, job: &Job, results: &Results, done_count: u64, rejected_count: u64) {
        self.metrics.processed.inc_by(done_count);
        self.metrics.dead_letters.inc_by(rejected_count);
        self.metrics.retries.inc_by(results.retries_count);
        let now_ms = now_ms();
        for (record, _) in job.records.iter().zip(&results.fates).filter(|(_, fate)| **fate == Fate::Done) {
            if let Some(timestamp_ms) = record.timestamp_ms {
                self.metrics.latency_seconds.observe((now_ms - timestamp_ms).max(0) as f64 / 1e3);
            }
        }
        if let Some((reason, attempts)) = &results.trouble {
            tracing::warn!(group = %self.monitor.group(), attempts, reason, "records kept after a transient failure");
            self.metrics.paused.set(1);
        }
        self.monitor.update(|state| {
            state.processed += done_count;
            state.rejected += rejected_count;
            state.retries += results.retries_count;
            match (&results.trouble, &state.phase) {
                (Some((reason, attempts)), phase) => {
                    let since_ms = match phase {
                        Phase::Paused { since_ms, .. } => *since_ms,
                        _ => now_ms,
                    };
                    state.phase = Phase::Paused { reason: reason.clone(), attempts: *attempts, since_ms };
                }
                (None, Phase::Paused { .. }) if done_count > 0 => {
                    self.metrics.paused.set(0);
                    state.phase = Phase::Running;
                }
                _ => {}
            }
        });
    }
}

fn given_up(failure: Failure, attempts: u32) -> Failure {
    failure.caused_by(format!("given up after {attempts} attempts"))
}
