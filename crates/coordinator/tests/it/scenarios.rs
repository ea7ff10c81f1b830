//! Groups over time.

use tidings_coordinator::{GroupState, JoinGroupRequest};
use tidings_model::ErrorCode;

use crate::support::{REBALANCE_MS, World, dynamic, static_member};

#[test]
fn two_members_join_rebalance_and_leave() {
    let mut world = World::new();
    let (first, join) = world.enter();
    assert_eq!(world.joined(join).generation_id, 1);
    world.sync_all(std::slice::from_ref(&first), &first, 1);

    let (second, second_join) = world.enter();
    assert!(world.is_waiting(second_join));
    assert_eq!(world.heartbeat(&first, 1), ErrorCode::RebalanceInProgress);
    let rejoined = world.join(dynamic(&first));
    assert_eq!(
        (rejoined.generation_id, rejoined.leader.as_str(), rejoined.members.len()),
        (2, first.as_str(), 2)
    );
    assert_eq!(world.joined(second_join).members.len(), 0);
    world.sync_all(&[first.clone(), second.clone()], &first, 2);

    assert_eq!(world.leave(&first), ErrorCode::None);
    assert_eq!(world.heartbeat(&second, 2), ErrorCode::RebalanceInProgress);
    let rejoined = world.join(dynamic(&second));
    assert_eq!((rejoined.generation_id, rejoined.leader.as_str()), (3, second.as_str()));
    world.sync_all(std::slice::from_ref(&second), &second, 3);
    assert_eq!(world.leave(&second), ErrorCode::None);
    assert_eq!(world.state(), GroupState::Empty);
    assert_eq!(world.coordinator.next_deadline_ms(), None);
}

#[test]
fn a_silent_member_is_out_after_its_session_and_the_rest_goes_on() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    world.pass(9_000);
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::None);
    world.pass(1_000);
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
    assert_eq!(world.heartbeat(&ids[1], generation), ErrorCode::UnknownMemberId);
    let joined = world.join(dynamic(&ids[0]));
    assert_eq!((joined.generation_id, joined.members.len()), (generation + 1, 1));
}

#[test]
fn a_member_that_heartbeats_but_does_not_rejoin_is_out_after_the_rebalance_timeout() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    let waiting = world.send_join(dynamic(&ids[0]));
    for _ in 0..REBALANCE_MS / 6_000 {
        assert_eq!(world.heartbeat(&ids[1], generation), ErrorCode::RebalanceInProgress);
        assert!(world.is_waiting(waiting));
        world.pass(6_000);
    }
    assert_eq!(world.joined(waiting).members.len(), 1);
    assert_eq!(world.heartbeat(&ids[1], generation), ErrorCode::UnknownMemberId);
}

#[test]
fn a_leader_that_does_not_rejoin_is_succeeded() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    let changed = JoinGroupRequest {
        protocols: vec![crate::support::protocol("range", &["returns"])],
        ..dynamic(&ids[1])
    };
    let waiting = world.send_join(changed);
    world.pass(i64::from(REBALANCE_MS));
    let joined = world.joined(waiting);
    assert_eq!((joined.leader.as_str(), joined.generation_id), (ids[1].as_str(), generation + 1));
}

#[test]
fn a_new_member_that_waits_too_long_is_forgotten() {
    let mut world = World::new();
    let request = JoinGroupRequest { rebalance_timeout_ms: 600_000, ..static_member("old", "") };
    let old = world.join(request).member_id;
    world.sync_all(std::slice::from_ref(&old), &old, 1);
    let newcomer = world.send_join(JoinGroupRequest { requires_known_member_id: false, ..dynamic("") });
    for _ in 0..60 {
        assert_eq!(world.heartbeat(&old, 1), ErrorCode::RebalanceInProgress);
        assert!(world.is_waiting(newcomer));
        world.pass(5_000);
    }
    assert_eq!(world.joined(newcomer).error, ErrorCode::UnknownMemberId);
}

#[test]
fn a_static_member_restarts_without_a_stir() {
    let mut world = World::new();
    let id = world.join(static_member("worker", "")).member_id;
    world.sync_all(std::slice::from_ref(&id), &id, 1);
    let mut last = id;
    for _ in 0..3 {
        world.pass(9_000);
        world.restart();
        let returned = world.join(static_member("worker", ""));
        assert_eq!((returned.error, returned.generation_id), (ErrorCode::None, 1));
        assert_ne!(returned.member_id, last);
        last = returned.member_id;
    }
    assert_eq!(world.heartbeat(&last, 1), ErrorCode::None);
}

#[test]
fn a_hundred_members_rebalance() {
    let mut world = World::new();
    let (mut ids, generation) = world.stable(100);
    assert_eq!(world.coordinator.describe_group(crate::support::GROUP).unwrap().members.len(), 100);
    let gone = ids.pop().unwrap();
    assert_eq!(world.leave(&gone), ErrorCode::None);
    let tokens: Vec<_> = ids.iter().map(|id| world.send_join(dynamic(id))).collect();
    let leader = world.joined(tokens[0]).leader;
    assert_eq!(tokens.iter().filter(|token| world.joined(**token).members.len() == 99).count(), 1);
    world.sync_all(&ids, &leader, generation + 1);
}
