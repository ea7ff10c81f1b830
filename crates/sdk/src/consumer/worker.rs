//! A worker: takes jobs, has them handled, parks what is rejected, and tells what became of each record.

mod order;
mod panics;

use std::collections::HashSet;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rdkafka::consumer::BaseConsumer;

use super::board::Board;
use super::claims::{Claims, Loaded, Values};
use super::delay::{Delay, Due};
use super::failures::Parking;
use super::handler::{Handler, Outcome};
use super::key_order::KeyOrder;
use super::membership::{Membership, PartitionKey};
use super::metrics::GroupMetrics;
use super::options::Backoff;
use super::random::jitter;
use super::scheduler::{Fate, Job};
use super::state::{ConsumerMonitor, Phase};
use crate::error::KafkaFault;
use crate::failure::{Failure, LetterId};
use crate::producer::SendError;
use crate::record::now_ms;
use order::route;

/// Records of a key that park in one transaction.
const MAX_PARKED_AT_ONCE: usize = 500;

/// What all workers of a consumer share.
pub(super) struct Workshop {
    pub(super) board: Arc<Board>,
    pub(super) handler: Handler,
    /// For what is asked or committed by workers.
    pub(super) consumer: Arc<BaseConsumer<Membership>>,
    /// Partitions in which it is to be found out what counts, before anything is worked on again.
    pub(super) unsettled: Mutex<HashSet<PartitionKey>>,
    pub(super) parking: Parking,
    /// Where the order of keys is kept through failures.
    pub(super) key_order: Option<Arc<KeyOrder>>,
    /// Where records wait that are due later.
    pub(super) delay: Option<Arc<Delay>>,
    pub(super) monitor: ConsumerMonitor,
    pub(super) metrics: Arc<GroupMetrics>,
    pub(super) backoff: Backoff,
    pub(super) max_attempts: Option<u32>,
    pub(super) rejects_panics: bool,
    /// Where large values come from.
    pub(super) claims: Option<Claims>,
}

/// What the records of a job came to.
pub(super) struct Results {
    pub(super) fates: Vec<Fate>,
    /// Records whose letters are to be written, by index.
    rejected: Vec<(usize, Failure)>,
    /// Records that park behind a letter of their key.
    behind: Vec<(usize, LetterId)>,
    /// Records of the failure inbox that the handler got.
    released: Vec<usize>,
    /// Records that come later, with their time in milliseconds since the epoch.
    delayed: Vec<(usize, i64)>,
    /// Large values of records that the handler gets.
    values: Values,
    /// Letters written with the order of their keys.
    parked_in_order: u64,
    pub(super) retries_count: u64,
    /// Why the job failed as a whole, and after how many attempts.
    pub(super) trouble: Option<(String, u32)>,
}

impl Results {
    /// Those of so many records with the same fate.
    pub(super) fn of(records_count: usize, fate: Fate) -> Self {
        Self {
            fates: vec![fate; records_count],
            rejected: Vec::new(),
            behind: Vec::new(),
            released: Vec::new(),
            delayed: Vec::new(),
            values: Values::default(),
            parked_in_order: 0,
            retries_count: 0,
            trouble: None,
        }
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
        let mut results = match handled {
            Ok(results) => results,
            Err(panic) => {
                self.fail_after(&*panic, &job);
                // Nothing of the job is done: it comes again with the next member.
                let fates = vec![Fate::Again(begun); job.records.len()];
                return self.board.finish_and_take(job, &fates);
            }
        };
        self.delay(&job, &mut results);
        self.park(&mut job, &mut results);
        let rejected_count = results.rejected.len() as u64 + results.parked_in_order;
        let done_count = results.fates.iter().filter(|fate| **fate == Fate::Done).count() as u64;
        self.tell(&job, &results, done_count, rejected_count);
        self.board.finish_and_take(job, &results.fates)
    }

