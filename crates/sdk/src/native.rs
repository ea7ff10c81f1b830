//! The few calls into librdkafka which the `rdkafka` crate lacks or makes unsafe for bytes of strangers.
//!
//! **Invariant:** all `unsafe` of this crate is in this file and in `native/`. Headers are read here because `rdkafka`
//! panics on a header name that is not UTF-8, which any producer may send.

mod groups;
mod resets;
mod topics;

use std::ffi::{CStr, CString, c_int};
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, OwnedHeaders};
use rdkafka::producer::BaseRecord;
use rdkafka::util::IntoOpaque;

use crate::record::{Headers, ReceivedRecord, Record};
pub(crate) use groups::{KnownGroup, describe_groups};
pub(crate) use resets::Reset;
pub(crate) use topics::{Refusal, create_topics};

/// How much longer than the client is waited, which answers by itself when its time is over.
const SLACK: Duration = Duration::from_secs(1);

/// Copies a message out of librdkafka's memory.
pub(crate) fn to_received(message: &BorrowedMessage<'_>, topic: Arc<str>) -> ReceivedRecord {
    // SAFETY: the pointer is valid as long as the borrowed message.
    RawMessage { message: unsafe { &*message.ptr() } }.to_received(topic)
}

fn read_headers(message: &sys::rd_kafka_message_t) -> Headers {
    let mut native = ptr::null_mut();
    // SAFETY: the message is live; librdkafka only fills `native`.
    let error = unsafe { sys::rd_kafka_message_headers(message, &mut native) };
    let mut headers = Headers::new();
    if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || native.is_null() {
        return headers;
    }
    for index in 0.. {
        let (mut name, mut value, mut value_len) = (ptr::null(), ptr::null(), 0);
        // SAFETY: `native` belongs to the message; an index past the end is answered with an error.
        let error =
            unsafe { sys::rd_kafka_header_get_all(native, index, &mut name, &mut value, &mut value_len) };
        if error != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
            break;
        }
        // SAFETY: on success `name` is a NUL-terminated string that lives as long as the message.
        let name = unsafe { CStr::from_ptr(name) };
        // SAFETY: on success `value` is null or points to `value_len` bytes that live as long as the message.
        let value =
            (!value.is_null()).then(|| unsafe { slice::from_raw_parts(value.cast::<u8>(), value_len) });
        headers.append(name.to_bytes(), value);
    }
    headers
}

/// A record as librdkafka takes it; `opaque` comes back with its delivery.
pub(crate) fn to_native_record<D: IntoOpaque>(record: &Record, opaque: D) -> BaseRecord<'_, [u8], [u8], D> {
    let mut native = BaseRecord::with_opaque_to(&record.topic, opaque);
    native.key = record.key.as_deref();
    native.payload = record.value.as_deref();
    native.partition = record.partition;
    native.timestamp = record.timestamp_ms;
    native.headers = (!record.headers.is_empty()).then(|| to_native_headers(&record.headers));
    native
}

/// Headers in librdkafka's memory, with names of any bytes.
fn to_native_headers(headers: &Headers) -> OwnedHeaders {
    let owned = OwnedHeaders::new_with_capacity(headers.len());
    // `rdkafka` takes names as `&str` only, and gives its pointer away as this reference.
    let native = ptr::from_ref(owned.as_borrowed()).cast::<sys::rd_kafka_headers_t>().cast_mut();
    for (name, value) in headers {
        let (value_ptr, value_len) = value.map_or((ptr::null(), 0), |value| (value.as_ptr(), value.len()));
        // SAFETY: `native` is the live header list owned by `owned`, which nobody else sees yet; librdkafka
        // copies name and value.
        unsafe {
            sys::rd_kafka_header_add(
                native,
                name.as_ptr().cast(),
                name.len() as isize,
                value_ptr.cast(),
                value_len as isize,
            );
        }
    }
    owned
}

/// The metadata of each element, in the order of the list, as bytes: `rdkafka` panics on metadata that is not UTF-8, which
/// any member of the group may have committed.
pub(crate) fn read_metadata(list: &TopicPartitionList) -> Vec<Vec<u8>> {
    let count = list.count();
    if count == 0 {
        return Vec::new();
    }
    // SAFETY: the list is live, and has `count` elements.
    let elements = unsafe { slice::from_raw_parts((*list.ptr()).elems, count) };
    let bytes = |element: &sys::rd_kafka_topic_partition_t| {
        if element.metadata.is_null() {
            return Vec::new();
        }
        // SAFETY: librdkafka keeps `metadata_size` bytes there for as long as the list lives.
        unsafe { slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size) }.to_vec()
    };
    elements.iter().map(bytes).collect()
}

