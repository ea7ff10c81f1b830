//! Record batches of scenarios: made for requests, described as JSON in answers.
//!
//! Owns nothing but the two directions. A batch in an answer is shown by its header and records, so that a difference has
//! a field; what is no batch is shown as bytes.

use bytes::Bytes;
use serde_json::{Value, json};
use tidings_log::batch::{BatchBuilder, Batches};

use crate::codec::hex;

/// The time of a scenario's first record: long ago, yet within what brokers take.
pub const FIRST_TIMESTAMP_MS: i64 = 1_700_000_000_000;

/// A batch of these values, a second apart, as a request's field.
pub fn batch(values: &[&str]) -> Value {
    value(&plain(values).build())
}

/// A batch of an idempotent producer.
pub fn idempotent(producer_id: i64, producer_epoch: i16, base_sequence: i32, values: &[&str]) -> Value {
    value(&plain(values).producer(producer_id, producer_epoch, base_sequence).build())
}

/// A batch that belongs to a transaction.
pub fn transactional(producer_id: i64, producer_epoch: i16, base_sequence: i32, values: &[&str]) -> Value {
    value(&plain(values).producer(producer_id, producer_epoch, base_sequence).transactional().build())
}

/// A builder that holds these values.
pub fn plain(values: &[&str]) -> BatchBuilder {
    plain_at(FIRST_TIMESTAMP_MS, values)
}

/// The same, from this time on.
pub fn plain_at(timestamp_ms: i64, values: &[&str]) -> BatchBuilder {
    let mut builder = BatchBuilder::new();
    for (at, text) in (0..).zip(values) {
        builder.push(timestamp_ms + 1000 * at, None, Some(text.as_bytes()), &[]);
    }
    builder
}

/// Bytes as a request's field.
pub fn value(bytes: &[u8]) -> Value {
    format!("hex:{}", hex(bytes)).into()
}

/// The batches in an answer.
pub fn describe(bytes: &[u8]) -> Value {
    let batches: Option<Vec<Value>> = Batches::new(Bytes::copy_from_slice(bytes))
        .map(|batch| {
            let batch = batch.ok()?;
            let header = &batch.header;
            let records: Vec<Value> = batch
                .records()?
                .map(|record| {
                    let record = record.ok()?;
                    let text = |bytes: Option<Bytes>| {
                        bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                    };
                    Some(json!({
                        "offset": record.offset,
                        "timestamp": record.timestamp_ms,
                        "key": text(record.key),
                        "value": text(record.value),
                    }))
                })
                .collect::<Option<_>>()?;
            Some(json!({
                "baseOffset": header.base_offset,
                "lastOffsetDelta": header.last_offset_delta,
                "partitionLeaderEpoch": header.leader_epoch,
                "attributes": header.attributes,
                "baseTimestamp": header.base_timestamp,
                "maxTimestamp": header.max_timestamp,
                "producerId": header.producer_id,
                "producerEpoch": header.producer_epoch,
                "baseSequence": header.base_sequence,
                "records": records,
            }))
        })
        .collect();
    batches.map_or_else(|| value(bytes), Value::Array)
}
