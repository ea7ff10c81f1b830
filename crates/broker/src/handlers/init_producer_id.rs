//! InitProducerId, versions 0 to 5: a producer id for an idempotent or transactional producer (KIP-98).
//!
//! Without a transactional id, a new id each time. With one, its producer gets a new epoch, which fences those before it,
//! and a transaction that is still going on is aborted first (CONCURRENT_TRANSACTIONS: try again). Version 3 may name the
//! id and epoch held so far, to go on after an error (KIP-360); 4 knows PRODUCER_FENCED (KIP-588), which older versions are
//! told as INVALID_PRODUCER_EPOCH; 5 knows TRANSACTION_ABORTABLE.

use tidings_coordinator as coordinator;
use tidings_coordinator::InitProducerIdResponse as Given;
use tidings_model::ErrorCode;
use tidings_wire::messages::init_producer_id_request::InitProducerIdRequest;
use tidings_wire::messages::init_producer_id_response::InitProducerIdResponse;

use crate::handlers::Cx;

/// The first version that knows PRODUCER_FENCED.
const PRODUCER_FENCED: i16 = 4;

pub(crate) async fn handle(cx: &Cx<'_>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let given = give(cx, request).await.unwrap_or_else(Given::error);
    let error = match given.error {
        ErrorCode::ProducerFenced if cx.version < PRODUCER_FENCED => ErrorCode::InvalidProducerEpoch,
        error => error,
    };
    InitProducerIdResponse {
        error_code: error.code(),
        producer_id: given.producer_id,
        producer_epoch: given.producer_epoch,
        ..InitProducerIdResponse::default()
    }
}

async fn give(cx: &Cx<'_>, request: InitProducerIdRequest) -> Result<Given, ErrorCode> {
    let expected = match (request.producer_id, request.producer_epoch) {
        (-1, -1) => None,
        // One of the two alone makes no sense.
        (-1, _) | (_, -1) => return Err(ErrorCode::InvalidRequest),
        (producer_id, producer_epoch) => Some((producer_id, producer_epoch)),
    };
    let Some(transactional_id) = request.transactional_id else {
        let producer_id = fresh_producer_id(cx).await?;
        return Ok(Given { error: ErrorCode::None, producer_id, producer_epoch: 0 });
    };
    if transactional_id.is_empty() {
        return Err(ErrorCode::InvalidRequest);
    }
    cx.shared.transactions_ready().await?;
    let timeout_ms = request.transaction_timeout_ms;
    let mut request = coordinator::InitProducerIdRequest {
        transactional_id: transactional_id.clone(),
        timeout_ms,
        expected,
        fresh_producer_id: None,
    };
    loop {
        let answer =
            cx.shared.transactions.call(&transactional_id, |txns, now| txns.init_producer_id(now, &request));
        match answer.await? {
            Some(given) => return Ok(given),
            None => request.fresh_producer_id = Some(fresh_producer_id(cx).await?),
        }
    }
}

/// A producer id that nobody had before.
pub(crate) async fn fresh_producer_id(cx: &Cx<'_>) -> Result<i64, ErrorCode> {
    cx.shared.producer_ids.next().await.map_err(|error| {
        tracing::error!(%error, "cannot store a block of producer ids");
        ErrorCode::CoordinatorNotAvailable
    })
}