/// The generation (or member epoch, KIP-848) in which a consumer is a member of its group; not positive while it is none.
pub(crate) fn generation_id<C: ConsumerContext>(client: &Client<C>) -> i32 {
    // SAFETY: the client is live; the answer is destroyed below, exactly once.
    let metadata = unsafe { sys::rd_kafka_consumer_group_metadata(client.native_ptr()) };
    if metadata.is_null() {
        return -1;
    }
    // SAFETY: `metadata` is live until destroyed on the next line.
    let generation_id = unsafe { sys::rd_kafka_consumer_group_metadata_generation_id(metadata) };
    // SAFETY: it came from librdkafka, and is not used after this.
    unsafe { sys::rd_kafka_consumer_group_metadata_destroy(metadata) };
    generation_id
}

/// Where a partition begins and ends, by the last answer to a fetch: no request is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Watermarks {
    /// Its log start. `None` before the first fetch, and after one that failed.
    pub(crate) low: Option<i64>,
    /// Its high watermark. `None` before the first fetch, and after one that failed.
    pub(crate) high: Option<i64>,
}

/// The watermarks that the last fetch brought for a partition.
pub(crate) fn cached_watermarks<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> Watermarks {
    let Ok(topic) = CString::new(topic) else { return Watermarks::default() };
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client outlives the call, the topic is NUL-terminated, and both out pointers are valid.
    let error = unsafe {
        sys::rd_kafka_get_watermark_offsets(
            consumer.client().native_ptr(),
            topic.as_ptr(),
            partition,
            &mut low,
            &mut high,
        )
    };
    let is_known = error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    let known = |offset: i64| (is_known && offset >= 0).then_some(offset);
    Watermarks { low: known(low), high: known(high) }
}

fn to_millis(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
}

fn c_string(text: &str) -> KafkaResult<CString> {
    CString::new(text).map_err(|_| KafkaError::AdminOpCreation(format!("{text:?} has a zero byte in it")))
}

/// Sends a request of an administrator and waits for its answer, which the sender has come out of the queue.
fn ask_cluster<C: ClientContext>(
    client: &Client<C>,
    operation: sys::rd_kafka_admin_op_t,
    timeout: Duration,
    send: impl FnOnce(*mut sys::rd_kafka_t, *const sys::rd_kafka_AdminOptions_t, *mut sys::rd_kafka_queue_t),
) -> KafkaResult<Event> {
    let answers = EventQueue::new(client);
    // SAFETY: the client is live; the options are destroyed below, exactly once.
    let options = unsafe { sys::rd_kafka_AdminOptions_new(client.native_ptr(), operation) };
    // SAFETY: the options are live. A limit is refused where it is out of range or the operation has none; the client's own then
    // holds.
    unsafe {
        let limit = to_millis(timeout);
        sys::rd_kafka_AdminOptions_set_request_timeout(options, limit, ptr::null_mut(), 0);
        sys::rd_kafka_AdminOptions_set_operation_timeout(options, limit, ptr::null_mut(), 0);
    }
    send(client.native_ptr(), options, answers.0);
    // SAFETY: created above, destroyed only here; librdkafka has copied what it keeps of them.
    unsafe { sys::rd_kafka_AdminOptions_destroy(options) };
    let answer =
        answers.poll(timeout + SLACK).ok_or(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut))?;
    match answer.error() {
        RDKafkaErrorCode::NoError => Ok(answer),
        code => Err(KafkaError::AdminOp(code)),
    }
}

/// A queue for answers.
struct EventQueue(*mut sys::rd_kafka_queue_t);

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for EventQueue {}
// SAFETY: librdkafka's queues lock inside.
unsafe impl Sync for EventQueue {}

impl EventQueue {
    fn new<C: ClientContext>(client: &Client<C>) -> Self {
        // SAFETY: the client is live. The queue holds a reference of its own to what it needs, and is
        // destroyed exactly once, in `drop`.
        Self(unsafe { sys::rd_kafka_queue_new(client.native_ptr()) })
    }

