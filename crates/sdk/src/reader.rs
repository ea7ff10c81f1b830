//! Reading a topic without a group: from where the caller says, with bounded memory and time.
//!
//! For tools and for state kept in topics. Nothing is committed, so nothing is remembered between two readers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use thiserror::Error;

use crate::cluster::{Cluster, ClusterError, LogContext};
use crate::drop_later::DropLater;
use crate::error::KafkaFault;
use crate::native;
use crate::outsider::{fault_of, fetch_metadata, outsider};
use crate::record::ReceivedRecord;

/// librdkafka wants a group for every assignment. This one never joins and never commits.
const READER_GROUP: &str = "tidings-reader";

/// How long the cluster may hold an empty fetch. A reader that jumps waits for the fetch before it.
const FETCH_WAIT_MAX_MS: &str = "50";

/// How often to look whether transactions have ended.
const SETTLE_RETRY: Duration = Duration::from_millis(20);

/// How often a partition is asked that has no leader yet.
const LEADER_RETRY: Duration = Duration::from_millis(10);

/// Where a reader begins in each partition.
///
/// ```
/// use std::collections::HashMap;
/// use std::time::Duration;
/// use tidings::Cluster;
/// use tidings::reader::{ReadFrom, TopicReader};
///
/// let wait = Duration::from_secs(10);
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// # broker.create_topic("orders", 1)?;
/// let from = ReadFrom::Offsets(HashMap::from([(0, 4_711)]));
/// let mut reader = TopicReader::open(&cluster, "orders", from, wait)?;
/// while let Some(record) = reader.next_until_end(wait)? {
///     println!("{}", record.position());
/// }
/// assert!(reader.is_at_end(), "the cluster did not deliver everything in time");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFrom {
    /// At the first record there is.
    Earliest,
    /// Behind the last record there is: only what arrives from now on.
    Latest,
    /// At most so many records of each partition before its end.
    Tail(i64),
    /// At these offsets, by partition; partitions not named are not read.
    Offsets(HashMap<i32, i64>),
}

/// Why a topic cannot be read.
///
/// ```
/// use std::time::Duration;
/// use tidings::Cluster;
/// use tidings::reader::{ReadError, ReadFrom, TopicReader};
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// match TopicReader::open(&cluster, "orders", ReadFrom::Earliest, Duration::from_secs(5)) {
///     Ok(reader) => println!("{} partitions", reader.bounds().len()),
///     Err(ReadError::UnknownTopic { topic }) => println!("nobody has written to {topic} yet"),
///     Err(error) => println!("{error}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Error)]
pub enum ReadError {
    /// The client could not be made.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The cluster does not know the topic.
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// The topic.
        topic: String,
    },
    /// The cluster failed or could not be reached.
    #[error("cannot read {topic}: {fault}")]
    Kafka {
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        fault: KafkaFault,
    },
}

/// The first offset of a partition and the one behind its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that can be read.
    pub start_offset: i64,
    /// The next offset to be written.
    pub end_offset: i64,
}

/// Reads the records of one topic in the order of each partition.
///
/// ```
/// use std::time::Duration;
/// use tidings::Cluster;
/// use tidings::reader::{Bounds, ReadFrom, TopicReader};
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// # broker.create_topic("orders", 1)?;
/// let mut reader = TopicReader::open(&cluster, "orders", ReadFrom::Earliest, Duration::from_secs(5))?;
/// for (partition, Bounds { start_offset, end_offset }) in reader.bounds() {
///     println!("partition {partition}: {start_offset} to {end_offset}");
/// }
/// while let Some(record) = reader.next_until_end(Duration::from_secs(5))? {
///     println!("{}", record.position());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TopicReader {
    consumer: DropLater<BaseConsumer<LogContext>>,
    topic: Arc<str>,
    bootstrap: String,
    bounds: HashMap<i32, Bounds>,
    next_offsets: HashMap<i32, i64>,
    /// The client is ahead of `next_offsets`: it read on behind an end.
    is_ahead: bool,
}

impl TopicReader {
    /// Opens a topic. Blocks for at most about `timeout`.
    pub fn open(
        cluster: &Cluster,
        topic: &str,
        from: ReadFrom,
        timeout: Duration,
    ) -> Result<Self, ReadError> {
        let deadline = Instant::now() + timeout;
        let mut config = cluster.reader_config(READER_GROUP)?;
        config.set("enable.partition.eof", "true");
        config.set("fetch.wait.max.ms", FETCH_WAIT_MAX_MS);
        let consumer = outsider(cluster, &config)?;
        let bootstrap = cluster.bootstrap().to_string();
        let fault = |error: KafkaError| read_error(topic, fault_of(&consumer, &error, &bootstrap, timeout));
        let partitions = partitions_of(&consumer, topic, left(deadline)).map_err(fault)?;
        let bounds = bounds_of(&consumer, topic, &partitions, deadline).map_err(fault)?;
        let next_offsets = start_offsets(&from, &bounds);
        let reader = Self { consumer, topic: topic.into(), bootstrap, bounds, next_offsets, is_ahead: false };
        reader.assign(&reader.next_offsets)?;
        Ok(reader)
    }

