//! DescribeTransactions and ListTransactions (KIP-664): what operators ask.

use regex::bytes::Regex;
use tidings_model::ErrorCode;

use crate::consumer::subscription;

use super::{Transaction, TransactionCoordinator, TransactionPartitions, TransactionState};

/// One transactional id in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedTransaction {
    /// Where its transaction stands.
    pub state: TransactionState,
    /// How long it may take.
    pub timeout_ms: i32,
    /// When it began; -1 without.
    pub start_ms: i64,
    /// The producer.
    pub producer_id: i64,
    /// The producer's epoch.
    pub producer_epoch: i16,
    /// What it writes to.
    pub partitions: TransactionPartitions,
}

/// An expression that a transactional id matches as a whole, in the syntax of consumer groups' subscriptions.
#[derive(Debug, Clone)]
pub struct TransactionalIdPattern(Regex);

impl TransactionalIdPattern {
    /// Reads an expression; INVALID_REGULAR_EXPRESSION where it is none.
    pub fn parse(text: &str) -> Result<Self, ErrorCode> {
        subscription::compile(text).map(Self).map_err(|error| error.code())
    }
}

/// Which transactions to list.
#[derive(Debug, Clone, Default)]
pub struct ListTransactionsFilter {
    /// These states; all where empty.
    pub states: Vec<TransactionState>,
    /// These producers; all where empty.
    pub producer_ids: Vec<i64>,
    /// Begun longer ago than this; negative for all. As in Kafka, those that are over count as well, and ids without one.
    pub longer_than_ms: i64,
    /// Ids of this form; all without.
    pub id_pattern: Option<TransactionalIdPattern>,
}

/// One transactional id in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedTransaction {
    /// The id.
    pub transactional_id: String,
    /// The producer.
    pub producer_id: i64,
    /// Where its transaction stands.
    pub state: TransactionState,
}

impl TransactionCoordinator {
    /// Describes one transactional id.
    pub fn describe(&self, transactional_id: &str) -> Result<DescribedTransaction, ErrorCode> {
        if transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        let found = self.transactions.get(transactional_id).ok_or(ErrorCode::TransactionalIdNotFound)?;
        Ok(DescribedTransaction {
            state: found.state,
            timeout_ms: found.timeout_ms,
            start_ms: found.start_ms,
            producer_id: found.producer_id,
            producer_epoch: found.producer_epoch,
            partitions: found.partitions.clone(),
        })
    }

    /// Lists transactional ids by name.
    pub fn list(&self, now_ms: i64, filter: &ListTransactionsFilter) -> Vec<ListedTransaction> {
        let is_wanted = |transaction: &Transaction| {
            (filter.states.is_empty() || filter.states.contains(&transaction.state))
                && (filter.producer_ids.is_empty() || filter.producer_ids.contains(&transaction.producer_id))
                && (filter.longer_than_ms < 0
                    || now_ms.saturating_sub(transaction.start_ms) > filter.longer_than_ms)
        };
        let has_wanted_id =
            |id: &str| filter.id_pattern.as_ref().is_none_or(|pattern| pattern.0.is_match(id.as_bytes()));
        let wanted =
            self.transactions.iter().filter(|(id, transaction)| is_wanted(transaction) && has_wanted_id(id));
        wanted
            .map(|(id, transaction)| ListedTransaction {
                transactional_id: id.to_string(),
                producer_id: transaction.producer_id,
                state: transaction.state,
            })
            .collect()
    }
}
