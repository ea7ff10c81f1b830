//! The load generator: librdkafka, the same for every peer.
//!
//! Owns how records are made, sent and read. It is neutral: no peer's own client, no setting that one peer gets and
//! another does not. It calls librdkafka by batches, because one call per record would make the client the limit long
//! before the fastest broker is.

mod consumer;
mod paced;
mod producer;
mod throughput;

use rdkafka::ClientConfig;

pub use consumer::Consumer;
pub use paced::{PacedOutcome, run_paced};
pub use producer::Producer;
pub use throughput::{Drained, drain, fill, produce};

/// The shape of a stream of records.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Size of each value; there are no keys.
    pub record_bytes: usize,
    /// How many records.
    pub records: usize,
    /// Over how many partitions they go, in turn.
    pub partitions: i32,
}

impl Shape {
    /// As many records as make up `bytes`.
    pub fn of_bytes(bytes: usize, record_bytes: usize, partitions: i32) -> Self {
        Self { record_bytes, records: bytes / record_bytes, partitions }
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> f64 {
        (self.records * self.record_bytes) as f64
    }
}

/// How a producer makes requests of records.
#[derive(Clone, Copy, Debug)]
pub enum Batching {
    /// Batches up to 1 MB, and 5 ms of waiting for them to fill.
    Large,
    /// Each record at once and by itself, also when the machine is too busy to keep up.
    OneByOne,
}

/// Settings of every producer: `acks=all`, and one of two ways to batch.
fn producer_config(address: &str, batching: Batching) -> ClientConfig {
    let (linger_ms, batch_records) = match batching {
        Batching::Large => ("5", "10000"),
        Batching::OneByOne => ("0", "1"),
    };
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("client.id", "tidings-bench")
        .set("acks", "all")
        .set("linger.ms", linger_ms)
        .set("batch.num.messages", batch_records)
        .set("batch.size", "1000000")
        .set("message.max.bytes", "1000000")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "262144")
        .set("socket.nagle.disable", "true");
    config
}

/// Settings of every consumer: librdkafka's defaults, from the beginning, with no commits in the measurement.
fn consumer_config(address: &str, group: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("client.id", "tidings-bench")
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("socket.nagle.disable", "true");
    config
}

/// Bytes that no codec and no disk makes smaller (xorshift64*), the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