    /// Goes on at these offsets, by partition, and reads no other partition from then on.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidings::reader::{ReadFrom, TopicReader};
    /// use tidings::{Cluster, Producer, ProducerOptions, Record};
    ///
    /// let wait = Duration::from_secs(5);
    /// let cluster = Cluster::new("localhost:9092");
    /// # let broker = tidings::testing::Broker::start()?;
    /// # let cluster = broker.cluster();
    /// # broker.create_topic("orders", 1)?;
    /// let producer = Producer::new(&cluster, ProducerOptions::default())?;
    /// producer.send_batch_blocking(&[Record::new("orders").value("placed")], wait).remove(0)?;
    ///
    /// let mut reader = TopicReader::open(&cluster, "orders", ReadFrom::Earliest, wait)?;
    /// let before = reader.next_offsets().clone();
    /// assert_eq!(reader.next(wait)?.map(|record| record.offset), Some(0));
    /// reader.restart(&before)?; // the same once more
    /// assert_eq!(reader.next(wait)?.map(|record| record.offset), Some(0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restart(&mut self, offsets: &HashMap<i32, i64>) -> Result<(), ReadError> {
        let next_offsets = start_offsets(&ReadFrom::Offsets(offsets.clone()), &self.bounds);
        self.assign(&next_offsets)?;
        self.next_offsets = next_offsets;
        self.is_ahead = false;
        Ok(())
    }

    /// Reads a partition no further; the others go on.
    pub(crate) fn leave(&mut self, partition: i32) -> Result<(), ReadError> {
        let mut left = TopicPartitionList::with_capacity(1);
        left.add_partition(&self.topic, partition);
        self.next_offsets.remove(&partition);
        self.consumer.pause(&left).map_err(|error| {
            read_error(&self.topic, KafkaFault::from_kafka(&error, &self.bootstrap, Duration::ZERO))
        })
    }

    /// Reads at these offsets, and nothing else, from when it returns.
    fn assign(&self, offsets: &HashMap<i32, i64>) -> Result<(), ReadError> {
        let fault = |error: KafkaError| {
            read_error(&self.topic, KafkaFault::from_kafka(&error, &self.bootstrap, Duration::ZERO))
        };
        let mut assignment = TopicPartitionList::with_capacity(offsets.len());
        for (partition, offset) in offsets {
            assignment
                .add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))
                .map_err(fault)?;
        }
        self.consumer.assign(&assignment).map_err(fault)?;
        // What is replaced stops in librdkafka's main thread, in two steps; the thread answers a question in between. It
        // aborts the process when a partition is to stop, for another assignment or the client's end, that has not stopped yet.
        for _ in 0..2 {
            self.consumer.assignment().map_err(fault)?;
        }
        Ok(())
    }

    /// The bounds of each partition when the reader was opened.
    pub fn bounds(&self) -> &HashMap<i32, Bounds> {
        &self.bounds
    }

    /// The next record, or `None` if none came in time.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<ReceivedRecord>, ReadError> {
        let deadline = Instant::now() + timeout;
        if self.is_ahead {
            self.assign(&self.next_offsets)?;
            self.is_ahead = false;
        }
        loop {
            if let Some(record) = self.poll(left(deadline))? {
                self.next_offsets.insert(record.partition, record.offset + 1);
                return Ok(Some(record));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// The next record below the end that the topic had when the reader was opened; `None` once that end is
    /// reached, or if no record came within `timeout` (see [`TopicReader::is_at_end`]).
    pub fn next_until_end(&mut self, timeout: Duration) -> Result<Option<ReceivedRecord>, ReadError> {
        let deadline = Instant::now() + timeout;
        while !self.is_at_end() {
            if let Some(record) = self.poll(left(deadline))? {
                let end_offset =
                    self.bounds.get(&record.partition).map_or(i64::MAX, |bounds| bounds.end_offset);
                if record.offset < end_offset {
                    self.next_offsets.insert(record.partition, record.offset + 1);
                    return Ok(Some(record));
                }
                // Newer than the question. The end is reached, and this one is for whoever asks next.
                self.next_offsets.insert(record.partition, end_offset);
                self.is_ahead = true;
            } else if Instant::now() >= deadline {
                break;
            }
        }
        Ok(None)
    }

    /// Whether everything was read that the topic held when the reader was opened.
    pub fn is_at_end(&self) -> bool {
        let behind = |(partition, next): (&i32, &i64)| {
            self.bounds.get(partition).is_some_and(|bounds| *next < bounds.end_offset)
        };
        !self.next_offsets.iter().any(behind)
    }

    /// The next offset of each partition.
    pub fn next_offsets(&self) -> &HashMap<i32, i64> {
        &self.next_offsets
    }

    fn poll(&mut self, timeout: Duration) -> Result<Option<ReceivedRecord>, ReadError> {
        match self.consumer.poll(timeout) {
            None => Ok(None),
            Some(Ok(message)) if !self.next_offsets.contains_key(&message.partition()) => Ok(None),
            Some(Ok(message)) => Ok(Some(native::to_received(&message, Arc::clone(&self.topic)))),
            // The end may lie behind the last record: transaction markers and compaction leave gaps.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                if let Some(bounds) = self.bounds.get(&partition) {
                    let next = self.next_offsets.entry(partition).or_insert(bounds.end_offset);
                    *next = (*next).max(bounds.end_offset);
                }
                Ok(None)
            }
            Some(Err(error)) => {
                let fault = fault_of(&self.consumer, &error, &self.bootstrap, timeout);
                // librdkafka goes on by itself after these; the caller's timeout bounds the wait.
                if fault.is_transient() { Ok(None) } else { Err(read_error(&self.topic, fault)) }
            }
        }
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn read_error(topic: &str, fault: KafkaFault) -> ReadError {
    match fault {
        KafkaFault::UnknownTopic => ReadError::UnknownTopic { topic: topic.into() },
        fault => ReadError::Kafka { topic: topic.into(), fault },
    }
}

/// Waits until all transactions that have written to a topic by now have ended in each of its partitions: a cluster answers a
/// commit before it says there that the records count. `false` where that takes longer than `timeout`, which each question has for
/// itself. Nobody has written to a topic that does not exist.
pub(crate) fn settle(cluster: &Cluster, topic: &str, timeout: Duration) -> Result<bool, ReadError> {
    let deadline = Instant::now() + timeout;
    let client = |isolation_level: &str| {
        let mut config = cluster.reader_config(READER_GROUP)?;
        outsider(cluster, config.set("isolation.level", isolation_level))
    };
    let fault = |client: &BaseConsumer<LogContext>, error: &KafkaError| {
        read_error(topic, fault_of(client, error, cluster.bootstrap(), timeout))
    };
    let (all, committed) = (client("read_uncommitted")?, client("read_committed")?);
    let partitions = match partitions_of(&all, topic, timeout).map_err(|error| fault(&all, &error)) {
        Err(ReadError::UnknownTopic { .. }) => return Ok(true),
        partitions => partitions?,
    };
    let ends = |client: &BaseConsumer<LogContext>| {
        let ends = offsets_of(client, topic, &partitions, Offset::End, Instant::now() + timeout);
        ends.map_err(|error| fault(client, &error))
    };
    let written = ends(&all)?;
    loop {
        let settled = ends(&committed)?;
        if written.iter().all(|(partition, end)| settled.get(partition) >= Some(end)) {
            return Ok(true);
        }
        if left(deadline).is_zero() {
            return Ok(false);
        }
        std::thread::sleep(SETTLE_RETRY);
    }
}

/// The partitions of a topic; an unknown topic is an error, never created.
pub(crate) fn partitions_of(
    consumer: &BaseConsumer<LogContext>,
    topic: &str,
    timeout: Duration,
) -> Result<Vec<i32>, KafkaError> {
    let metadata = fetch_metadata(consumer, Some(topic), timeout)?;
    let unknown = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
    let topic = metadata.topics().iter().find(|found| found.name() == topic).ok_or(unknown)?;
    match topic.error() {
        Some(error) => Err(KafkaError::MetadataFetch(error.into())),
        None => Ok(topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect()),
    }
}

/// The bounds of many partitions in two requests per broker.
pub(crate) fn bounds_of(
    consumer: &BaseConsumer<LogContext>,
    topic: &str,
    partitions: &[i32],
    deadline: Instant,
) -> Result<HashMap<i32, Bounds>, KafkaError> {
    let ask = |at: Offset| offsets_of(consumer, topic, partitions, at, deadline);
    let (starts, ends) = (ask(Offset::Beginning)?, ask(Offset::End)?);
    let bounds = |(partition, end_offset): (i32, i64)| {
        let start_offset = starts.get(&partition).copied().unwrap_or(0);
        (partition, Bounds { start_offset, end_offset: end_offset.max(start_offset) })
    };
    Ok(ends.into_iter().map(bounds).collect())
}

/// `Offset::Beginning` or `Offset::End` of partitions of one topic.
fn offsets_of(
    consumer: &BaseConsumer<LogContext>,
    topic: &str,
    partitions: &[i32],
    at: Offset,
    deadline: Instant,
) -> Result<HashMap<i32, i64>, KafkaError> {
    let mut query = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        query.add_partition_offset(topic, *partition, at)?;
    }
    offsets_at(consumer, &query, left(deadline))
        .map(|offsets| offsets.into_iter().map(|((_, partition), offset)| (partition, offset)).collect())
}

