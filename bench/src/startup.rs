//! From nothing to the first durable event: start-up times and idle memory on an empty data directory.

use crate::http_client::HttpClient;
use crate::kafka_client::KafkaClient;
use crate::process::{Platform, Ports};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::time::{Duration, Instant};
use tidings_log::batch::BatchBuilder;
use tidings_wire::Records;
use tidings_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use tidings_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};

/// How long any single step may take before the run fails.
const STEP_LIMIT: Duration = Duration::from_secs(30);
/// How long the platform is left alone before its idle memory is read.
const IDLE_WAIT: Duration = Duration::from_secs(5);

/// What one start showed.
pub struct StartupFigures {
    /// Process start to the ready file, milliseconds.
    pub ready_ms: f64,
    /// Ready to the first activity acknowledged over HTTP, milliseconds.
    pub first_activity_ms: f64,
    /// Resident memory after some seconds without work, MB.
    pub idle_mb: f64,
}

/// Starts the whole platform on an empty directory and posts one activity as soon as it is ready.
pub fn platform(binary: &Path, data_dir: &Path) -> Result<StartupFigures> {
    let platform = Platform::start(binary, "up", data_dir)?;
    let ready = Instant::now();
    let body = br#"{"tenant":"UA","action":"flight.departed","targets":[{"type":"flight","id":"UA1"}]}"#;
    let answer = HttpClient::connect(&platform.http)?.post_json("/api/v1/activities", body)?;
    let first_activity_ms = millis(ready.elapsed());
    ensure!(answer.status < 300, "expected success, found {}", answer.status);
    std::thread::sleep(IDLE_WAIT);
    Ok(StartupFigures {
        ready_ms: millis(platform.ready_after()),
        first_activity_ms,
        idle_mb: platform.resident_mb()?,
    })
}

/// Starts `tidings <mode>` on an empty directory and races its start with a raw client: milliseconds from process
/// start to the first record's durable acknowledgement, topic creation included.
pub fn first_ack(binary: &Path, mode: &str, data_dir: &Path) -> Result<f64> {
    let platform = Platform::spawn(binary, mode, data_dir, &Ports::free()?)?;
    let mut client = KafkaClient::connect_when_up(&platform.kafka, STEP_LIMIT)?;
    let topic = MetadataRequestTopic { name: Some("first".to_owned()), ..Default::default() };
    let metadata = MetadataRequest {
        topics: Some(vec![topic]),
        allow_auto_topic_creation: true,
        ..Default::default()
    };
    // As in Kafka, the answer that creates a topic may say "not yet": a client asks again.
    while client.call(9, &metadata)?.topics.first().context("find the topic")?.error_code != 0 {
        ensure!(platform.started().elapsed() < STEP_LIMIT, "the topic was not created within {STEP_LIMIT:?}");
    }
    let response = client.call(9, &produce_request())?;
    let error_code = response.responses[0].partition_responses[0].error_code;
    ensure!(error_code == 0, "expected an acknowledgement, found error code {error_code}");
    Ok(millis(platform.started().elapsed()))
}

fn produce_request() -> ProduceRequest {
    let batch = BatchBuilder::new().record(0, Some(b"key"), Some(b"value"), &[]).build();
    let partition = PartitionProduceData { index: 0, records: Some(Records::Bytes(batch)), ..Default::default() };
    let topic =
        TopicProduceData { name: "first".to_owned(), partition_data: vec![partition], ..Default::default() };
    ProduceRequest { acks: -1, timeout_ms: 5000, topic_data: vec![topic], ..Default::default() }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
