//! Topics: what to create, and what there is.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::admin::{ConfigEntry, ConfigSource, NewPartitions, ResourceSpecifier};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataTopic;
use rdkafka::topic_partition_list::Offset;

use super::{Admin, AdminError};
use crate::native::{Refusal, create_topics};
use crate::outsider::fetch_metadata;
use crate::reader::offsets_at;

/// How often a new topic is looked for until it has leaders.
const PROPAGATION_RETRY: Duration = Duration::from_millis(5);

/// Where a cluster keeps its groups and transactions.
const INTERNAL_TOPICS: [&str; 2] = ["__consumer_offsets", "__transaction_state"];

/// A topic to create.
///
/// ```
/// use tidings::admin::TopicSpec;
///
/// let spec = TopicSpec::new("orders", 3).config("retention.ms", "-1");
/// assert_eq!(spec.replication, -1); // the cluster's default
/// assert_eq!(spec.replication(3).replication, 3);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions; -1 for the cluster's default.
    pub partitions: i32,
    /// How many replicas of each; -1 for the cluster's default.
    pub replication: i32,
    /// Settings by Kafka's names.
    pub config: Vec<(String, String)>,
}

impl TopicSpec {
    /// A topic with that many partitions and the cluster's default replication.
    pub fn new(name: impl Into<String>, partitions: i32) -> Self {
        Self { name: name.into(), partitions, replication: -1, config: Vec::new() }
    }

    /// Adds a setting by Kafka's name.
    pub fn config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.push((key.into(), value.into()));
        self
    }

    /// Sets the number of replicas.
    pub fn replication(mut self, replication: i32) -> Self {
        self.replication = replication;
        self
    }
}

/// One partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TopicPartitionInfo {
    /// Its number.
    pub partition: i32,
    /// The broker that leads it, -1 for none.
    pub leader: i32,
    /// The brokers that hold a replica.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub in_sync: Vec<i32>,
    /// The first offset that can be read; only when described.
    pub start_offset: Option<i64>,
    /// The next offset to be written; only when described.
    pub end_offset: Option<i64>,
}

/// A topic that exists.
///
/// ```
/// use tidings::admin::{TopicDescription, TopicPartitionInfo};
///
/// /// Partitions whose records would be gone with one broker.
/// fn in_danger(topic: &TopicDescription) -> Vec<i32> {
///     let is_alone = |partition: &&TopicPartitionInfo| partition.in_sync.len() < 2;
///     topic.partitions.iter().filter(is_alone).map(|partition| partition.partition).collect()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its partitions, by number.
    pub partitions: Vec<TopicPartitionInfo>,
    /// Settings that differ from the cluster's defaults; only when described.
    pub config: Vec<(String, String)>,
}

