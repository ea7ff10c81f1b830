//! ListGroups, DescribeGroups and DeleteGroups.

use tidings_coordinator::{GroupState, JoinGroupRequest};
use tidings_model::ErrorCode;

use crate::support::{GROUP, World, commit, dynamic, protocol};

fn names(world: &World, states: &[&str], types: &[&str]) -> Vec<String> {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let groups = world.coordinator.list_groups(&owned(states), &owned(types));
    groups.into_iter().map(|group| group.group_id).collect()
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut world = World::new();
    world.stable(1);
    let mut request = commit("", -1, 1);
    request.group_id = "tool".into();
    let outcome = world.coordinator.offset_commit(world.now_ms, request);
    world.settle(outcome);
    assert_eq!(names(&world, &[], &[]), [GROUP, "tool"]);
    assert_eq!(names(&world, &["stable"], &["CLASSIC"]), [GROUP]);
    assert_eq!(names(&world, &[" Empty "], &[]), ["tool"]);
    assert_eq!(names(&world, &["Empty", "Stable"], &["classic", "consumer"]), [GROUP, "tool"]);
    assert!(names(&world, &["no such state"], &[]).is_empty());
    assert!(names(&world, &[], &["consumer"]).is_empty());
    assert_eq!(world.coordinator.group_counts()[&GroupState::Stable], 1);
}

#[test]
fn a_described_group_shows_metadata_when_it_is_stable() {
    let mut world = World::new();
    assert_eq!(world.coordinator.describe_group(GROUP), None);
    let (ids, _) = world.stable(2);
    let group = world.coordinator.describe_group(GROUP).unwrap();
    assert_eq!((group.protocol_type.as_str(), group.protocol.as_str()), ("consumer", "range"));
    let member = group.members.iter().find(|member| member.member_id == ids[1]).unwrap();
    assert_eq!((member.client_id.as_str(), member.client_host.as_str()), ("client", "/127.0.0.1"));
    assert_eq!(member.metadata, protocol("range", &["orders"]).metadata);
    assert_eq!(member.assignment, ids[1]);
    world.send_join(dynamic(&ids[0]));
    let group = world.coordinator.describe_group(GROUP).unwrap();
    assert_eq!((group.state, group.protocol.as_str()), (GroupState::PreparingRebalance, ""));
    assert!(group.members.iter().all(|member| member.metadata.is_empty()));
}

#[test]
fn only_empty_groups_are_deleted_and_with_their_offsets() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    world.commit(&ids[0], generation, 9);
    let delete = |world: &mut World, group_ids: &[&str]| {
        let group_ids = group_ids.iter().map(|id| (*id).to_owned()).collect();
        let outcome = world.coordinator.delete_groups(world.now_ms, group_ids);
        world.settle(outcome).groups.into_iter().map(|group| group.error).collect::<Vec<_>>()
    };
    assert_eq!(delete(&mut world, &[GROUP, "other"]), [ErrorCode::NonEmptyGroup, ErrorCode::GroupIdNotFound]);
    world.leave(&ids[0]);
    assert_eq!(delete(&mut world, &[GROUP, GROUP]), [ErrorCode::None, ErrorCode::None]);
    assert_eq!((world.state(), world.fetch("orders", 0)), (GroupState::Dead, -1));
    assert_eq!(world.coordinator.next_deadline_ms(), None);
    world.restart();
    assert_eq!((world.state(), world.fetch("orders", 0)), (GroupState::Dead, -1));
}

#[test]
fn a_deleted_group_begins_anew() {
    let mut world = World::new();
    let (ids, _) = world.stable(1);
    world.leave(&ids[0]);
    let outcome = world.coordinator.delete_groups(world.now_ms, vec![GROUP.into()]);
    world.settle(outcome);
    let joined = world.join(JoinGroupRequest { requires_known_member_id: false, ..dynamic("") });
    assert_eq!((joined.error, joined.generation_id), (ErrorCode::None, 1));
}
