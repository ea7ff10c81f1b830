//! OffsetCommit, OffsetFetch and OffsetDelete.

use tidings_coordinator::{
    GroupSettings, GroupState, OffsetDeleteRequest, OffsetFetchRequest, Release, TopicPartitions,
};
use tidings_model::ErrorCode;

use crate::support::{GROUP, REBALANCE_MS, World, commit, dynamic};

fn delete(world: &mut World, topic: &str) -> (ErrorCode, Vec<ErrorCode>) {
    let topics = vec![TopicPartitions { topic: topic.into(), partitions: vec![0, 7] }];
    let request = OffsetDeleteRequest { group_id: GROUP.into(), topics };
    let outcome = world.coordinator.offset_delete(world.now_ms, request);
    let response = world.settle(outcome);
    let errors = response.topics.into_iter().flat_map(|topic| topic.partitions).map(|(_, error)| error);
    (response.error, errors.collect())
}

#[test]
fn a_client_without_membership_commits_to_a_group_of_its_own() {
    let mut world = World::new();
    assert_eq!(world.fetch("orders", 0), -1);
    assert_eq!(world.commit("", -1, 42), ErrorCode::None);
    assert_eq!(world.fetch("orders", 0), 42);
    assert_eq!(world.fetch("orders", 1), -1);
    assert_eq!(world.fetch("returns", 0), -1);
    assert_eq!(world.state(), GroupState::Empty);
    world.restart();
    assert_eq!(world.fetch("orders", 0), 42);
    assert_eq!(world.coordinator.list_groups(&[], &[])[0].protocol_type, "");
}

#[test]
fn all_offsets_of_a_group_come_with_what_was_said_about_them() {
    let mut world = World::new();
    world.commit("", -1, 42);
    let outcome = world.coordinator.offset_fetch(OffsetFetchRequest {
        group_id: GROUP.into(),
        topics: None,
        requires_stable: false,
    });
    assert_eq!(outcome.release, Release::WhenDurable);
    let [topic] = &outcome.response.topics[..] else { panic!("one topic") };
    let [offset] = &topic.partitions[..] else { panic!("one partition") };
    assert_eq!((offset.offset, offset.leader_epoch, offset.metadata.as_str()), (42, 3, "note"));
    let all: Vec<_> = world.coordinator.committed_offsets().map(|(g, t, p, o)| (g, t, p, o.offset)).collect();
    assert_eq!(all, [(GROUP, "orders", 0, 42)]);
    let none = world.coordinator.offset_fetch(OffsetFetchRequest {
        group_id: "other".into(),
        topics: None,
        requires_stable: false,
    });
    assert!(none.response.topics.is_empty());
}

#[test]
fn a_member_commits_in_its_generation_only() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    assert_eq!(world.commit(&ids[0], generation, 1), ErrorCode::None);
    assert_eq!(world.commit(&ids[0], generation - 1, 2), ErrorCode::IllegalGeneration);
    assert_eq!(world.commit("made-up", generation, 2), ErrorCode::UnknownMemberId);
    assert_eq!(world.commit(&ids[0], -1, 2), ErrorCode::IllegalGeneration);
    assert_eq!(
        world.commit("", -1, 2),
        ErrorCode::UnknownMemberId,
        "nobody from outside while there are members"
    );
    assert_eq!(world.fetch("orders", 0), 1);
}

#[test]
fn a_commit_is_taken_while_members_are_asked_to_rejoin_but_not_before_the_assignment() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    world.send_join(dynamic(&ids[0]));
    assert_eq!(world.commit(&ids[1], generation, 7), ErrorCode::None);
    world.send_join(dynamic(&ids[1]));
    assert_eq!(world.state(), GroupState::CompletingRebalance);
    assert_eq!(world.commit(&ids[1], generation + 1, 8), ErrorCode::RebalanceInProgress);
    assert_eq!(world.commit(&ids[1], generation, 8), ErrorCode::IllegalGeneration);
}

#[test]
fn a_member_of_a_group_that_is_gone_is_told_in_the_words_of_its_version() {
    let mut world = World::new();
    assert_eq!(world.commit("m", 3, 1), ErrorCode::GroupIdNotFound);
    let mut request = commit("m", 3, 1);
    request.knows_group_id_not_found = false;
    let outcome = world.coordinator.offset_commit(world.now_ms, request);
    assert_eq!(world.settle(outcome).topics[0].partitions[0].1, ErrorCode::IllegalGeneration);
}

#[test]
fn metadata_that_is_too_long_is_refused_alone() {
    let mut world = World::with(GroupSettings { offset_metadata_max_bytes: 4, ..GroupSettings::default() });
    let mut request = commit("", -1, 1);
    let mut long = request.topics[0].partitions[0].clone();
    (long.partition, long.metadata) = (1, Some("long!".into()));
    let mut utf16 = long.clone();
    (utf16.partition, utf16.metadata) = (2, Some("äöüß".into()));
    request.topics[0].partitions.extend([long, utf16]);
    let outcome = world.coordinator.offset_commit(world.now_ms, request);
    let partitions = world.settle(outcome).topics.remove(0).partitions;
    let expect = [(0, ErrorCode::None), (1, ErrorCode::OffsetMetadataTooLarge), (2, ErrorCode::None)];
    assert_eq!(partitions, expect);
    assert_eq!(world.fetch("orders", 1), -1);
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    for offset in 0..5 {
        world.pass(9_000);
        assert_eq!(world.commit(&ids[0], generation, offset), ErrorCode::None);
    }
}

#[test]
fn offsets_are_deleted_unless_members_read_the_topic() {
    let mut world = World::new();
    assert_eq!(delete(&mut world, "orders").0, ErrorCode::GroupIdNotFound);
    world.commit("", -1, 5);
    let (ids, _) = world.stable(1);
    let subscribed = ErrorCode::GroupSubscribedToTopic;
    assert_eq!(delete(&mut world, "orders"), (ErrorCode::None, vec![subscribed, subscribed]));
    assert_eq!(delete(&mut world, "returns"), (ErrorCode::None, vec![ErrorCode::None, ErrorCode::None]));
    assert_eq!(world.leave(&ids[0]), ErrorCode::None);
    assert_eq!(delete(&mut world, "orders"), (ErrorCode::None, vec![ErrorCode::None, ErrorCode::None]));
    assert_eq!(world.fetch("orders", 0), -1);
    world.restart();
    assert_eq!(world.fetch("orders", 0), -1);
}

#[test]
fn a_group_that_says_nothing_about_topics_must_be_empty_for_a_delete() {
    let mut world = World::new();
    let mut request = dynamic("");
    request.protocol_type = "connect".into();
    request.requires_known_member_id = false;
    world.join(request);
    assert_eq!(delete(&mut world, "orders").0, ErrorCode::NonEmptyGroup);
    let request = OffsetDeleteRequest::default();
    let outcome = world.coordinator.offset_delete(world.now_ms, request);
    assert_eq!(world.settle(outcome).error, ErrorCode::InvalidGroupId);
}

#[test]
fn a_topic_that_is_deleted_takes_its_offsets_along() {
    let mut world = World::new();
    let (ids, generation) = world.stable(1);
    world.commit(&ids[0], generation, 5);
    let effects = world.coordinator.on_topics_deleted(world.now_ms, &["returns"]);
    world.carry_out(effects);
    assert_eq!(world.fetch("orders", 0), 5);
    let effects = world.coordinator.on_topics_deleted(world.now_ms, &["orders", "returns"]);
    world.carry_out(effects);
    assert_eq!(world.fetch("orders", 0), -1);
    world.pass(i64::from(REBALANCE_MS));
}