impl Admin {
    /// Creates the topics that are missing, and waits until the cluster serves all of them.
    ///
    /// A topic that exists is left as it is, whatever its partitions and settings are. Answers the names created.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::Cluster;
    /// use tidings::admin::{Admin, TopicSpec};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// let admin = Admin::new(&cluster, Duration::from_secs(10))?;
    /// let specs = [TopicSpec::new("orders", 3), TopicSpec::new("invoices", 3)];
    /// assert_eq!(admin.ensure_topics(&specs)?, ["orders", "invoices"]);
    /// assert!(admin.ensure_topics(&specs)?.is_empty());
    /// assert_eq!(admin.list_topics()?.len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<Vec<String>, AdminError> {
        let existing: Vec<String> = self.list_topics()?.into_iter().map(|topic| topic.name).collect();
        let missing: Vec<_> = specs.iter().filter(|spec| !existing.contains(&spec.name)).collect();
        let mut created = Vec::new();
        for (spec, result) in missing.iter().zip(self.create(&missing)?) {
            match result {
                Ok(()) => created.push(spec.name.clone()),
                // Somebody was faster.
                Err(AdminError::TopicExists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let names: Vec<&str> = missing.iter().map(|spec| spec.name.as_str()).collect();
        self.wait_until_usable(&names)?;
        Ok(created)
    }

    /// Creates a topic, and waits until it can be used.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::Cluster;
    /// use tidings::admin::{Admin, TopicSpec};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// let admin = Admin::new(&cluster, Duration::from_secs(10))?;
    /// admin.create_topic(&TopicSpec::new("orders", 3).config("retention.ms", "86400000"))?;
    /// assert_eq!(admin.describe_topic("orders")?.config, [("retention.ms".into(), "86400000".into())]);
    /// admin.create_partitions("orders", 6)?;
    /// admin.delete_topic("orders")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_topic(&self, spec: &TopicSpec) -> Result<(), AdminError> {
        self.create(&[spec])?.into_iter().collect::<Result<(), _>>()?;
        self.wait_until_usable(&[&spec.name])
    }

    /// Creates topics with one request; the answers are in their order.
    fn create(&self, specs: &[&TopicSpec]) -> Result<Vec<Result<(), AdminError>>, AdminError> {
        if specs.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
        let operation = format!("create topic {}", names.join(", "));
        let client = self.client(&operation)?.inner();
        let results = create_topics(client, specs, self.timeout).map_err(self.failed(&operation))?;
        let by_name = |name: &&str| match results.iter().find(|(topic, _)| topic == name) {
            None | Some((_, Ok(()))) => Ok(()),
            Some((topic, Err(Refusal { code: RDKafkaErrorCode::TopicAlreadyExists, .. }))) => {
                Err(AdminError::TopicExists { topic: topic.clone() })
            }
            Some((topic, Err(refusal))) => {
                Err(self.not_created(format!("create topic {topic}"), refusal.clone()))
            }
        };
        Ok(names.iter().map(by_name).collect())
    }

    /// Deletes a topic and all its records. For a moment, nodes of a cluster may still tell of it.
    pub fn delete_topic(&self, topic: &str) -> Result<(), AdminError> {
        let operation = format!("delete topic {topic}");
        let results = block_on(self.client(&operation)?.delete_topics(&[topic], &self.options()))
            .map_err(self.failed(&operation))?;
        match results.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))) => {
                Err(AdminError::UnknownTopic { topic: topic.into() })
            }
            Some(Err((_, RDKafkaErrorCode::InvalidRequest))) if INTERNAL_TOPICS.contains(&topic) => {
                Err(AdminError::InternalTopic { topic: topic.into() })
            }
            Some(Err((_, code))) => Err(self.refused(operation, code)),
            _ => Ok(()),
        }
    }

    /// Deletes the records of partitions before these offsets.
    pub(crate) fn delete_records_before(&self, ends: &[((Arc<str>, i32), i64)]) -> Result<(), AdminError> {
        let mut offsets = TopicPartitionList::with_capacity(ends.len());
        for ((topic, partition), end_offset) in ends {
            let added = offsets.add_partition_offset(topic, *partition, Offset::Offset(*end_offset));
            added.map_err(self.failed("delete records"))?;
        }
        let deleted = block_on(self.client("delete records")?.delete_records(&offsets, &self.options()));
        deleted.map(drop).map_err(self.failed("delete records"))
    }

    /// Raises the number of partitions of a topic. Keys move to other partitions from then on.
    pub fn create_partitions(&self, topic: &str, new_count: usize) -> Result<(), AdminError> {
        let operation = format!("create partitions of {topic}");
        let wanted = NewPartitions::new(topic, new_count);
        let results = block_on(self.client(&operation)?.create_partitions([&wanted], &self.options()))
            .map_err(self.failed(&operation))?;
        match results.into_iter().next() {
            Some(Err((_, code))) => Err(self.refused(operation, code)),
            _ => Ok(()),
        }
    }

    /// All topics by name, without offsets and settings.
    pub fn list_topics(&self) -> Result<Vec<TopicDescription>, AdminError> {
        let metadata = fetch_metadata(&self.query, None, self.timeout).map_err(self.failed("list topics"))?;
        let mut topics: Vec<_> = metadata.topics().iter().map(describe).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// One topic with its offsets and the settings that differ from the defaults.
    pub fn describe_topic(&self, topic: &str) -> Result<TopicDescription, AdminError> {
        let operation = format!("describe topic {topic}");
        let metadata =
            fetch_metadata(&self.query, Some(topic), self.timeout).map_err(self.failed(&operation))?;
        let found =
            metadata.topics().iter().find(|found| found.name() == topic && !found.partitions().is_empty());
        let mut description =
            found.map(describe).ok_or_else(|| AdminError::UnknownTopic { topic: topic.into() })?;
        let (starts, ends) =
            (self.offsets(&description, Offset::Beginning)?, self.offsets(&description, Offset::End)?);
        for partition in &mut description.partitions {
            let key = (topic.to_string(), partition.partition);
            partition.start_offset = starts.get(&key).copied();
            partition.end_offset = ends.get(&key).copied();
        }
        description.config = self.changed_config(topic)?;
        Ok(description)
    }

    /// The value that a setting has for a topic, by Kafka's name, whether it is the topic's own or the cluster's; `None` for a
    /// setting that the cluster does not know, or does not tell.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::Cluster;
    /// use tidings::admin::{Admin, TopicSpec};
    ///
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// let admin = Admin::new(&cluster, Duration::from_secs(10))?;
    /// admin.create_topic(&TopicSpec::new("orders", 1).config("max.message.bytes", "100000"))?;
    /// assert_eq!(admin.topic_setting("orders", "max.message.bytes")?.as_deref(), Some("100000"));
    /// assert!(admin.topic_setting("orders", "retention.ms")?.is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn topic_setting(&self, topic: &str, name: &str) -> Result<Option<String>, AdminError> {
        let entry = self.config(topic)?.into_iter().find(|entry| entry.name == name);
        Ok(entry.and_then(|entry| entry.value))
    }

    fn changed_config(&self, topic: &str) -> Result<Vec<(String, String)>, AdminError> {
        let changed =
            self.config(topic)?.into_iter().filter(|entry| !entry.is_default && !entry.is_sensitive);
        let is_own = |source: &ConfigSource| matches!(source, ConfigSource::DynamicTopic);
        Ok(changed
            .filter(|entry| is_own(&entry.source))
            .map(|entry| (entry.name, entry.value.unwrap_or_default()))
            .collect())
    }

    fn config(&self, topic: &str) -> Result<Vec<ConfigEntry>, AdminError> {
        let operation = format!("describe the settings of {topic}");
        let specifier = ResourceSpecifier::Topic(topic);
        let answers = block_on(self.client(&operation)?.describe_configs([&specifier], &self.options()))
            .map_err(self.failed(&operation))?;
        match answers.into_iter().next() {
            Some(Ok(resource)) => Ok(resource.entries),
            Some(Err(code)) => Err(self.refused(operation, code)),
            None => Ok(Vec::new()),
        }
    }

    fn offsets(
        &self,
        topic: &TopicDescription,
        at: Offset,
    ) -> Result<HashMap<(String, i32), i64>, AdminError> {
        let operation = format!("read the offsets of {}", topic.name);
        let mut query = TopicPartitionList::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            query
                .add_partition_offset(&topic.name, partition.partition, at)
                .map_err(self.failed(&operation))?;
        }
        offsets_at(&self.query, &query, self.timeout).map_err(self.failed(&operation))
    }

    /// A cluster answers a creation before every broker knows the topic.
    fn wait_until_usable(&self, topics: &[&str]) -> Result<(), AdminError> {
        topics.iter().try_for_each(|topic| self.wait_for_leaders(topic))?;
        self.wait_until_known(topics)
    }

    fn wait_for_leaders(&self, topic: &str) -> Result<(), AdminError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let metadata = fetch_metadata(&self.query, Some(topic), left)
                .map_err(self.failed(&format!("create topic {topic}")))?;
            let found = metadata.topics().iter().find(|found| found.name() == topic);
            let is_led = |topic: &MetadataTopic| {
                !topic.partitions().is_empty() && topic.partitions().iter().all(|p| p.leader() >= 0)
            };
            if found.is_some_and(is_led) {
                return Ok(());
            }
            if left.is_zero() {
                return Err(
                    self.refused(format!("create topic {topic}"), RDKafkaErrorCode::OperationTimedOut)
                );
            }
            std::thread::sleep(PROPAGATION_RETRY);
        }
    }
}

fn describe(topic: &MetadataTopic) -> TopicDescription {
    let partition = |partition: &rdkafka::metadata::MetadataPartition| TopicPartitionInfo {
        partition: partition.id(),
        leader: partition.leader(),
        replicas: partition.replicas().to_vec(),
        in_sync: partition.isr().to_vec(),
        start_offset: None,
        end_offset: None,
    };
    let mut partitions: Vec<_> = topic.partitions().iter().map(partition).collect();
    partitions.sort_by_key(|partition| partition.partition);
    TopicDescription { name: topic.name().to_string(), partitions, config: Vec::new() }
}

/// Waits for a future whose completion comes from librdkafka's own thread, so that no runtime is needed.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
