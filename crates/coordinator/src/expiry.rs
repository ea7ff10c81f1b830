//! The end of offsets that nobody needs any more, and of groups that have neither members nor offsets (KIP-211).
//!
//! Invariant: an offset of a topic that members read never expires. Does not know when to look: the shard does,
//! every `offsets.retention.check.interval.ms`.

use crate::classic::group::ClassicGroup;
use crate::classic::state::GroupState;
use crate::consumer::group::ConsumerGroup;
use crate::consumer::records as consumer_records;
use crate::coordinator::{Context, InFlight};
use crate::offsets::Offsets;
use crate::pending::PendingOffsets;
use crate::{CommittedOffset, records};

/// What `offsets.retention.minutes` counts from.
#[derive(Debug, Clone, Copy)]
enum AgeFrom {
    /// The group has had members, and none since this time.
    Emptied(i64),
    /// Each offset's commit.
    Commit,
}

/// Hands out the tombstones of what has expired of a group, and of the group itself if nothing is left of it.
pub(crate) fn expire(
    group: &ClassicGroup,
    offsets: &Offsets,
    pending: &PendingOffsets,
    cx: &mut Context<'_>,
) {
    let is_waited_for = pending.partitions_of(&group.id).next().is_some();
    let has_offsets_left = expire_offsets(group, offsets, pending, cx) || is_waited_for;
    if group.state() == GroupState::Empty && !has_offsets_left {
        cx.write(records::group_tombstone(&group.id), InFlight::GroupDeleted);
    }
}

/// The same for a group of the consumer protocol, whose offsets always age from their commit, as in Kafka.
pub(crate) fn expire_consumer_group(
    group: &ConsumerGroup,
    offsets: &Offsets,
    pending: &PendingOffsets,
    cx: &mut Context<'_>,
) {
    let mut has_offsets_left = pending.partitions_of(&group.id).next().is_some();
    for (topic, partitions) in offsets.of_group(&group.id).into_iter().flatten() {
        let is_read = group.is_subscribed_to(topic);
        for (partition, offset) in partitions {
            let is_in_use = is_read || pending.has(&group.id, topic, *partition);
            if is_in_use || !is_expired(offset, AgeFrom::Commit, cx) {
                has_offsets_left = true;
            } else {
                cx.write(records::offset_tombstone(&group.id, topic, *partition), InFlight::Offset);
            }
        }
    }
    if group.members.is_empty() && !has_offsets_left {
        for tombstone in consumer_records::all_tombstones(group) {
            cx.write(tombstone, InFlight::ConsumerGroup);
        }
    }
}

/// Gives whether offsets stay.
fn expire_offsets(
    group: &ClassicGroup,
    offsets: &Offsets,
    pending: &PendingOffsets,
    cx: &mut Context<'_>,
) -> bool {
    let Some(topics) = offsets.of_group(&group.id) else { return false };
    let Some(age_from) = age_from(group) else { return true };
    let mut has_offsets_left = false;
    for (topic, partitions) in topics {
        let is_read = group.is_subscribed_to(topic);
        for (partition, offset) in partitions {
            // A transaction that is going on is about to replace it.
            let is_in_use = is_read || pending.has(&group.id, topic, *partition);
            if is_in_use || !is_expired(offset, age_from, cx) {
                has_offsets_left = true;
            } else {
                cx.write(records::offset_tombstone(&group.id, topic, *partition), InFlight::Offset);
            }
        }
    }
    has_offsets_left
}

fn is_expired(offset: &CommittedOffset, age_from: AgeFrom, cx: &Context<'_>) -> bool {
    let from_ms = match age_from {
        AgeFrom::Emptied(emptied_ms) => emptied_ms,
        AgeFrom::Commit => offset.commit_timestamp_ms,
    };
    let retained_until_ms = from_ms.saturating_add(cx.settings().offsets_retention_ms);
    cx.now_ms >= offset.expire_timestamp_ms.unwrap_or(retained_until_ms)
}

/// Nothing while members read who knows what, or while they rebalance.
fn age_from(group: &ClassicGroup) -> Option<AgeFrom> {
    let had_members = group.protocol_type.is_some();
    match (group.state(), group.state_since_ms) {
        _ if !had_members => Some(AgeFrom::Commit),
        (GroupState::Empty, Some(emptied_ms)) => Some(AgeFrom::Emptied(emptied_ms)),
        (GroupState::Empty, None) => Some(AgeFrom::Commit),
        (GroupState::Stable, _) if group.knows_subscribed_topics() => Some(AgeFrom::Commit),
        _ => None,
    }
}
