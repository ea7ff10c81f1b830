//! Parking: rejected records become letters before their offsets are committed. And the topics that this takes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::options::ConsumerOptions;
use crate::admin::{Admin, AdminError};
use crate::cluster::Cluster;
use crate::failure::{Failure, FailureTopics, Origin, letter_record};
use crate::producer::{Delivered, Producer, SendError};
use crate::record::{ReceivedRecord, Record, now_ms};

/// How long letters wait for their acknowledgement before the attempt counts as failed.
const PARK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it may take to look for topics, and to create them.
pub(super) const TOPICS_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Parking {
    cluster: Cluster,
    producer: Producer,
    group: String,
    letter_partitions: i32,
    preserves_key_order: bool,
    delays: bool,
    /// The source of each retry topic.
    sources: RwLock<HashMap<Arc<str>, FailureTopics>>,
}

impl Parking {
    pub(super) fn new(cluster: &Cluster, producer: Producer, options: &ConsumerOptions) -> Self {
        Self {
            cluster: cluster.clone(),
            producer,
            group: options.group.clone(),
            letter_partitions: options.letter_partitions,
            preserves_key_order: options.preserve_key_order,
            delays: options.delays(),
            sources: RwLock::default(),
        }
    }

    /// Takes note of the source topics, and answers their retry topics.
    pub(super) fn set_sources(&self, topics: &[Arc<str>]) -> Vec<Arc<str>> {
        let sources = topics.iter().map(|topic| FailureTopics::of(topic));
        let by_retry: HashMap<_, _> = sources.map(|topics| (topics.retry(&self.group), topics)).collect();
        let retry_topics = by_retry.keys().cloned().collect();
        *self.sources.write() = by_retry;
        retry_topics
    }

    /// The topic in which a record of this topic was first read.
    pub(super) fn source_of(&self, topic: &Arc<str>) -> Arc<str> {
        self.sources.read().get(topic).map_or_else(|| Arc::clone(topic), |topics| Arc::clone(&topics.source))
    }

    /// Creates the topics of the failure inboxes that are missing. Answers the client that did.
    pub(super) fn ensure_topics(&self) -> Result<Admin, AdminError> {
        let mut specs = Vec::new();
        for topics in self.sources.read().values() {
            specs.extend(topics.specs(self.letter_partitions));
            specs.push(topics.retry_spec(&self.group));
            specs.extend(self.preserves_key_order.then(|| topics.parked_spec(&self.group)));
            specs.extend(self.delays.then(|| topics.delay_spec(&self.group)));
        }
        let admin = Admin::new(&self.cluster, TOPICS_TIMEOUT)?;
        admin.ensure_topics(&specs)?;
        Ok(admin)
    }

    /// The same, and waits until the whole cluster knows the topics to subscribe to, but for those that it is known to know.
    pub(super) fn ensure_to_subscribe(&self, known: &mut HashSet<Arc<str>>) -> Result<(), AdminError> {
        let admin = self.ensure_topics()?;
        let mut topics: Vec<Arc<str>> = Vec::new();
        for (retry, source) in &*self.sources.read() {
            topics.extend([Arc::clone(retry), Arc::clone(&source.source)]);
            topics.extend(self.delays.then(|| source.delay(&self.group)));
        }
        // One that comes again is another one.
        known.retain(|topic| topics.contains(topic));
        topics.retain(|topic| !known.contains(topic));
        let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        admin.wait_until_known(&names)?;
        known.extend(topics);
        Ok(())
    }

    pub(super) fn letter(&self, record: &ReceivedRecord, failure: &Failure, deliveries: u32) -> Record {
        let origin = Origin::of(record, self.sources.read().contains_key(&record.topic));
        letter_record(record, &origin, failure, &self.group, deliveries, now_ms())
    }

    /// Sends letters, or records that come later, and answers what became of each.
    pub(super) fn park(&self, letters: &[Record]) -> Vec<Result<Delivered, SendError>> {
        self.producer.send_batch_blocking(letters, PARK_TIMEOUT)
    }
}
