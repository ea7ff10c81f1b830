//! Transactions that take too long, and transactional ids that nobody uses any more.
//!
//! Invariant: an id with a transaction that is going on or half done never expires.

use std::sync::Arc;

use super::{TransactionCoordinator, TransactionState, records};
use crate::Effects;

/// A round ends with so many records, and goes on a moment later: one batch must not grow with what a long absence has
/// left behind.
const MAX_ROUND_RECORDS: usize = 1_000;

impl TransactionCoordinator {
    /// When [`Self::on_deadline`] has something to do; may change with every call.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        [self.next_abort_ms, self.next_expiry_ms].into_iter().flatten().min()
    }

    /// Aborts transactions that have taken longer than their timeout, and forgets ids that have expired. Those that are
    /// aborted are among [`Self::completions`] afterwards.
    pub fn on_deadline(&mut self, now_ms: i64) -> Effects {
        self.assert_replayed();
        let mut effects = Effects::default();
        if self.next_abort_ms.is_some_and(|due_ms| due_ms <= now_ms) {
            self.schedule_abort(now_ms);
            for id in self.due(|transaction| {
                transaction.state == TransactionState::Ongoing
                    && transaction.start_ms.saturating_add(i64::from(transaction.timeout_ms)) < now_ms
            }) {
                if effects.records.len() >= MAX_ROUND_RECORDS {
                    self.next_abort_ms = Some(now_ms.saturating_add(1));
                    break;
                }
                let current = self.transactions[&id].clone();
                let fenced = self.fence(now_ms, id, &current, ());
                effects.records.extend(fenced.effects.records);
            }
        }
        if self.next_expiry_ms.is_some_and(|due_ms| due_ms <= now_ms) {
            self.schedule_expiry(now_ms);
            let expiration_ms = self.settings.id_expiration_ms;
            for id in self.due(|transaction| {
                transaction.state.is_idle()
                    && transaction.last_update_ms.saturating_add(expiration_ms) <= now_ms
            }) {
                if effects.records.len() >= MAX_ROUND_RECORDS {
                    self.next_expiry_ms = Some(now_ms.saturating_add(1));
                    break;
                }
                effects.records.push(records::tombstone(&id));
                self.in_flight.push_back((id, -1));
            }
        }
        effects
    }

    fn due(&self, is_due: impl Fn(&super::Transaction) -> bool) -> Vec<Arc<str>> {
        let due = self.transactions.iter().filter(|(_, transaction)| is_due(transaction));
        due.map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn schedule_abort(&mut self, now_ms: i64) {
        self.next_abort_ms = Some(now_ms.saturating_add(self.settings.abort_interval_ms.max(1)));
    }

    pub(super) fn schedule_expiry(&mut self, now_ms: i64) {
        self.next_expiry_ms = Some(now_ms.saturating_add(self.settings.expiry_interval_ms.max(1)));
    }
}
