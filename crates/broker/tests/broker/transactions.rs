//! Transactions over the wire: both generations of the protocol, what consumers see, and what a crash leaves of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tidings_broker::{Clock, ManualClock, SystemClock};
use tidings_log::batch::{Batch, BatchBuilder, BatchHeader, EndTxnMarker};
use tidings_log::testing::{Loss, Operation, Random, SimDisk};
use tidings_wire::Records;
use tidings_wire::messages::add_offsets_to_txn_request::AddOffsetsToTxnRequest;
use tidings_wire::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use tidings_wire::messages::api_versions_request::ApiVersionsRequest;
use tidings_wire::messages::describe_producers_request::{DescribeProducersRequest, TopicRequest};
use tidings_wire::messages::describe_transactions_request::DescribeTransactionsRequest;
use tidings_wire::messages::end_txn_request::EndTxnRequest;
use tidings_wire::messages::end_txn_response::EndTxnResponse;
use tidings_wire::messages::fetch_request::FetchRequest;
use tidings_wire::messages::fetch_response::PartitionData;
use tidings_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use tidings_wire::messages::init_producer_id_request::InitProducerIdRequest;
use tidings_wire::messages::init_producer_id_response::InitProducerIdResponse;
use tidings_wire::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use tidings_wire::messages::list_transactions_request::ListTransactionsRequest;
use tidings_wire::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestTopic};
use tidings_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use tidings_wire::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use tidings_wire::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};

use crate::harness::{Client, PATIENCE, TestBroker, eventually, fetch_request, only_fetched, records};

const ID: &str = "payments";
const CONCURRENT_TRANSACTIONS: i16 = 51;
const PRODUCER_FENCED: i16 = 90;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const INVALID_TXN_STATE: i16 = 48;
const ENOSPC: i32 = 28;
const UNSTABLE_OFFSET_COMMIT: i16 = 88;

/// The generation of the protocol that a producer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generation {
    /// Partitions are added by request, the epoch stays.
    One,
    /// Partitions are added by what is written, every transaction has its epoch (KIP-890).
    Two,
}

/// A transactional producer that speaks frames.
struct Producer {
    client: Client,
    generation: Generation,
    id: i64,
    epoch: i16,
    sequences: BTreeMap<(String, i32), i32>,
}

impl Producer {
    /// Takes over the transactional id; whoever had it is fenced.
    async fn init(mut client: Client, generation: Generation) -> Producer {
        let given = init(&mut client, ID).await;
        assert_eq!(given.error_code, 0);
        let (id, epoch) = (given.producer_id, given.producer_epoch);
        Producer { client, generation, id, epoch, sequences: BTreeMap::new() }
    }

    async fn add(&mut self, topic: &str, partitions: &[i32]) -> i16 {
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: ID.to_owned(),
            v3_and_below_producer_id: self.id,
            v3_and_below_producer_epoch: self.epoch,
            v3_and_below_topics: vec![AddPartitionsToTxnTopic {
                name: topic.to_owned(),
                partitions: partitions.to_vec(),
                ..AddPartitionsToTxnTopic::default()
            }],
            ..AddPartitionsToTxnRequest::default()
        };
        let answer = self.client.call(3, &request).await;
        let results = &answer.results_by_topic_v3_and_below[0].results_by_partition;
        results.iter().map(|result| result.partition_error_code).find(|code| *code != 0).unwrap_or(0)
    }

    /// Writes values to several partitions in one request; the error of each.
    async fn send(&mut self, topic: &str, values: &[(i32, &[String])]) -> Vec<i16> {
        let mut partition_data = Vec::new();
        for (index, values) in values {
            let sequence = self.sequences.entry((topic.to_owned(), *index)).or_insert(0);
            let records = Some(Records::Bytes(batch(self.id, self.epoch, *sequence, values)));
            *sequence += values.len() as i32;
            partition_data.push(PartitionProduceData { index: *index, records, ..Default::default() });
        }
        let request = produce(topic, partition_data);
        let version = if self.generation == Generation::Two { 12 } else { 10 };
        let mut response = self.client.call(version, &request).await;
        let topic = response.responses.pop().expect("one topic");
        topic.partition_responses.iter().map(|partition| partition.error_code).collect()
    }

    async fn end(&mut self, committed: bool) -> EndTxnResponse {
        let version = if self.generation == Generation::Two { 5 } else { 3 };
        let response = self.client.call(version, &end_txn(self.id, self.epoch, committed)).await;
        if response.error_code == 0 && self.generation == Generation::Two {
            (self.id, self.epoch) = (response.producer_id, response.producer_epoch);
            self.sequences.clear();
        }
        response
    }

    /// A whole transaction over partitions 0 to 2 of `orders`.
    async fn transact(&mut self, tag: &str, committed: bool) {
        if self.generation == Generation::One {
            assert_eq!(self.add("orders", &[0, 1, 2]).await, 0);
        }
        let values: Vec<Vec<String>> =
            [4, 3, 3].iter().map(|count| (0..*count).map(|n| format!("{tag}-{n}")).collect()).collect();
        let sent: Vec<(i32, &[String])> = (0..3).zip(values.iter().map(Vec::as_slice)).collect();
        assert_eq!(self.send("orders", &sent).await, [0, 0, 0]);
        assert_eq!(self.end(committed).await.error_code, 0);
    }
}

