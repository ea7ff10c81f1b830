//! ListTransactions, versions 0 to 2: which transactional ids there are (KIP-664).
//!
//! Filters by state and producer id, from version 1 on by how long the transaction has been going on (KIP-994), from 2 on by
//! an expression that the transactional id matches as a whole (KIP-1152).

use tidings_coordinator::{ListTransactionsFilter, TransactionState as State, TransactionalIdPattern};
use tidings_wire::messages::list_transactions_request::ListTransactionsRequest;
use tidings_wire::messages::list_transactions_response::{ListTransactionsResponse, TransactionState};

use crate::handlers::Cx;

/// States that Kafka knows and that no transaction here is ever seen in.
const NEVER_SEEN: [&str; 2] = ["Dead", "PrepareEpochFence"];

pub(crate) async fn handle(cx: &Cx<'_>, request: ListTransactionsRequest) -> ListTransactionsResponse {
    let (mut states, mut unknown_state_filters) = (Vec::new(), Vec::new());
    for name in &request.state_filters {
        match State::from_name(name) {
            Some(state) => states.push(state),
            None if NEVER_SEEN.contains(&name.as_str()) => {}
            None => unknown_state_filters.push(name.clone()),
        }
    }
    let pattern = request.transactional_id_pattern.filter(|pattern| !pattern.is_empty());
    let id_pattern = match pattern.map(|pattern| TransactionalIdPattern::parse(&pattern)).transpose() {
        Ok(id_pattern) => id_pattern,
        Err(error) => {
            return ListTransactionsResponse {
                error_code: error.code(),
                ..ListTransactionsResponse::default()
            };
        }
    };
    let answer = |transaction_states| ListTransactionsResponse {
        unknown_state_filters,
        transaction_states,
        ..ListTransactionsResponse::default()
    };
    if states.is_empty() && !request.state_filters.is_empty() {
        // Nothing is in a state that is not known.
        return answer(Vec::new());
    }
    let filter = ListTransactionsFilter {
        states,
        producer_ids: request.producer_id_filters,
        longer_than_ms: request.duration_filter,
        id_pattern,
    };
    let listed = cx.shared.transactions.look_all(|txns, now_ms| txns.list(now_ms, &filter));
    answer(
        listed
            .into_iter()
            .flatten()
            .map(|listed| TransactionState {
                transactional_id: listed.transactional_id,
                producer_id: listed.producer_id,
                transaction_state: listed.state.name().to_owned(),
                ..TransactionState::default()
            })
            .collect(),
    )
}
