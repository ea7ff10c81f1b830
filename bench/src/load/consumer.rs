//! A consumer that takes records from librdkafka by the thousand.
//!
//! Owns a librdkafka handle of its own: the `rdkafka` crate reads record by record, at a cost that would hide the
//! difference between brokers. Invariant: every record taken is given back before the next call.

use super::consumer_config;
use anyhow::{Context, Result, bail, ensure};
use rdkafka::bindings as native;
use rdkafka::{Offset, TopicPartitionList};
use std::ffi::{CStr, c_char};
use std::time::Duration;

const NO_ERROR: native::rd_kafka_resp_err_t = native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
/// Records taken in one call.
const BATCH: usize = 1000;

/// A consumer of one topic, closed when dropped.
pub struct Consumer {
    client: *mut native::rd_kafka_t,
    queue: *mut native::rd_kafka_queue_t,
    taken: Vec<*mut native::rd_kafka_message_t>,
}

// SAFETY: librdkafka's handles may be used from any thread; `&mut self` keeps two from sharing the buffer.
unsafe impl Send for Consumer {}

impl Consumer {
    /// A consumer that reads every partition of `topic` from the beginning, without a group's protocol.
    pub fn assigned(address: &str, topic: &str, partitions: i32) -> Result<Self> {
        let consumer = Self::new(address, "tidings-bench")?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        // SAFETY: the client lives, and the list outlives the call, which copies it.
        check("assign the partitions", unsafe { native::rd_kafka_assign(consumer.client, list.ptr()) })?;
        Ok(consumer)
    }

    /// A consumer that joins `group` and reads what the group gives it.
    pub fn subscribed(address: &str, topic: &str, group: &str) -> Result<Self> {
        let consumer = Self::new(address, group)?;
        let mut list = TopicPartitionList::new();
        list.add_topic_unassigned(topic);
        // SAFETY: the client lives, and the list outlives the call, which copies it.
        check("subscribe", unsafe { native::rd_kafka_subscribe(consumer.client, list.ptr()) })?;
        Ok(consumer)
    }

    fn new(address: &str, group: &str) -> Result<Self> {
        let config =
            consumer_config(address, group).create_native_config().context("configure a consumer")?;
        let mut reason = [0 as c_char; 512];
        let kind = native::rd_kafka_type_t::RD_KAFKA_CONSUMER;
        // SAFETY: the configuration is whole and `reason` is as long as said.
        let client = unsafe { native::rd_kafka_new(kind, config.ptr(), reason.as_mut_ptr(), reason.len()) };
        if client.is_null() {
            // SAFETY: librdkafka has ended the reason with NUL.
            bail!("create a consumer: {}", unsafe { CStr::from_ptr(reason.as_ptr()) }.to_string_lossy());
        }
        // A client owns the configuration that it was made from.
        std::mem::forget(config);
        // SAFETY: the client lives; errors and records shall come from the one queue of the consumer.
        let queue = unsafe {
            native::rd_kafka_poll_set_consumer(client);
            native::rd_kafka_queue_get_consumer(client)
        };
        Ok(Self { client, queue, taken: vec![std::ptr::null_mut(); BATCH] })
    }

    /// Takes at most `most` records and shows each value to `see`. Waits up to `limit` for all of them, so ask for
    /// no more than will come. Answers how many there were.
    pub fn take(&mut self, most: usize, limit: Duration, mut see: impl FnMut(&[u8])) -> Result<usize> {
        let (first, size) = (self.taken.as_mut_ptr(), most.min(BATCH));
        let wait_ms = i32::try_from(limit.as_millis())?;
        // SAFETY: the queue lives and `first` has room for `size` pointers.
        let count = unsafe { native::rd_kafka_consume_batch_queue(self.queue, wait_ms, first, size) };
        ensure!(count >= 0, "cannot take records from librdkafka's queue");
        let mut records = 0;
        let mut failed = None;
        for &message in &self.taken[..count.unsigned_abs()] {
            // SAFETY: librdkafka has put `count` messages into the buffer, ours until they are given back below.
            let (err, value) = unsafe { ((*message).err, value(&*message)) };
            if err == NO_ERROR {
                records += 1;
                see(value);
            } else if is_final(err) {
                failed = Some(err);
            }
            // SAFETY: each message is given back once, and `value` is not used any more.
            unsafe { native::rd_kafka_message_destroy(message) };
        }
        match failed {
            Some(err) => bail!("consume: {err:?}"),
            None => Ok(records),
        }
    }

    /// Takes one record as soon as it is there. Answers whether there was one within `limit`.
    pub fn take_one(&mut self, limit: Duration, see: impl FnMut(&[u8])) -> Result<bool> {
        Ok(self.take(1, limit, see)? == 1)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // SAFETY: both handles are given back once, the queue first, and no message is left with us.
        unsafe {
            native::rd_kafka_queue_destroy(self.queue);
            native::rd_kafka_consumer_close(self.client);
            native::rd_kafka_destroy(self.client);
        }
    }
}

/// The value of a message; empty where it has none.
///
/// # Safety
/// The message must come from librdkafka and not have been given back.
unsafe fn value(message: &native::rd_kafka_message_t) -> &[u8] {
    if message.payload.is_null() {
        return &[];
    }
    // SAFETY: librdkafka keeps `len` bytes at `payload` as long as the message is ours.
    unsafe { std::slice::from_raw_parts(message.payload.cast(), message.len) }
}

/// Errors that librdkafka does not recover from by itself.
fn is_final(err: native::rd_kafka_resp_err_t) -> bool {
    use native::rd_kafka_resp_err_t as E;
    // A new topic may not be known yet, and a connection may have to be made again.
    !matches!(
        err,
        E::RD_KAFKA_RESP_ERR__PARTITION_EOF
            | E::RD_KAFKA_RESP_ERR__TRANSPORT
            | E::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            | E::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
            | E::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN
    )
}

fn check(what: &str, err: native::rd_kafka_resp_err_t) -> Result<()> {
    ensure!(err == NO_ERROR, "{what}: {err:?}");
    Ok(())
}