    /// Calls the handler for the records that are neither rejected already nor to be parked.
    fn handle(&self, job: &mut Job) -> Results {
        let mut results = Results::of(job.records.len(), Fate::Done);
        let mut set_aside = self.set_aside(job, &mut results);
        self.call_each(job, 0, &mut set_aside, &mut results);
        if let Some(key_order) = &self.key_order {
            self.let_more_go(key_order, job, &mut set_aside, &mut results);
        }
        results.rejected.sort_by_key(|(index, _)| *index);
        results
    }

    /// Calls the handler for the records from this one on that are not set aside, as many at once as follow each other.
    fn call_each(&self, job: &mut Job, from: usize, set_aside: &mut [bool], results: &mut Results) {
        self.load(job, from, set_aside, results);
        let mut begin = from;
        for end in from..=set_aside.len() {
            if set_aside.get(end).is_none_or(|is_set_aside| *is_set_aside) {
                if begin < end {
                    self.call(job, begin..end, results);
                    self.set_aside_behind(job, begin..end, set_aside, results);
                }
                begin = end + 1;
            }
        }
    }

    /// What stands in its lane behind a record that comes again waits for it, whatever was between them.
    fn set_aside_behind(
        &self,
        job: &Job,
        called: Range<usize>,
        set_aside: &mut [bool],
        results: &mut Results,
    ) {
        for failed in called.clone() {
            let Fate::Again(again) = results.fates[failed] else { continue };
            let lane_index = job.notes[failed].lane_index;
            for (index, is_set_aside) in set_aside.iter_mut().enumerate().skip(called.end) {
                let is_behind = self.handler.is_exclusive() || job.notes[index].lane_index == lane_index;
                if is_behind && !*is_set_aside {
                    (*is_set_aside, results.fates[index]) = (true, Fate::Again(again));
                }
            }
        }
    }

    /// Which records the handler does not get.
    fn set_aside(&self, job: &mut Job, results: &mut Results) -> Vec<bool> {
        let mut set_aside = vec![false; job.records.len()];
        for (index, is_set_aside) in set_aside.iter_mut().enumerate() {
            *is_set_aside = self.is_decided(job, index, results);
        }
        if let Some(delay) = &self.delay {
            for (index, is_set_aside) in set_aside.iter_mut().enumerate() {
                *is_set_aside = *is_set_aside || set_aside_until_due(delay, job, index, results);
            }
        }
        let Some(key_order) = &self.key_order else { return set_aside };
        for (index, is_set_aside) in set_aside.iter_mut().enumerate() {
            *is_set_aside = *is_set_aside || route(key_order, job, index, results, |_| false);
        }
        if let ([(0, _)], 1) = (results.behind.as_slice(), job.records.len()) {
            // Its key's further records park with it.
            self.board.lock().scheduler.extend(job, MAX_PARKED_AT_ONCE);
            for index in 1..job.records.len() {
                results.fates.push(Fate::Done);
                let is_settled = key_order.is_settled(&job.records[index], &job.notes[index]);
                set_aside.push(is_settled || route(key_order, job, index, results, |_| false));
            }
        }
        set_aside
    }

    /// Loads the large values of the records that the handler gets. Where that has to come later, so do the records behind
    /// them in their lanes.
    fn load(&self, job: &Job, from: usize, set_aside: &mut [bool], results: &mut Results) {
        let Some(claims) = &self.claims else { return };
        let mut later: Vec<(usize, Instant)> = Vec::new();
        let wanted = set_aside.iter_mut().enumerate().skip(from);
        for (index, is_set_aside) in wanted.filter(|(_, is_set_aside)| !**is_set_aside) {
            let note = &job.notes[index];
            if let Some((_, again)) = later.iter().find(|(lane_index, _)| *lane_index == note.lane_index) {
                (*is_set_aside, results.fates[index]) = (true, Fate::Again(*again));
                continue;
            }
            let again = match claims.load(&job.records[index], index, &mut results.values) {
                Loaded::Ready => continue,
                Loaded::Later => Instant::now(),
                Loaded::Failed(failure) => {
                    self.keep(results, format!("cannot load a large value: {}", failure.chain()))
                }
                Loaded::Lost(failure) => {
                    results.rejected.push((index, failure));
                    *is_set_aside = true;
                    continue;
                }
            };
            (*is_set_aside, results.fates[index]) = (true, Fate::Again(again));
            later.push((note.lane_index, again));
        }
    }

