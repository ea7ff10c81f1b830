//! A raw Kafka client over one blocking socket: as little as possible between the measurement and the broker.
//!
//! Speaks one version of each request, which every peer serves. Knows nothing of leaders: peers are single nodes.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tidings_wire::messages::api_versions_request::ApiVersionsRequest;
use tidings_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use tidings_wire::messages::delete_topics_request::DeleteTopicsRequest;
use tidings_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use tidings_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use tidings_wire::{Chunk, Records, Request, decode_response, encode_request};

/// How long a broker may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long a topic may take to have a leader for each partition.
const TOPIC_LIMIT: Duration = Duration::from_secs(60);

/// UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER.
const NOT_YET: [i16; 3] = [3, 5, 6];

/// One connection.
pub struct KafkaClient {
    stream: TcpStream,
    next_correlation_id: i32,
}

impl KafkaClient {
    /// Connects to a broker that is up.
    pub fn connect(address: &str) -> Result<Self> {
        Self::connect_when_up(address, Duration::ZERO)
    }

    /// Knocks until the listener answers or `limit` has passed.
    pub fn connect_when_up(address: &str, limit: Duration) -> Result<Self> {
        let start = Instant::now();
        loop {
            match TcpStream::connect(address) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(ANSWER_LIMIT))?;
                    return Ok(Self { stream, next_correlation_id: 0 });
                }
                Err(error) if start.elapsed() >= limit => {
                    return Err(error).with_context(|| format!("connect to {address}"));
                }
                Err(_) => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    /// Asks what the broker speaks, as every client does first.
    pub fn api_versions(&mut self) -> Result<()> {
        let error_code = self.call(0, &ApiVersionsRequest::default())?.error_code;
        ensure!(error_code == 0, "expected the API versions, found error code {error_code}");
        Ok(())
    }

    /// Creates a topic and waits until every partition has a leader.
    pub fn create_topic(&mut self, name: &str, partitions: i32) -> Result<()> {
        let topic = CreatableTopic {
            name: name.to_owned(),
            num_partitions: partitions,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, ..Default::default() };
        let answer = self.call(5, &request)?;
        let error_code = answer.topics.first().context("find the topic in the answer")?.error_code;
        ensure!(error_code == 0, "cannot create the topic {name}: error code {error_code}");
        self.wait_topic(name, false)
    }

    /// Waits until every partition of a topic has a leader; may create the topic by asking for it.
    pub fn wait_topic(&mut self, name: &str, allow_auto_topic_creation: bool) -> Result<()> {
        let topic = MetadataRequestTopic { name: Some(name.to_owned()), ..Default::default() };
        let request =
            MetadataRequest { topics: Some(vec![topic]), allow_auto_topic_creation, ..Default::default() };
        let start = Instant::now();
        loop {
            // As in Kafka, the answer that creates a topic may say "not yet": a client asks again.
            let answer = self.call(9, &request)?;
            let topic = answer.topics.first().context("find the topic in the answer")?;
            let led = topic.partitions.iter().all(|partition| partition.error_code == 0);
            if topic.error_code == 0 && led && !topic.partitions.is_empty() {
                return Ok(());
            }
            ensure!(start.elapsed() < TOPIC_LIMIT, "the topic {name} was not ready within {TOPIC_LIMIT:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Deletes a topic; its data may take a while longer.
    pub fn delete_topic(&mut self, name: &str) -> Result<()> {
        let request = DeleteTopicsRequest {
            topic_names: vec![name.to_owned()],
            timeout_ms: 30_000,
            ..Default::default()
        };
        let answer = self.call(4, &request)?;
        let error_code = answer.responses.first().context("find the topic in the answer")?.error_code;
        ensure!(error_code == 0, "cannot delete the topic {name}: error code {error_code}");
        Ok(())
    }

    /// Writes one record batch and waits until the broker acknowledges it as durable as it promises (`acks=all`).
    pub fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> Result<()> {
        let partition = PartitionProduceData {
            index: partition,
            records: Some(Records::Bytes(batch)),
            ..Default::default()
        };
        let topic = TopicProduceData {
            name: topic.to_owned(),
            partition_data: vec![partition],
            ..Default::default()
        };
        let request =
            ProduceRequest { acks: -1, timeout_ms: 5000, topic_data: vec![topic], ..Default::default() };
        let start = Instant::now();
        loop {
            let response = self.call(9, &request)?;
            let error_code = response.responses[0].partition_responses[0].error_code;
            // A new topic may not be known everywhere in the broker yet: a client tries again.
            if !NOT_YET.contains(&error_code) || start.elapsed() > TOPIC_LIMIT {
                ensure!(error_code == 0, "expected an acknowledgement, found error code {error_code}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        let mut frame = Vec::new();
        for chunk in encode_request(version, correlation_id, Some("tidings-bench"), request)? {
            let Chunk::Bytes(bytes) = chunk else { unreachable!("requests are made of memory") };
            frame.extend_from_slice(&bytes);
        }
        self.stream.write_all(&frame)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).context("read the response")?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length))?];
        self.stream.read_exact(&mut frame)?;
        Ok(decode_response::<R>(version, Bytes::from(frame))?.1)
    }
}
