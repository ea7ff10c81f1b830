//! The deadlines of a shard: sessions, joins and syncs that must not wait forever.
//!
//! Invariants: one deadline per key, a later schedule replaces the earlier one, and a new deadline lies in the
//! future, so that working off what is due always ends. Does not know what a deadline means.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a deadline of a group is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// The member (or pending member) has not been heard of for its session timeout.
    Session(Arc<str>),
    /// The rebalance ends with those who joined.
    Join,
    /// Members that have not sent SyncGroup are removed.
    Sync,
    /// The member of a consumer group has not given up its partitions within its rebalance timeout.
    Revoke(Arc<str>),
    /// The classic member of a consumer group was told to join again and has not.
    Rejoin(Arc<str>),
    /// The classic member of a consumer group has joined and has not sent SyncGroup.
    MemberSync(Arc<str>),
}

type Key = (Arc<str>, Timer);

/// All deadlines, by key and by time.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    deadlines: BTreeMap<Key, i64>,
    queue: BTreeSet<(i64, Key)>,
}

impl Timers {
    /// Sets the only deadline of this key, at least one millisecond from now.
    pub(crate) fn schedule(&mut self, group: &Arc<str>, timer: Timer, now_ms: i64, delay_ms: i64) {
        let key = (group.clone(), timer);
        let deadline = now_ms.saturating_add(delay_ms.max(1));
        if let Some(old) = self.deadlines.insert(key.clone(), deadline) {
            self.queue.remove(&(old, key.clone()));
        }
        self.queue.insert((deadline, key));
    }

    /// Forgets the deadline of this key, if there is one.
    pub(crate) fn cancel(&mut self, group: &Arc<str>, timer: Timer) {
        let key = (group.clone(), timer);
        if let Some(old) = self.deadlines.remove(&key) {
            self.queue.remove(&(old, key));
        }
    }

    /// Forgets every deadline of a group that is gone.
    pub(crate) fn cancel_group(&mut self, group: &Arc<str>) {
        // `Timer::Session` with the empty name is the least key that a group can have.
        let from = (group.clone(), Timer::Session(Arc::from("")));
        let keys: Vec<Key> = self
            .deadlines
            .range(from..)
            .map(|(key, _)| key.clone())
            .take_while(|key| key.0 == *group)
            .collect();
        for key in keys {
            self.cancel(&key.0, key.1);
        }
    }

    /// The earliest deadline.
    pub(crate) fn next_ms(&self) -> Option<i64> {
        self.queue.first().map(|(deadline, _)| *deadline)
    }

    /// The earliest deadline, if it is not after `now_ms`.
    pub(crate) fn first_due(&self, now_ms: i64) -> Option<Key> {
        let (deadline, key) = self.queue.first()?;
        (*deadline <= now_ms).then(|| key.clone())
    }

    /// Sets the only deadline of this key, unless it has one.
    pub(crate) fn schedule_if_absent(&mut self, group: &Arc<str>, timer: Timer, now_ms: i64, delay_ms: i64) {
        if !self.deadlines.contains_key(&(group.clone(), timer.clone())) {
            self.schedule(group, timer, now_ms, delay_ms);
        }
    }

    /// Whether this key has a deadline.
    #[cfg(test)]
    pub(crate) fn is_scheduled(&self, group: &Arc<str>, timer: Timer) -> bool {
        self.deadlines.contains_key(&(group.clone(), timer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_schedule_replaces_the_earlier_one_and_due_timers_come_in_order() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut timers = Timers::default();
        timers.schedule(&a, Timer::Join, 0, 10);
        timers.schedule(&a, Timer::Join, 0, 30);
        timers.schedule(&b, Timer::Sync, 0, 20);
        timers.schedule(&b, Timer::Session("m".into()), 0, 0);
        assert_eq!(timers.next_ms(), Some(1));
        let mut pop_due = |now_ms| {
            let due = timers.first_due(now_ms)?;
            timers.cancel(&due.0, due.1.clone());
            Some(due)
        };
        assert_eq!(pop_due(0), None);
        assert_eq!(pop_due(20), Some((b.clone(), Timer::Session("m".into()))));
        assert_eq!(pop_due(20), Some((b, Timer::Sync)));
        assert_eq!(pop_due(20), None);
        timers.cancel(&a, Timer::Join);
        assert_eq!(timers.next_ms(), None);
    }

    #[test]
    fn a_group_that_is_gone_leaves_no_deadline() {
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let mut timers = Timers::default();
        for timer in [Timer::Join, Timer::Sync, Timer::Session("m".into())] {
            timers.schedule(&a, timer.clone(), 0, 10);
            timers.schedule(&b, timer, 0, 20);
        }
        timers.cancel_group(&a);
        assert_eq!(timers.next_ms(), Some(20));
        assert!(timers.is_scheduled(&b, Timer::Join));
    }
}
