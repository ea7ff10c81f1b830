//! The records of `__transaction_state` in Kafka's form, and back.
//!
//! Owns which version is written: 1, which Kafka writes with `transaction.version` 2. Does not know what a record
//! changes.

use std::sync::Arc;

use bytes::Bytes;
use tidings_wire::messages::transaction_log_key::TransactionLogKey;
use tidings_wire::messages::transaction_log_value::{PartitionsSchema, TransactionLogValue};
use tidings_wire::{
    DecodeError, EncodeError, decode_coordinator_key, decode_versioned, encode_coordinator_key,
    encode_versioned,
};

use super::{Transaction, TransactionReplayError, TransactionState};
use crate::CoordinatorRecord;

const VALUE_VERSION: i16 = 1;

pub(super) fn decode_key(key: &Bytes) -> Result<String, DecodeError> {
    decode_coordinator_key::<TransactionLogKey>(key.clone()).map(|key| key.transactional_id)
}

pub(super) fn decode_value(id: &str, value: &Bytes) -> Result<Transaction, TransactionReplayError> {
    let transactional_id = || id.to_owned();
    let value: TransactionLogValue = decode_versioned(value.clone())
        .map_err(|source| TransactionReplayError::Value { transactional_id: transactional_id(), source })?;
    let number = value.transaction_status;
    let state = TransactionState::from_number(number).ok_or_else(|| TransactionReplayError::State {
        transactional_id: transactional_id(),
        state: number,
    })?;
    let partitions = value.transaction_partitions.unwrap_or_default();
    Ok(Transaction {
        producer_id: value.producer_id,
        previous_producer_id: value.previous_producer_id,
        next_producer_id: value.next_producer_id,
        producer_epoch: value.producer_epoch,
        last_producer_epoch: -1,
        timeout_ms: value.transaction_timeout_ms,
        state,
        partitions: partitions
            .into_iter()
            .map(|topic| (topic.topic.into(), topic.partition_ids.into_iter().collect()))
            .collect(),
        start_ms: value.transaction_start_timestamp_ms,
        last_update_ms: value.transaction_last_update_timestamp_ms,
        client_version: value.client_transaction_version,
    })
}

pub(super) fn transaction(id: &Arc<str>, transaction: &Transaction) -> CoordinatorRecord {
    let topic = |(topic, partitions): (&Arc<str>, &std::collections::BTreeSet<i32>)| PartitionsSchema {
        topic: topic.to_string(),
        partition_ids: partitions.iter().copied().collect(),
        ..PartitionsSchema::default()
    };
    let has_transaction = transaction.state != TransactionState::Empty;
    let value = TransactionLogValue {
        producer_id: transaction.producer_id,
        previous_producer_id: transaction.previous_producer_id,
        next_producer_id: transaction.next_producer_id,
        producer_epoch: transaction.producer_epoch,
        transaction_timeout_ms: transaction.timeout_ms,
        transaction_status: transaction.state as i8,
        transaction_partitions: has_transaction.then(|| transaction.partitions.iter().map(topic).collect()),
        transaction_last_update_timestamp_ms: transaction.last_update_ms,
        transaction_start_timestamp_ms: transaction.start_ms,
        client_transaction_version: transaction.client_version,
        ..TransactionLogValue::default()
    };
    record(id, Some(bounded(encode_versioned(&value, VALUE_VERSION))))
}

pub(super) fn tombstone(id: &Arc<str>) -> CoordinatorRecord {
    record(id, None)
}

fn record(id: &Arc<str>, value: Option<Bytes>) -> CoordinatorRecord {
    let key = TransactionLogKey { transactional_id: id.to_string() };
    CoordinatorRecord { key: bounded(encode_coordinator_key(&key)), value }
}

/// Every string in a record came out of a request, which the protocol bounds.
fn bounded(encoded: Result<Bytes, EncodeError>) -> Bytes {
    match encoded {
        Ok(bytes) => bytes,
        Err(error) => panic!("a record's field exceeds what requests can carry: {error}"),
    }
}
