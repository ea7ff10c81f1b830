//! EndTxn, versions 0 to 5: a producer commits or aborts its transaction (KIP-98).
//!
//! Answers when the outcome is durable and, unless a disk refuses a marker, every partition has its marker: what was
//! committed can be read then. Version 2 knows PRODUCER_FENCED (KIP-588), 4 TRANSACTION_ABORTABLE; 5 gives the producer the
//! epoch of its next transaction (KIP-890).

use tidings_coordinator as coordinator;
use tidings_coordinator::EndTxnResponse as Ended;
use tidings_model::ErrorCode;
use tidings_wire::messages::end_txn_request::EndTxnRequest;
use tidings_wire::messages::end_txn_response::EndTxnResponse;

use crate::handlers::Cx;
use crate::handlers::init_producer_id::fresh_producer_id;

/// The first version that knows PRODUCER_FENCED.
const PRODUCER_FENCED: i16 = 2;

/// The first version that gives the next epoch.
const BUMPS_EPOCH: i16 = 5;

pub(crate) async fn handle(cx: &Cx<'_>, request: EndTxnRequest) -> EndTxnResponse {
    let ended = end(cx, request).await.unwrap_or_else(Ended::error);
    let error = match ended.error {
        ErrorCode::ProducerFenced if cx.version < PRODUCER_FENCED => ErrorCode::InvalidProducerEpoch,
        error => error,
    };
    // Older versions have no room for them.
    let (producer_id, producer_epoch) =
        if cx.version >= BUMPS_EPOCH { (ended.producer_id, ended.producer_epoch) } else { (-1, -1) };
    EndTxnResponse { error_code: error.code(), producer_id, producer_epoch, ..EndTxnResponse::default() }
}

async fn end(cx: &Cx<'_>, request: EndTxnRequest) -> Result<Ended, ErrorCode> {
    cx.shared.transactions_ready().await?;
    let transactional_id = request.transactional_id.clone();
    let mut request = coordinator::EndTxnRequest {
        transactional_id: request.transactional_id,
        producer_id: request.producer_id,
        producer_epoch: request.producer_epoch,
        is_commit: request.committed,
        bumps_epoch: cx.version >= BUMPS_EPOCH,
        fresh_producer_id: None,
    };
    loop {
        let answer = cx.shared.transactions.call(&transactional_id, |txns, now| txns.end_txn(now, &request));
        match answer.await? {
            Some(ended) => return Ok(ended),
            None => request.fresh_producer_id = Some(fresh_producer_id(cx).await?),
        }
    }
}
