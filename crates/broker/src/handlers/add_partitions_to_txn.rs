//! AddPartitionsToTxn, versions 0 to 5: a producer is going to write to these partitions in its transaction (KIP-98).
//!
//! All partitions of a transaction are added or none: where one does not exist, the others answer OPERATION_NOT_ATTEMPTED.
//! Version 2 knows PRODUCER_FENCED (KIP-588). From 4 on a request is about many transactions, and may only ask whether the
//! partitions are in (KIP-890); brokers of a cluster send those to each other. 5 knows TRANSACTION_ABORTABLE.

use std::collections::BTreeSet;

use tidings_coordinator::{AddPartitionsRequest, Answer, TRANSACTION_VERSION_2, TransactionPartitions};
use tidings_model::ErrorCode;
use tidings_wire::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use tidings_wire::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResponse, AddPartitionsToTxnResult,
    AddPartitionsToTxnTopicResult,
};

use crate::handlers::Cx;

/// The first version that knows PRODUCER_FENCED.
const PRODUCER_FENCED: i16 = 2;

/// The first version about many transactions.
const BATCHED: i16 = 4;

pub(crate) async fn handle(cx: &Cx<'_>, request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
    if cx.version < BATCHED {
        let transaction = AddPartitionsToTxnTransaction {
            transactional_id: request.v3_and_below_transactional_id,
            producer_id: request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
            topics: request.v3_and_below_topics,
            ..AddPartitionsToTxnTransaction::default()
        };
        let results_by_topic_v3_and_below = one(cx, transaction).await;
        return AddPartitionsToTxnResponse {
            results_by_topic_v3_and_below,
            ..AddPartitionsToTxnResponse::default()
        };
    }
    let mut results_by_transaction = Vec::with_capacity(request.transactions.len());
    for transaction in request.transactions {
        results_by_transaction.push(AddPartitionsToTxnResult {
            transactional_id: transaction.transactional_id.clone(),
            topic_results: one(cx, transaction).await,
            ..AddPartitionsToTxnResult::default()
        });
    }
    AddPartitionsToTxnResponse { results_by_transaction, ..AddPartitionsToTxnResponse::default() }
}

/// Adds or verifies the partitions of one transaction.
async fn one(cx: &Cx<'_>, transaction: AddPartitionsToTxnTransaction) -> Vec<AddPartitionsToTxnTopicResult> {
    let unknown = unknown(cx, &transaction.topics);
    if !unknown.is_empty() {
        return results(&transaction.topics, |topic, partition| {
            match unknown.contains(&(topic.to_owned(), partition)) {
                true => ErrorCode::UnknownTopicOrPartition,
                false => ErrorCode::OperationNotAttempted,
            }
        });
    }
    let mut partitions = TransactionPartitions::new();
    for topic in &transaction.topics {
        partitions.entry(topic.name.as_str().into()).or_default().extend(&topic.partitions);
    }
    let request = AddPartitionsRequest {
        transactional_id: transaction.transactional_id,
        producer_id: transaction.producer_id,
        producer_epoch: transaction.producer_epoch,
        partitions,
        client_version: if cx.version < BATCHED { 0 } else { TRANSACTION_VERSION_2 },
    };
    if let Err(error) = cx.shared.transactions_ready().await {
        return results(&transaction.topics, |_, _| error);
    }
    let (transactions, id) = (&cx.shared.transactions, request.transactional_id.as_str());
    if transaction.verify_only {
        return results(&transaction.topics, |topic, partition| {
            let verified = transactions.look(id, |txns| txns.verify_partition(&request, topic, partition));
            let verdict = verified.unwrap_or(Err(ErrorCode::CoordinatorNotAvailable));
            in_version(cx.version, verdict.err().unwrap_or_default())
        });
    }
    let added = transactions.call(id, |txns, now| Answer::Ready(txns.add_partitions(now, &request))).await;
    let error = match added {
        Ok(Some(error)) | Err(error) => error,
        Ok(None) => ErrorCode::UnknownServerError,
    };
    let error = in_version(cx.version, error);
    results(&transaction.topics, |_, _| error)
}

fn in_version(version: i16, error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::ProducerFenced if version < PRODUCER_FENCED => ErrorCode::InvalidProducerEpoch,
        error => error,
    }
}

fn unknown(cx: &Cx<'_>, topics: &[AddPartitionsToTxnTopic]) -> BTreeSet<(String, i32)> {
    let mut unknown = BTreeSet::new();
    for topic in topics {
        let known = cx.shared.topics.by_name(&topic.name);
        for partition in &topic.partitions {
            if known.as_ref().and_then(|known| known.partition(*partition)).is_none() {
                unknown.insert((topic.name.clone(), *partition));
            }
        }
    }
    unknown
}

fn results(
    topics: &[AddPartitionsToTxnTopic],
    verdict: impl Fn(&str, i32) -> ErrorCode,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let partition = |topic: &str, partition_index: i32| AddPartitionsToTxnPartitionResult {
        partition_index,
        partition_error_code: verdict(topic, partition_index).code(),
        ..AddPartitionsToTxnPartitionResult::default()
    };
    let topic = |topic: &AddPartitionsToTxnTopic| AddPartitionsToTxnTopicResult {
        name: topic.name.clone(),
        results_by_partition: topic.partitions.iter().map(|index| partition(&topic.name, *index)).collect(),
        ..AddPartitionsToTxnTopicResult::default()
    };
    topics.iter().map(topic).collect()
}
