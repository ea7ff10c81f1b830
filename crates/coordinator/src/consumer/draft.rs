//! What a call wants of the log and of the timers, before it is certain that it may.
//!
//! Owns the order of records. Invariants: nothing of a draft happens unless it is handed in whole; a deadline is cancelled
//! only when the records are replayed, so that a write that fails leaves nobody without one.

use std::sync::Arc;

use crate::CoordinatorRecord;
use crate::coordinator::{Context, InFlight};
use crate::timers::Timer;

/// Records and timers of one group.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    records: Vec<(Arc<str>, CoordinatorRecord, InFlight)>,
    timers: Vec<(Timer, Option<i64>)>,
}

impl Draft {
    /// Adds a record of the consumer group, which says all by itself.
    pub(crate) fn push(&mut self, (group_id, record): (Arc<str>, CoordinatorRecord)) {
        self.records.push((group_id, record, InFlight::ConsumerGroup));
    }

    /// Adds a record whose replay does what `change` says.
    pub(crate) fn push_with(&mut self, (group_id, record): (Arc<str>, CoordinatorRecord), change: InFlight) {
        self.records.push((group_id, record, change));
    }

    pub(crate) fn schedule(&mut self, timer: Timer, delay_ms: i64) {
        self.timers.push((timer, Some(delay_ms)));
    }

    pub(crate) fn cancel(&mut self, timer: Timer) {
        self.timers.push((timer, None));
    }

    /// Hands everything in.
    pub(crate) fn commit(self, group_id: &Arc<str>, cx: &mut Context<'_>) {
        for (record_group_id, record, change) in self.records {
            cx.write((record_group_id, record), change);
        }
        for (timer, delay_ms) in self.timers {
            match delay_ms {
                Some(delay_ms) => cx.schedule(group_id, timer, delay_ms),
                None => cx.cancel_by_replay(group_id, timer),
            }
        }
    }
}
