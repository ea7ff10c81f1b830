//! What is forgotten when nobody needs it (KIP-211).

use tidings_coordinator::{GroupSettings, GroupState};
use tidings_model::ErrorCode;

use crate::support::{SESSION_MS, World, commit};

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

fn loaded() -> World {
    let mut world = World::new();
    world.restart();
    world
}

/// Lets time pass while these members send heartbeats.
fn pass_alive(world: &mut World, ms: i64, ids: &[String], generation: i32) {
    let end_ms = world.now_ms + ms;
    while world.now_ms < end_ms {
        world.pass(i64::from(SESSION_MS) - 1_000);
        for id in ids {
            assert_eq!(world.heartbeat(id, generation), ErrorCode::None);
        }
    }
}

#[test]
fn offsets_without_members_expire_a_retention_after_their_commit() {
    let mut world = loaded();
    world.commit("", -1, 5);
    world.pass(6 * DAY_MS);
    world.commit("", -1, 6);
    world.pass(6 * DAY_MS);
    assert_eq!(world.fetch("orders", 0), 6);
    world.pass(DAY_MS + 600_000);
    assert_eq!(world.fetch("orders", 0), -1);
    assert_eq!(world.state(), GroupState::Dead);
    world.restart();
    assert_eq!(world.state(), GroupState::Dead);
}

#[test]
fn offsets_of_a_group_that_had_members_expire_a_retention_after_it_became_empty() {
    let mut world = World::with(GroupSettings { offsets_retention_ms: DAY_MS, ..GroupSettings::default() });
    world.restart();
    let (ids, generation) = world.stable(1);
    world.commit(&ids[0], generation, 5);
    pass_alive(&mut world, 2 * DAY_MS, &ids, generation);
    assert_eq!(world.fetch("orders", 0), 5, "a topic that is read keeps its offsets");
    world.leave(&ids[0]);
    world.pass(DAY_MS - 1);
    assert_eq!(world.fetch("orders", 0), 5);
    world.pass(600_001);
    assert_eq!(world.fetch("orders", 0), -1);
    assert_eq!(world.state(), GroupState::Dead);
}

#[test]
fn offsets_of_topics_that_a_stable_group_no_longer_reads_expire() {
    let mut world = World::with(GroupSettings { offsets_retention_ms: DAY_MS, ..GroupSettings::default() });
    world.restart();
    let (ids, generation) = world.stable(1);
    let mut request = commit(&ids[0], generation, 5);
    request.topics[0].topic = "returns".into();
    let outcome = world.coordinator.offset_commit(world.now_ms, request);
    world.settle(outcome);
    world.commit(&ids[0], generation, 6);
    pass_alive(&mut world, DAY_MS + 600_000, &ids, generation);
    assert_eq!((world.fetch("returns", 0), world.fetch("orders", 0)), (-1, 6));
}

#[test]
fn a_client_may_set_its_own_retention_and_keeps_it_over_a_restart() {
    let mut world = loaded();
    let mut request = commit("", -1, 5);
    request.retention_time_ms = 2 * DAY_MS;
    let outcome = world.coordinator.offset_commit(world.now_ms, request);
    world.settle(outcome);
    world.pass(2 * DAY_MS - 1);
    world.restart();
    assert_eq!(world.fetch("orders", 0), 5);
    world.pass(600_001);
    assert_eq!(world.fetch("orders", 0), -1);
}

#[test]
fn a_group_that_never_got_members_or_offsets_goes_at_the_next_look() {
    let mut world = loaded();
    world.join(crate::support::dynamic(""));
    assert_eq!(world.state(), GroupState::Empty);
    world.pass(600_001);
    assert_eq!(world.state(), GroupState::Dead);
}

#[test]
fn many_expired_offsets_go_in_several_batches() {
    let mut world = loaded();
    for group in 0..30 {
        let mut request = commit("", -1, 5);
        request.group_id = format!("group-{group}");
        let partition = request.topics[0].partitions[0].clone();
        let of = |number| tidings_coordinator::CommitPartition { partition: number, ..partition.clone() };
        request.topics[0].partitions = (0..100).map(of).collect();
        let outcome = world.coordinator.offset_commit(world.now_ms, request);
        world.settle(outcome);
    }
    let before = world.log.len();
    world.now_ms += 8 * DAY_MS;
    let effects = world.coordinator.on_deadline(world.now_ms);
    assert!(effects.records.len() < 1_200, "{}", effects.records.len());
    world.carry_out(effects);
    world.pass(1_000);
    assert_eq!(world.log.len() - before, 30 * 101);
    assert!(world.coordinator.list_groups(&[], &[]).is_empty());
}