fn batch(id: i64, epoch: i16, sequence: i32, values: &[String]) -> Bytes {
    let now_ms = SystemClock::new().wall_ms();
    let mut builder = BatchBuilder::new().producer(id, epoch, sequence).transactional();
    for value in values {
        builder.push(now_ms, None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

fn produce(topic: &str, partition_data: Vec<PartitionProduceData>) -> ProduceRequest {
    let name = topic.to_owned();
    ProduceRequest {
        transactional_id: Some(ID.to_owned()),
        acks: -1,
        timeout_ms: 1000,
        topic_data: vec![TopicProduceData { name, partition_data, ..TopicProduceData::default() }],
        ..ProduceRequest::default()
    }
}

fn end_txn(producer_id: i64, producer_epoch: i16, committed: bool) -> EndTxnRequest {
    let transactional_id = ID.to_owned();
    EndTxnRequest { transactional_id, producer_id, producer_epoch, committed, ..EndTxnRequest::default() }
}

async fn init(client: &mut Client, transactional_id: &str) -> InitProducerIdResponse {
    let request = InitProducerIdRequest {
        transactional_id: Some(transactional_id.to_owned()),
        transaction_timeout_ms: 60_000,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequest::default()
    };
    loop {
        let given = client.call(4, &request).await;
        if given.error_code != CONCURRENT_TRANSACTIONS {
            return given;
        }
    }
}

async fn started() -> (tempfile::TempDir, TestBroker) {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    broker.client().await.create_topic("orders", 3).await;
    (dir, broker)
}

/// A transaction on a broker without topics, from its beginning to its end.
pub async fn completes_a_transaction(mut client: Client) {
    client.create_topic("orders", 3).await;
    Producer::init(client, Generation::Two).await.transact("alone", true).await;
}

async fn fetch(client: &mut Client, topic: &str, partition: i32, read_committed: bool) -> PartitionData {
    let request =
        FetchRequest { isolation_level: i8::from(read_committed), ..fetch_request(topic, partition, 0, 0) };
    only_fetched(client.call(11, &request).await)
}

/// What a consumer makes of a fetch: control records are skipped, and with `read_committed` what was aborted.
fn consumed(data: &PartitionData) -> Vec<String> {
    let mut aborted: Vec<(i64, i64)> = data
        .aborted_transactions
        .iter()
        .flatten()
        .map(|aborted| (aborted.first_offset, aborted.producer_id))
        .collect();
    aborted.sort_unstable();
    let (mut skipped, mut values) = (BTreeSet::new(), Vec::new());
    let mut bytes = records(data);
    while !bytes.is_empty() {
        let header = BatchHeader::parse(&bytes).expect("a batch header");
        let batch = Batch { header, bytes: bytes.split_to(header.size_bytes()) };
        while aborted.first().is_some_and(|(first_offset, _)| *first_offset <= header.last_offset()) {
            skipped.insert(aborted.remove(0).1);
        }
        if header.is_control() {
            if EndTxnMarker::parse(&batch.bytes).is_some() {
                skipped.remove(&header.producer_id);
            }
            continue;
        }
        if header.is_transactional() && skipped.contains(&header.producer_id) {
            continue;
        }
        for record in batch.records().expect("not compressed") {
            let value = record.expect("a record").value.expect("a value");
            values.push(String::from_utf8(value.to_vec()).expect("text"));
        }
    }
    values
}

async fn committed(client: &mut Client, partition: i32) -> Vec<String> {
    consumed(&fetch(client, "orders", partition, true).await)
}

#[tokio::test]
async fn both_generations_commit_and_abort() {
    for generation in [Generation::One, Generation::Two] {
        let (_dir, broker) = started().await;
        let mut producer = Producer::init(broker.client().await, generation).await;
        let mut reader = broker.client().await;
        let mut expected = [Vec::new(), Vec::new(), Vec::new()];
        for round in 0..6 {
            let is_commit = round % 3 != 1;
            producer.transact(&format!("t{round}"), is_commit).await;
            for (partition, expected) in expected.iter_mut().enumerate() {
                let count = if partition == 0 { 4 } else { 3 };
                if is_commit {
                    expected.extend((0..count).map(|n| format!("t{round}-{n}")));
                }
                let partition = partition as i32;
                assert_eq!(committed(&mut reader, partition).await, *expected, "{generation:?}");
                let data = fetch(&mut reader, "orders", partition, false).await;
                assert_eq!(consumed(&data).len(), (round + 1) * count, "{generation:?}");
                assert_eq!(data.last_stable_offset, data.high_watermark);
                assert!(data.aborted_transactions.is_none_or(|aborted| aborted.is_empty()));
            }
        }
        assert_eq!(producer.epoch, if generation == Generation::Two { 6 } else { 0 });
    }
}

#[tokio::test]
async fn an_open_transaction_holds_read_committed_back_and_nobody_else() {
    let (_dir, broker) = started().await;
    let mut producer = Producer::init(broker.client().await, Generation::Two).await;
    let mut reader = broker.client().await;
    producer.transact("before", true).await;
    let end = fetch(&mut reader, "orders", 0, false).await.high_watermark;
    assert_eq!(producer.send("orders", &[(0, &["open".to_owned()])]).await, [0]);
    reader.produce("orders", 0, crate::harness::batch(&["plain"])).await;
    let data = fetch(&mut reader, "orders", 0, true).await;
    assert_eq!((data.last_stable_offset, data.high_watermark), (end, end + 2));
    assert_eq!(consumed(&data).len(), 4);
    assert_eq!(consumed(&fetch(&mut reader, "orders", 0, false).await).len(), 6);
    let latest = |isolation_level| ListOffsetsRequest {
        isolation_level,
        topics: vec![ListOffsetsTopic {
            name: "orders".to_owned(),
            partitions: vec![ListOffsetsPartition { timestamp: -1, ..ListOffsetsPartition::default() }],
            ..ListOffsetsTopic::default()
        }],
        ..ListOffsetsRequest::default()
    };
    assert_eq!(reader.call(5, &latest(1)).await.topics[0].partitions[0].offset, end);
    assert_eq!(reader.call(5, &latest(0)).await.topics[0].partitions[0].offset, end + 2);
    assert_eq!(producer.end(false).await.error_code, 0);
    assert_eq!(committed(&mut reader, 0).await.last().map(String::as_str), Some("plain"));
}

/// The few bytes of its end make many readable.
#[tokio::test]
async fn the_end_of_a_transaction_wakes_whoever_waits_for_its_bytes() {
    let (_dir, broker) = started().await;
    let mut producer = Producer::init(broker.client().await, Generation::Two).await;
    let mut reader = broker.client().await;
    assert_eq!(producer.send("orders", &[(0, &["x".repeat(2000)])]).await, [0]);
    let waiting =
        FetchRequest { isolation_level: 1, min_bytes: 2000, ..fetch_request("orders", 0, 0, 60_000) };
    let started = Instant::now();
    let correlation_id = reader.send(11, &waiting).await;
    let answer = reader.receive::<FetchRequest>(11, correlation_id);
    let (answer, ended) = tokio::join!(answer, producer.end(true));
    assert_eq!(ended.error_code, 0);
    assert_eq!(consumed(&only_fetched(answer)).len(), 1);
    assert!(started.elapsed() < PATIENCE);
}

/// The promise of the design: ten records over three partitions cost at most four flushes of the device.
#[tokio::test]
async fn a_transaction_costs_at_most_four_flushes() {
    for generation in [Generation::One, Generation::Two] {
        let disk = SimDisk::new();
        let broker = TestBroker::on_disk(Arc::new(disk.clone())).await;
        broker.client().await.create_topic("orders", 3).await;
        let mut producer = Producer::init(broker.client().await, generation).await;
        producer.transact("first", true).await;
        const ROUNDS: usize = 20;
        let mut flushes = Vec::new();
        for round in 0..ROUNDS {
            let before = disk.syncs_count();
            producer.transact(&format!("t{round}"), round % 2 == 0).await;
            flushes.push(disk.syncs_count() - before);
        }
        println!("{generation:?}: {flushes:?} flushes");
        // A committer that has not gone to sleep yet may take a part of the next request early.
        flushes.sort_unstable();
        assert!(flushes[ROUNDS / 2] <= 4, "{generation:?}: {flushes:?} flushes");
    }
}

#[tokio::test]
async fn a_zombie_is_fenced_wherever_it_tries() {
    for generation in [Generation::One, Generation::Two] {
        let (_dir, broker) = started().await;
        let mut zombie = Producer::init(broker.client().await, generation).await;
        if generation == Generation::One {
            zombie.add("orders", &[0]).await;
        }
        assert_eq!(zombie.send("orders", &[(0, &["zombie".to_owned()])]).await, [0]);
        let mut producer = Producer::init(broker.client().await, generation).await;
        assert!(producer.epoch > zombie.epoch && producer.id == zombie.id);
        assert_eq!(zombie.add("orders", &[1]).await, PRODUCER_FENCED);
        assert_eq!(zombie.send("orders", &[(0, &["late".to_owned()])]).await, [INVALID_PRODUCER_EPOCH]);
        // A partition that has never heard of the producer.
        assert_eq!(zombie.send("orders", &[(2, &["late".to_owned()])]).await, [INVALID_PRODUCER_EPOCH]);
        assert_eq!(zombie.end(true).await.error_code, PRODUCER_FENCED);
        let old = zombie.client.call(1, &end_txn(zombie.id, zombie.epoch, true)).await;
        assert_eq!(old.error_code, INVALID_PRODUCER_EPOCH);
        producer.transact("t", true).await;
        let mut reader = broker.client().await;
        assert_eq!(committed(&mut reader, 0).await, ["t-0", "t-1", "t-2", "t-3"]);
        assert_eq!(committed(&mut reader, 2).await, ["t-0", "t-1", "t-2"]);
    }
}

#[tokio::test]
async fn bad_batches_are_refused_alone() {
    let (_dir, broker) = started().await;
    let mut producer = Producer::init(broker.client().await, Generation::One).await;
    assert_eq!(producer.add("orders", &[0]).await, 0);
    // Partition 1 was not added; partition 0 is not touched by that.
    let sent = producer.send("orders", &[(0, &["a".to_owned()]), (1, &["b".to_owned()])]).await;
    assert_eq!(sent, [0, INVALID_TXN_STATE]);
    assert_eq!(fetch(&mut producer.client, "orders", 1, false).await.high_watermark, 0);
    // The whole list or nothing.
    assert_eq!(producer.add("orders", &[2, 9]).await, 55);
    assert_eq!(producer.send("orders", &[(2, &["c".to_owned()])]).await, [INVALID_TXN_STATE]);
    // Not transactional, while the transaction is open.
    let (id, epoch) = (producer.id, producer.epoch);
    let plain = BatchBuilder::new().producer(id, epoch, 1).record(0, None, Some(b"v"), &[]).build();
    let answer = producer.client.produce("orders", 0, plain).await;
    assert_eq!(answer.error_code, INVALID_TXN_STATE);
    // Transactional, without a transactional id: nothing of the request is taken.
    let mut request = produce("orders", Vec::new());
    for (index, sequence) in [(0, 1), (1, 0)] {
        let records = Some(Records::Bytes(batch(id, epoch, sequence, &["x".to_owned()])));
        request.topic_data[0].partition_data.push(PartitionProduceData {
            index,
            records,
            ..Default::default()
        });
    }
    request.transactional_id = None;
    let answer = producer.client.call(9, &request).await;
    assert!(answer.responses[0].partition_responses.iter().all(|partition| partition.error_code == 53));
    // Two producers in one request.
    request.transactional_id = Some(ID.to_owned());
    request.topic_data[0].partition_data[1].records =
        Some(Records::Bytes(batch(id + 1, epoch, 0, &["x".to_owned()])));
    let answer = producer.client.call(9, &request).await;
    assert!(answer.responses[0].partition_responses.iter().all(|partition| partition.error_code == 49));
    assert_eq!(producer.end(true).await.error_code, 0);
    assert_eq!(committed(&mut producer.client, 0).await, ["a"]);
    assert_eq!(producer.end(false).await.error_code, INVALID_TXN_STATE);
}

fn offsets(producer: &Producer, offset: i64) -> TxnOffsetCommitRequest {
    TxnOffsetCommitRequest {
        transactional_id: ID.to_owned(),
        group_id: "readers".to_owned(),
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        generation_id: -1,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: "orders".to_owned(),
            partitions: vec![TxnOffsetCommitRequestPartition {
                committed_offset: offset,
                ..TxnOffsetCommitRequestPartition::default()
            }],
            ..TxnOffsetCommitRequestTopic::default()
        }],
        ..TxnOffsetCommitRequest::default()
    }
}

async fn stable_offset(client: &mut Client) -> (i64, i16) {
    let topic = OffsetFetchRequestTopic {
        name: "orders".to_owned(),
        partition_indexes: vec![0],
        ..OffsetFetchRequestTopic::default()
    };
    let request = OffsetFetchRequest {
        group_id: "readers".to_owned(),
        topics: Some(vec![topic]),
        require_stable: true,
        ..OffsetFetchRequest::default()
    };
    let answer = client.call(7, &request).await;
    let partition = &answer.topics[0].partitions[0];
    (partition.committed_offset, partition.error_code)
}

#[tokio::test]
async fn offsets_count_with_the_transaction() {
    for generation in [Generation::One, Generation::Two] {
        let (dir, broker) = started().await;
        let mut producer = Producer::init(broker.client().await, generation).await;
        let mut reader = broker.client().await;
        let version = if generation == Generation::Two { 5 } else { 3 };
        let mut expected = -1;
        for (offset, is_commit) in [(10, true), (20, false), (30, true)] {
            if generation == Generation::One {
                let answer = producer.client.call(version, &offsets(&producer, 99)).await;
                assert_eq!(answer.topics[0].partitions[0].error_code, INVALID_TXN_STATE);
                let request = AddOffsetsToTxnRequest {
                    transactional_id: ID.to_owned(),
                    producer_id: producer.id,
                    producer_epoch: producer.epoch,
                    group_id: "readers".to_owned(),
                    ..AddOffsetsToTxnRequest::default()
                };
                assert_eq!(producer.client.call(3, &request).await.error_code, 0);
            }
            let request = offsets(&producer, offset);
            let answer = producer.client.call(version, &request).await;
            assert_eq!(answer.topics[0].partitions[0].error_code, 0);
            assert_eq!(stable_offset(&mut reader).await, (-1, UNSTABLE_OFFSET_COMMIT));
            assert_eq!(producer.end(is_commit).await.error_code, 0);
            expected = if is_commit { offset } else { expected };
            assert_eq!(stable_offset(&mut reader).await, (expected, 0), "{generation:?}");
            let late = producer
                .client
                .call(version, &TxnOffsetCommitRequest { producer_epoch: -1, ..request })
                .await;
            assert_ne!(late.topics[0].partitions[0].error_code, 0);
        }
        drop((producer, reader));
        broker.handle.crash().await;
        let broker = TestBroker::start(&dir).await;
        assert_eq!(stable_offset(&mut broker.client().await).await, (30, 0));
    }
}

#[tokio::test]
async fn a_transaction_that_takes_too_long_is_aborted() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let broker = TestBroker::with_clock(&dir, clock.clone()).await;
    broker.client().await.create_topic("orders", 3).await;
    let mut producer = Producer::init(broker.client().await, Generation::Two).await;
    let begin = async |producer: &mut Producer, value: &str| {
        let batch = BatchBuilder::new().producer(producer.id, producer.epoch, 0).transactional();
        let batch = batch.record(clock.wall_ms(), None, Some(value.as_bytes()), &[]).build();
        let data = PartitionProduceData { records: Some(Records::Bytes(batch)), ..Default::default() };
        let answer = producer.client.call(12, &produce("orders", vec![data])).await;
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    };
    begin(&mut producer, "open").await;
    let mut reader = broker.client().await;
    assert_eq!(fetch(&mut reader, "orders", 0, true).await.last_stable_offset, 0);
    let (mut waited_ms, started) = (0, Instant::now());
    while fetch(&mut reader, "orders", 0, true).await.last_stable_offset == 0 {
        // The disk may take longer than all these looks.
        if waited_ms < 600_000 {
            clock.advance(1_000);
            waited_ms += 1_000;
        }
        assert!(started.elapsed() < PATIENCE, "the transaction was never aborted");
        tokio::task::yield_now().await;
    }
    assert!(waited_ms >= 60_000, "aborted after {waited_ms} ms already");
    assert_eq!(committed(&mut reader, 0).await, [] as [&str; 0]);
    assert_eq!(producer.end(true).await.error_code, INVALID_TXN_STATE);
    // Nobody has taken its place: it aborts what is aborted, and goes on.
    let aborted = loop {
        let ended = producer.end(false).await.error_code;
        if ended != CONCURRENT_TRANSACTIONS {
            break ended;
        }
        assert!(started.elapsed() < PATIENCE, "the abort was never complete");
    };
    assert_eq!(aborted, 0);
    begin(&mut producer, "next").await;
    assert_eq!(producer.end(true).await.error_code, 0);
    while fetch(&mut reader, "orders", 0, true).await.last_stable_offset < 4 {
        assert!(started.elapsed() < PATIENCE, "the next transaction never ended");
    }
    assert_eq!(committed(&mut reader, 0).await, ["next"]);
}

