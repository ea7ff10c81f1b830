//! EndTxn: the producer decides how its transaction ends.
//!
//! Two generations of the protocol (KIP-890): in the older one the epoch stays, in the newer one every end raises it, so
//! that a request which comes late, or a second time, is known by its epoch.

use tidings_model::ErrorCode;

use super::{
    Answer, LAST_EPOCH, TRANSACTION_VERSION_2, Transaction, TransactionCoordinator, TransactionPartitions,
    TransactionState,
};
use crate::StorageFailure;

/// An EndTxn request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndTxnRequest {
    /// Whose transaction.
    pub transactional_id: String,
    /// The producer's id.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// Whether to commit; else abort.
    pub is_commit: bool,
    /// Whether the producer takes a new epoch from the answer (version 5 on).
    pub bumps_epoch: bool,
    /// A producer id that nobody had before, where [`Answer::NeedsProducerId`] has asked for it.
    pub fresh_producer_id: Option<i64>,
}

/// The answer to an EndTxn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTxnResponse {
    /// What went wrong, if anything; then the others are -1.
    pub error: ErrorCode,
    /// The producer's id from now on.
    pub producer_id: i64,
    /// Its epoch from now on.
    pub producer_epoch: i16,
}

impl EndTxnResponse {
    /// A failure.
    pub fn error(error: ErrorCode) -> Self {
        Self { error, producer_id: -1, producer_epoch: -1 }
    }

    fn of(transaction: &Transaction) -> Self {
        let Transaction { producer_id, producer_epoch, next_producer_id, .. } = *transaction;
        let error = ErrorCode::None;
        match next_producer_id {
            -1 => Self { error, producer_id, producer_epoch },
            next => Self { error, producer_id: next, producer_epoch: 0 },
        }
    }
}

impl StorageFailure for EndTxnResponse {
    fn fail(&mut self, error: ErrorCode) {
        if self.error == ErrorCode::None {
            *self = Self::error(error);
        }
    }
}

/// What a valid request leads to.
enum Verdict {
    /// It was done before.
    Done,
    /// The transaction is to end.
    End,
    /// There is nothing that the server knows of, but the client wants to have it aborted.
    AbortNothing,
}

impl TransactionCoordinator {
    /// Handles an EndTxn. With the answer's records in the log the outcome is decided; the markers follow.
    pub fn end_txn(&mut self, now_ms: i64, request: &EndTxnRequest) -> Answer<EndTxnResponse> {
        self.assert_replayed();
        let refuse = |error| Answer::now(EndTxnResponse::error(error));
        if request.transactional_id.is_empty() {
            return refuse(ErrorCode::InvalidRequest);
        }
        let known = self.transactions.get_key_value(request.transactional_id.as_str());
        let Some((id, current)) = known else { return refuse(ErrorCode::InvalidProducerIdMapping) };
        let verdict = if request.bumps_epoch { judge(current, request) } else { judge_v1(current, request) };
        let partitions = match verdict {
            Err(error) => return refuse(error),
            Ok(Verdict::Done) => return Answer::now(EndTxnResponse::of(current)),
            Ok(Verdict::End) => current.partitions.clone(),
            Ok(Verdict::AbortNothing) => TransactionPartitions::new(),
        };
        let rotates = request.bumps_epoch && current.is_exhausted();
        let next_producer_id = match (rotates, request.fresh_producer_id) {
            (true, None) => return Answer::NeedsProducerId,
            (true, Some(fresh)) => fresh,
            (false, _) => -1,
        };
        let (id, next) = (id.clone(), prepare(now_ms, current, request, partitions, next_producer_id));
        let response = EndTxnResponse::of(&next);
        Answer::Ready(self.write(id, &next, response))
    }
}

fn prepare(
    now_ms: i64,
    current: &Transaction,
    request: &EndTxnRequest,
    partitions: TransactionPartitions,
    next_producer_id: i64,
) -> Transaction {
    let mut next = current.clone();
    next.state =
        if request.is_commit { TransactionState::PrepareCommit } else { TransactionState::PrepareAbort };
    if current.state.is_idle() {
        next.start_ms = now_ms;
    }
    next.partitions = partitions;
    next.previous_producer_id = current.producer_id;
    next.next_producer_id = next_producer_id;
    next.last_update_ms = now_ms;
    next.client_version = 0;
    if request.bumps_epoch {
        next.client_version = TRANSACTION_VERSION_2;
        next.last_producer_epoch = current.producer_epoch;
        next.producer_epoch = current.producer_epoch.saturating_add(1);
    }
    next
}

/// The older generation: the epoch must be the current one, and an end that is repeated is known by the state.
fn judge_v1(current: &Transaction, request: &EndTxnRequest) -> Result<Verdict, ErrorCode> {
    if current.producer_id != request.producer_id {
        return Err(ErrorCode::InvalidProducerIdMapping);
    }
    if current.producer_epoch != request.producer_epoch {
        return Err(ErrorCode::ProducerFenced);
    }
    match (current.state, request.is_commit) {
        (TransactionState::Ongoing, _) => Ok(Verdict::End),
        (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) => {
            Ok(Verdict::Done)
        }
        (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {
            Err(ErrorCode::ConcurrentTransactions)
        }
        _ => Err(ErrorCode::InvalidTxnState),
    }
}

/// The newer generation: a repeated end has the epoch before the current one, a new end the current one.
fn judge(current: &Transaction, request: &EndTxnRequest) -> Result<Verdict, ErrorCode> {
    let EndTxnRequest { producer_id, producer_epoch, is_commit, .. } = *request;
    let repeats_overflow = current.previous_producer_id == producer_id
        && producer_epoch == LAST_EPOCH
        && current.producer_epoch == 0;
    let repeats_bump = i32::from(current.producer_epoch) == i32::from(producer_epoch) + 1;
    let is_repeated = repeats_overflow || repeats_bump;
    if current.producer_id != producer_id && !repeats_overflow {
        return Err(ErrorCode::InvalidProducerIdMapping);
    }
    let is_current = producer_epoch == current.producer_epoch;
    let is_valid = match current.state {
        TransactionState::Ongoing | TransactionState::Empty => is_current,
        TransactionState::PrepareCommit | TransactionState::PrepareAbort => repeats_bump,
        TransactionState::CompleteCommit | TransactionState::CompleteAbort => is_repeated || is_current,
    };
    if !is_valid {
        return Err(ErrorCode::ProducerFenced);
    }
    match (current.state, is_commit) {
        (TransactionState::Ongoing, _) => Ok(Verdict::End),
        (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false)
            if is_repeated =>
        {
            Ok(Verdict::Done)
        }
        (TransactionState::CompleteCommit | TransactionState::CompleteAbort, false) if !is_repeated => {
            Ok(Verdict::AbortNothing)
        }
        (TransactionState::Empty, false) => Ok(Verdict::AbortNothing),
        (TransactionState::PrepareCommit, true) | (TransactionState::PrepareAbort, false) => {
            Err(ErrorCode::ConcurrentTransactions)
        }
        _ => Err(ErrorCode::InvalidTxnState),
    }
}
