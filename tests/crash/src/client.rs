//! The few requests that a laboratory needs, over a connection that speaks frames.

use std::collections::HashSet;
use std::io;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use tidings_log::batch::{BatchLimits, Batches, EndTxnMarker, TransactionResult};
use tidings_tests::Connection;
use tidings_wire::Records;
use tidings_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use tidings_wire::messages::delete_topics_request::DeleteTopicsRequest;
use tidings_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use tidings_wire::messages::fetch_response::PartitionData;
use tidings_wire::messages::init_producer_id_request::InitProducerIdRequest;
use tidings_wire::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use tidings_wire::messages::list_offsets_response::ListOffsetsPartitionResponse;
use tidings_wire::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use tidings_wire::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestTopic};
use tidings_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use tidings_wire::messages::produce_response::PartitionProduceResponse;

use crate::history::{Contents, Partition, Record, Unreadable};

/// The one topic of a round.
pub const TOPIC: &str = "orders";

/// How much one fetch asks for.
const FETCH_BYTES: i32 = 1 << 20;

/// Kafka's code for all is well.
pub const NONE: i16 = 0;
/// Kafka's storage error.
pub const STORAGE_ERROR: i16 = 56;

/// An error of the connection or of what came through it.
fn broken(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// What nobody heard is a connection that broke.
pub fn ensure_heard(heard: bool) -> io::Result<()> {
    if heard { Ok(()) } else { Err(broken("the machine has no power")) }
}

/// An answer with an error code, as an error.
pub fn refused(what: &str, code: i16) -> io::Error {
    broken(format!("{what}: error code {code}"))
}

/// A connection, and what is asked over it.
#[derive(Debug)]
pub struct Client(Connection);

impl Deref for Client {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

/// A record with where it stands.
pub type Placed = (i64, Result<Record, Unreadable>);

impl Client {
    /// Connects.
    pub fn connect(address: &str) -> io::Result<Self> {
        Connection::open(address).map(Self)
    }

    /// Creates a topic; fine if it is there.
    pub fn create_topic(&mut self, name: &str, partitions: i32) -> io::Result<()> {
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: partitions,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
        const EXISTS: i16 = 36;
        match self.call(7, &request)?.topics.first().map(|topic| topic.error_code) {
            Some(NONE | EXISTS) => Ok(()),
            code => Err(refused("create a topic", code.unwrap_or(-1))),
        }
    }

    /// Deletes a topic.
    pub fn delete_topic(&mut self, name: &str) -> io::Result<()> {
        let request =
            DeleteTopicsRequest { topic_names: vec![name.to_owned()], ..DeleteTopicsRequest::default() };
        match self.call(5, &request)?.responses.first().map(|topic| topic.error_code) {
            Some(NONE) => Ok(()),
            code => Err(refused("delete a topic", code.unwrap_or(-1))),
        }
    }

    /// A producer id, at epoch 0.
    pub fn init_producer_id(&mut self) -> io::Result<i64> {
        let request = InitProducerIdRequest {
            transactional_id: None,
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequest::default()
        };
        let answer = self.call(4, &request)?;
        if answer.error_code != NONE {
            return Err(refused("get a producer id", answer.error_code));
        }
        Ok(answer.producer_id)
    }

    /// Begins anew with a transactional id, which ends what its producer has left open; the answer's error code.
    pub fn fence(&mut self, transactional_id: &str) -> io::Result<i16> {
        let request = InitProducerIdRequest {
            transactional_id: Some(transactional_id.to_owned()),
            transaction_timeout_ms: 60_000,
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdRequest::default()
        };
        Ok(self.call(4, &request)?.error_code)
    }

    /// Produces a batch to one partition; the answer for it.
    pub fn produce(
        &mut self,
        topic: &str,
        partition: Partition,
        batch: Bytes,
    ) -> io::Result<PartitionProduceResponse> {
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 10_000,
            topic_data: vec![TopicProduceData {
                name: topic.to_owned(),
                partition_data: vec![PartitionProduceData {
                    index: partition,
                    records: Some(Records::Bytes(batch)),
                    ..PartitionProduceData::default()
                }],
                ..TopicProduceData::default()
            }],
            ..ProduceRequest::default()
        };
        let mut answer = self.call(9, &request)?;
        let topic = answer.responses.pop().ok_or_else(|| broken("an answer without the topic"))?;
        topic.partition_responses.into_iter().next().ok_or_else(|| broken("an answer without the partition"))
    }

    /// What a partition holds from an offset on, as the broker hands it out; waits up to `max_wait_ms` for more.
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: Partition,
        offset: i64,
        max_wait_ms: i32,
    ) -> io::Result<PartitionData> {
        self.fetch_as(Isolation::ReadUncommitted, topic, partition, offset, max_wait_ms)
    }

    fn fetch_as(
        &mut self,
        isolation: Isolation,
        topic: &str,
        partition: Partition,
        offset: i64,
        max_wait_ms: i32,
    ) -> io::Result<PartitionData> {
        let request = FetchRequest {
            isolation_level: isolation as i8,
            max_wait_ms,
            min_bytes: 1,
            max_bytes: FETCH_BYTES,
            topics: vec![FetchTopic {
                topic: topic.to_owned(),
                partitions: vec![FetchPartition {
                    partition,
                    fetch_offset: offset,
                    partition_max_bytes: FETCH_BYTES,
                    ..FetchPartition::default()
                }],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let mut answer = self.call(11, &request)?;
        let topic = answer.responses.pop().ok_or_else(|| refused("fetch", answer.error_code))?;
        topic.partitions.into_iter().next().ok_or_else(|| broken("an answer without the partition"))
    }

    /// Everything from an offset to where the partition ends when this is asked. Who writes meanwhile may write faster
    /// than we read.
    pub fn read_partition(
        &mut self,
        topic: &str,
        partition: Partition,
        from: i64,
    ) -> io::Result<Vec<Placed>> {
        let mut placed = Vec::new();
        let mut offset = from;
        let mut end = None;
        loop {
            let data = self.fetch(topic, partition, offset, 0)?;
            if data.error_code != NONE {
                return Err(refused(
                    &format!("fetch partition {partition} offset {offset}"),
                    data.error_code,
                ));
            }
            let end = *end.get_or_insert(data.high_watermark);
            let found = records_of(partition, &data, offset)?;
            let Some((last, _)) = found.last() else { return Ok(placed) };
            offset = last + 1;
            placed.extend(found);
            if offset >= end {
                return Ok(placed);
            }
        }
    }

    /// Everything of a topic that a reader is given who looks at transactions like this.
    pub fn contents_as(
        &mut self,
        isolation: Isolation,
        eyes: Eyes,
        topic: &str,
        partitions: i32,
    ) -> io::Result<Contents> {
        let mut contents = Contents::new();
        for partition in 0..partitions {
            let records = self.read_as(isolation, eyes, topic, partition, 0)?;
            contents.insert(partition, records.into_iter().collect());
        }
        Ok(contents)
    }

    /// The same of one partition, from an offset on.
    pub fn read_as(
        &mut self,
        isolation: Isolation,
        eyes: Eyes,
        topic: &str,
        partition: Partition,
        from: i64,
    ) -> io::Result<Vec<Placed>> {
        let mut placed = Vec::new();
        let mut offset = from;
        loop {
            let data = self.fetch_as(isolation, topic, partition, offset, 0)?;
            if data.error_code != NONE {
                return Err(refused(&format!("fetch {topic}-{partition} offset {offset}"), data.error_code));
            }
            let (next, records) = transactional_records_of(partition, &data, offset, eyes)?;
            placed.extend(records);
            if next == offset {
                return Ok(placed);
            }
            offset = next;
        }
    }

    /// How far each partition can be read, and how far by those who wait for transactions to end.
    pub fn ends(&mut self, topic: &str, partitions: i32) -> io::Result<Vec<(i64, i64)>> {
        let mut ends = Vec::new();
        for partition in 0..partitions {
            let data = self.fetch_as(Isolation::ReadCommitted, topic, partition, 0, 0)?;
            if data.error_code != NONE {
                return Err(refused(&format!("fetch {topic}-{partition}"), data.error_code));
            }
            ends.push((data.high_watermark, data.last_stable_offset));
        }
        Ok(ends)
    }

    /// Everything that can be read from the round's topic.
    pub fn contents(&mut self, partitions: i32) -> io::Result<Contents> {
        let mut contents = Contents::new();
        for partition in 0..partitions {
            contents.insert(partition, self.read_partition(TOPIC, partition, 0)?.into_iter().collect());
        }
        Ok(contents)
    }

    /// Commits an offset for a group without members; the answer's error code.
    pub fn commit(&mut self, group: &str, partition: Partition, offset: i64) -> io::Result<i16> {
        let request = OffsetCommitRequest {
            group_id: group.to_owned(),
            topics: vec![OffsetCommitRequestTopic {
                name: TOPIC.to_owned(),
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: partition,
                    committed_offset: offset,
                    ..OffsetCommitRequestPartition::default()
                }],
                ..OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        };
        let answer = self.call(7, &request)?;
        let first = answer.topics.first().and_then(|topic| topic.partitions.first());
        Ok(first.ok_or_else(|| broken("an answer without the partition"))?.error_code)
    }

    /// What a group has committed; none where it has not.
    pub fn committed(&mut self, group: &str, partitions: i32) -> io::Result<Vec<Option<i64>>> {
        let topic = OffsetFetchRequestTopic {
            name: TOPIC.to_owned(),
            partition_indexes: (0..partitions).collect(),
            ..Default::default()
        };
        let request = OffsetFetchRequest {
            group_id: group.to_owned(),
            topics: Some(vec![topic]),
            ..OffsetFetchRequest::default()
        };
        let answer = self.call(5, &request)?;
        let Some(topic) = answer.topics.first() else {
            return Err(refused("ask for committed offsets", answer.error_code));
        };
        let mut offsets = vec![None; topic.partitions.len()];
        for found in &topic.partitions {
            if found.error_code != NONE {
                return Err(refused("ask for committed offsets", found.error_code));
            }
            let index = usize::try_from(found.partition_index).map_err(broken)?;
            let slot = offsets.get_mut(index).ok_or_else(|| broken("an answer with another partition"))?;
            *slot = (found.committed_offset >= 0).then_some(found.committed_offset);
        }
        Ok(offsets)
    }

    /// The first offset with a timestamp of at least this.
    pub fn offset_for_timestamp(
        &mut self,
        partition: Partition,
        timestamp: i64,
    ) -> io::Result<ListOffsetsPartitionResponse> {
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: TOPIC.to_owned(),
                partitions: vec![ListOffsetsPartition {
                    partition_index: partition,
                    timestamp,
                    ..ListOffsetsPartition::default()
                }],
                ..ListOffsetsTopic::default()
            }],
            ..ListOffsetsRequest::default()
        };
        let mut answer = self.call(5, &request)?;
        let topic = answer.topics.pop().ok_or_else(|| broken("an answer without the topic"))?;
        topic.partitions.into_iter().next().ok_or_else(|| broken("an answer without the partition"))
    }
}

