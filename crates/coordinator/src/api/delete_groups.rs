//! DeleteGroups: empty groups go, with everything they committed.

use std::collections::BTreeSet;

use tidings_model::ErrorCode;

use crate::classic::state::GroupState;
use crate::consumer::records as consumer_records;
use crate::coordinator::InFlight;
use crate::{Effects, GroupCoordinator, Outcome, Release, StorageFailure, records};

/// What became of one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeletedGroup {
    /// As in the request.
    pub group_id: String,
    /// What went wrong, if anything.
    pub error: ErrorCode,
}

/// The answer to a DeleteGroups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteGroupsResponse {
    /// In the order of the request.
    pub groups: Vec<DeletedGroup>,
}

impl StorageFailure for DeleteGroupsResponse {
    fn fail(&mut self, error: ErrorCode) {
        for group in &mut self.groups {
            if group.error == ErrorCode::None {
                group.error = error;
            }
        }
    }
}

impl GroupCoordinator {
    /// Handles a DeleteGroups for groups of this shard. A group named twice is deleted once.
    pub fn delete_groups(&mut self, now_ms: i64, group_ids: Vec<String>) -> Outcome<DeleteGroupsResponse> {
        let mut effects = Effects::default();
        let mut cx = self.shard.context(now_ms, &mut effects);
        let mut seen = BTreeSet::new();
        let mut groups = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            let classic = self.groups.get(group_id.as_str());
            let consumer = self.consumer_groups.get(group_id.as_str());
            let found = classic.map(|group| (&group.id, group.state()));
            let error = match found.or_else(|| consumer.map(|group| (&group.id, group.state()))) {
                None => ErrorCode::GroupIdNotFound,
                Some((_, state)) if state != GroupState::Empty => ErrorCode::NonEmptyGroup,
                Some((id, _)) => {
                    if seen.insert(id.clone()) {
                        // Also what waits for a transaction to end.
                        let known = self.offsets.partitions_of(id).chain(self.pending.partitions_of(id));
                        for (topic, partition) in known.collect::<BTreeSet<_>>() {
                            cx.write(records::offset_tombstone(id, topic, partition), InFlight::Offset);
                        }
                        match consumer {
                            Some(group) => consumer_records::all_tombstones(group)
                                .into_iter()
                                .for_each(|tombstone| cx.write(tombstone, InFlight::ConsumerGroup)),
                            None => cx.write(records::group_tombstone(id), InFlight::GroupDeleted),
                        }
                    }
                    ErrorCode::None
                }
            };
            groups.push(DeletedGroup { group_id, error });
        }
        Outcome { response: DeleteGroupsResponse { groups }, release: Release::WhenDurable, effects }
    }
}