    /// Waits for one answer; `None` if none came in time.
    fn poll(&self, timeout: Duration) -> Option<Event> {
        // SAFETY: the queue is live; the event is destroyed exactly once, in its `drop`.
        let event = unsafe { sys::rd_kafka_queue_poll(self.0, to_millis(timeout)) };
        (!event.is_null()).then_some(Event(event))
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed only here.
        unsafe { sys::rd_kafka_queue_destroy(self.0) };
    }
}

/// An answer. What it points to lives as long as it does.
struct Event(*mut sys::rd_kafka_event_t);

impl Event {
    fn error(&self) -> RDKafkaErrorCode {
        // SAFETY: the event is live.
        unsafe { sys::rd_kafka_event_error(self.0) }.into()
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: it came from a queue, and is destroyed only here.
        unsafe { sys::rd_kafka_event_destroy(self.0) };
    }
}

/// A queue of its own for the answers to offset commits.
///
/// `rdkafka` offers a commit that blocks without a limit, and one whose answer comes only by polling the
/// consumer, which also delivers records. This one can be awaited with a timeout anywhere, also inside a rebalance.
pub(crate) struct CommitQueue(EventQueue);

impl CommitQueue {
    pub(crate) fn new<C: ConsumerContext>(client: &Client<C>) -> Self {
        Self(EventQueue::new(client))
    }

    /// Sends a commit. Its answer will come out of [`CommitQueue::poll`].
    pub(crate) fn commit<C: ConsumerContext>(
        &self,
        client: &Client<C>,
        offsets: &TopicPartitionList,
    ) -> KafkaResult<()> {
        let answers = self.0.0;
        // SAFETY: client, list and queue are live; librdkafka copies the list. Without a callback the
        // answer is an event on the queue.
        let error = unsafe {
            sys::rd_kafka_commit_queue(client.native_ptr(), offsets.ptr(), answers, None, ptr::null_mut())
        };
        to_commit_result(error.into())
    }

    /// Waits for the answer to one commit; `None` if none came in time.
    pub(crate) fn poll(&self, timeout: Duration) -> Option<KafkaResult<()>> {
        Some(to_commit_result(self.0.poll(timeout)?.error()))
    }
}

fn to_commit_result(code: RDKafkaErrorCode) -> KafkaResult<()> {
    match code {
        RDKafkaErrorCode::NoError => Ok(()),
        code => Err(KafkaError::ConsumerCommit(code)),
    }
}

/// A topic that a consumer reads from its beginning where its group has committed nothing, whatever it does with its other topics. To
/// be made before the consumer subscribes to it; it must go before the consumer does.
pub(crate) struct FromItsBeginning(*mut sys::rd_kafka_topic_t);

// SAFETY: librdkafka's topics may be used from any thread.
unsafe impl Send for FromItsBeginning {}

impl FromItsBeginning {
    /// `None` if no topic has such a name.
    pub(crate) fn new<C: ConsumerContext>(client: &Client<C>, topic: &str) -> Option<Self> {
        let topic = CString::new(topic).ok()?;
        let (name, value) = (c"auto.offset.reset", c"earliest");
        // SAFETY: client and strings are live; the topic takes the settings over. What it gives is destroyed exactly once, in `drop`.
        let made = unsafe {
            let settings = sys::rd_kafka_default_topic_conf_dup(client.native_ptr());
            sys::rd_kafka_topic_conf_set(settings, name.as_ptr(), value.as_ptr(), ptr::null_mut(), 0);
            sys::rd_kafka_topic_new(client.native_ptr(), topic.as_ptr(), settings)
        };
        (!made.is_null()).then_some(Self(made))
    }
}

impl Drop for FromItsBeginning {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed only here.
        unsafe { sys::rd_kafka_topic_destroy(self.0) };
    }
}

/// Where the records of a consumer's partitions arrive by themselves, while its events stay where they were.
///
/// `rdkafka` polls one record at a time, each of which is an event, a lock and several looks at the clock: as much work as
/// fetching it. From a queue without events records are taken by hundreds. It must go before the consumer does.
///
/// Not so where the client tells of ends (`enable.partition.eof`): taken by hundreds, an end counts as a record in librdkafka
/// (up to 2.12, its issue 4844), and after a pause, which every rebalance that keeps partitions is, the one behind it is skipped.
pub(crate) struct RecordQueue {
    queue: *mut sys::rd_kafka_queue_t,
    /// The consumer's events.
    events: *mut sys::rd_kafka_queue_t,
    takes_singly: bool,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for RecordQueue {}
// SAFETY: librdkafka's queues lock inside.
unsafe impl Sync for RecordQueue {}

/// Messages that are taken from a [`RecordQueue`] at once: enough that the taking costs nothing, in an array on the stack.
const CHUNK: usize = 256;

/// A message in librdkafka's memory, to be copied.
pub(crate) struct RawMessage<'a> {
    message: &'a sys::rd_kafka_message_t,
}

