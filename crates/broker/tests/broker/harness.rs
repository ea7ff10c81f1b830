//! A broker of its own for each test, and a client that speaks frames.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tidings_broker::{Broker, BrokerHandle, BrokerOptions, BrokerSettings, Clock, SystemClock};
use tidings_log::Disk;
use tidings_log::batch::BatchBuilder;
use tidings_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use tidings_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use tidings_wire::messages::fetch_response::{FetchResponse, PartitionData};
use tidings_wire::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use tidings_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use tidings_wire::messages::produce_response::{PartitionProduceResponse, ProduceResponse};
use tidings_wire::{Chunk, Records, Request, decode_response, encode_request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No answer takes longer unless something hangs; less than the minute for which requests say that they can
/// wait.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// A broker in a folder that outlives it.
pub struct TestBroker {
    pub handle: BrokerHandle,
}

pub fn options(dir: &Path) -> BrokerOptions {
    BrokerOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        insecure: false,
        advertised: None,
        data_dir: dir.to_owned(),
        settings: BrokerSettings::default(),
        clock: Arc::new(SystemClock::new()),
    }
}

impl TestBroker {
    pub async fn start(dir: &TempDir) -> TestBroker {
        TestBroker { handle: Broker::start(options(dir.path())).await.expect("the broker starts") }
    }

    pub async fn with_clock(dir: &TempDir, clock: Arc<dyn Clock>) -> TestBroker {
        let options = BrokerOptions { clock, ..options(dir.path()) };
        TestBroker { handle: Broker::start(options).await.expect("the broker starts") }
    }

    pub async fn with_settings(dir: &TempDir, settings: &[(&str, &str)]) -> TestBroker {
        let settings = BrokerSettings::parse(settings.iter().copied()).expect("the settings parse");
        let options = BrokerOptions { settings, ..options(dir.path()) };
        TestBroker { handle: Broker::start(options).await.expect("the broker starts") }
    }

    pub async fn on_disk(disk: Arc<dyn Disk>) -> TestBroker {
        TestBroker::on_disk_with_clock(disk, Arc::new(SystemClock::new())).await
    }

    pub async fn on_disk_with_clock(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> TestBroker {
        let options = BrokerOptions { clock, ..options(Path::new("/data")) };
        TestBroker { handle: Broker::start_on(disk, options).await.expect("the broker starts") }
    }

    pub async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.handle.local_addr()).await.expect("the broker accepts");
        stream.set_nodelay(true).expect("nodelay");
        Client { stream, next_correlation_id: 1 }
    }
}

/// A connection that sends frames and reads answers.
pub struct Client {
    pub stream: TcpStream,
    next_correlation_id: i32,
}

impl Client {
    /// Sends a request and reads its answer.
    pub async fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let correlation_id = self.send(version, request).await;
        self.receive::<R>(version, correlation_id).await
    }

    /// Sends a request; answers are read later.
    pub async fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        let frame = frame(version, correlation_id, request);
        self.stream.write_all(&frame).await.expect("the broker reads");
        correlation_id
    }

    /// Reads the next answer, which must be to this request.
    pub async fn receive<R: Request>(&mut self, version: i16, correlation_id: i32) -> R::Response {
        let frame = self.frame().await.expect("the broker answers");
        let (found, response) = decode_response::<R>(version, frame)
            .unwrap_or_else(|error| panic!("{:?} version {version}: {error}", R::API_KEY));
        assert_eq!(found, correlation_id, "{:?} version {version}", R::API_KEY);
        response
    }

    /// Reads a frame; none when the broker has closed the connection.
    pub async fn frame(&mut self) -> Option<Bytes> {
        tokio::time::timeout(PATIENCE, async {
            let length = self.stream.read_i32().await.ok()?;
            let mut frame = BytesMut::zeroed(usize::try_from(length).expect("a length"));
            self.stream.read_exact(&mut frame).await.expect("the whole frame");
            Some(frame.freeze())
        })
        .await
        .expect("no answer in time")
    }

    pub async fn create_topic(&mut self, name: &str, partitions: i32) {
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: partitions,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request =
            CreateTopicsRequest { topics: vec![topic], timeout_ms: 1000, ..CreateTopicsRequest::default() };
        let response = self.call(7, &request).await;
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0].error_message);
    }

    pub async fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> PartitionProduceResponse {
        let response = self.call(9, &produce_request(topic, partition, batch)).await;
        only_partition(response)
    }

    /// Error code, offset and timestamp of the first record at this time or later, in partition 0.
    pub async fn offset_at(&mut self, topic: &str, timestamp: i64) -> (i16, i64, i64) {
        let partitions = vec![ListOffsetsPartition { timestamp, ..ListOffsetsPartition::default() }];
        let topic = ListOffsetsTopic { name: topic.to_owned(), partitions, ..ListOffsetsTopic::default() };
        let request =
            ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
        let found = self.call(9, &request).await.topics.remove(0).partitions.remove(0);
        (found.error_code, found.offset, found.timestamp)
    }

    pub async fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let response = self.call(11, &fetch_request(topic, partition, offset, 0)).await;
        only_fetched(response)
    }
}