/// A second round of markers would end the producer's next transaction.
#[tokio::test]
async fn a_transaction_whose_markers_wait_gets_them_once_though_another_takes_too_long() {
    let disk = SimDisk::new();
    let clock = Arc::new(ManualClock::new(SystemClock::new().wall_ms()));
    let broker = TestBroker::on_disk_with_clock(Arc::new(disk.clone()), clock.clone()).await;
    broker.client().await.create_topic("orders", 2).await;
    let mut slow = broker.client().await;
    let given = init(&mut slow, "slow").await;
    let open = Records::Bytes(batch(given.producer_id, given.producer_epoch, 0, &["open".to_owned()]));
    let data = PartitionProduceData { index: 1, records: Some(open), ..Default::default() };
    let request =
        ProduceRequest { transactional_id: Some("slow".to_owned()), ..produce("orders", vec![data]) };
    assert_eq!(slow.call(12, &request).await.responses[0].partition_responses[0].error_code, 0);
    let mut producer = Producer::init(broker.client().await, Generation::One).await;
    assert_eq!(producer.add("orders", &[0]).await, 0);
    assert_eq!(producer.send("orders", &[(0, &["first".to_owned()])]).await, [0]);
    disk.fail(Operation::Write, "orders-0", 0, usize::MAX, ENOSPC);
    assert_eq!(producer.end(true).await.error_code, 0);

    let mut reader = broker.client().await;
    eventually("the slow transaction is aborted", || {
        clock.advance(1_000);
        is_settled(&broker, 1)
    })
    .await;
    assert_eq!(fetch(&mut reader, "orders", 0, true).await.last_stable_offset, 0);
    disk.heal();
    eventually("the marker is written", || {
        clock.advance(1_000);
        is_settled(&broker, 0)
    })
    .await;
    assert_eq!(producer.add("orders", &[0]).await, 0);
    assert_eq!(producer.send("orders", &[(0, &["second".to_owned()])]).await, [0]);
    assert_eq!(producer.end(false).await.error_code, 0);
    let data = fetch(&mut reader, "orders", 0, true).await;
    assert_eq!((consumed(&data), data.high_watermark), (vec!["first".to_owned()], 4));
}