/// Resolves `Offset::Beginning` and `Offset::End` of many partitions with one request per broker.
///
/// A broker that does not lead a new partition yet is asked again, within the timeout.
pub(crate) fn offsets_at<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    query: &TopicPartitionList,
    timeout: Duration,
) -> Result<HashMap<(String, i32), i64>, KafkaError> {
    let deadline = Instant::now() + timeout;
    loop {
        match offsets_once(consumer, query.clone(), left(deadline)) {
            Err(error) if is_leader_moving(&error) && Instant::now() < deadline => {
                std::thread::sleep(LEADER_RETRY);
            }
            answered => return answered,
        }
    }
}

fn offsets_once<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    query: TopicPartitionList,
    timeout: Duration,
) -> Result<HashMap<(String, i32), i64>, KafkaError> {
    let answer = consumer.offsets_for_times(query, timeout)?;
    let mut offsets = HashMap::with_capacity(answer.count());
    for element in answer.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            offsets.insert((element.topic().to_string(), element.partition()), offset);
        }
    }
    Ok(offsets)
}

fn is_leader_moving(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::OffsetNotAvailable
                | RDKafkaErrorCode::UnknownLeaderEpoch
                | RDKafkaErrorCode::FencedLeaderEpoch
        )
    )
}

fn start_offsets(from: &ReadFrom, bounds: &HashMap<i32, Bounds>) -> HashMap<i32, i64> {
    let start = |(partition, bounds): (&i32, &Bounds)| {
        let (low, high) = (bounds.start_offset, bounds.end_offset);
        let offset = match from {
            ReadFrom::Earliest => Some(low),
            ReadFrom::Latest => Some(high),
            ReadFrom::Tail(count) => Some(high.saturating_sub((*count).max(0)).max(low)),
            ReadFrom::Offsets(offsets) => offsets.get(partition).map(|offset| (*offset).clamp(low, high)),
        };
        offset.map(|offset| (*partition, offset))
    };
    bounds.iter().filter_map(start).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Broker;

    #[test]
    fn readers_begin_within_the_bounds() {
        let bounds = HashMap::from([
            (0, Bounds { start_offset: 5, end_offset: 20 }),
            (1, Bounds { start_offset: 0, end_offset: 0 }),
        ]);
        let check = |from, expect: &[(i32, i64)]| {
            let expect: HashMap<i32, i64> = expect.iter().copied().collect();
            assert_eq!(start_offsets(&from, &bounds), expect, "{from:?}");
        };
        check(ReadFrom::Earliest, &[(0, 5), (1, 0)]);
        check(ReadFrom::Latest, &[(0, 20), (1, 0)]);
        check(ReadFrom::Tail(3), &[(0, 17), (1, 0)]);
        check(ReadFrom::Tail(i64::MAX), &[(0, 5), (1, 0)]);
        check(ReadFrom::Offsets(HashMap::from([(0, 2)])), &[(0, 5)]);
        check(ReadFrom::Offsets(HashMap::from([(0, 99), (7, 1)])), &[(0, 20)]);
    }

    /// librdkafka aborted the process: a partition that an assignment replaced by itself was stopped a second time.
    #[test]
    fn a_reader_that_has_just_started_anew_starts_again_and_ends() {
        let limit = Duration::from_secs(20);
        let broker = Broker::start().unwrap();
        broker.create_topic("orders", 3).unwrap();
        for _ in 0..100 {
            let mut reader =
                TopicReader::open(&broker.cluster(), "orders", ReadFrom::Earliest, limit).unwrap();
            let from = reader.next_offsets().clone();
            reader.restart(&from).unwrap();
            reader.restart(&from).unwrap();
            assert!(reader.is_at_end());
        }
    }
}
