//! One step of a member from what it has to what it is to have.
//!
//! ```text
//!   Stable --- new target ---> UnrevokedPartitions --- given up ---> UnreleasedPartitions --- all free ---> Stable
//!                 |   nothing to give up                                    ^          |
//!                 +------------- nothing to give up, something held --------+          +-- new target --> ...
//! ```
//!
//! Invariants: a member moves to the epoch of a new target only when it no longer has what that target takes from it;
//! it is given a partition only when nobody else has it. Pure: the caller writes the record.

use tidings_model::TopicId;

use super::assignment::Assignment;
use super::error::ConsumerGroupError;
use super::member::{Member, MemberState};

/// What a member is reconciled with.
pub(crate) struct Target<'a> {
    /// The epoch the target was computed for.
    pub(crate) epoch: i32,
    /// What the member is to have.
    pub(crate) assignment: &'a Assignment,
    /// Whether some member has a partition or has not given it up.
    pub(crate) is_held: &'a dyn Fn(TopicId, i32) -> bool,
}

/// The member after the step: itself if there is nothing to do. `owned` is what it says it has, if it said so.
pub(crate) fn step(
    member: &Member,
    target: &Target<'_>,
    owned: Option<&Assignment>,
) -> Result<Member, ConsumerGroupError> {
    match member.state {
        MemberState::Stable if member.epoch == target.epoch => Ok(member.clone()),
        MemberState::Stable | MemberState::UnreleasedPartitions => {
            Ok(advance(member, target, owned, member.epoch))
        }
        MemberState::UnrevokedPartitions if still_has(owned, &member.pending_revocation) => {
            Ok(member.clone())
        }
        // It gave up what its next epoch took from it, and may be asked for more at once.
        MemberState::UnrevokedPartitions => {
            Ok(advance(member, target, owned, member.epoch.saturating_add(1).min(target.epoch)))
        }
        MemberState::Unknown if owned.is_some_and(Assignment::is_empty) => {
            Ok(advance(member, target, owned, target.epoch))
        }
        MemberState::Unknown => Err(ConsumerGroupError::UnknownMemberState),
    }
}

/// A member that does not say what it has still has it.
fn still_has(owned: Option<&Assignment>, revoked: &Assignment) -> bool {
    owned.is_none_or(|owned| owned.intersects(revoked))
}

fn advance(
    member: &Member,
    target: &Target<'_>,
    owned: Option<&Assignment>,
    epoch_if_unrevoked: i32,
) -> Member {
    let kept = member.assigned.intersection(target.assignment);
    let revoked = member.assigned.difference(target.assignment);
    if !revoked.is_empty() && still_has(owned, &revoked) {
        return moved(member, epoch_if_unrevoked, MemberState::UnrevokedPartitions, kept, revoked);
    }
    let missing = target.assignment.difference(&kept);
    let free: Assignment =
        missing.iter().filter(|(topic, partition)| !(target.is_held)(*topic, *partition)).collect();
    let state = if free == missing { MemberState::Stable } else { MemberState::UnreleasedPartitions };
    moved(member, target.epoch, state, kept.union(&free), Assignment::default())
}

fn moved(
    member: &Member,
    epoch: i32,
    state: MemberState,
    assigned: Assignment,
    pending_revocation: Assignment,
) -> Member {
    let previous_epoch = if epoch == member.epoch { member.previous_epoch } else { member.epoch };
    Member { epoch, previous_epoch, state, assigned, pending_revocation, ..member.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: TopicId = TopicId([7; 16]);

    fn of(partitions: &[i32]) -> Assignment {
        partitions.iter().map(|partition| (TOPIC, *partition)).collect()
    }

    fn member(epoch: i32, state: MemberState, assigned: &[i32], revoking: &[i32]) -> Member {
        Member {
            epoch,
            previous_epoch: epoch,
            state,
            assigned: of(assigned),
            pending_revocation: of(revoking),
            ..Member::new("m".into())
        }
    }

    /// `target` at epoch 11, with `held` in other hands.
    fn check(
        from: &Member,
        target: &[i32],
        held: &[i32],
        owned: Option<&[i32]>,
        expect: (i32, MemberState, &[i32], &[i32]),
    ) {
        let held = of(held);
        let to = Target {
            epoch: 11,
            assignment: &of(target),
            is_held: &|topic, partition| {
                held.contains(topic, partition) || from.assigned.contains(topic, partition)
            },
        };
        let next = step(from, &to, owned.map(of).as_ref()).unwrap();
        let (epoch, state, assigned, revoking) = expect;
        assert_eq!((next.epoch, next.state), (epoch, state));
        assert_eq!((next.assigned, next.pending_revocation), (of(assigned), of(revoking)));
    }

    #[test]
    fn a_member_gives_up_before_it_moves_on() {
        use MemberState::{Stable, UnreleasedPartitions, UnrevokedPartitions};
        let stable = member(10, Stable, &[1, 2, 3], &[]);
        check(&member(11, Stable, &[1], &[]), &[1], &[], None, (11, Stable, &[1], &[]));
        check(&stable, &[1, 2, 3], &[], None, (11, Stable, &[1, 2, 3], &[]));
        check(&stable, &[1, 2, 3, 4], &[], None, (11, Stable, &[1, 2, 3, 4], &[]));
        check(&stable, &[1, 2, 3, 4, 5], &[4], None, (11, UnreleasedPartitions, &[1, 2, 3, 5], &[]));
        check(&stable, &[2, 4], &[], None, (10, UnrevokedPartitions, &[2], &[1, 3]));
        // It says that it has none of them any more: nothing to wait for.
        check(&stable, &[2, 4], &[], Some(&[2]), (11, Stable, &[2, 4], &[]));
        let revoking = member(10, UnrevokedPartitions, &[2], &[1, 3]);
        check(&revoking, &[2, 4], &[], None, (10, UnrevokedPartitions, &[2], &[1, 3]));
        check(&revoking, &[2, 4], &[], Some(&[2, 3]), (10, UnrevokedPartitions, &[2], &[1, 3]));
        check(&revoking, &[2, 4], &[], Some(&[2]), (11, Stable, &[2, 4], &[]));
        check(&revoking, &[4], &[], Some(&[2]), (11, UnrevokedPartitions, &[], &[2]));
        check(&revoking, &[2, 4], &[4], Some(&[2]), (11, UnreleasedPartitions, &[2], &[]));
        let waiting = member(11, UnreleasedPartitions, &[2], &[]);
        check(&waiting, &[2, 4], &[4], None, (11, UnreleasedPartitions, &[2], &[]));
        check(&waiting, &[2, 4], &[], None, (11, Stable, &[2, 4], &[]));
    }

    #[test]
    fn a_state_from_the_future_is_left_only_with_empty_hands() {
        let unknown = member(10, MemberState::Unknown, &[1], &[]);
        check(&unknown, &[1, 2], &[], Some(&[]), (11, MemberState::Stable, &[1, 2], &[]));
        let target = Target { epoch: 11, assignment: &of(&[1]), is_held: &|_, _| false };
        assert!(step(&unknown, &target, None).is_err());
    }
}