async fn is_settled(broker: &TestBroker, partition: i32) -> bool {
    let data = fetch(&mut broker.client().await, "orders", partition, true).await;
    data.last_stable_offset == data.high_watermark
}

#[tokio::test]
async fn operators_see_transactions_and_can_end_one_that_hangs() {
    let (_dir, broker) = started().await;
    let mut producer = Producer::init(broker.client().await, Generation::Two).await;
    assert_eq!(producer.send("orders", &[(1, &["open".to_owned()])]).await, [0]);
    let mut admin = broker.client().await;
    let ids = vec![ID.to_owned(), "other".to_owned()];
    let request = DescribeTransactionsRequest { transactional_ids: ids, ..Default::default() };
    let described = admin.call(0, &request).await.transaction_states;
    assert_eq!((described[0].error_code, described[1].error_code), (0, 105));
    assert_eq!((&*described[0].transaction_state, described[0].producer_id), ("Ongoing", producer.id));
    assert_eq!(
        (&*described[0].topics[0].topic, &described[0].topics[0].partitions[..]),
        ("orders", &[1][..])
    );
    let list = |states: &[&str]| ListTransactionsRequest {
        state_filters: states.iter().map(|state| (*state).to_owned()).collect(),
        ..ListTransactionsRequest::default()
    };
    assert_eq!(admin.call(0, &list(&[])).await.transaction_states.len(), 1);
    assert_eq!(admin.call(1, &list(&["Empty"])).await.transaction_states.len(), 0);
    let unknown = admin.call(0, &list(&["Odd", "Ongoing"])).await;
    assert_eq!(
        (unknown.unknown_state_filters, unknown.transaction_states.len()),
        (vec!["Odd".to_owned()], 1)
    );
    let topic =
        TopicRequest { name: "orders".to_owned(), partition_indexes: vec![0, 1, 9], ..Default::default() };
    let request = DescribeProducersRequest { topics: vec![topic], ..Default::default() };
    let partitions = admin.call(0, &request).await.topics.remove(0).partitions;
    assert_eq!((partitions[0].active_producers.len(), partitions[2].error_code), (0, 3));
    let active = &partitions[1].active_producers[0];
    assert_eq!(
        (active.producer_id, active.last_sequence, active.current_txn_start_offset),
        (producer.id, 0, 0)
    );
    let marker = WritableTxnMarker {
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        topics: vec![WritableTxnMarkerTopic {
            name: "orders".to_owned(),
            partition_indexes: vec![1, 9],
            ..WritableTxnMarkerTopic::default()
        }],
        ..WritableTxnMarker::default()
    };
    let request = WriteTxnMarkersRequest { markers: vec![marker], ..WriteTxnMarkersRequest::default() };
    let written = admin.call(1, &request).await.markers.remove(0).topics.remove(0).partitions;
    assert_eq!((written[0].error_code, written[1].error_code), (0, 3));
    let data = fetch(&mut admin, "orders", 1, true).await;
    assert_eq!((data.last_stable_offset, data.high_watermark), (2, 2));
    assert_eq!(consumed(&data), [] as [&str; 0]);
}