impl RecordQueue {
    /// `tells_ends`: whether the client does.
    pub(crate) fn new<C: ConsumerContext>(client: &Client<C>, tells_ends: bool) -> Self {
        // SAFETY: the client is live; both handles are destroyed exactly once, in `drop`.
        let (queue, events) = unsafe {
            let queue = sys::rd_kafka_queue_new(client.native_ptr());
            (queue, sys::rd_kafka_queue_get_consumer(client.native_ptr()))
        };
        assert!(!events.is_null(), "a consumer has a queue");
        // SAFETY: both are live. Callbacks run under the lock of `events`, and none does any more once `drop` has taken this one
        // away, before it destroys `queue`.
        unsafe { sys::rd_kafka_queue_cb_event_enable(events, Some(wake), queue.cast()) };
        Self { queue, events, takes_singly: tells_ends }
    }

    /// Has the records of a partition arrive here. It must not be fetched yet.
    pub(crate) fn take<C: ConsumerContext>(&self, client: &Client<C>, topic: &str, partition: i32) {
        let Ok(topic) = CString::new(topic) else { return };
        // SAFETY: the client is live and the topic NUL-terminated; the handle is destroyed below, exactly once.
        let from =
            unsafe { sys::rd_kafka_queue_get_partition(client.native_ptr(), topic.as_ptr(), partition) };
        if from.is_null() {
            return;
        }
        // SAFETY: both queues are live; librdkafka counts who refers to them.
        unsafe { sys::rd_kafka_queue_forward(from, self.queue) };
        // SAFETY: the handle came from librdkafka, and is not used after this.
        unsafe { sys::rd_kafka_queue_destroy(from) };
    }

    /// Whether the consumer has events to serve: a rebalance, say.
    pub(crate) fn has_events(&self) -> bool {
        // SAFETY: the queue is live.
        unsafe { sys::rd_kafka_queue_length(self.events) > 0 }
    }

    /// Takes up to `max` messages: those that are there, or the first ones to come within `wait`. An event ends the wait.
    /// Answers how many it took.
    pub(crate) fn poll(&self, wait: Duration, max: usize, mut each: impl FnMut(&RawMessage<'_>)) -> usize {
        let mut chunk = [ptr::null_mut(); CHUNK];
        let mut count = 0;
        while count < max {
            let room = CHUNK.min(max - count);
            let mut taken = self.consume(Duration::ZERO, &mut chunk[..room]);
            // An event that came before this look has woken the look, and would not end a wait as well.
            if taken == 0 && count == 0 && !wait.is_zero() && !self.has_events() {
                taken = self.consume(wait, &mut chunk[..1]);
            }
            if taken == 0 {
                break;
            }
            for message in &chunk[..taken] {
                // SAFETY: librdkafka gave a live message, which nobody else knows; it is destroyed on the next line.
                each(&RawMessage { message: unsafe { &**message } });
                // SAFETY: as above; it is not used after this.
                unsafe { sys::rd_kafka_message_destroy(*message) };
            }
            count += taken;
        }
        count
    }

    fn consume(&self, wait: Duration, messages: &mut [*mut sys::rd_kafka_message_t]) -> usize {
        if self.takes_singly {
            return self.consume_singly(wait, messages);
        }
        // SAFETY: the queue is live, and librdkafka fills in at most as many pointers as there is room for.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(
                self.queue,
                to_millis(wait),
                messages.as_mut_ptr(),
                messages.len(),
            )
        };
        usize::try_from(count).unwrap_or(0)
    }

    fn consume_singly(&self, wait: Duration, messages: &mut [*mut sys::rd_kafka_message_t]) -> usize {
        for (count, message) in messages.iter_mut().enumerate() {
            let wait = if count == 0 { wait } else { Duration::ZERO };
            // SAFETY: the queue is live; what it gives belongs to the caller.
            *message = unsafe { sys::rd_kafka_consume_queue(self.queue, to_millis(wait)) };
            if message.is_null() {
                return count;
            }
        }
        messages.len()
    }
}

