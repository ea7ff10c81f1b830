//! InitProducerId with a transactional id: a producer gets its id and an epoch that fences those before it.

use std::sync::Arc;

use tidings_model::ErrorCode;

use super::{
    Answer, LAST_EPOCH, TRANSACTION_VERSION_2, Transaction, TransactionCoordinator, TransactionState,
};
use crate::{Outcome, StorageFailure};

/// An InitProducerId request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitProducerIdRequest {
    /// Whose producer.
    pub transactional_id: String,
    /// How long a transaction may take.
    pub timeout_ms: i32,
    /// The id and epoch that the producer has, where it wants to go on after an error (KIP-360).
    pub expected: Option<(i64, i16)>,
    /// A producer id that nobody had before, where [`Answer::NeedsProducerId`] has asked for it.
    pub fresh_producer_id: Option<i64>,
}

/// The answer to an InitProducerId.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitProducerIdResponse {
    /// What went wrong, if anything; then the others are -1.
    pub error: ErrorCode,
    /// The producer's id.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
}

impl InitProducerIdResponse {
    /// A failure.
    pub fn error(error: ErrorCode) -> Self {
        Self { error, producer_id: -1, producer_epoch: -1 }
    }
}

impl StorageFailure for InitProducerIdResponse {
    fn fail(&mut self, error: ErrorCode) {
        if self.error == ErrorCode::None {
            *self = Self::error(error);
        }
    }
}

impl TransactionCoordinator {
    /// Handles an InitProducerId. A transaction that is going on is aborted first, and the producer is told to come back
    /// (`CONCURRENT_TRANSACTIONS`).
    pub fn init_producer_id(
        &mut self,
        now_ms: i64,
        request: &InitProducerIdRequest,
    ) -> Answer<InitProducerIdResponse> {
        self.assert_replayed();
        let refuse = |error| Answer::now(InitProducerIdResponse::error(error));
        if request.transactional_id.is_empty() {
            return refuse(ErrorCode::InvalidRequest);
        }
        if !(1..=self.settings.max_timeout_ms).contains(&request.timeout_ms) {
            return refuse(ErrorCode::InvalidTransactionTimeout);
        }
        let known = self.transactions.get_key_value(request.transactional_id.as_str());
        let (id, current) = match (known, request.fresh_producer_id) {
            (Some((id, known)), _) => (id.clone(), known.clone()),
            (None, None) => return Answer::NeedsProducerId,
            (None, Some(fresh)) => {
                (Arc::from(request.transactional_id.as_str()), Transaction::unknown(fresh, now_ms))
            }
        };
        if !request.expected.is_none_or(|expected| is_of(&current, expected)) {
            return refuse(ErrorCode::ProducerFenced);
        }
        if current.state.is_prepared() {
            return refuse(ErrorCode::ConcurrentTransactions);
        }
        if current.state == TransactionState::Ongoing {
            // It is its heir's transaction that a producer of an earlier epoch would abort: Kafka lets it.
            let own = (current.producer_id, current.producer_epoch);
            if request.expected.is_some_and(|expected| expected != own) {
                return refuse(ErrorCode::ProducerFenced);
            }
            let response = InitProducerIdResponse::error(ErrorCode::ConcurrentTransactions);
            return Answer::Ready(self.fence(now_ms, id, &current, response));
        }
        let expected_epoch = request.expected.map(|(_, epoch)| epoch);
        let rotates =
            current.is_exhausted() && expected_epoch.is_none_or(|epoch| epoch == current.producer_epoch);
        let given = match (rotates, request.fresh_producer_id) {
            (true, None) => return Answer::NeedsProducerId,
            (true, Some(fresh)) => {
                Ok((fresh, 0, if expected_epoch.is_some() { current.producer_epoch } else { -1 }))
            }
            (false, _) => next_epoch(&current, expected_epoch)
                .map(|(epoch, last_epoch)| (current.producer_id, epoch, last_epoch)),
        };
        match given {
            Ok(given) => Answer::Ready(self.give(now_ms, id, request, current.producer_id, given)),
            Err(error) => refuse(error),
        }
    }

    fn give(
        &mut self,
        now_ms: i64,
        id: Arc<str>,
        request: &InitProducerIdRequest,
        previous_producer_id: i64,
        (producer_id, producer_epoch, last_producer_epoch): (i64, i16, i16),
    ) -> Outcome<InitProducerIdResponse> {
        let next = Transaction {
            previous_producer_id,
            producer_epoch,
            last_producer_epoch,
            timeout_ms: request.timeout_ms,
            ..Transaction::unknown(producer_id, now_ms)
        };
        let response = InitProducerIdResponse { error: ErrorCode::None, producer_id, producer_epoch };
        self.write(id, &next, response)
    }

    /// Aborts the transaction that is going on, with an epoch that its producer does not have.
    pub(super) fn fence<R>(
        &mut self,
        now_ms: i64,
        id: Arc<str>,
        current: &Transaction,
        response: R,
    ) -> Outcome<R> {
        // As in Kafka: one epoch, by which the producer knows that its own abort has been done already. The last one that exists
        // is for this.
        let next = Transaction {
            state: TransactionState::PrepareAbort,
            previous_producer_id: current.producer_id,
            producer_epoch: current.producer_epoch.saturating_add(1),
            last_producer_epoch: -1,
            last_update_ms: now_ms,
            client_version: TRANSACTION_VERSION_2,
            ..current.clone()
        };
        self.write(id, &next, response)
    }
}

/// Whether a producer with this id and epoch may go on as the transactional id's producer.
fn is_of(current: &Transaction, (producer_id, producer_epoch): (i64, i16)) -> bool {
    current.producer_epoch == -1
        || producer_id == current.producer_id
        || (producer_id == current.previous_producer_id && producer_epoch >= LAST_EPOCH)
}

/// The epoch to give, and the one before it by which a retry is known.
fn next_epoch(current: &Transaction, expected: Option<i16>) -> Result<(i16, i16), ErrorCode> {
    let bumped = current.producer_epoch.saturating_add(1);
    match expected {
        None => Ok((bumped, -1)),
        Some(_) if current.producer_epoch == -1 => Ok((bumped, -1)),
        Some(epoch) if epoch == current.producer_epoch => Ok((bumped, epoch)),
        // The answer to an earlier call got lost.
        Some(epoch) if epoch == current.last_producer_epoch => Ok((current.producer_epoch, epoch)),
        Some(_) => Err(ErrorCode::ProducerFenced),
    }
}
