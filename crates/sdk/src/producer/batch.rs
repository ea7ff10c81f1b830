//! The answers to records sent together.
//!
//! **Invariant:** the last delivery report of a batch, and only that one, wakes the sender. A report that comes after
//! the sender has gone lands here and is counted, and the batch is freed with its last slot.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::Delivered;
use super::metrics::TopicMetrics;
use crate::error::KafkaFault;

type Answer = Result<Delivered, KafkaFault>;

/// Records sent together, counted down by their delivery reports.
pub(super) struct Batch {
    pub(super) started: Instant,
    answers: Mutex<Answers>,
    answered: Notify,
    answered_blocking: Condvar,
}

struct Answers {
    by_index: Vec<Option<Answer>>,
    missing_count: usize,
    /// Missing answers at which the sender wakes: the records it could not hand over will get none.
    wake_at: Option<usize>,
}

/// One record's place in its batch: travels through librdkafka as the record's opaque pointer.
pub(super) struct Slot {
    pub(super) batch: Arc<Batch>,
    pub(super) index: usize,
    pub(super) metrics: Arc<TopicMetrics>,
}

impl Slot {
    pub(super) fn complete(&self, answer: Answer) {
        if answer.is_ok() {
            self.metrics.acknowledged(self.batch.started.elapsed());
        }
        self.batch.complete(self.index, answer);
    }
}

impl Batch {
    pub(super) fn new(records_count: usize) -> Arc<Self> {
        let by_index = std::iter::repeat_with(|| None).take(records_count).collect();
        Arc::new(Self {
            started: Instant::now(),
            answers: Mutex::new(Answers { by_index, missing_count: records_count, wake_at: None }),
            answered: Notify::new(),
            answered_blocking: Condvar::new(),
        })
    }

    fn complete(&self, index: usize, answer: Answer) {
        let mut answers = self.answers.lock();
        if let Some(place) = answers.by_index.get_mut(index) {
            *place = Some(answer);
        }
        answers.missing_count -= 1;
        if answers.wake_at.is_some_and(|wake_at| answers.missing_count <= wake_at) {
            drop(answers);
            self.answered.notify_one();
            self.answered_blocking.notify_all();
        }
    }

    /// Waits until only `unsent_count` answers are missing, or until the deadline.
    pub(super) async fn wait(&self, unsent_count: usize, deadline: Instant) {
        if self.is_answered(unsent_count) {
            return;
        }
        // `wake_at` is set, so the last report leaves a permit even if it comes before the await.
        let _ = tokio::time::timeout_at(deadline.into(), self.answered.notified()).await;
    }

    /// [`Batch::wait`] for threads outside of a runtime.
    pub(super) fn wait_blocking(&self, unsent_count: usize, deadline: Instant) {
        let mut answers = self.answers.lock();
        answers.wake_at = Some(unsent_count);
        let missing = |answers: &mut Answers| answers.missing_count > unsent_count;
        self.answered_blocking.wait_while_until(&mut answers, missing, deadline);
    }

    fn is_answered(&self, unsent_count: usize) -> bool {
        let mut answers = self.answers.lock();
        answers.wake_at = Some(unsent_count);
        answers.missing_count <= unsent_count
    }

    /// The answers so far, `None` where there is none. Later ones are dropped.
    pub(super) fn take_results(&self) -> Vec<Option<Answer>> {
        std::mem::take(&mut self.answers.lock().by_index)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn delivered(offset: i64) -> Answer {
        Ok(Delivered { partition: 0, offset })
    }

    #[tokio::test]
    async fn the_last_answer_wakes_the_sender() {
        let batch = Batch::new(2);
        let other = Arc::clone(&batch);
        let reports = std::thread::spawn(move || {
            other.complete(1, delivered(8));
            other.complete(0, delivered(7));
        });
        batch.wait(0, Instant::now() + Duration::from_secs(10)).await;
        assert_eq!(batch.take_results(), vec![Some(delivered(7)), Some(delivered(8))]);
        reports.join().unwrap();
    }

    #[tokio::test]
    async fn unsent_records_are_not_waited_for() {
        let batch = Batch::new(3);
        batch.complete(0, delivered(1));
        batch.wait(2, Instant::now() + Duration::from_secs(10)).await;
        assert_eq!(batch.take_results().iter().flatten().count(), 1);
    }

    #[test]
    fn a_deadline_ends_the_wait_and_late_answers_are_harmless() {
        let batch = Batch::new(1);
        batch.wait_blocking(0, Instant::now() + Duration::from_millis(1));
        assert_eq!(batch.take_results(), vec![None]);
        batch.complete(0, delivered(1));
    }

    #[test]
    fn an_empty_batch_is_answered() {
        Batch::new(0).wait_blocking(0, Instant::now() + Duration::from_secs(10));
    }
}
