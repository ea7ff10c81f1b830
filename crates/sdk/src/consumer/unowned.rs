//! Topics that nobody in the group owns, although members subscribe to them.
//!
//! The member that assigns asks one node for partitions, and gives those of a topic of which this node has not heard yet to
//! nobody. librdkafka does not look again: the group would go on without the topic for good. Consumers wait until all nodes
//! know their topics (`admin::known`), but not for ever; what gets past that is found here, once in each generation of the
//! group, and its members assign anew.
//!
//! Not for KIP-848, where the broker assigns.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;

use super::random::jitter;
use crate::native::{self, OwnedTopics};

/// How long a generation has to last before its assignment is looked at; up to twice as long, so that members do not act in step.
const SETTLE: Duration = Duration::from_secs(5);
/// How often the generation is looked at.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the group is made to assign anew, at most, without a whole assignment in between: somebody may leave topics to
/// nobody on purpose.
const MAX_ATTEMPTS: u32 = 4;

/// When to look at who owns what. It must go before the consumer does.
pub(super) struct Lookout {
    generation_id: i32,
    next_look: Instant,
    /// When its assignment is looked at; `None` once it is known to be whole.
    due: Option<Instant>,
    question: Option<OwnedTopics>,
    failed_attempts: u32,
}

impl Lookout {
    pub(super) fn new(now: Instant) -> Self {
        Self { generation_id: -1, next_look: now, due: None, question: None, failed_attempts: 0 }
    }

    /// Those of the topics that exist and have no owner, once that is known. Waits only if there seem to be any: up to the timeout,
    /// to see whether they exist.
    pub(super) fn look<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        group: &str,
        topics: &[Arc<str>],
        timeout: Duration,
    ) -> Vec<Arc<str>> {
        let now = Instant::now();
        let answer = match &self.question {
            Some(question) => question.poll(),
            None => {
                self.ask_if_due(consumer.client(), group, now);
                None
            }
        };
        let Some(answer) = answer else { return Vec::new() };
        self.question = None;
        match answer
            .and_then(|owned| owned.map(|owned| unowned(consumer, &owned, topics, timeout)).transpose())
        {
            Ok(Some(unowned)) if unowned.is_empty() => {
                self.is_whole();
                return unowned;
            }
            Ok(Some(unowned)) => {
                self.is_not_whole(now);
                tracing::warn!(group, topics = ?unowned, "topics that nobody in the group reads; assigning anew");
                return unowned;
            }
            Ok(None) => tracing::debug!(group, "the group changes, or does not say who owns what"),
            Err(error) => tracing::debug!(group, %error, "not known whether every topic is read"),
        }
        self.due = Some(now + self.wait());
        Vec::new()
    }

    fn ask_if_due<C: ConsumerContext>(&mut self, client: &Client<C>, group: &str, now: Instant) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + INTERVAL;
        if self.is_due(native::generation_id(client), now) {
            self.question = OwnedTopics::ask(client, group, ANSWER_TIMEOUT);
        }
    }

    fn is_due(&mut self, generation_id: i32, now: Instant) -> bool {
        if generation_id != self.generation_id {
            self.generation_id = generation_id;
            self.due = (generation_id > 0).then(|| now + self.wait());
        }
        self.due.is_some_and(|due| now >= due) && self.failed_attempts < MAX_ATTEMPTS
    }

    fn is_whole(&mut self) {
        (self.due, self.failed_attempts) = (None, 0);
    }

    fn is_not_whole(&mut self, now: Instant) {
        self.failed_attempts += 1;
        self.due = Some(now + self.wait());
    }

    fn wait(&self) -> Duration {
        SETTLE.mul_f64(1.0 + jitter()) * 2_u32.pow(self.failed_attempts)
    }
}

/// Those of the topics that are owned by nobody, and exist.
fn unowned<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    owned: &HashSet<String>,
    topics: &[Arc<str>],
    timeout: Duration,
) -> Result<Vec<Arc<str>>, KafkaError> {
    let mut unowned = Vec::new();
    let deadline = Instant::now() + timeout;
    for topic in topics.iter().filter(|topic| !owned.contains(&***topic)) {
        let left = deadline.saturating_duration_since(Instant::now());
        let metadata = consumer.fetch_metadata(Some(topic), left)?;
        if metadata.topics().iter().any(|found| found.name() == &**topic && !found.partitions().is_empty()) {
            unowned.push(Arc::clone(topic));
        }
    }
    Ok(unowned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_looked_at_once_it_has_settled() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut lookout = Lookout::new(start);
        assert!(!lookout.is_due(-1, at(100)), "no member");
        assert!(!lookout.is_due(1, at(100)) && !lookout.is_due(1, at(104)));
        assert!(!lookout.is_due(2, at(104)) && !lookout.is_due(2, at(108)), "each anew");
        assert!(lookout.is_due(2, at(114)));
        lookout.is_whole();
        assert!(!lookout.is_due(2, at(1_000)), "whole once, whole for good");
        assert!(!lookout.is_due(3, at(1_000)) && lookout.is_due(3, at(1_010)));
    }

    #[test]
    fn looks_that_help_nothing_end() {
        let mut now = Instant::now();
        let mut lookout = Lookout::new(now);
        let mut looks_count = 0;
        for generation_id in 1..1_000 {
            lookout.is_due(generation_id, now);
            now += Duration::from_secs(100);
            if lookout.is_due(generation_id, now) {
                looks_count += 1;
                lookout.is_not_whole(now);
            }
        }
        assert_eq!(looks_count, MAX_ATTEMPTS);
    }
}