    fn call(&self, job: &mut Job, range: Range<usize>, results: &mut Results) {
        for note in &mut job.notes[range.clone()] {
            note.attempts = note.attempts.saturating_add(1);
        }
        let begun = Instant::now();
        let handled = self.call_handler(&results.values.fill(&job.records, range.clone()));
        self.metrics.handler_seconds.observe(begun.elapsed().as_secs_f64());
        match handled {
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
        let before = self.delay.as_ref().map_or(0, |delay| delay.attempts_before(&job.records[index]));
        let attempts = job.notes[index].attempts.saturating_add(before);
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
                results.retries_count += 1;
                if self.delay.as_ref().is_some_and(|delay| delay.takes_retry(wait)) {
                    results.delayed.push((index, now_ms().saturating_add(wait.as_millis() as i64)));
                } else {
                    results.fates[index] = Fate::Again(Instant::now() + wait);
                }
            }
        }
    }

    /// Writes records that come later to their delay topic; where that fails, they are tried again here.
    fn delay(&self, job: &Job, results: &mut Results) {
        let Some(delay) = self.delay.as_ref().filter(|_| !results.delayed.is_empty()) else { return };
        let record = |(index, due_ms): &(usize, i64)| {
            let record = &job.records[*index];
            delay.record(record, &self.parking.source_of(&record.topic), *due_ms, job.notes[*index].attempts)
        };
        let records: Vec<_> = results.delayed.iter().map(record).collect();
        let sent = self.parking.park(&records);
        let error = sent.iter().find_map(|sent| sent.as_ref().err());
        let Some(error) = error else { return };
        let again = self.keep(results, format!("cannot delay a record: {error}; {}", error.hint()));
        for ((index, _), sent) in results.delayed.iter().zip(&sent) {
            if sent.is_err() {
                results.fates[*index] = Fate::Again(again);
            }
        }
    }

    fn is_given_up(&self, attempts: u32) -> bool {
        self.max_attempts.is_some_and(|max_attempts| attempts >= max_attempts)
    }

    /// Writes the letters of rejected records. Those that cannot be written come again, without another call.
    fn park(&self, job: &mut Job, results: &mut Results) {
        if let Some(key_order) = &self.key_order {
            self.park_in_order(key_order, job, results);
        }
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
        let again = self.keep(results, format!("cannot park a rejected record: {error}; {}", error.hint()));
        let mut sent = sent.iter().map(Result::is_ok);
        results.rejected.retain_mut(|(index, failure)| {
            let is_parked = sent.next().unwrap_or(false);
            if !is_parked {
                results.fates[*index] = Fate::Again(again);
                job.notes[*index].rejected = Some(Box::new(std::mem::replace(failure, Failure::new(""))));
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

    /// Shows why records are kept. Answers until when.
    fn keep(&self, results: &mut Results, reason: String) -> Instant {
        let attempts = self.trouble_attempts() + 1;
        let again = Instant::now() + self.backoff.wait(attempts, jitter());
        if self.handler.is_exclusive() {
            self.board.lock().scheduler.hold(again);
        }
        results.trouble = Some((reason, attempts));
        results.retries_count += 1;
        again
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

/// Whether a record is not due yet, or says so in a way that nobody understands.
fn set_aside_until_due(delay: &Delay, job: &Job, index: usize, results: &mut Results) -> bool {
    match delay.due(&job.records[index]) {
        Due::Now => return false,
        Due::Soon(left) => results.fates[index] = Fate::Again(Instant::now() + left),
        Due::Later(due_ms) => results.delayed.push((index, due_ms)),
        Due::Unreadable(failure) => results.rejected.push((index, failure)),
    }
    true
}

fn given_up(failure: Failure, attempts: u32) -> Failure {
    failure.caused_by(format!("given up after {attempts} attempts"))
}
