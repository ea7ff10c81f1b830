//! InitProducerId, versions 0 to 5: a producer id for an idempotent producer (KIP-98).
//!
//! Versions 3 on may name the id held so far (KIP-360); without a transactional id a new one is given all the same, as
//! Kafka does. Transactional ids are refused: transactions are not served, see `docs/compat.md`.

use tidings_model::ErrorCode;
use tidings_wire::messages::init_producer_id_request::InitProducerIdRequest;
use tidings_wire::messages::init_producer_id_response::InitProducerIdResponse;

use crate::handlers::Cx;

pub(crate) async fn handle(cx: &Cx<'_>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    match give(cx, &request).await {
        Ok(producer_id) => {
            InitProducerIdResponse { producer_id, producer_epoch: 0, ..InitProducerIdResponse::default() }
        }
        Err(error) => InitProducerIdResponse {
            error_code: error.code(),
            producer_id: -1,
            producer_epoch: -1,
            ..InitProducerIdResponse::default()
        },
    }
}

async fn give(cx: &Cx<'_>, request: &InitProducerIdRequest) -> Result<i64, ErrorCode> {
    // One of the two alone makes no sense.
    if (request.producer_id == -1) != (request.producer_epoch == -1) {
        return Err(ErrorCode::InvalidRequest);
    }
    match request.transactional_id.as_deref() {
        None => {}
        Some("") => return Err(ErrorCode::InvalidRequest),
        Some(_) => return Err(ErrorCode::TransactionalIdAuthorizationFailed),
    }
    cx.shared.producer_ids.next().await.map_err(|error| {
        tracing::error!(%error, "cannot store a block of producer ids");
        ErrorCode::CoordinatorNotAvailable
    })
}