#[tokio::test]
async fn the_coordinator_is_found_and_the_feature_is_told() {
    let (_dir, broker) = started().await;
    let mut client = broker.client().await;
    let request =
        FindCoordinatorRequest { key_type: 1, coordinator_keys: vec![ID.to_owned()], ..Default::default() };
    let found = client.call(4, &request).await.coordinators.remove(0);
    assert_eq!((found.error_code, found.port), (0, i32::from(broker.handle.local_addr().port())));
    let request = ApiVersionsRequest {
        client_software_name: "test".to_owned(),
        client_software_version: "1".to_owned(),
        ..ApiVersionsRequest::default()
    };
    for version in 0..=4 {
        let answer = client.call(version, &request).await;
        let level = answer.finalized_features.iter().find(|feature| feature.name == "transaction.version");
        assert_eq!(level.map(|feature| feature.max_version_level), (version >= 3).then_some(2));
    }
}

#[tokio::test]
async fn nonsense_about_producers_is_refused() {
    let (_dir, broker) = started().await;
    let mut client = broker.client().await;
    let request =
        |transactional_id: &str, producer_id, producer_epoch, transaction_timeout_ms| InitProducerIdRequest {
            transactional_id: Some(transactional_id.to_owned()),
            transaction_timeout_ms,
            producer_id,
            producer_epoch,
            ..InitProducerIdRequest::default()
        };
    for (request, expect) in [
        (request("", -1, -1, 60_000), 42),
        (request(ID, 5, -1, 60_000), 42),
        (request(ID, -1, 5, 60_000), 42),
        (request(ID, -1, -1, 900_001), 50),
        (request(ID, -1, -1, 0), 50),
    ] {
        let given = client.call(4, &request).await;
        assert_eq!((given.error_code, given.producer_id, given.producer_epoch), (expect, -1, -1));
    }
    assert_eq!(client.call(3, &end_txn(7, 0, true)).await.error_code, 49);
    let sent = PartitionProduceData {
        records: Some(Records::Bytes(batch(7, 0, 0, &["x".to_owned()]))),
        ..PartitionProduceData::default()
    };
    let answer = client.call(12, &produce("orders", vec![sent])).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 49);
}

