//! One fetch session: the partitions a client wants, and what it was last told of each.
//!
//! Owns their order. Invariants: a partition whose answer has records goes to the end, so that those behind it get their
//! turn when the answer is full; what a client was told changes only with an answer that tells it.

use std::collections::{BTreeMap, HashMap};

use tidings_model::{ErrorCode, TopicId};
use tidings_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use tidings_wire::messages::fetch_response::{FetchableTopicResponse, PartitionData};

#[derive(Debug)]
pub(crate) struct Session {
    /// The epoch that the next request must have.
    pub(super) epoch: i32,
    /// Whether topics are named by ids.
    pub(super) by_id: bool,
    topics: Vec<TopicKey>,
    topic_indexes: HashMap<TopicKey, u32>,
    partitions: HashMap<Key, Partition>,
    /// Places in the order of reading.
    order: BTreeMap<u64, Key>,
    next_place: u64,
    /// What the topics weigh: those that were forgotten are not removed, but they count.
    topics_weight: usize,
}

/// So many bytes of a topic's name weigh as much as a partition.
const NAME_BYTES_PER_PARTITION: usize = 64;

type TopicKey = (String, TopicId);

/// A topic's index and a partition.
type Key = (u32, i32);

#[derive(Debug)]
struct Partition {
    place: u64,
    wanted: FetchPartition,
    told: Option<Told>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    high_watermark: i64,
    log_start_offset: i64,
}

impl Session {
    pub(super) fn new(
        epoch: i32,
        by_id: bool,
        asked: &[FetchTopic],
        answers: &[FetchableTopicResponse],
    ) -> Session {
        let mut session = Session {
            epoch,
            by_id,
            topics: Vec::new(),
            topic_indexes: HashMap::new(),
            partitions: HashMap::new(),
            order: BTreeMap::new(),
            next_place: 0,
            topics_weight: 0,
        };
        asked.iter().for_each(|topic| session.want(topic));
        for topic in answers {
            let Some(index) = session.index_of(&topic.topic, topic.topic_id) else { continue };
            for data in &topic.partitions {
                if let Some(partition) = session.partitions.get_mut(&(index, data.partition_index)) {
                    partition.told = told(data);
                }
            }
        }
        session
    }

    /// Whether nothing is wanted any more.
    pub(super) fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// What it takes of the bound that all sessions share, counted in partitions.
    pub(super) fn weight(&self) -> usize {
        self.partitions.len() + self.topics_weight
    }

    /// Takes a request's changes in: what it both wants and forgets is forgotten.
    pub(super) fn update(&mut self, request: &FetchRequest) {
        request.topics.iter().for_each(|topic| self.want(topic));
        for topic in &request.forgotten_topics_data {
            let Some(index) = self.index_of(&topic.topic, topic.topic_id) else { continue };
            for partition in &topic.partitions {
                if let Some(forgotten) = self.partitions.remove(&(index, *partition)) {
                    self.order.remove(&forgotten.place);
                }
            }
        }
    }

    fn want(&mut self, topic: &FetchTopic) {
        let key = (topic.topic.clone(), topic.topic_id);
        let index = *self.topic_indexes.entry(key).or_insert_with_key(|key| {
            self.topics_weight += key.0.len() / NAME_BYTES_PER_PARTITION + 1;
            self.topics.push(key.clone());
            (self.topics.len() - 1) as u32
        });
        for wanted in &topic.partitions {
            let key = (index, wanted.partition);
            if let Some(known) = self.partitions.get_mut(&key) {
                known.wanted = wanted.clone();
                continue;
            }
            let place = self.next_place;
            self.next_place += 1;
            self.order.insert(place, key);
            self.partitions.insert(key, Partition { place, wanted: wanted.clone(), told: None });
        }
    }

    fn index_of(&self, topic: &str, id: TopicId) -> Option<u32> {
        self.topic_indexes.get(&(topic.to_owned(), id)).copied()
    }

    /// Everything that is wanted, in order; neighbours of one topic share an entry.
    pub(super) fn wanted(&self) -> Vec<FetchTopic> {
        let mut topics: Vec<(u32, FetchTopic)> = Vec::new();
        for key in self.order.values() {
            let (index, _) = *key;
            if topics.last().is_none_or(|(last, _)| *last != index) {
                let (topic, topic_id) = self.topics[index as usize].clone();
                topics.push((index, FetchTopic { topic, topic_id, ..FetchTopic::default() }));
            }
            if let (Some((_, topic)), Some(partition)) = (topics.last_mut(), self.partitions.get(key)) {
                topic.partitions.push(partition.wanted.clone());
            }
        }
        topics.into_iter().map(|(_, topic)| topic).collect()
    }

    /// Leaves in an answer only what the client does not know yet, and remembers that it is told.
    pub(super) fn drop_unchanged(&mut self, answers: &mut Vec<FetchableTopicResponse>) {
        for topic in answers.iter_mut() {
            let Some(index) = self.index_of(&topic.topic, topic.topic_id) else { continue };
            topic.partitions.retain(|data| self.is_news((index, data.partition_index), data));
        }
        answers.retain(|topic| !topic.partitions.is_empty());
    }

    fn is_news(&mut self, key: Key, data: &PartitionData) -> bool {
        let Some(partition) = self.partitions.get_mut(&key) else { return true };
        let has_records = data.records.as_ref().is_some_and(|records| !records.is_empty());
        let now = told(data);
        let news = has_records || now.is_none() || now != partition.told;
        partition.told = now;
        if has_records {
            self.order.remove(&partition.place);
            partition.place = self.next_place;
            self.next_place += 1;
            self.order.insert(partition.place, key);
        }
        news
    }
}

/// What an answer tells; none for an error, so that the answer after it is told whatever it says.
fn told(data: &PartitionData) -> Option<Told> {
    let PartitionData { high_watermark, log_start_offset, .. } = *data;
    (data.error_code == ErrorCode::None.code()).then_some(Told { high_watermark, log_start_offset })
}