impl Drop for RecordQueue {
    fn drop(&mut self) {
        // SAFETY: both came from `new`, and are destroyed only here; the callback that knows one of them goes first.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.events, None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.events);
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// An event came: whoever waits for records serves it.
unsafe extern "C" fn wake(_: *mut sys::rd_kafka_t, queue: *mut std::ffi::c_void) {
    // SAFETY: `RecordQueue` gave its live queue, and takes this callback away before it destroys it.
    unsafe { sys::rd_kafka_queue_yield(queue.cast()) };
}

impl RawMessage<'_> {
    /// Whether it says that its partition was read to the end, instead of a record.
    pub(crate) fn is_end(&self) -> bool {
        RDKafkaErrorCode::from(self.message.err) == RDKafkaErrorCode::PartitionEOF
    }

    pub(crate) fn partition(&self) -> i32 {
        self.message.partition
    }

    /// Its offset; that of the next record where it says that its partition was read to the end.
    pub(crate) fn offset(&self) -> i64 {
        self.message.offset
    }

    /// What went wrong instead, in a message that carries no record.
    pub(crate) fn error(&self) -> Option<KafkaError> {
        match RDKafkaErrorCode::from(self.message.err) {
            RDKafkaErrorCode::NoError => None,
            code => Some(KafkaError::MessageConsumption(code)),
        }
    }

    /// The same for all messages of a topic, for as long as the consumer lives.
    pub(crate) fn topic_handle(&self) -> usize {
        self.message.rkt as usize
    }

    pub(crate) fn topic(&self) -> String {
        // SAFETY: the topic of a live message has a NUL-terminated name.
        unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.message.rkt)) }.to_string_lossy().into_owned()
    }

    pub(crate) fn to_received(&self, topic: Arc<str>) -> ReceivedRecord {
        let message = self.message;
        let bytes = |start: *mut std::ffi::c_void, len: usize| {
            // SAFETY: null, or `len` bytes that live as long as the message.
            (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start.cast::<u8>(), len) }.to_vec())
        };
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is live, and `kind` is valid to write to.
        let timestamp_ms = unsafe { sys::rd_kafka_message_timestamp(message, &mut kind) };
        let has_timestamp = kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        ReceivedRecord {
            topic,
            partition: message.partition,
            offset: message.offset,
            timestamp_ms: (has_timestamp && timestamp_ms != -1).then_some(timestamp_ms),
            key: bytes(message.key, message.key_len),
            value: bytes(message.payload, message.len),
            headers: read_headers(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::Offset;

    use super::*;
    use crate::testing::Broker;
    use crate::{Producer, ProducerOptions};

    const LIMIT: Duration = Duration::from_secs(20);

    /// A group that had read everything and was rebalanced never saw the next record: a consumer's position was one too far.
    #[test]
    fn a_partition_goes_on_at_its_end_after_a_pause() {
        let broker = Broker::start().unwrap();
        broker.create_topic("orders", 1).unwrap();
        let producer = Producer::new(&broker.cluster(), ProducerOptions::default()).unwrap();
        let mut config = broker.cluster().consumer_config("billing").unwrap();
        let consumer: BaseConsumer = config.set("enable.partition.eof", "true").create().unwrap();
        let records = RecordQueue::new(consumer.client(), true);
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset("orders", 0, Offset::Beginning).unwrap();
        records.take(consumer.client(), "orders", 0);
        consumer.assign(&partitions).unwrap();
        let take = |awaited: &dyn Fn(&RawMessage<'_>) -> bool| {
            let (until, mut is_there) = (Instant::now() + LIMIT, false);
            while !is_there {
                assert!(Instant::now() < until, "it has not come");
                records
                    .poll(Duration::from_millis(100), 10, |message| is_there = is_there || awaited(message));
            }
        };
        for next_offset in 0..2 {
            take(&|message| message.is_end() && message.offset() == next_offset);
            consumer.pause(&partitions).unwrap();
            consumer.resume(&partitions).unwrap();
            let sent = producer.send_batch_blocking(&[Record::new("orders").value("placed")], LIMIT);
            assert!(sent[0].is_ok(), "{sent:?}");
            take(&|message| message.error().is_none() && message.offset() == next_offset);
        }
    }
}
