//! The transaction coordinator as a pure state machine: no I/O, no clock, one shard per partition of
//! `__transaction_state` (KIP-98, KIP-360, KIP-588, KIP-890).
//!
//! Owns which transaction of which transactional id is in which state. Invariants: state changes only in
//! [`TransactionCoordinator::replay`]; a transaction whose outcome is in the log (`PrepareCommit`, `PrepareAbort`) keeps
//! it, whatever happens, until its markers are written; an epoch that was given out is never given out again. Does not
//! write markers: [`TransactionCoordinator::completion`] says which, and the caller reports with
//! [`TransactionCoordinator::complete`]. Does not give out producer ids: calls that need one say so.
//!
//! Driven like [`crate::GroupCoordinator`]: append the records of an [`Outcome`], then [`TransactionCoordinator::replay_all`]
//! before any other call; when the append failed, [`TransactionCoordinator::on_append_failed`].

mod add_partitions;
mod complete;
mod describe;
mod end_txn;
mod expiry;
mod init_producer_id;
mod records;
mod state;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tidings_model::ErrorCode;
use tidings_wire::DecodeError;

use crate::{CoordinatorRecord, Effects, Outcome, Release, StorageFailure};

pub use add_partitions::AddPartitionsRequest;
pub use complete::Completion;
pub use describe::{DescribedTransaction, ListTransactionsFilter, ListedTransaction, TransactionalIdPattern};
pub use end_txn::{EndTxnRequest, EndTxnResponse};
pub use init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
pub use state::{Transaction, TransactionPartitions, TransactionState};

use records::{decode_key, decode_value};

/// `transaction.version` 2: every transaction has an epoch of its own, and partitions are added by what is written to
/// them (KIP-890).
pub const TRANSACTION_VERSION_2: i16 = 2;

/// The last epoch that clients get; behind it comes a new producer id. One more is kept for fencing.
const LAST_EPOCH: i16 = i16::MAX - 1;

/// What the operator can set about transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionSettings {
    /// `transaction.max.timeout.ms`: the longest timeout a producer may ask for.
    pub max_timeout_ms: i32,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`: how often timed-out transactions are looked for.
    pub abort_interval_ms: i64,
    /// `transactional.id.expiration.ms`: how long a transactional id without a transaction is remembered.
    pub id_expiration_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`: how often expired ids are looked for.
    pub expiry_interval_ms: i64,
}

impl Default for TransactionSettings {
    fn default() -> Self {
        Self {
            max_timeout_ms: 900_000,
            abort_interval_ms: 10_000,
            id_expiration_ms: 7 * 24 * 3_600_000,
            expiry_interval_ms: 3_600_000,
        }
    }
}

/// An answer, or the wish for a fresh producer id with which to call again.
#[derive(Debug)]
#[must_use = "its effects must be carried out"]
pub enum Answer<R> {
    /// The answer.
    Ready(Outcome<R>),
    /// Call again with a producer id that nobody had before.
    NeedsProducerId,
}

impl<R> Answer<R> {
    fn now(response: R) -> Self {
        Self::Ready(Outcome::now(response))
    }
}

impl StorageFailure for ErrorCode {
    fn fail(&mut self, error: ErrorCode) {
        if *self == ErrorCode::None {
            *self = error;
        }
    }
}