#[tokio::test]
async fn partitions_are_added_and_verified_for_many_transactions_at_once() {
    let (_dir, broker) = started().await;
    let producer = Producer::init(broker.client().await, Generation::Two).await;
    let mut client = broker.client().await;
    let one = |transactional_id: &str, partition, verify_only| AddPartitionsToTxnTransaction {
        transactional_id: transactional_id.to_owned(),
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        verify_only,
        topics: vec![AddPartitionsToTxnTopic {
            name: "orders".to_owned(),
            partitions: vec![partition],
            ..AddPartitionsToTxnTopic::default()
        }],
        ..AddPartitionsToTxnTransaction::default()
    };
    for version in 4..=5 {
        let transactions = vec![
            one(ID, 0, true),
            one(ID, 0, false),
            one(ID, 0, true),
            one("other", 0, false),
            one(ID, 7, false),
        ];
        let request = AddPartitionsToTxnRequest { transactions, ..AddPartitionsToTxnRequest::default() };
        let answer = client.call(version, &request).await;
        let codes: Vec<i16> = answer
            .results_by_transaction
            .iter()
            .map(|result| result.topic_results[0].results_by_partition[0].partition_error_code)
            .collect();
        let first = if version == 4 { 120 } else { 0 };
        assert_eq!(codes, [first, 0, 0, 49, 3]);
    }
}

