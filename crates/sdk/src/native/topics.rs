//! The creation of topics, with the cluster's reason where it refuses one: `rdkafka` passes on the code alone, and what is
//! wrong stands only in the words beside it.

use std::ffi::{CStr, c_char};
use std::slice;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};

use super::{Event, ask_cluster, c_string};
use crate::admin::TopicSpec;

/// As long as librdkafka's reasons are.
const REASON_BYTES: usize = 512;

/// Why a topic was not created.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) code: RDKafkaErrorCode,
    /// The cluster's own words, or librdkafka's about the code where it has none.
    pub(crate) reason: String,
}

/// Creates topics with one request; each answer has the name of its topic.
pub(crate) fn create_topics<C: ClientContext>(
    client: &Client<C>,
    specs: &[&TopicSpec],
    timeout: Duration,
) -> KafkaResult<Vec<(String, Result<(), Refusal>)>> {
    let topics: Vec<NewTopic> = specs.iter().map(|spec| NewTopic::of(spec)).collect::<KafkaResult<_>>()?;
    let mut pointers: Vec<_> = topics.iter().map(|topic| topic.0).collect();
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS;
    let answer = ask_cluster(client, operation, timeout, |client, options, queue| {
        // SAFETY: all are live; librdkafka copies the topics and what it keeps of the options.
        unsafe {
            sys::rd_kafka_CreateTopics(client, pointers.as_mut_ptr(), pointers.len(), options, queue);
        }
    })?;
    Ok(answer.created_topics())
}

/// A topic as librdkafka takes it.
struct NewTopic(*mut sys::rd_kafka_NewTopic_t);

impl NewTopic {
    fn of(spec: &TopicSpec) -> KafkaResult<Self> {
        let name = c_string(&spec.name)?;
        let mut reason: [c_char; REASON_BYTES] = [0; REASON_BYTES];
        // SAFETY: the name is NUL-terminated, and `reason` as long as it is said to be. What is made is destroyed exactly once,
        // in `drop`.
        let made = unsafe {
            let (partitions, replication) = (spec.partitions, spec.replication);
            sys::rd_kafka_NewTopic_new(
                name.as_ptr(),
                partitions,
                replication,
                reason.as_mut_ptr(),
                REASON_BYTES,
            )
        };
        if made.is_null() {
            // SAFETY: librdkafka ends what it writes there with a NUL, and there was one before.
            let reason = unsafe { CStr::from_ptr(reason.as_ptr()) };
            return Err(KafkaError::AdminOpCreation(reason.to_string_lossy().into_owned()));
        }
        let topic = Self(made);
        for (key, value) in &spec.config {
            let (key, value) = (c_string(key)?, c_string(value)?);
            // SAFETY: the topic is live and both are NUL-terminated; librdkafka copies them.
            let code = unsafe { sys::rd_kafka_NewTopic_set_config(topic.0, key.as_ptr(), value.as_ptr()) };
            let code = RDKafkaErrorCode::from(code);
            if code != RDKafkaErrorCode::NoError {
                return Err(KafkaError::AdminOpCreation(format!("setting {key:?}: {code}")));
            }
        }
        Ok(topic)
    }
}

impl Drop for NewTopic {
    fn drop(&mut self) {
        // SAFETY: it came from librdkafka, and is destroyed only here.
        unsafe { sys::rd_kafka_NewTopic_destroy(self.0) };
    }
}

impl Event {
    /// Of a creation of topics: what became of each.
    fn created_topics(&self) -> Vec<(String, Result<(), Refusal>)> {
        // SAFETY: the event is live; an event of another kind gives null.
        let created = unsafe { sys::rd_kafka_event_CreateTopics_result(self.0) };
        if created.is_null() {
            return Vec::new();
        }
        let mut count = 0;
        // SAFETY: the result is live, and `count` valid to write to.
        let results = unsafe { sys::rd_kafka_CreateTopics_result_topics(created, &mut count) };
        if results.is_null() {
            return Vec::new();
        }
        // SAFETY: there are `count` results, as live as the event.
        let results = unsafe { slice::from_raw_parts(results, count) };
        let answer = |result: &*const sys::rd_kafka_topic_result_t| {
            // SAFETY: the result is live, and has a NUL-terminated name.
            let name = unsafe { CStr::from_ptr(sys::rd_kafka_topic_result_name(*result)) };
            // SAFETY: the result is live; its words are null or NUL-terminated, and live as long.
            let (code, words) = unsafe {
                let code = RDKafkaErrorCode::from(sys::rd_kafka_topic_result_error(*result));
                let words = sys::rd_kafka_topic_result_error_string(*result);
                (code, (!words.is_null()).then(|| CStr::from_ptr(words)))
            };
            let reason =
                || words.map_or_else(|| code.to_string(), |words| words.to_string_lossy().into_owned());
            let created = match code {
                RDKafkaErrorCode::NoError => Ok(()),
                code => Err(Refusal { code, reason: reason() }),
            };
            (name.to_string_lossy().into_owned(), created)
        };
        results.iter().map(answer).collect()
    }
}
