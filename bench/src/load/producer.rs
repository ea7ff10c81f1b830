//! A producer that hands records to librdkafka by the thousand and counts what comes back.
//!
//! Invariant: a record is counted as acknowledged only when its own delivery report says so.

use super::{Batching, producer_config};
use anyhow::{Context, Result, ensure};
use rdkafka::ClientContext;
use rdkafka::bindings as native;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};
use std::ffi::CString;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How long the last acknowledgements may take.
const FLUSH_LIMIT: Duration = Duration::from_secs(120);
/// How long to wait for room when librdkafka's queue is full.
const ROOM_WAIT: Duration = Duration::from_millis(5);

/// A producer of one topic.
pub struct Producer {
    // Fields drop in this order: the topic's handle before the client that it belongs to.
    topic: Topic,
    client: BaseProducer<Reports>,
}

/// Counts delivery reports.
#[derive(Default)]
struct Reports {
    acknowledged: AtomicUsize,
    failed: AtomicUsize,
}

/// A handle on a topic, given back to librdkafka when dropped.
struct Topic(*mut native::rd_kafka_topic_t);

/// A record to send: the value is borrowed until the call returns, for librdkafka copies it.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// Where it goes.
    pub partition: i32,
    /// What it says.
    pub value: &'a [u8],
}

impl Producer {
    /// A producer of `topic` at `address`.
    pub fn new(address: &str, topic: &str, batching: Batching) -> Result<Self> {
        let client: BaseProducer<Reports> = producer_config(address, batching)
            .create_with_context(Reports::default())
            .context("create a producer")?;
        let name = CString::new(topic)?;
        let configuration = std::ptr::null_mut();
        // SAFETY: the client lives, the name ends in NUL, and a null configuration means the client's own.
        let handle =
            unsafe { native::rd_kafka_topic_new(client.client().native_ptr(), name.as_ptr(), configuration) };
        ensure!(!handle.is_null(), "librdkafka refuses the topic {topic}");
        Ok(Self { topic: Topic(handle), client })
    }

    /// Queues all of `records`, waiting for room where there is none.
    pub fn send(&self, records: &[Outgoing]) -> Result<()> {
        let mut messages: Vec<native::rd_kafka_message_t> = records.iter().map(message).collect();
        loop {
            let flags = native::RD_KAFKA_MSG_F_COPY | native::RD_KAFKA_MSG_F_PARTITION;
            let (first, count) = (messages.as_mut_ptr(), i32::try_from(messages.len())?);
            // SAFETY: `first` points at `count` messages whose values `records` keeps alive; F_COPY has librdkafka copy
            // them before it returns, so that it keeps no pointer into them.
            unsafe { native::rd_kafka_produce_batch(self.topic.0, -1, flags, first, count) };
            messages.retain(|message| message.err != native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
            let Some(refused) = messages.first() else { break };
            let full = native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL;
            ensure!(refused.err == full, "librdkafka refuses a record: {:?}", refused.err);
            self.client.poll(ROOM_WAIT);
        }
        self.client.poll(Duration::ZERO);
        Ok(())
    }

    /// Waits until everything sent is acknowledged; an error if anything failed.
    pub fn flush(&self) -> Result<()> {
        self.client.flush(FLUSH_LIMIT).context("wait for the acknowledgements")?;
        let failed = self.client.context().failed.load(Ordering::Relaxed);
        ensure!(failed == 0, "{failed} records were not acknowledged");
        Ok(())
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.client.context().acknowledged.load(Ordering::Relaxed)
    }
}

fn message(record: &Outgoing) -> native::rd_kafka_message_t {
    native::rd_kafka_message_t {
        err: native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: std::ptr::null_mut(),
        partition: record.partition,
        payload: record.value.as_ptr().cast_mut().cast(),
        len: record.value.len(),
        key: std::ptr::null_mut(),
        key_len: 0,
        offset: 0,
        _private: std::ptr::null_mut(),
    }
}

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.acknowledged } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the handle came from `rd_kafka_topic_new` and is given back once; its client still lives.
        unsafe { native::rd_kafka_topic_destroy(self.0) };
    }
}