/// A record of `__transaction_state` that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum TransactionReplayError {
    /// A key that does not decode.
    #[error("damaged key of a transaction record: {0}")]
    Key(#[source] DecodeError),
    /// A value that does not decode.
    #[error("damaged value of the record of transactional id {transactional_id}: {source}")]
    Value {
        /// The transactional id.
        transactional_id: String,
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A state that this version does not know.
    #[error("transactional id {transactional_id} has the unknown state {state}")]
    State {
        /// The transactional id.
        transactional_id: String,
        /// Its number.
        state: i8,
    },
}

/// The transactional ids of one partition of `__transaction_state`.
#[derive(Debug)]
pub struct TransactionCoordinator {
    settings: TransactionSettings,
    transactions: BTreeMap<Arc<str>, Transaction>,
    /// The epoch before the one that a record handed out carries: the log does not keep it, and a producer's retry is
    /// known by it (KIP-360).
    in_flight: VecDeque<(Arc<str>, i16)>,
    next_abort_ms: Option<i64>,
    next_expiry_ms: Option<i64>,
}

impl TransactionCoordinator {
    /// A shard without transactional ids.
    pub fn new(settings: TransactionSettings) -> Self {
        let (transactions, in_flight) = (BTreeMap::new(), VecDeque::new());
        Self { settings, transactions, in_flight, next_abort_ms: None, next_expiry_ms: None }
    }

    /// The log has been replayed: deadlines count from now.
    pub fn on_loaded(&mut self, now_ms: i64) {
        self.schedule_abort(now_ms);
        self.schedule_expiry(now_ms);
    }

    /// Applies all records of a call's effects after their append; they must be this coordinator's own.
    pub fn replay_all(&mut self, records: &[CoordinatorRecord]) {
        for record in records {
            let applied = self.replay(&record.key, record.value.as_ref());
            assert!(applied.is_ok(), "own record does not replay: {applied:?}");
        }
        self.assert_replayed();
    }

    /// Applies one record of the log, in the order of the log.
    pub fn replay(&mut self, key: &Bytes, value: Option<&Bytes>) -> Result<(), TransactionReplayError> {
        let id: Arc<str> = decode_key(key).map_err(TransactionReplayError::Key)?.into();
        let last_epoch = self.in_flight.pop_front().map(|(expected, epoch)| {
            assert_eq!(expected, id, "replayed a record of another id than the one handed out");
            epoch
        });
        match value {
            None => drop(self.transactions.remove(&id)),
            Some(value) => {
                let mut transaction = decode_value(&id, value)?;
                transaction.last_producer_epoch = last_epoch.unwrap_or(-1);
                self.transactions.insert(id, transaction);
            }
        }
        Ok(())
    }

    /// The append of a call's records failed: nothing of them is in the log, and nothing has changed.
    pub fn on_append_failed(&mut self) {
        self.in_flight.clear();
    }

    /// The transaction of a transactional id.
    pub fn get(&self, transactional_id: &str) -> Option<&Transaction> {
        self.transactions.get(transactional_id)
    }

    /// How many transactional ids are known.
    pub fn len(&self) -> usize {
        self.transactions.len()
    }

    /// Whether no transactional id is known.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// The transaction that a request is about, if it comes from its producer.
    fn owned(
        &self,
        transactional_id: &str,
        producer_id: i64,
    ) -> Result<(&Arc<str>, &Transaction), ErrorCode> {
        if transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        let known = self.transactions.get_key_value(transactional_id);
        let (id, transaction) = known.ok_or(ErrorCode::InvalidProducerIdMapping)?;
        if transaction.producer_id != producer_id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        Ok((id, transaction))
    }

    /// Hands out the record that makes `next` the state of the id.
    fn write<R>(&mut self, id: Arc<str>, next: &Transaction, response: R) -> Outcome<R> {
        let mut effects = Effects::default();
        self.push(&mut effects, id, next);
        Outcome { response, release: Release::WhenDurable, effects }
    }

    fn push(&mut self, effects: &mut Effects, id: Arc<str>, next: &Transaction) {
        if let Some(current) = self.transactions.get(&id) {
            assert!(
                next.state.may_follow(current.state),
                "{id} cannot go from {} to {}",
                current.state,
                next.state
            );
        }
        effects.records.push(records::transaction(&id, next));
        self.in_flight.push_back((id, next.last_producer_epoch));
    }

    fn assert_replayed(&self) {
        assert!(
            self.in_flight.is_empty(),
            "records of an earlier call were neither replayed nor reported as failed"
        );
    }
}
