//! Topics that nobody in the group owns, although members subscribe to them.
//!
//! The member that assigns asks one node for partitions, and gives those of a topic of which this node has not heard yet to
//! nobody. librdkafka does not look again: the group would go on without the topic for good. Consumers wait until all nodes
//! know their topics (`admin::known`), but not for ever; what gets past that is found here, once in each generation of the
//! group, and its members assign anew.
//!
//! Not for KIP-848, where the broker assigns.
//!
//! Every node is asked for the group, on a thread of its own: librdkafka (2.12) can ask just the coordinator and not wait, but a
//! process whose question of that kind has run out of time is ended by an assertion once the coordinator is back.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;

use crate::native;
use crate::outsider::knows;

/// How long a generation has to last before its assignment is looked at, besides the time in which a member gives partitions up:
/// a cooperative group is stable meanwhile, with partitions that nobody owns.
const SETTLE: Duration = Duration::from_secs(5);
/// How often the generation is looked at.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Generations in a row that are not found to be whole before nobody does anything about it any more: an assignor may leave topics to
/// nobody on purpose.
const MAX_FAILURES: u32 = 4;
/// How often waits double.
const MAX_DOUBLINGS: u32 = 8;

/// When to look at who owns what.
pub(super) struct Lookout {
    settle: Duration,
    next_look: Instant,
    question: Option<Question>,
    generation: Generation,
    /// Generations in a row that were not whole.
    failures: u32,
    /// Questions in a row that were not answered.
    unanswered: u32,
}

#[derive(Debug, Clone, Copy)]
struct Generation {
    id: i32,
    since: Instant,
    /// When its assignment is looked at; `None` once there is nothing more to know, or to do.
    due: Option<Instant>,
    has_failed: bool,
}

impl Lookout {
    /// For members that take up to `revoke_wait` to give up a partition.
    pub(super) fn new(revoke_wait: Duration) -> Self {
        let now = Instant::now();
        let generation = Generation { id: -1, since: now, due: None, has_failed: false };
        let settle = SETTLE + revoke_wait;
        Self { settle, next_look: now, question: None, generation, failures: 0, unanswered: 0 }
    }

    /// Whether some of the topics have no owner, and something should be done about it. Waits only if there seem to be any: up to
    /// the timeout, to see whether one exists.
    pub(super) fn look<'t, C: ConsumerContext + 'static>(
        &mut self,
        consumer: &Arc<BaseConsumer<C>>,
        group: &str,
        topics: impl IntoIterator<Item = &'t Arc<str>>,
        timeout: Duration,
    ) -> bool {
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + INTERVAL;
            self.ask_if_due(consumer, group, now);
        }
        let Some(answer) = self.question.as_ref().and_then(Question::poll) else { return false };
        self.question = None;
        let owned = answer.unwrap_or_else(|error| {
            tracing::debug!(group, %error, "not known whether every topic is read");
            None
        });
        // The group changes, or nobody answers.
        let Some(owned) = owned else {
            self.is_not_answered(now);
            return false;
        };
        let unowned: Vec<_> = topics.into_iter().filter(|topic| !owned.contains(&***topic)).collect();
        if unowned.is_empty() {
            self.is_whole();
            return false;
        }
        // One that was deleted is nobody's, and no reason to do anything. Another node may know more the next time.
        if !unowned.iter().any(|topic| exists(consumer, topic, now + timeout)) {
            self.is_not_answered(now);
            return false;
        }
        let acts = self.is_not_whole(now);
        tracing::warn!(group, topics = ?unowned, acts, "topics that nobody in the group reads");
        acts
    }

    /// Forgets what it has asked: the consumer leaves the group.
    pub(super) fn forget(&mut self) {
        self.question = None;
        self.generation.due = None;
    }

    fn ask_if_due<C: ConsumerContext + 'static>(
        &mut self,
        consumer: &Arc<BaseConsumer<C>>,
        group: &str,
        now: Instant,
    ) {
        if self.is_due(native::generation_id(consumer.client()), now) && self.question.is_none() {
            self.question = Some(Question::ask(consumer, group));
        }
    }

    fn is_due(&mut self, generation_id: i32, now: Instant) -> bool {
        if generation_id != self.generation.id {
            self.question = None;
            // It lasted, and ended before it was found to be whole: another member may have done something about it. All count
            // alike, so that a large group does not try more often than a small one. Or nothing was wrong: one try is left.
            let Generation { since, due, has_failed, .. } = self.generation;
            let may_count = self.failures < MAX_FAILURES - 1;
            if may_count && due.is_some() && !has_failed && now - since >= self.settle {
                self.failures += 1;
            }
            let due = (generation_id > 0).then(|| now + doubled(self.settle, self.failures));
            self.generation = Generation { id: generation_id, since: now, due, has_failed: false };
        }
        self.generation.due.is_some_and(|due| now >= due)
    }

    fn is_whole(&mut self) {
        (self.failures, self.unanswered) = (0, 0);
        self.generation.due = None;
    }

    /// Answers whether to do something about it.
    fn is_not_whole(&mut self, now: Instant) -> bool {
        self.unanswered = 0;
        self.failures += u32::from(!self.generation.has_failed);
        self.generation.has_failed = true;
        let acts = self.failures <= MAX_FAILURES;
        self.generation.due = acts.then(|| now + doubled(self.settle, self.failures));
        acts
    }

    fn is_not_answered(&mut self, now: Instant) {
        self.unanswered += 1;
        self.generation.due = Some(now + doubled(self.settle, self.unanswered));
    }
}

