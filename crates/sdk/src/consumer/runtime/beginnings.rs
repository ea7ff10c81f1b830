//! Committing where a partition begins, for those who commit in transactions only.
//!
//! Who starts at the end of a partition begins somewhere else after each restart, until the group has a commit there. Others
//! commit where they have begun as they commit everything (`Limits::commits_beginnings`). Here that commit is a transaction of
//! its own, before any record is given out. A plain one could be late: one that the cluster takes after the first transaction
//! would lead the group back before work that counts already. Transactions of one producer have an order, and whoever takes
//! the id over ends what is open; a member that the group has given up is refused, as with its work (KIP-447).

use std::sync::Arc;

use super::Runtime;
use crate::consumer::atomic::{AtomicError, Beginnings};
use crate::consumer::handler::HandlerError;
use crate::consumer::membership::PartitionKey;
use crate::consumer::options::StartAt;

impl Runtime {
    /// Whether it is a transaction that tells the group where a partition begins.
    pub(super) fn begins_in_transactions(&self) -> bool {
        self.options.start_at == StartAt::Latest && self.workshop.handler.commits_itself()
    }

    /// Commits where these partitions begin, in which the group has committed nothing. They go on when that is done.
    pub(super) fn commit_beginnings(&mut self, keys: Vec<PartitionKey>) {
        let offsets: Vec<_> = {
            let scheduler = &self.board.lock().scheduler;
            keys.into_iter().filter_map(|key| Some((key.clone(), scheduler.begins_at(&key)?))).collect()
        };
        if offsets.is_empty() {
            return;
        }
        let keys = self.with_epochs(offsets.iter().map(|(key, _)| key.clone()).collect());
        let (assigned, board) = (keys.clone(), Arc::clone(&self.board));
        self.begin_claim(keys, move |workshop| {
            let is_ours = || {
                let scheduler = &board.lock().scheduler;
                assigned.iter().all(|(key, epoch)| scheduler.epoch_of(key) == *epoch)
            };
            let handler = workshop.handler.atomic().expect("one that commits in transactions");
            let beginnings = Beginnings { offsets: &offsets, is_ours: &is_ours };
            match handler.lock().begin(&workshop.consumer, &beginnings) {
                Ok(()) => Ok(offsets.iter().map(|(_, offset)| Some(*offset)).collect()),
                Err(AtomicError::Again(error)) => Err(error),
                Err(AtomicError::NotOurs(reason)) => Err(HandlerError::transient(reason)),
                Err(AtomicError::Fatal(reason)) => {
                    board.fail(reason.clone());
                    Err(HandlerError::transient(reason))
                }
            }
        });
    }
}
