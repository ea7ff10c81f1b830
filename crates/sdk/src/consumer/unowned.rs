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

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::groups::GroupList;

use super::random::jitter;
use crate::native;

/// How long a generation has to last before its assignment is looked at; up to twice as long, so that members do not act in step.
const SETTLE: Duration = Duration::from_secs(5);
/// How often the generation is looked at.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long to wait after a question without an answer.
const RETRY: Duration = Duration::from_secs(60);
/// How often the group is made to assign anew, at most, without a whole assignment in between: somebody may leave topics to
/// nobody on purpose.
const MAX_ATTEMPTS: u32 = 4;

/// When to look at who owns what.
pub(super) struct Lookout {
    generation_id: i32,
    next_look: Instant,
    /// When its assignment is looked at; `None` once it is known to be whole.
    due: Option<Instant>,
    failed_attempts: u32,
}

impl Lookout {
    pub(super) fn new(now: Instant) -> Self {
        Self { generation_id: -1, next_look: now, due: None, failed_attempts: 0 }
    }

    /// Those of the topics that exist and have no owner, if it is time to ask. Waits for answers for up to twice the timeout.
    pub(super) fn look<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        group: &str,
        topics: &[Arc<str>],
        timeout: Duration,
    ) -> Vec<Arc<str>> {
        let now = Instant::now();
        if now < self.next_look {
            return Vec::new();
        }
        self.next_look = now + INTERVAL;
        if !self.is_due(native::generation_id(consumer.client()), now) {
            return Vec::new();
        }
        match unowned(consumer, group, topics, timeout) {
            Ok(Some(unowned)) if unowned.is_empty() => {
                self.is_whole();
                Vec::new()
            }
            Ok(Some(unowned)) => {
                self.is_not_whole(now);
                tracing::warn!(group, topics = ?unowned, "topics that nobody in the group reads; assigning anew");
                unowned
            }
            Ok(None) => {
                self.due = Some(now + RETRY);
                Vec::new()
            }
            Err(error) => {
                tracing::debug!(group, %error, "not known whether every topic is read");
                self.due = Some(now + RETRY);
                Vec::new()
            }
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

/// `None` while the group changes, or where it does not say who owns what.
fn unowned<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    group: &str,
    topics: &[Arc<str>],
    timeout: Duration,
) -> Result<Option<Vec<Arc<str>>>, KafkaError> {
    let groups = consumer.fetch_group_list(Some(group), timeout)?;
    let Some(owned) = owned_topics(&groups, group) else { return Ok(None) };
    let mut unowned = Vec::new();
    let deadline = Instant::now() + timeout;
    for topic in topics.iter().filter(|topic| !owned.contains(&***topic)) {
        let left = deadline.saturating_duration_since(Instant::now());
        let metadata = consumer.fetch_metadata(Some(topic), left)?;
        if metadata.topics().iter().any(|found| found.name() == &**topic && !found.partitions().is_empty()) {
            unowned.push(Arc::clone(topic));
        }
    }
    Ok(Some(unowned))
}

fn owned_topics(groups: &GroupList, group: &str) -> Option<HashSet<String>> {
    let found = groups.groups().iter().find(|found| found.name() == group && found.state() == "Stable")?;
    let mut owned = HashSet::new();
    for member in found.members() {
        owned.extend(assigned_topics(member.assignment().unwrap_or_default())?);
    }
    Some(owned)
}

/// The topics with partitions in a member's assignment (Kafka's `ConsumerProtocolAssignment`). `None` if it is no such thing.
fn assigned_topics(bytes: &[u8]) -> Option<HashSet<String>> {
    if bytes.is_empty() {
        return Some(HashSet::new());
    }
    let (_version, bytes) = bytes.split_first_chunk::<2>()?;
    let (count, mut bytes) = bytes.split_first_chunk()?;
    let mut topics = HashSet::new();
    for _ in 0..u32::try_from(i32::from_be_bytes(*count)).ok()? {
        let (length, rest) = bytes.split_first_chunk()?;
        let (name, rest) = rest.split_at_checked(usize::try_from(i16::from_be_bytes(*length)).ok()?)?;
        let (partitions_count, rest) = rest.split_first_chunk()?;
        let partitions_count = usize::try_from(i32::from_be_bytes(*partitions_count)).ok()?;
        let (_partitions, rest) = rest.split_at_checked(partitions_count.checked_mul(size_of::<i32>())?)?;
        if partitions_count > 0 {
            topics.insert(std::str::from_utf8(name).ok()?.to_owned());
        }
        bytes = rest;
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assignment(topics: &[(&str, i32)]) -> Vec<u8> {
        let mut bytes = vec![0, 1];
        bytes.extend((topics.len() as i32).to_be_bytes());
        for (name, partitions) in topics {
            bytes.extend((name.len() as i16).to_be_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(partitions.to_be_bytes());
            (0..*partitions).for_each(|partition: i32| bytes.extend(partition.to_be_bytes()));
        }
        bytes.extend((-1_i32).to_be_bytes()); // no user data
        bytes
    }

    #[test]
    fn topics_with_partitions_are_found() {
        let found = assigned_topics(&assignment(&[("a", 3), ("none", 0), ("b.retry", 1)])).unwrap();
        assert_eq!(found, HashSet::from(["a".to_owned(), "b.retry".to_owned()]));
        assert!(assigned_topics(&[]).unwrap().is_empty(), "a member without an assignment");
    }

    #[test]
    fn what_ends_early_says_nothing() {
        let whole = assignment(&[("a", 3), ("b", 1)]);
        let end = whole.len() - size_of::<i32>();
        assert!((1..end).all(|length| assigned_topics(&whole[..length]).is_none()));
        assert!(assigned_topics(&[0, 1, 0x7f, 0xff, 0xff, 0xff]).is_none(), "more topics than bytes");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let _ = assigned_topics(&bytes);
        }
    }

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
