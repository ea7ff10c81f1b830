//! What a restart finds, and what a disk that refuses leaves behind.

use bytes::Bytes;
use tidings_coordinator::{
    DeferredResponse, GroupState, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeavingMember,
    Release, ReplayError, StorageFailure, append_error_to_response,
};
use tidings_model::ErrorCode;

use crate::support::{GROUP, World, commit, dynamic, static_member, sync};

#[test]
fn members_go_on_after_a_restart_without_a_rebalance() {
    let mut world = World::new();
    let (ids, generation) = world.stable(3);
    world.commit(&ids[0], generation, 11);
    world.restart();
    assert_eq!(world.state(), GroupState::Stable);
    for id in &ids {
        assert_eq!(world.heartbeat(id, generation), ErrorCode::None);
        let synced = world.sync(sync(id, generation, &[]));
        assert_eq!(synced.assignment, *id);
    }
    assert_eq!(world.commit(&ids[1], generation, 12), ErrorCode::None);
    assert_eq!(world.coordinator.describe_group(GROUP).unwrap().leader_id.as_ref(), Some(&ids[0]));
}

#[test]
fn sessions_start_when_the_log_is_loaded() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    world.now_ms += 3_600_000;
    world.restart();
    world.pass(9_000);
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::None);
    world.pass(1_000);
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
    assert_eq!(world.heartbeat(&ids[1], generation), ErrorCode::UnknownMemberId);
}

#[test]
fn a_restart_in_the_middle_of_a_rebalance_falls_back_to_the_last_generation() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    world.send_join(dynamic(&ids[0]));
    world.join(dynamic(&ids[1]));
    world.restart();
    assert_eq!(world.state(), GroupState::Stable);
    assert_eq!(world.heartbeat(&ids[0], generation + 1), ErrorCode::IllegalGeneration);
    let rejoin = world.send_join(dynamic(&ids[0]));
    assert!(world.is_waiting(rejoin));
    let joined = world.join(dynamic(&ids[1]));
    world.sync_all(&ids, &joined.leader, generation + 1);
}

#[test]
fn a_commit_that_is_not_written_changes_nothing() {
    let mut world = World::new();
    world.commit("", -1, 1);
    let mut outcome = world.coordinator.offset_commit(world.now_ms, commit("", -1, 2));
    world.fail(outcome.effects);
    outcome.response.fail(append_error_to_response(ErrorCode::KafkaStorageError));
    assert_eq!(outcome.response.topics[0].partitions[0].1, ErrorCode::NotCoordinator);
    assert_eq!(world.fetch("orders", 0), 1);
}

#[test]
fn a_group_whose_first_record_is_not_written_does_not_exist() {
    let mut world = World::new();
    let token = world.token();
    let request = JoinGroupRequest { requires_known_member_id: false, ..dynamic("") };
    let effects = world.coordinator.join_group(world.now_ms, request, token);
    world.fail(effects);
    assert_eq!(world.joined(token).error, ErrorCode::NotCoordinator);
    assert_eq!(world.state(), GroupState::Dead);
    assert_eq!(world.coordinator.next_deadline_ms(), None);
}

#[test]
fn an_assignment_that_is_not_written_is_refused_to_all_and_asked_for_again() {
    let mut world = World::new();
    let (first, _) = world.enter();
    let (second, _) = world.enter();
    world.send_join(dynamic(&first));
    let follower = world.send_sync(sync(&second, 2, &[]));
    let leader = world.token();
    let effects =
        world.coordinator.sync_group(world.now_ms, sync(&first, 2, std::slice::from_ref(&first)), leader);
    world.fail(effects);
    assert_eq!(world.synced(leader).error, ErrorCode::NotCoordinator);
    assert_eq!(world.synced(follower).error, ErrorCode::NotCoordinator);
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    let again = world.send_join(dynamic(&first));
    let joined = world.join(dynamic(&second));
    assert_eq!(world.joined(again).generation_id, 3);
    world.sync_all(&[first, second], &joined.leader, 3);
}

#[test]
fn a_static_member_whose_return_is_not_written_has_not_returned() {
    let mut world = World::new();
    let id = world.join(static_member("a", "")).member_id;
    world.sync_all(std::slice::from_ref(&id), &id, 1);
    let token = world.token();
    let effects = world.coordinator.join_group(world.now_ms, static_member("a", ""), token);
    world.fail(effects);
    assert_eq!(world.joined(token).error, ErrorCode::NotCoordinator);
    assert_eq!(world.heartbeat(&id, 1), ErrorCode::None);
    world.pass(9_999);
    assert_eq!(world.state(), GroupState::Stable);
}

#[test]
fn a_group_that_cannot_be_written_empty_is_empty_in_memory_and_comes_back_by_a_restart() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    let member = LeavingMember { member_id: ids[0].clone(), group_instance_id: None };
    let request = LeaveGroupRequest { group_id: GROUP.into(), members: vec![member] };
    let mut outcome = world.coordinator.leave_group(world.now_ms, request);
    assert_eq!(outcome.release, Release::WhenDurable);
    world.fail(outcome.effects);
    outcome.response.fail(ErrorCode::NotCoordinator);
    assert_eq!(outcome.response.error, ErrorCode::NotCoordinator);
    assert_eq!(world.state(), GroupState::Empty);
    world.restart();
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::None);
    world.pass(10_000);
    assert_eq!(world.state(), GroupState::Empty);
}

#[test]
#[should_panic(expected = "neither replayed nor reported as failed")]
fn a_call_before_the_replay_of_the_last_one_is_our_bug() {
    let mut world = World::new();
    let _effects = world.coordinator.offset_commit(0, commit("", -1, 1));
    world.heartbeat("m", 1);
}

#[test]
fn an_answer_that_is_not_durable_becomes_an_error() {
    let mut join = DeferredResponse::Join(JoinGroupResponse {
        generation_id: 3,
        ..JoinGroupResponse::error("m", ErrorCode::None)
    });
    join.fail(ErrorCode::NotCoordinator);
    assert_eq!(join, DeferredResponse::Join(JoinGroupResponse::error("m", ErrorCode::NotCoordinator)));
}

#[test]
fn damaged_and_unknown_records_are_told_apart_and_change_nothing() {
    let mut world = World::new();
    let mut replay = |key: &'static [u8], value: &'static [u8]| {
        world.coordinator.replay(&Bytes::from_static(key), Some(&Bytes::from_static(value)))
    };
    assert!(matches!(replay(b"\0\x63\0\x01g", b""), Err(ReplayError::UnknownRecordType { version: 99 })));
    assert!(matches!(replay(b"\0\x03\0\x01g", b""), Err(ReplayError::Value { .. })));
    assert!(matches!(replay(b"\0\x05\0\x01g", b""), Err(ReplayError::Key { .. })));
    assert!(matches!(replay(b"\0\x05\0\x01g\0\x01m", b"\0\0\x01"), Err(ReplayError::Value { .. })));
    assert!(matches!(replay(b"", b""), Err(ReplayError::Key { .. })));
    assert!(matches!(replay(b"\0\x02\0\x05g", b""), Err(ReplayError::Key { .. })));
    assert!(matches!(replay(b"\0\x02\0\x01g", b"\0\x63"), Err(ReplayError::Value { .. })));
    assert!(matches!(replay(b"\0\x01\0\x01g\0\x01t\0\0\0\0", b""), Err(ReplayError::Value { .. })));
    assert!(world.coordinator.list_groups(&[], &[]).is_empty());
}
