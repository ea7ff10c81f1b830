//! What the log says becomes the shard's state, at start and after each call.
//!
//! Invariant: offsets, and what of a group must survive, change here and nowhere else. Unknown kinds of records
//! are reported and change nothing, so that the caller can go on past them as Kafka does.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use tidings_wire::DecodeError;

use crate::classic::group::ClassicGroup;
use crate::coordinator::InFlight;
use crate::records::{GroupValue, Key, decode_group_value, decode_key, decode_offset_value};
use crate::timers::Timer;
use crate::{CoordinatorRecord, GroupCoordinator};

/// A record of `__consumer_offsets` that cannot be applied.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// A key of a kind that this version does not know; Kafka skips it with a warning.
    #[error("key of unknown record type {version}")]
    UnknownRecordType {
        /// The number the key begins with.
        version: i16,
    },
    /// A key that does not decode.
    #[error("damaged key of a group record: {source}")]
    Key {
        /// What is wrong with it.
        source: DecodeError,
    },
    /// A value that does not decode.
    #[error("damaged value of the record of {what}: {source}")]
    Value {
        /// Group, or group, topic and partition.
        what: String,
        /// What is wrong with it.
        source: DecodeError,
    },
}

impl GroupCoordinator {
    /// Applies all records of a call's effects after their append; they must be this coordinator's own.
    pub fn replay_all(&mut self, records: &[CoordinatorRecord]) {
        for record in records {
            let applied = self.replay(&record.key, record.value.as_ref());
            assert!(applied.is_ok(), "own record does not replay: {applied:?}");
        }
        self.assert_replayed();
    }

    /// The same for records that were written in a producer's transaction.
    pub fn replay_all_in_transaction(&mut self, producer_id: i64, records: &[CoordinatorRecord]) {
        for record in records {
            let applied = self.replay_in_transaction(producer_id, &record.key, record.value.as_ref());
            assert!(applied.is_ok(), "own record does not replay: {applied:?}");
        }
        self.assert_replayed();
    }

    /// Applies one record that was written in a producer's transaction: it counts once the transaction is committed.
    pub fn replay_in_transaction(
        &mut self,
        producer_id: i64,
        key: &Bytes,
        value: Option<&Bytes>,
    ) -> Result<(), ReplayError> {
        let (Key::Offset { group, topic, partition }, Some(value)) = (decode_key(key)?, value) else {
            // Nothing but commits is ever written in transactions; what stands there counts as it stands.
            return self.replay(key, value);
        };
        let group_id: Arc<str> = group.as_str().into();
        self.take_in_flight(&group_id);
        let what = || format!("{group_id} {topic}-{partition}");
        let offset =
            decode_offset_value(value).map_err(|source| ReplayError::Value { what: what(), source })?;
        self.note_group(&group_id);
        self.pending.put(producer_id, &group_id, &topic, partition, offset);
        Ok(())
    }

    /// Applies the marker that ends a producer's transaction.
    pub fn replay_end_transaction(&mut self, producer_id: i64, is_commit: bool) {
        for ended in self.pending.end(producer_id, is_commit) {
            self.offsets.put(&ended.group, &ended.topic, ended.partition, ended.offset);
        }
    }

    /// Lets a group be there that offsets are committed for.
    fn note_group(&mut self, group_id: &Arc<str>) {
        if !self.consumer_groups.contains_key(group_id) {
            let group = || ClassicGroup::new(group_id.clone(), None);
            self.groups.entry(group_id.clone()).or_insert_with(group);
        }
    }

    fn take_in_flight(&mut self, group_id: &Arc<str>) -> Option<InFlight> {
        let (expected, change) = self.shard.in_flight.pop_front()?;
        assert_eq!(expected, *group_id, "replayed a record of another group than the one handed out");
        if self.shard.in_flight.is_empty() {
            for (group_id, timer) in std::mem::take(&mut self.shard.cancels_in_flight) {
                self.shard.timers.cancel(&group_id, timer);
            }
        }
        Some(change)
    }

    /// Applies one record of the log, in the order of the log.
    pub fn replay(&mut self, key: &Bytes, value: Option<&Bytes>) -> Result<(), ReplayError> {
        let key = decode_key(key)?;
        let group_id: Arc<str> = match &key {
            Key::Offset { group, .. } | Key::Group { group } | Key::Consumer { group, .. } => {
                group.as_str().into()
            }
        };
        let change = self.take_in_flight(&group_id);
        match (key, value) {
            (Key::Offset { topic, partition, .. }, Some(value)) => {
                let offset = decode_offset_value(value).map_err(|source| ReplayError::Value {
                    what: format!("{group_id} {topic}-{partition}"),
                    source,
                })?;
                // Commits of a group that nobody joins make a "simple" group, known by its offsets alone.
                self.note_group(&group_id);
                self.pending.supersede(&group_id, &topic, partition);
                self.offsets.put(&group_id, &topic, partition, offset);
            }
            (Key::Offset { topic, partition, .. }, None) => {
                self.pending.remove(&group_id, &topic, partition);
                self.offsets.remove(&group_id, &topic, partition);
            }
            (Key::Group { .. }, Some(value)) => {
                let value = decode_group_value(value)
                    .map_err(|source| ReplayError::Value { what: group_id.to_string(), source })?;
                self.replay_group(group_id, value, change);
            }
            (Key::Group { .. }, None) => {
                self.groups.remove(&group_id);
                // The members of a group that changed its protocol go on, and so do their sessions.
                if !matches!(change, Some(InFlight::GroupUpgraded)) {
                    self.shard.timers.cancel_group(&group_id);
                }
            }
            (Key::Consumer { subject, .. }, value) => self
                .replay_consumer(&group_id, subject, value)
                .map_err(|source| ReplayError::Value { what: group_id.to_string(), source })?,
        }
        Ok(())
    }

    fn replay_group(&mut self, group_id: Arc<str>, value: GroupValue, change: Option<InFlight>) {
        let Some(change) = change else {
            // Loading: the group is what the record says.
            self.consumer_groups.remove(&group_id);
            self.groups.insert(group_id.clone(), value.into_group(group_id));
            return;
        };
        if let InFlight::GroupDowngraded { group } = change {
            self.groups.insert(group_id, *group);
            return;
        }
        let now_ms = self.shard.now_ms;
        let Some(group) = self.groups.get_mut(&group_id) else {
            unreachable!("group {group_id} vanished between its record and the replay");
        };
        match change {
            InFlight::GroupAssigned => group.adopt_assignment(value.into_assignments(), now_ms),
            InFlight::StaticMemberReplaced { group: replaced, old_id, .. } => {
                *group = *replaced;
                self.shard.timers.cancel(&group_id, Timer::Session(old_id));
            }
            // Memory is there already; the log has caught up.
            InFlight::GroupCreated | InFlight::GroupEmptied => {}
            InFlight::Offset
            | InFlight::GroupDeleted
            | InFlight::ConsumerGroup
            | InFlight::GroupUpgraded
            | InFlight::GroupDowngraded { .. } => {
                unreachable!("group {group_id}: the replayed record is not the one handed out")
            }
        }
        group.check();
    }
}
