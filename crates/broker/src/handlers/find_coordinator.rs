//! FindCoordinator, versions 0 to 6: who coordinates a group or a transactional id: always this node.
//!
//! The first request creates `__consumer_offsets` or `__transaction_state`. Version 1 brought the key type, 4 many keys at
//! once (KIP-699), 6 share groups, which are not served: their keys get an error that clients do not retry.

use tidings_model::ErrorCode;
use tidings_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use tidings_wire::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};

use crate::handlers::Cx;

/// The first version that takes many keys.
const BATCHED: i16 = 4;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(crate) async fn handle(cx: &Cx<'_>, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let (error, message) = match request.key_type {
        GROUP => (cx.shared.groups_ready().await.err(), None),
        TRANSACTION => (cx.shared.transactions_ready().await.err(), None),
        _ => (Some(ErrorCode::InvalidRequest), Some(format!("key type {} is not served", request.key_type))),
    };
    let error_code = error.unwrap_or_default().code();
    let (node_id, (host, port)) = match error {
        None => (cx.shared.node_id, cx.shared.advertised(cx.client)),
        Some(_) => (-1, (String::new(), -1)),
    };
    if cx.version < BATCHED {
        return FindCoordinatorResponse {
            error_code,
            // Kafka has a text here even where all is well.
            error_message: Some(message.unwrap_or_else(|| error.unwrap_or_default().name().to_owned())),
            node_id,
            host,
            port,
            ..FindCoordinatorResponse::default()
        };
    }
    let coordinator = |key| Coordinator {
        key,
        node_id,
        host: host.clone(),
        port,
        error_code,
        error_message: Some(String::new()),
        ..Coordinator::default()
    };
    FindCoordinatorResponse {
        coordinators: request.coordinator_keys.into_iter().map(coordinator).collect(),
        ..FindCoordinatorResponse::default()
    }
}
