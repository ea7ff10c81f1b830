//! Static membership (KIP-345) and its shortcut past the rebalance (KIP-814).

use tidings_coordinator::{GroupState, HeartbeatRequest, JoinGroupRequest, Release, SyncGroupRequest};
use tidings_model::ErrorCode;

use crate::support::{GROUP, World, protocol, static_member, sync};

/// A stable group of two static members `a` and `b`; gives their ids and the generation.
fn two_static(world: &mut World) -> (String, String, i32) {
    let a = world.join(static_member("a", "")).member_id;
    assert!(a.starts_with("a-"), "a static member's id begins with its instance: {a}");
    let b_join = world.send_join(static_member("b", ""));
    let rejoined = world.join(static_member("a", &a));
    let b = world.joined(b_join).member_id;
    assert_eq!(rejoined.leader, a);
    world.sync_all(&[a.clone(), b.clone()], &a, rejoined.generation_id);
    (a, b, rejoined.generation_id)
}

#[test]
fn a_static_leader_that_returns_keeps_its_place_and_its_assignment() {
    let mut world = World::new();
    let (a, b, generation) = two_static(&mut world);
    let token = world.send_join(static_member("a", ""));
    let returned = world.joined(token);
    assert_eq!(world.replies[&token].release, Release::WhenDurable);
    assert_eq!((returned.error, returned.generation_id), (ErrorCode::None, generation));
    assert_ne!(returned.member_id, a);
    assert_eq!(returned.leader, returned.member_id);
    assert!(returned.skip_assignment);
    assert_eq!(returned.members.len(), 2, "the leader still learns who there is");
    assert_eq!(world.state(), GroupState::Stable);

    let synced = world.sync(sync(&returned.member_id, generation, &[]));
    assert_eq!(synced.assignment, a, "the assignment is that of the earlier incarnation");
    assert_eq!(world.heartbeat(&b, generation), ErrorCode::None);
    assert_eq!(world.heartbeat(&a, generation), ErrorCode::UnknownMemberId);
    world.restart();
    assert_eq!(world.heartbeat(&returned.member_id, generation), ErrorCode::None);
}

#[test]
fn before_version_9_a_static_leader_that_returns_is_not_told_that_it_leads() {
    let mut world = World::new();
    let (a, _, _) = two_static(&mut world);
    let returned = world.join(JoinGroupRequest { supports_skip_assignment: false, ..static_member("a", "") });
    assert_eq!(
        (returned.leader.as_str(), returned.skip_assignment, returned.members.len()),
        (a.as_str(), false, 0)
    );
}

#[test]
fn a_static_follower_that_returns_does_not_skip_anything() {
    let mut world = World::new();
    let (a, _, _) = two_static(&mut world);
    let returned = world.join(static_member("b", ""));
    assert_eq!(
        (returned.leader.as_str(), returned.skip_assignment, returned.members.len()),
        (a.as_str(), false, 0)
    );
}

#[test]
fn the_earlier_incarnation_is_fenced_in_every_call() {
    let mut world = World::new();
    let (a, _, generation) = two_static(&mut world);
    world.join(static_member("a", ""));
    let fenced = ErrorCode::FencedInstanceId;
    assert_eq!(world.join(static_member("a", &a)).error, fenced);
    let request = SyncGroupRequest { group_instance_id: Some("a".into()), ..sync(&a, generation, &[]) };
    assert_eq!(world.sync(request).error, fenced);
    let request = HeartbeatRequest {
        group_id: GROUP.into(),
        generation_id: generation,
        member_id: a.clone(),
        group_instance_id: Some("a".into()),
    };
    assert_eq!(world.coordinator.heartbeat(world.now_ms, &request), fenced);
    let mut request = crate::support::commit(&a, generation, 5);
    request.group_instance_id = Some("a".into());
    let outcome = world.coordinator.offset_commit(world.now_ms, request);
    assert_eq!(world.settle(outcome).topics[0].partitions[0].1, fenced);
    assert_eq!(world.join(static_member("c", &a)).error, ErrorCode::UnknownMemberId);
}

#[test]
fn an_incarnation_that_waits_is_fenced_when_the_next_one_comes() {
    let mut world = World::new();
    let (a, b, generation) = two_static(&mut world);
    let waiting = world.send_join(static_member("a", &a));
    assert!(world.is_waiting(waiting));
    let next = world.send_join(static_member("a", ""));
    let fenced = world.joined(waiting);
    assert_eq!((fenced.error, fenced.member_id), (ErrorCode::FencedInstanceId, a));
    world.join(static_member("b", &b));
    let next = world.joined(next);
    assert_eq!(next.generation_id, generation + 1);

    let waiting = world.send_sync(sync(&b, generation + 1, &[]));
    let third = world.send_join(static_member("b", ""));
    assert_eq!(world.synced(waiting).error, ErrorCode::FencedInstanceId);
    assert!(world.is_waiting(third));
    assert_eq!(
        world.state(),
        GroupState::PreparingRebalance,
        "the leader may have assigned to the id that is gone"
    );
}

#[test]
fn a_static_member_that_returns_with_another_choice_of_protocols_starts_a_rebalance() {
    let mut world = World::new();
    let request = JoinGroupRequest {
        protocols: vec![protocol("range", &["orders"]), protocol("sticky", &["orders"])],
        ..static_member("a", "")
    };
    let a = world.join(request).member_id;
    world.sync_all(std::slice::from_ref(&a), &a, 1);
    let request =
        JoinGroupRequest { protocols: vec![protocol("sticky", &["orders"])], ..static_member("a", "") };
    let returned = world.join(request);
    assert_eq!((returned.generation_id, returned.protocol_name.as_deref()), (2, Some("sticky")));
}

#[test]
fn a_static_member_that_is_silent_during_a_rebalance_stays_until_its_session_ends() {
    let mut world = World::new();
    let (a, b, generation) = two_static(&mut world);
    let mut request = static_member("a", &a);
    request.rebalance_timeout_ms = 2_000;
    let mut changed = static_member("b", &b);
    changed.rebalance_timeout_ms = 2_000;
    world.send_join(request);
    world.join(changed);
    world.sync_all(&[a.clone(), b.clone()], &a, generation + 1);

    let mut request = static_member("a", &a);
    request.rebalance_timeout_ms = 2_000;
    let rebalance = world.send_join(request);
    world.pass(2_000);
    let formed = world.joined(rebalance);
    assert_eq!((formed.generation_id, formed.members.len()), (generation + 2, 2));
}

#[test]
fn a_group_of_silent_static_members_waits_for_one_of_them() {
    let mut world = World::new();
    let (a, b, generation) = two_static(&mut world);
    // `a` asks for a rebalance and is fenced out of it by leaving; `b` is silent.
    let joining = world.send_join(static_member("a", &a));
    assert_eq!(world.leave(&a), ErrorCode::None);
    assert_eq!(world.joined(joining).error, ErrorCode::UnknownMemberId);
    world.pass(9_000);
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    let formed = world.join(static_member("b", &b));
    assert_eq!((formed.generation_id, formed.leader.as_str()), (generation + 1, b.as_str()));
}