pub fn only_partition(mut response: ProduceResponse) -> PartitionProduceResponse {
    let mut topic = response.responses.pop().expect("one topic");
    assert!(response.responses.is_empty());
    topic.partition_responses.pop().expect("one partition")
}

pub fn only_fetched(mut response: FetchResponse) -> PartitionData {
    assert_eq!(response.error_code, 0);
    let mut topic = response.responses.pop().expect("one topic");
    topic.partitions.pop().expect("one partition")
}

pub fn produce_request(topic: &str, partition: i32, batch: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 1000,
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
    }
}

pub fn fetch_request(topic: &str, partition: i32, offset: i64, max_wait_ms: i32) -> FetchRequest {
    FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        max_bytes: 50 << 20,
        topics: vec![FetchTopic {
            topic: topic.to_owned(),
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: offset,
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// A request as it goes over the wire, with its length.
pub fn frame<R: Request>(version: i16, correlation_id: i32, request: &R) -> Vec<u8> {
    let chunks = encode_request(version, correlation_id, Some("test"), request).expect("the request encodes");
    let mut frame = Vec::new();
    for chunk in chunks {
        let Chunk::Bytes(bytes) = chunk else { panic!("a request with external records") };
        frame.extend(bytes);
    }
    frame
}

/// A batch of records with these values, at the time of now.
pub fn batch(values: &[&str]) -> Bytes {
    let now_ms = SystemClock::new().wall_ms();
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.push(now_ms, None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

/// A batch of an idempotent producer.
pub fn idempotent_batch(producer_id: i64, sequence: i32, values: &[&str]) -> Bytes {
    let now_ms = SystemClock::new().wall_ms();
    let mut builder = BatchBuilder::new().producer(producer_id, 0, sequence);
    for value in values {
        builder.push(now_ms, None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

/// The bytes of fetched records.
pub fn records(data: &PartitionData) -> Bytes {
    data.records.as_ref().and_then(Records::bytes).cloned().unwrap_or_default()
}

/// Offsets and values of fetched records.
pub fn values(data: &PartitionData) -> Vec<(i64, String)> {
    use tidings_log::batch::{Batch, BatchHeader};
    let mut bytes = records(data);
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let header = BatchHeader::parse(&bytes).expect("a batch header");
        let batch = Batch { header, bytes: bytes.split_to(header.size_bytes()) };
        for record in batch.records().expect("not compressed") {
            let record = record.expect("a record");
            values.push((
                record.offset,
                String::from_utf8_lossy(&record.value.unwrap_or_default()).into_owned(),
            ));
        }
    }
    values
}

/// The value of a metric without labels.
pub fn gauge(broker: &TestBroker, name: &str) -> usize {
    let mut registry = Registry::default();
    broker.handle.register_metrics(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).expect("the metrics encode");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.expect("the metric").parse().expect("a number")
}

/// Asks until the answer is the right one.
pub async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
