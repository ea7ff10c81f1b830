//! A cluster seen by librdkafka: what tests put on topics and find there.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::wait::{LONG, until};

/// An answer that takes longer is none.
const ASK: Duration = LONG;

/// A cluster, by the address of one of its brokers.
#[derive(Clone)]
pub struct Kafka {
    bootstrap: String,
}

/// A record as it stands on a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Where it stands.
    pub partition: i32,
    /// Where it stands in its partition.
    pub offset: i64,
    /// `None` where it has no key.
    pub key: Option<Vec<u8>>,
    /// `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// In order; a name may repeat.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// The value of a header as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let (_, value) = self.headers.iter().find(|(found, _)| found == name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// The value as text.
    pub fn value_text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

impl Kafka {
    /// The cluster behind this address.
    pub fn new(bootstrap: &str) -> Self {
        Self { bootstrap: bootstrap.to_owned() }
    }

    /// The address, as clients take it.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A client configuration with nothing but the address.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config
    }

    /// Creates a topic that is not there yet.
    #[track_caller]
    pub fn create_topic(&self, topic: &str, partitions: i32) {
        let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        let results = block_on(self.admin().create_topics(&[wanted], &asking())).expect("ask for a topic");
        results.into_iter().for_each(|result| drop(result.expect("create a topic")));
    }

    /// Gives a topic that is there this setting, and no other.
    #[track_caller]
    pub fn configure_topic(&self, topic: &str, name: &str, value: &str) {
        let wanted = AlterConfig::new(ResourceSpecifier::Topic(topic)).set(name, value);
        let results = block_on(self.admin().alter_configs([&wanted], &asking())).expect("ask for a setting");
        results.into_iter().for_each(|result| drop(result.expect("set it")));
    }

    /// Removes the records of a partition before an offset, as its retention would.
    #[track_caller]
    pub fn delete_records_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("name a partition");
        let results = block_on(self.admin().delete_records(&wanted, &asking())).expect("ask for a deletion");
        results.elements().iter().for_each(|result| result.error().expect("delete records"));
    }

    #[track_caller]
    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().expect("make an admin client")
    }

    /// Puts records on partition 0 of a topic and waits for their acknowledgement.
    #[track_caller]
    pub fn produce(&self, topic: &str, records: &[(Option<&[u8]>, &[u8])]) {
        let producer: BaseProducer = self.config().create().expect("make a producer");
        for (key, value) in records {
            let headers = OwnedHeaders::new().insert(Header { key: "from", value: Some("a test") });
            let mut record = BaseRecord::to(topic).payload(*value).partition(0).headers(headers);
            if let Some(key) = key {
                record = record.key(*key);
            }
            producer.send(record).map_err(|(error, _)| error).expect("queue a record");
        }
        producer.flush(ASK).expect("have records acknowledged");
    }

    /// The first offset and the end of a partition.
    #[track_caller]
    pub fn watermarks(&self, topic: &str, partition: i32) -> (i64, i64) {
        let consumer = self.reader("watermarks");
        consumer.fetch_watermarks(topic, partition, ASK).expect("ask for the ends of a partition")
    }

    /// How many partitions a topic has. Waits until the node that is asked knows it: another one may have
    /// made it.
    #[track_caller]
    pub fn partition_count(&self, topic: &str) -> usize {
        let reader = self.reader("metadata");
        until(&format!("topic {topic} is known"), || {
            let metadata = reader.fetch_metadata(Some(topic), ASK).expect("ask for metadata");
            let found = &metadata.topics()[0];
            let count = found.partitions().len();
            (found.error().is_none() && count > 0).then_some(count)
        })
    }

    /// Every record of a topic, by partition and offset; of transactions, those that are committed.
    #[track_caller]
    pub fn read_all(&self, topic: &str) -> Vec<Record> {
        let mut config = self.config();
        config
            .set("group.id", "reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().expect("make a consumer");
        let mut assignment = TopicPartitionList::new();
        // Ends are told, not counted: markers of transactions have offsets, too.
        let mut unread = BTreeSet::new();
        for partition in 0..self.partition_count(topic) {
            let partition = i32::try_from(partition).expect("few partitions");
            unread.insert(partition);
            assignment.add_partition_offset(topic, partition, Offset::Beginning).expect("assign a partition");
        }
        consumer.assign(&assignment).expect("assign partitions");
        let mut records = Vec::new();
        until("the whole topic is read", || {
            while let Some(message) =
                consumer.poll(Duration::from_millis(if unread.is_empty() { 0 } else { 50 }))
            {
                match message {
                    Ok(message) => records.push(owned(&message)),
                    Err(KafkaError::PartitionEOF(partition)) => {
                        unread.remove(&partition);
                    }
                    Err(error) => panic!("read a record: {error}"),
                }
            }
            unread.is_empty().then_some(())
        });
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// What a group has committed, by partition; -1 where it has not.
    #[track_caller]
    pub fn committed(&self, group: &str, topic: &str) -> Vec<i64> {
        let mut asked = TopicPartitionList::new();
        for partition in 0..self.partition_count(topic) {
            asked.add_partition(topic, i32::try_from(partition).expect("few partitions"));
        }
        let answer = self.committed_in(group, &asked);
        answer
            .elements()
            .iter()
            .map(|element| element.offset().to_raw().filter(|offset| *offset >= 0).unwrap_or(-1))
            .collect()
    }

    /// What a group has committed in these partitions, with its metadata.
    #[track_caller]
    pub fn committed_in(&self, group: &str, asked: &TopicPartitionList) -> TopicPartitionList {
        let consumer = self.reader(group);
        until("the group's commits are known", || {
            let answer = match consumer.committed_offsets(asked.clone(), ASK) {
                Err(error) if error.rdkafka_error_code().is_some_and(is_answered_later) => return None,
                answer => answer.expect("ask for committed offsets"),
            };
            let is_unknown = {
                let elements = answer.elements();
                let mut errors = elements.iter().filter_map(|element| element.error().err());
                errors.any(|error| error.rdkafka_error_code().is_some_and(is_answered_later))
            };
            (!is_unknown).then_some(answer)
        })
    }

    /// A consumer that joins nothing and commits nothing by itself.
    #[track_caller]
    pub fn reader(&self, group: &str) -> BaseConsumer {
        let mut config = self.config();
        config.set("group.id", group).set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        config.create().expect("make a consumer")
    }
}

/// Whether a group's coordinator is still to be found, or reads what it has to know, or a transaction has yet to end.
fn is_answered_later(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::UnstableOffsetCommit
    )
}

fn owned(message: &impl Message) -> Record {
    let headers = message.headers().map(|headers| {
        headers
            .iter()
            .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
            .collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}

/// Drives a future that another thread completes.
fn block_on<F: Future>(future: F) -> F::Output {
    use std::task::{Context, Poll, Waker};
    let mut future = std::pin::pin!(future);
    // The admin client's own thread completes the future; asking again replaces a runtime.
    until("the admin client has answered", || {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    })
}

fn asking() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ASK))
}
