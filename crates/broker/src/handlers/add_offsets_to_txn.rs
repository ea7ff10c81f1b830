//! AddOffsetsToTxn, versions 0 to 4: a producer is going to commit a group's offsets in its transaction (KIP-98).
//!
//! What is added is the group's partition of `__consumer_offsets`. Version 2 knows PRODUCER_FENCED (KIP-588), 4
//! TRANSACTION_ABORTABLE.

use tidings_coordinator::{AddPartitionsRequest, Answer};
use tidings_model::ErrorCode;
use tidings_wire::messages::add_offsets_to_txn_request::AddOffsetsToTxnRequest;
use tidings_wire::messages::add_offsets_to_txn_response::AddOffsetsToTxnResponse;

use crate::handlers::Cx;
use crate::topics::names::OFFSETS_TOPIC;
use crate::transactions::one_partition;

/// The first version that knows PRODUCER_FENCED.
const PRODUCER_FENCED: i16 = 2;

pub(crate) async fn handle(cx: &Cx<'_>, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let error = match add(cx, request).await.err().unwrap_or_default() {
        ErrorCode::ProducerFenced if cx.version < PRODUCER_FENCED => ErrorCode::InvalidProducerEpoch,
        error => error,
    };
    AddOffsetsToTxnResponse { error_code: error.code(), ..AddOffsetsToTxnResponse::default() }
}

async fn add(cx: &Cx<'_>, request: AddOffsetsToTxnRequest) -> Result<(), ErrorCode> {
    cx.shared.groups_ready().await?;
    cx.shared.transactions_ready().await?;
    let partition =
        cx.shared.groups.partition_of(&request.group_id).ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let request = AddPartitionsRequest {
        transactional_id: request.transactional_id,
        producer_id: request.producer_id,
        producer_epoch: request.producer_epoch,
        partitions: one_partition(&OFFSETS_TOPIC.into(), partition),
        client_version: 0,
    };
    let added = cx
        .shared
        .transactions
        .call(&request.transactional_id, |txns, now| Answer::Ready(txns.add_partitions(now, &request)));
    match added.await?.unwrap_or(ErrorCode::UnknownServerError) {
        ErrorCode::None => Ok(()),
        error => Err(error),
    }
}
