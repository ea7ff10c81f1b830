//! DescribeTransactions, version 0: where the transactions of these ids stand (KIP-664).

use tidings_model::ErrorCode;
use tidings_wire::messages::describe_transactions_request::DescribeTransactionsRequest;
use tidings_wire::messages::describe_transactions_response::{
    DescribeTransactionsResponse, TopicData, TransactionState,
};

use crate::handlers::Cx;
use crate::mentions::first_of_each;

pub(crate) async fn handle(
    cx: &Cx<'_>,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let ids = first_of_each(request.transactional_ids, String::clone);
    let transaction_states = ids.into_iter().map(|id| describe(cx, id)).collect();
    DescribeTransactionsResponse { transaction_states, ..DescribeTransactionsResponse::default() }
}

fn describe(cx: &Cx<'_>, transactional_id: String) -> TransactionState {
    let found = cx.shared.transactions.look(&transactional_id, |txns| txns.describe(&transactional_id));
    let found = match found {
        Some(found) => found,
        // Without a first transactional id there is not even a topic.
        None if transactional_id.is_empty() => Err(ErrorCode::InvalidRequest),
        None => Err(ErrorCode::TransactionalIdNotFound),
    };
    match found {
        Ok(found) => TransactionState {
            transactional_id,
            transaction_state: found.state.name().to_owned(),
            transaction_timeout_ms: found.timeout_ms,
            transaction_start_time_ms: found.start_ms,
            producer_id: found.producer_id,
            producer_epoch: found.producer_epoch,
            topics: found
                .partitions
                .into_iter()
                .map(|(topic, partitions)| TopicData {
                    topic: topic.to_string(),
                    partitions: partitions.into_iter().collect(),
                    ..TopicData::default()
                })
                .collect(),
            ..TransactionState::default()
        },
        Err(error) => {
            TransactionState { transactional_id, error_code: error.code(), ..TransactionState::default() }
        }
    }
}
