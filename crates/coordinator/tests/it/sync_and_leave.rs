//! SyncGroup, Heartbeat and LeaveGroup.

use tidings_coordinator::{GroupState, HeartbeatRequest, LeaveGroupRequest, LeavingMember, Release};
use tidings_model::ErrorCode;

use crate::support::{GROUP, REBALANCE_MS, World, dynamic, static_member, sync};

#[test]
fn everybody_waits_for_the_leader_and_gets_the_assignment_when_it_is_durable() {
    let mut world = World::new();
    let (first, _) = world.enter();
    let (second, second_join) = world.enter();
    world.send_join(dynamic(&first));
    let generation = world.joined(second_join).generation_id;
    let follower = world.send_sync(sync(&second, generation, &[]));
    assert!(world.is_waiting(follower));
    let both = [first.clone(), second.clone()];
    let leader = world.send_sync(sync(&first, generation, &both));
    assert_eq!(world.synced(leader).assignment, first);
    assert_eq!(world.synced(follower).assignment, second);
    assert_eq!(world.synced(follower).protocol_name.as_deref(), Some("range"));
    assert_eq!(world.replies[&follower].release, Release::WhenDurable);
    let again = world.send_sync(sync(&second, generation, &[]));
    assert_eq!(world.synced(again).assignment, second);
    assert_eq!(world.replies[&again].release, Release::WhenDurable);
}

#[test]
fn a_member_that_the_leader_left_out_gets_an_empty_assignment() {
    let mut world = World::new();
    let (id, _) = world.enter();
    let synced = world.sync(sync(&id, 1, &[]));
    assert_eq!((synced.error, synced.assignment.len()), (ErrorCode::None, 0));
    assert_eq!(world.state(), GroupState::Stable);
}

#[test]
fn a_sync_that_does_not_belong_is_refused() {
    let mut world = World::new();
    assert_eq!(world.sync(sync("m", 1, &[])).error, ErrorCode::UnknownMemberId);
    let mut request = sync("m", 1, &[]);
    request.group_id = String::new();
    assert_eq!(world.sync(request).error, ErrorCode::InvalidGroupId);
    let (ids, generation) = world.stable(2);
    assert_eq!(world.sync(sync("made-up", generation, &[])).error, ErrorCode::UnknownMemberId);
    assert_eq!(world.sync(sync(&ids[0], generation - 1, &[])).error, ErrorCode::IllegalGeneration);
    world.send_join(dynamic(&ids[0]));
    assert_eq!(world.sync(sync(&ids[1], generation, &[])).error, ErrorCode::RebalanceInProgress);
}

#[test]
fn a_join_during_completion_sends_those_who_wait_back_to_join() {
    let mut world = World::new();
    let (first, _) = world.enter();
    let (second, _) = world.enter();
    world.send_join(dynamic(&first));
    let leader_waits = world.send_sync(sync(&second, 2, &[]));
    let (_, third) = world.enter();
    assert_eq!(world.synced(leader_waits).error, ErrorCode::RebalanceInProgress);
    assert!(world.is_waiting(third));
    assert_eq!(world.state(), GroupState::PreparingRebalance);
}