/// A question for the topics of which the members of a group own partitions.
struct Question(Receiver<KafkaResult<Option<HashSet<String>>>>);

impl Question {
    fn ask<C: ConsumerContext + 'static>(consumer: &Arc<BaseConsumer<C>>, group: &str) -> Self {
        let (answer_to, answer) = channel();
        let (consumer, group) = (Arc::clone(consumer), group.to_owned());
        let ask = move || {
            let answered = owned_topics(&consumer, &group);
            // Whoever has the answer may rely on it that this thread holds nothing any more.
            drop(consumer);
            let _ = answer_to.send(answered);
        };
        if let Err(error) = std::thread::Builder::new().name("who owns what".to_owned()).spawn(ask) {
            tracing::debug!(%error, "no thread to look for topics that nobody reads");
        }
        Self(answer)
    }

    /// The answer, if it is there: `None` within it while the group changes. Never waits.
    fn poll(&self) -> Option<KafkaResult<Option<HashSet<String>>>> {
        match self.0.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Ok(None)),
        }
    }
}

/// `None` while the group changes.
fn owned_topics<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    group: &str,
) -> KafkaResult<Option<HashSet<String>>> {
    let groups = consumer.fetch_group_list(Some(group), ANSWER_TIMEOUT)?;
    let found = groups.groups().iter().find(|found| found.name() == group && found.state() == "Stable");
    Ok(found.and_then(|group| {
        let mut owned = HashSet::new();
        for member in group.members() {
            owned.extend(assigned_topics(member.assignment().unwrap_or_default())?);
        }
        Some(owned)
    }))
}