/// What the outside world knows of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Unknown,
    Committed,
    Aborted,
}

/// Power cuts in the middle of transactions, in whatever state: what was acknowledged as committed is there, in all
/// partitions; what was aborted is nowhere; what nobody was told is there as a whole or not at all; and nothing hangs.
#[tokio::test]
async fn power_cuts_tear_no_transaction() {
    let (mut counts, mut unknown) = (BTreeMap::new(), (0, 0));
    for seed in 0..12u64 {
        let generation = if seed % 2 == 0 { Generation::One } else { Generation::Two };
        let mut random = Random::new(seed + 1);
        let mut disk = SimDisk::new();
        let mut outcomes: BTreeMap<String, Outcome> = BTreeMap::new();
        for round in 0..5u64 {
            let broker = TestBroker::on_disk(Arc::new(disk.clone())).await;
            if round == 0 {
                broker.client().await.create_topic("orders", 3).await;
            }
            // The new producer's init aborts what the one before has left open.
            let mut producer = Producer::init(broker.client().await, generation).await;
            let seen = all_settled(&broker).await;
            check_atomic(&seen, &outcomes, seed, &mut unknown);
            for index in 0..1 + random.below(3) {
                let (tag, is_commit) = (format!("s{seed}r{round}i{index}"), random.chance(2));
                producer.transact(&tag, is_commit).await;
                let outcome = if is_commit { Outcome::Committed } else { Outcome::Aborted };
                *counts.entry(is_commit).or_insert(0) += 1;
                outcomes.insert(tag, outcome);
            }
            disk = cut_in_the_middle(&mut producer, &disk, &mut random, seed, round, &mut outcomes).await;
            drop(producer);
            broker.handle.crash().await;
        }
    }
    println!("acknowledged: {counts:?}; undecided for their client: {unknown:?} (whole, absent)");
    assert!(unknown.1 > 0, "no cut came early enough");
}