/// What a fetch asks for, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Everything that is durable.
    ReadUncommitted = 0,
    /// What lies before the first open transaction.
    ReadCommitted = 1,
}

/// Whether a reader leaves out what the answer says was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eyes {
    /// As every client that reads `read_committed`.
    Open,
    /// As none should: a control.
    Shut,
}

/// The records of an answer to a `read_committed` fetch, after the check of the CRCs and without those of the transactions
/// that the answer says were aborted; and the offset behind all of its batches.
fn transactional_records_of(
    partition: Partition,
    data: &PartitionData,
    offset: i64,
    eyes: Eyes,
) -> io::Result<(i64, Vec<Placed>)> {
    let bytes = data.records.as_ref().and_then(Records::bytes).cloned().unwrap_or_default();
    let limits = BatchLimits { control_allowed: true, ..BatchLimits::default() };
    if !bytes.is_empty() {
        tidings_log::batch::validate(&bytes, &limits).map_err(broken)?;
    }
    let mut aborted = data.aborted_transactions.clone().unwrap_or_default();
    aborted.sort_by_key(|transaction| std::cmp::Reverse(transaction.first_offset));
    let mut aborting = HashSet::new();
    let (mut next, mut placed) = (offset, Vec::new());
    for batch in Batches::new(bytes) {
        let batch = batch.map_err(broken)?;
        let header = batch.header;
        next = header.next_offset();
        while let Some(begun) = aborted.pop_if(|begun| begun.first_offset <= header.last_offset()) {
            aborting.insert(begun.producer_id);
        }
        if header.is_control() {
            let is_abort = |marker: EndTxnMarker| marker.result == TransactionResult::Abort;
            if EndTxnMarker::parse(&batch.bytes).is_some_and(is_abort) {
                aborting.remove(&header.producer_id);
            }
        } else if eyes == Eyes::Shut || !header.is_transactional() || !aborting.contains(&header.producer_id)
        {
            placed.extend(unchecked_records_of(partition, batch.bytes.clone(), offset)?);
        }
    }
    Ok((next, placed))
}

/// The records of an answer from `offset` on, after the check of the CRCs that every client makes.
pub fn records_of(partition: Partition, data: &PartitionData, offset: i64) -> io::Result<Vec<Placed>> {
    let bytes = data.records.as_ref().and_then(Records::bytes).cloned().unwrap_or_default();
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    tidings_log::batch::validate(&bytes, &Default::default()).map_err(broken)?;
    unchecked_records_of(partition, bytes, offset)
}

/// The same without the check: what a careless client would believe.
pub fn unchecked_records_of(partition: Partition, bytes: Bytes, offset: i64) -> io::Result<Vec<Placed>> {
    let mut placed = Vec::new();
    for batch in Batches::new(bytes) {
        let batch = batch.map_err(broken)?;
        for record in batch.records().ok_or_else(|| broken("compressed records"))? {
            let record = record.map_err(broken)?;
            if record.offset >= offset {
                let value = record.value.unwrap_or_default();
                placed.push((record.offset, Record::of(partition, &value)));
            }
        }
    }
    Ok(placed)
}