/// The topics in Kafka's `ConsumerProtocolAssignment`: a version, then an array of a topic's name and an array of its partitions,
/// each with its length before it. `None` if it is something else.
fn assigned_topics(mut assignment: &[u8]) -> Option<HashSet<String>> {
    let mut topics = HashSet::new();
    if assignment.is_empty() {
        return Some(topics);
    }
    let rest = &mut assignment;
    let _version = i16::from_be_bytes(take(rest)?);
    for _ in 0..i32::from_be_bytes(take(rest)?) {
        let length = i16::from_be_bytes(take(rest)?);
        let name = rest.split_off(..usize::try_from(length).ok()?)?;
        let partitions_count = usize::try_from(i32::from_be_bytes(take(rest)?)).ok()?;
        let partitions = rest.split_off(..partitions_count.checked_mul(size_of::<i32>())?)?;
        if !partitions.is_empty() {
            topics.insert(String::from_utf8_lossy(name).into_owned());
        }
    }
    Some(topics)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn doubled(wait: Duration, times: u32) -> Duration {
    wait * 2_u32.pow(times.min(MAX_DOUBLINGS))
}

/// Whether a node is known to know it.
fn exists<C: ConsumerContext>(consumer: &BaseConsumer<C>, topic: &str, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    consumer.fetch_metadata(Some(topic), left).is_ok_and(|metadata| knows(&metadata, topic))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REVOKE_WAIT: Duration = Duration::from_secs(2);

    fn lookout() -> (Lookout, impl Fn(u64) -> Instant) {
        let lookout = Lookout::new(REVOKE_WAIT);
        let start = lookout.next_look;
        (lookout, move |seconds| start + Duration::from_secs(seconds))
    }

    #[test]
    fn an_assignment_names_its_topics_or_is_none() {
        let bytes = [
            &[0, 1, 0, 0, 0, 2][..],
            &[0, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 7],
            &[0, 1, b'b', 0, 0, 0, 0],
            &[0xff; 4],
        ];
        let whole = bytes.concat();
        assert_eq!(assigned_topics(&whole), Some(HashSet::from(["a".to_owned()])), "it has nothing of b");
        assert_eq!(assigned_topics(b""), Some(HashSet::new()));
        let user_data = 4;
        for end in 1..whole.len() - user_data {
            assert_eq!(assigned_topics(&whole[..end]), None, "{end} bytes of it");
        }
        assert_eq!(assigned_topics(&[0, 1, 0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff]), None);
        assert_eq!(assigned_topics(&[0, 1, 0, 0, 0, 1, 0, 0, 0x7f, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn a_generation_is_looked_at_once_it_has_settled() {
        let (mut lookout, at) = lookout();
        assert!(!lookout.is_due(-1, at(100)), "no member");
        assert!(!lookout.is_due(1, at(100)) && !lookout.is_due(1, at(106)));
        assert!(!lookout.is_due(2, at(106)) && !lookout.is_due(2, at(112)), "each anew");
        assert!(lookout.is_due(2, at(113)));
        lookout.is_whole();
        assert!(!lookout.is_due(2, at(1_000)), "whole once, whole for good");
        assert!(!lookout.is_due(3, at(1_000)) && lookout.is_due(3, at(1_007)));
    }

    #[test]
    fn what_is_not_known_is_asked_again_and_more_rarely() {
        let (mut lookout, at) = lookout();
        lookout.is_due(1, at(0));
        lookout.is_not_answered(at(7));
        assert!(!lookout.is_due(1, at(20)) && lookout.is_due(1, at(21)));
        lookout.is_not_answered(at(21));
        assert!(!lookout.is_due(1, at(48)) && lookout.is_due(1, at(49)));
        // The next generation is not looked at sooner than after one that had failed.
        assert!(!lookout.is_due(2, at(49)) && !lookout.is_due(2, at(62)) && lookout.is_due(2, at(63)));
        assert_eq!((lookout.unanswered, lookout.failures), (2, 1));
        lookout.is_whole();
        assert_eq!((lookout.unanswered, lookout.failures), (0, 0));
    }

    /// One that never becomes whole is left alone after a while, but still looked at, so that the next hole is found.
    #[test]
    fn what_does_not_help_is_not_done_for_ever() {
        let (mut lookout, at) = lookout();
        let (mut now, mut acts_count) = (0, 0);
        for generation_id in 1..20 {
            assert!(!lookout.is_due(generation_id, at(now)));
            now += 10_000;
            assert!(lookout.is_due(generation_id, at(now)));
            acts_count += u32::from(lookout.is_not_whole(at(now)));
        }
        assert_eq!(acts_count, MAX_FAILURES);
        assert!(!lookout.is_due(19, at(now + 10_000)), "once in a generation");
        lookout.is_due(20, at(now));
        lookout.is_whole();
        assert!(lookout.is_not_whole(at(now)));
    }

    /// A group that restarts member by member changes again and again before anybody has looked; what is wrong after that is mended.
    #[test]
    fn generations_that_nobody_has_looked_at_leave_a_try() {
        let (mut lookout, at) = lookout();
        let mut now = 0;
        for generation_id in 1..100 {
            lookout.is_due(generation_id, at(now));
            now += 55;
        }
        assert!(lookout.is_due(99, at(now + 1)), "eight times the wait, at most");
        assert!(lookout.is_not_whole(at(now + 1)));
    }

    /// Members are not in step: who comes later finds the group changing already. It must not begin to count then.
    #[test]
    fn what_others_do_counts_too() {
        let (mut lookout, at) = lookout();
        lookout.is_due(1, at(0));
        lookout.is_due(2, at(7));
        assert_eq!(lookout.failures, 1);
        // The generation in which the other one has less, and the one after.
        lookout.is_due(3, at(9));
        assert_eq!(lookout.failures, 1);
        assert!(!lookout.is_due(3, at(22)) && lookout.is_due(3, at(23)), "twice the wait");
    }
}
