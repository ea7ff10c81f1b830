//! What a worker does with a batch whose work and offsets are one.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use parking_lot::Mutex;

use super::{AtomicError, AtomicHandler, Batch};
use crate::consumer::random::jitter;
use crate::consumer::scheduler::{Fate, Job};
use crate::consumer::worker::{Results, Workshop};
use crate::record::{ReceivedRecord, Record};

impl Workshop {
    /// Works on a job and takes the next one.
    pub(in crate::consumer) fn run_atomic(
        &self,
        handler: &Mutex<Box<dyn AtomicHandler>>,
        mut job: Job,
    ) -> Option<Job> {
        let begun = Instant::now();
        for note in &mut job.notes {
            note.attempts = note.attempts.saturating_add(1);
        }
        let attempts = job.notes.iter().map(|note| note.attempts).max().unwrap_or(1);
        let mut results = Results::of(job.records.len(), Fate::Again(begun));
        let handled =
            catch_unwind(AssertUnwindSafe(|| self.handle_atomic(handler, &job, attempts, &mut results)));
        let rejected_count = match handled {
            Ok(Ok(rejected_count)) => rejected_count,
            Ok(Err(error)) => {
                self.keep_batch(&job, error, attempts, &mut results);
                0
            }
            Err(panic) => {
                self.fail_after(&*panic, &job);
                0
            }
        };
        self.metrics.handler_seconds.observe(begun.elapsed().as_secs_f64());
        let done_count = results.fates.iter().filter(|fate| **fate == Fate::Done).count() as u64;
        self.tell(&job, &results, done_count, rejected_count as u64);
        match self.handler.commits_itself() {
            true => self.board.finish_committed_and_take(job, &results.fates),
            false => self.board.finish_and_take(job, &results.fates),
        }
    }

    /// Leaves out what counts already, and has the rest handled. Answers how many records were rejected.
    fn handle_atomic(
        &self,
        handler: &Mutex<Box<dyn AtomicHandler>>,
        job: &Job,
        attempts: u32,
        results: &mut Results,
    ) -> Result<usize, AtomicError> {
        let mut handler = handler.lock();
        let mut records = Cow::Borrowed(&job.records[..]);
        let keys: Vec<_> = {
            let unsettled = self.unsettled.lock();
            let keys = Batch::next_offsets(&job.records).into_iter().map(|(key, _)| key);
            keys.filter(|key| unsettled.contains(key)).collect()
        };
        if !keys.is_empty() {
            let claimed = handler.claim(&self.consumer, &keys).map_err(AtomicError::Again)?;
            let counts = |record: &ReceivedRecord| {
                let index = keys.iter().position(|key| key.0 == record.topic && key.1 == record.partition);
                index.and_then(|index| claimed[index]).is_some_and(|next_offset| record.offset < next_offset)
            };
            for (_, fate) in job.records.iter().zip(&mut results.fates).filter(|(record, _)| counts(record)) {
                *fate = Fate::Done;
            }
            records = Cow::Owned(job.records.iter().filter(|record| !counts(record)).cloned().collect());
            self.unsettled.lock().retain(|key| !keys.contains(key));
        }
        let mut rejected_count = 0;
        if !records.is_empty() {
            let batch = Batch {
                records: &records,
                next_offsets: Batch::next_offsets(&records),
                is_ours: &|| self.board.lock().scheduler.holds(job),
                letter: &|record, failure| self.parking.letter(record, failure, attempts),
                park: &|letters| self.park_all(letters),
            };
            rejected_count = handler.handle(&self.consumer, &batch)?;
        }
        results.fates.fill(Fate::Done);
        Ok(rejected_count)
    }

    /// What is not known to count comes again.
    fn keep_batch(&self, job: &Job, error: AtomicError, attempts: u32, results: &mut Results) {
        self.unsettled.lock().extend(Batch::next_offsets(&job.records).into_iter().map(|(key, _)| key));
        let again = Instant::now() + self.backoff.wait(attempts, jitter());
        for fate in results.fates.iter_mut().filter(|fate| **fate != Fate::Done) {
            *fate = Fate::Again(again);
        }
        match error {
            AtomicError::Again(error) => {
                results.retries_count += 1;
                results.trouble = Some((error.to_string(), attempts));
            }
            AtomicError::NotOurs(reason) => tracing::info!(reason, "batch rolled back"),
            AtomicError::Fatal(reason) => self.board.fail(reason),
        }
        self.board.lock().scheduler.hold(again);
    }

    fn park_all(&self, letters: &[Record]) -> Result<(), String> {
        let sent = self.parking.park(letters);
        let Some(error) = sent.into_iter().find_map(Result::err) else { return Ok(()) };
        self.ensure_topics_after(&error);
        Err(format!("cannot park a rejected record: {error}; {}", error.hint()))
    }
}