/// Begins a transaction and takes the power away at some point of it, while a request may be under way.
async fn cut_in_the_middle(
    producer: &mut Producer,
    disk: &SimDisk,
    random: &mut Random,
    seed: u64,
    round: u64,
    outcomes: &mut BTreeMap<String, Outcome>,
) -> SimDisk {
    let tag = format!("s{seed}r{round}cut");
    outcomes.insert(tag.clone(), Outcome::Unknown);
    let cut = |disk: &SimDisk| disk.crash(Loss::Random(seed * 100 + round));
    let stage = random.below(5);
    if producer.generation == Generation::One {
        assert_eq!(producer.add("orders", &[0, 1, 2]).await, 0);
    }
    if stage == 0 {
        return cut(disk);
    }
    let values = [format!("{tag}-0")];
    let sent: [(i32, &[String]); 3] = [(0, &values), (1, &values), (2, &values)];
    if stage == 1 {
        // Records are appended, and nobody was told yet.
        let mut partition_data = Vec::new();
        for index in 0..3 {
            let sequence = producer.sequences.get(&("orders".to_owned(), index)).copied().unwrap_or(0);
            let records = Some(Records::Bytes(batch(producer.id, producer.epoch, sequence, &values)));
            partition_data.push(PartitionProduceData { index, records, ..Default::default() });
        }
        let version = if producer.generation == Generation::Two { 12 } else { 10 };
        producer.client.send(version, &produce("orders", partition_data)).await;
        for _ in 0..random.below(60) {
            tokio::task::yield_now().await;
        }
        return cut(disk);
    }
    assert_eq!(producer.send("orders", &sent).await, [0, 0, 0]);
    if stage == 2 {
        return cut(disk);
    }
    let version = if producer.generation == Generation::Two { 5 } else { 3 };
    producer.client.send(version, &end_txn(producer.id, producer.epoch, random.chance(2))).await;
    // Somewhere between the request and the last marker.
    let from = disk.operations_count() + random.below(12) as u64;
    for _ in 0..2_000 {
        if disk.operations_count() >= from {
            break;
        }
        tokio::task::yield_now().await;
    }
    cut(disk)
}

/// What read_committed consumers see once nothing is open any more.
async fn all_settled(broker: &TestBroker) -> [Vec<String>; 3] {
    let mut reader = broker.client().await;
    let mut seen = [Vec::new(), Vec::new(), Vec::new()];
    for (partition, seen) in seen.iter_mut().enumerate() {
        let partition = partition as i32;
        eventually("the last stable offset reaches the end", async || {
            let mut reader = broker.client().await;
            let data = fetch(&mut reader, "orders", partition, true).await;
            data.last_stable_offset == data.high_watermark
        })
        .await;
        *seen = committed(&mut reader, partition).await;
    }
    seen
}

fn check_atomic(
    seen: &[Vec<String>; 3],
    outcomes: &BTreeMap<String, Outcome>,
    seed: u64,
    unknown: &mut (usize, usize),
) {
    for (tag, outcome) in outcomes {
        let prefix = format!("{tag}-");
        let counts: Vec<usize> = seen
            .iter()
            .map(|values| values.iter().filter(|value| value.starts_with(&prefix)).count())
            .collect();
        let (is_whole, is_absent) = match outcome {
            Outcome::Unknown => (counts == [1, 1, 1], counts == [0, 0, 0]),
            _ => (counts == [4, 3, 3], counts == [0, 0, 0]),
        };
        match outcome {
            Outcome::Committed => assert!(is_whole, "seed {seed}: {tag} was committed, found {counts:?}"),
            Outcome::Aborted => assert!(is_absent, "seed {seed}: {tag} was aborted, found {counts:?}"),
            Outcome::Unknown => {
                assert!(is_whole || is_absent, "seed {seed}: {tag} is torn: {counts:?}");
                unknown.0 += usize::from(is_whole);
                unknown.1 += usize::from(is_absent);
            }
        }
    }
}