#[test]
fn members_that_never_sync_are_out_after_the_rebalance_timeout() {
    let mut world = World::new();
    let (first, _) = world.enter();
    let (second, _) = world.enter();
    world.send_join(dynamic(&first));
    world.send_sync(sync(&first, 2, &[first.clone(), second.clone()]));
    for _ in 0..REBALANCE_MS / 5_000 - 1 {
        world.pass(5_000);
        assert_eq!(world.heartbeat(&first, 2), ErrorCode::None);
        assert_eq!(world.heartbeat(&second, 2), ErrorCode::None);
    }
    world.pass(5_000);
    assert_eq!(world.heartbeat(&second, 2), ErrorCode::UnknownMemberId);
    assert_eq!(world.heartbeat(&first, 2), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_heartbeat_is_answered_by_where_the_group_stands() {
    let mut world = World::new();
    assert_eq!(world.heartbeat("m", 1), ErrorCode::UnknownMemberId);
    let empty = HeartbeatRequest { group_id: String::new(), ..HeartbeatRequest::default() };
    assert_eq!(world.coordinator.heartbeat(world.now_ms, &empty), ErrorCode::InvalidGroupId);
    let (id, _) = world.enter();
    assert_eq!(
        world.heartbeat(&id, 1),
        ErrorCode::None,
        "a member may beat while it waits for its assignment"
    );
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    assert_eq!(world.heartbeat(&ids[0], generation + 1), ErrorCode::IllegalGeneration);
    assert_eq!(world.heartbeat("made-up", generation), ErrorCode::UnknownMemberId);
}

#[test]
fn members_leave_one_by_one_until_the_group_is_empty_on_disk() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    assert_eq!(world.leave(&ids[0]), ErrorCode::None);
    assert_eq!(world.leave(&ids[0]), ErrorCode::UnknownMemberId);
    assert_eq!(world.heartbeat(&ids[1], generation), ErrorCode::RebalanceInProgress);
    let joined = world.join(dynamic(&ids[1]));
    assert_eq!((joined.leader.as_str(), joined.generation_id), (ids[1].as_str(), generation + 1));
    assert_eq!(world.leave(&ids[1]), ErrorCode::None);
    assert_eq!(world.state(), GroupState::Empty);
    world.restart();
    let group = world.coordinator.describe_group(GROUP).unwrap();
    assert_eq!((group.state, group.generation_id), (GroupState::Empty, generation + 2));
    assert_eq!(group.protocol_type, "consumer");
}

#[test]
fn a_member_that_leaves_has_what_it_waits_for_answered() {
    let mut world = World::new();
    let (ids, _) = world.stable(2);
    let joining = world.send_join(dynamic(&ids[0]));
    assert_eq!(world.leave(&ids[0]), ErrorCode::None);
    assert_eq!(world.joined(joining).error, ErrorCode::UnknownMemberId);

    let mut world = World::new();
    let (first, _) = world.enter();
    let (second, _) = world.enter();
    world.send_join(dynamic(&first));
    let syncing = world.send_sync(sync(&second, 2, &[]));
    assert_eq!(world.leave(&second), ErrorCode::None);
    assert_eq!(world.synced(syncing).error, ErrorCode::UnknownMemberId);
}

#[test]
fn a_leave_names_several_members_by_id_or_instance() {
    let mut world = World::new();
    let first = world.join(static_member("i1", "")).member_id;
    world.send_join(static_member("i2", ""));
    let pending = world.join(dynamic("")).member_id;
    let by = |member_id: &str, instance_id: Option<&str>| LeavingMember {
        member_id: member_id.into(),
        group_instance_id: instance_id.map(str::to_owned),
    };
    let members = vec![
        by("", Some("i2")),
        by("", Some("i3")),
        by("", None),
        by("other", Some("i1")),
        by(&pending, None),
    ];
    let request = LeaveGroupRequest { group_id: GROUP.into(), members };
    let outcome = world.coordinator.leave_group(world.now_ms, request);
    let errors: Vec<_> = world.settle(outcome).members.into_iter().map(|member| member.error).collect();
    let unknown = ErrorCode::UnknownMemberId;
    assert_eq!(errors, [ErrorCode::None, unknown, unknown, ErrorCode::FencedInstanceId, ErrorCode::None]);
    assert_eq!(world.coordinator.describe_group(GROUP).unwrap().members[0].member_id, first);
}

#[test]
fn a_leave_of_an_unknown_group_tells_each_member() {
    let mut world = World::new();
    assert_eq!(world.leave("m"), ErrorCode::UnknownMemberId);
    let request = LeaveGroupRequest { group_id: String::new(), members: vec![] };
    let outcome = world.coordinator.leave_group(world.now_ms, request);
    assert_eq!(world.settle(outcome).error, ErrorCode::InvalidGroupId);
}
