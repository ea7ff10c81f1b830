//! The order of keys in a worker's hands: what is set aside for it, what parks, and what is let go together.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{Results, Workshop};
use crate::consumer::key_order::{End, KeyOrder, KeyOrderError, Move, Route};
use crate::consumer::random::jitter;
use crate::consumer::scheduler::{Fate, Job};
use crate::failure::{Failure, LetterId};

/// Records of a job that are let go in one transaction, about, and how long that may be put off: what was done meanwhile
/// comes again after a crash.
const MAX_RELEASED_AT_ONCE: usize = 200;
const MAX_RELEASE_TIME: Duration = Duration::from_millis(50);

impl Workshop {
    /// Whether it is known already what becomes of a record.
    pub(super) fn is_decided(&self, job: &mut Job, index: usize, results: &mut Results) -> bool {
        let (record, note) = (&job.records[index], &mut job.notes[index]);
        if self.key_order.as_ref().is_some_and(|order| order.is_settled(record, note)) {
            // What was tried before has succeeded after all.
            return true;
        }
        let rejected = note.rejected.take();
        let is_decided = rejected.is_some() || note.is_done;
        results.rejected.extend(rejected.map(|failure| (index, *failure)));
        results.released.extend(note.is_done.then_some(index));
        is_decided
    }

    /// Goes on with what follows in the queues of released records that are done, so that one transaction lets all of them go.
    pub(super) fn let_more_go(
        &self,
        key_order: &KeyOrder,
        job: &mut Job,
        set_aside: &mut Vec<bool>,
        results: &mut Results,
    ) {
        let until = Instant::now() + MAX_RELEASE_TIME;
        let (mut done, mut from) = (HashSet::new(), 0);
        while job.records.len() < MAX_RELEASED_AT_ONCE && Instant::now() < until {
            let is_done = |index: &usize| {
                results.fates[*index] == Fate::Done
                    && results.rejected.iter().all(|(rejected, _)| rejected != index)
            };
            let place = |index: usize| (job.notes[index].lane_index, job.records[index].offset);
            done.extend(
                results.released.iter().copied().filter(|index| *index >= from && is_done(index)).map(place),
            );
            let goes_on = |index: &usize| job.notes[*index].released.is_some() && is_done(index);
            let lanes: Vec<usize> =
                (from..job.records.len()).filter(goes_on).map(|index| place(index).0).collect();
            from = job.records.len();
            self.board.lock().scheduler.extend_released(job, &lanes);
            if job.records.len() == from {
                return;
            }
            for index in from..job.records.len() {
                results.fates.push(Fate::Done);
                let lane_index = job.notes[index].lane_index;
                let is_done = |offset| done.contains(&(lane_index, offset));
                let is_set_aside =
                    self.is_decided(job, index, results) || route(key_order, job, index, results, is_done);
                set_aside.push(is_set_aside);
            }
            self.call_each(job, from, set_aside, results);
        }
    }

    /// Parks what the order of keys asks for, and lets go of released records that are done: all of it or nothing, but that what needs
    /// room where none is left does not keep back what makes room.
    pub(super) fn park_in_order(&self, key_order: &KeyOrder, job: &mut Job, results: &mut Results) {
        let is_ordered = |(index, _): &mut (usize, Failure)| key_order.is_ordered(&job.records[*index]);
        let rejected: Vec<_> = results.rejected.extract_if(.., is_ordered).collect();
        let is_done = |index: &usize| {
            results.fates[*index] == Fate::Done && rejected.iter().all(|(rejected, _)| rejected != index)
        };
        let done: Vec<usize> = results.released.iter().copied().filter(is_done).collect();
        for (index, failure) in &rejected {
            let at = job.records[*index].position();
            tracing::warn!(at, error = failure.error, "record rejected; its key waits");
        }
        let ends = done.into_iter().map(|index| (index, Ended::Done));
        let ends = ends.chain(rejected.into_iter().map(|(index, failure)| (index, Ended::Rejected(failure))));
        let behind = results.behind.iter().map(|(index, first)| (*index, Ended::Behind(*first)));
        let ends: Vec<_> = ends.chain(behind).collect();
        let Err(error) = self.write_ends(key_order, job, &ends, results) else { return };
        if !error.is_full() {
            return self.try_again(job, ends, &error, results);
        }
        let (free, full): (Vec<_>, Vec<_>) =
            ends.into_iter().partition(|(index, end)| !needs_room(job, *index, end));
        if let Err(error) = self.write_ends(key_order, job, &free, results) {
            self.try_again(job, free, &error, results);
        }
        self.try_again(job, full, &error, results);
    }

    fn write_ends(
        &self,
        key_order: &KeyOrder,
        job: &Job,
        ends: &[(usize, Ended)],
        results: &mut Results,
    ) -> Result<(), KeyOrderError> {
        if ends.is_empty() {
            return Ok(());
        }
        let moves = ends.iter().map(|(index, ended)| {
            let end = match ended {
                Ended::Done => End::Done,
                Ended::Rejected(failure) => End::Rejected(failure),
                Ended::Behind(first) => End::Behind(*first),
            };
            Move { record: &job.records[*index], note: &job.notes[*index], end }
        });
        key_order.write(moves.collect())?;
        results.parked_in_order += ends.iter().filter(|(_, end)| !matches!(end, Ended::Done)).count() as u64;
        Ok(())
    }

    /// What could not be written comes again, with what is known of it.
    fn try_again(
        &self,
        job: &mut Job,
        ends: Vec<(usize, Ended)>,
        error: &KeyOrderError,
        results: &mut Results,
    ) {
        let again = match error.is_trouble() {
            true => self.keep(results, format!("cannot keep the order of a key: {error}")),
            false => Instant::now() + self.backoff.wait(1, jitter()),
        };
        for (index, end) in ends {
            results.fates[index] = Fate::Again(again);
            match end {
                Ended::Done => job.notes[index].is_done = true,
                Ended::Rejected(failure) => job.notes[index].rejected = Some(Box::new(failure)),
                Ended::Behind(_) => {}
            }
        }
    }
}

/// What became of a record in its key's order.
enum Ended {
    /// A released one is done.
    Done,
    /// It parks its key.
    Rejected(Failure),
    /// It waits behind this letter.
    Behind(LetterId),
}

/// Whether one more record would wait in the failure inbox than before.
fn needs_room(job: &Job, index: usize, end: &Ended) -> bool {
    !matches!(end, Ended::Done) && job.notes[index].released.is_none()
}

/// Whether a record is not to be handled, and why.
pub(super) fn route(
    key_order: &KeyOrder,
    job: &Job,
    index: usize,
    results: &mut Results,
    is_done: impl Fn(i64) -> bool,
) -> bool {
    match key_order.route(&job.records[index], &job.notes[index], is_done) {
        Route::Work => {
            results.released.extend(job.notes[index].released.is_some().then_some(index));
            return false;
        }
        Route::Skip => {}
        Route::Behind(first) => results.behind.push((index, first)),
    }
    true
}
