//! Groups that change their protocol while they run (KIP-848).

use tidings_coordinator::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupSettings, GroupSettings, GroupState, JoinGroupRequest,
    MigrationPolicy, NotAConsumerGroup,
};
use tidings_model::ErrorCode;
use tidings_wire::messages::consumer_protocol_assignment::{ConsumerProtocolAssignment, TopicPartition};
use tidings_wire::messages::consumer_protocol_subscription::{
    self as subscription, ConsumerProtocolSubscription,
};
use tidings_wire::{decode_consumer_protocol, encode_versioned};

use crate::consumer::{beating, joining, owning, partitions};
use crate::support::{GROUP, World, dynamic, static_member, sync};

/// A classic consumer that says what it has, as cooperative ones do.
fn classic(member_id: &str, owned: &[i32]) -> JoinGroupRequest {
    let metadata = ConsumerProtocolSubscription {
        topics: vec!["orders".into()],
        owned_partitions: vec![subscription::TopicPartition {
            topic: "orders".into(),
            partitions: owned.to_vec(),
        }],
        ..ConsumerProtocolSubscription::default()
    };
    let mut request = dynamic(member_id);
    request.protocols[0].metadata = encode_versioned(&metadata, 1).unwrap();
    request
}

fn assignment(partitions: &[i32]) -> bytes::Bytes {
    let part = TopicPartition { topic: "orders".into(), partitions: partitions.to_vec() };
    encode_versioned(&ConsumerProtocolAssignment { assigned_partitions: vec![part], user_data: None }, 1)
        .unwrap()
}

fn assigned(bytes: &bytes::Bytes) -> Vec<i32> {
    let read: ConsumerProtocolAssignment = decode_consumer_protocol(bytes.clone()).unwrap();
    read.assigned_partitions.first().map(|part| part.partitions.clone()).unwrap_or_default()
}

/// A stable classic group whose only member has four partitions; gives its id.
fn classic_group(world: &mut World) -> String {
    world.topics.set("orders", 4);
    let id = world.join(dynamic("")).member_id;
    assert_eq!(world.join(classic(&id, &[])).generation_id, 1);
    let mut request = sync(&id, 1, std::slice::from_ref(&id));
    request.assignments[0].assignment = assignment(&[0, 1, 2, 3]);
    world.sync(request);
    world.commit(&id, 1, 42);
    id
}

#[test]
fn a_classic_group_becomes_a_consumer_group_and_back() {
    let mut world = World::new();
    let old = classic_group(&mut world);
    let orders = world.topics.set("orders", 4);

    let new = world.come(joining("new"));
    assert_eq!((new.member_epoch, partitions(&new)), (2, Some(vec![])));
    let group = world.coordinator.describe_consumer_group(GROUP).unwrap();
    assert_eq!((group.members.len(), group.group_epoch), (2, 2));
    assert_eq!(world.fetch("orders", 0), 42, "offsets are the group's");
    world.restart();
    assert_eq!(world.coordinator.describe_group(GROUP), None);

    // The old member hears of it, gives up its half, and joins again.
    assert_eq!(world.heartbeat(&old, 1), ErrorCode::RebalanceInProgress);
    let asked = world.join(classic(&old, &[0, 1, 2, 3]));
    assert_eq!((asked.error, asked.generation_id, asked.leader.as_str()), (ErrorCode::None, 1, ""));
    let half = assigned(&world.sync(sync(&old, 1, &[])).assignment);
    assert_eq!(half, [0, 1]);
    assert_eq!(world.heartbeat(&old, 1), ErrorCode::RebalanceInProgress);
    let moved = world.join(classic(&old, &half));
    assert_eq!(moved.generation_id, 2);
    assert_eq!(assigned(&world.sync(sync(&old, 2, &[])).assignment), half);
    assert_eq!(world.heartbeat(&old, 2), ErrorCode::None);
    assert_eq!(partitions(&world.come(beating("new", 2))), Some(vec![2, 3]));
    assert_eq!(world.consumer_state(), GroupState::Stable);
    assert_eq!(world.commit(&old, 2, 43), ErrorCode::None);
    assert_eq!(world.commit(&old, 1, 44), ErrorCode::IllegalGeneration);

    // The new one leaves: what remains is classic.
    world.come(ConsumerGroupHeartbeatRequest { member_epoch: -1, ..owning(beating("new", 0), orders, &[]) });
    assert_eq!(world.coordinator.describe_consumer_group(GROUP), Err(NotAConsumerGroup::Classic));
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    let joined = world.join(classic(&old, &half));
    assert_eq!((joined.error, joined.leader.as_str()), (ErrorCode::None, old.as_str()));
    let generation_id = joined.generation_id;
    world.sync(sync(&old, generation_id, std::slice::from_ref(&old)));
    assert_eq!((world.state(), world.fetch("orders", 0)), (GroupState::Stable, 43));
    world.restart();
    assert_eq!(world.heartbeat(&old, generation_id), ErrorCode::None);
}

#[test]
fn who_waits_in_the_classic_group_is_told_to_join_the_new_one() {
    let mut world = World::new();
    classic_group(&mut world);
    let id = world.join(dynamic("")).member_id;
    let waiting = world.send_join(classic(&id, &[]));
    assert!(world.is_waiting(waiting));
    world.come(joining("new"));
    assert_eq!(world.joined(waiting).error, ErrorCode::RebalanceInProgress);
    assert_eq!(world.join(classic(&id, &[])).error, ErrorCode::None);
}

#[test]
fn an_empty_group_takes_the_protocol_of_whoever_comes() {
    let mut world = World::new();
    let old = classic_group(&mut world);
    world.leave(&old);
    world.come(joining("new"));
    assert!(world.coordinator.describe_consumer_group(GROUP).is_ok());
    world.come(ConsumerGroupHeartbeatRequest { member_epoch: -1, ..beating("new", 0) });
    let id = world.join(dynamic("")).member_id;
    assert_eq!(world.join(dynamic(&id)).generation_id, 1);
    assert_eq!(world.coordinator.describe_consumer_group(GROUP), Err(NotAConsumerGroup::Classic));
    assert_eq!(world.fetch("orders", 0), 42);
    world.restart();
    assert_eq!(world.coordinator.describe_consumer_group(GROUP), Err(NotAConsumerGroup::Classic));
}

#[test]
fn a_classic_member_that_does_not_join_again_is_out() {
    let mut world = World::new();
    let old = classic_group(&mut world);
    world.come(joining("new"));
    for _ in 0..12 {
        world.heartbeat(&old, 1);
        world.come(beating("new", 2));
        world.pass(5_000);
    }
    assert_eq!(world.heartbeat(&old, 1), ErrorCode::UnknownMemberId);
    let epoch = world.coordinator.describe_consumer_group(GROUP).unwrap().members[0].member_epoch;
    assert_eq!(partitions(&world.come(beating("new", epoch))), Some(vec![0, 1, 2, 3]));
}

#[test]
fn members_of_either_protocol_leave_a_consumer_group() {
    let mut world = World::new();
    let old = classic_group(&mut world);
    world.come(joining("new"));
    assert_eq!(world.leave(&old), ErrorCode::None);
    assert_eq!(partitions(&world.come(beating("new", 2))), Some(vec![0, 1, 2, 3]));
    assert_eq!(world.leave("new"), ErrorCode::None);
    assert_eq!(world.consumer_state(), GroupState::Empty);
    assert_eq!(world.beat(beating("new", 3)).error, ErrorCode::UnknownMemberId);
}

#[test]
fn a_static_member_changes_its_protocol() {
    let mut world = World::new();
    world.topics.set("orders", 4);
    let fixed = |id: &str| {
        let mut request = static_member("worker", id);
        request.protocols = classic("", &[]).protocols;
        request
    };
    let old = world.join(fixed("")).member_id;
    let mut request = sync(&old, 1, std::slice::from_ref(&old));
    request.assignments[0].assignment = assignment(&[0, 1, 2, 3]);
    world.sync(request);
    let upgraded =
        world.come(ConsumerGroupHeartbeatRequest { instance_id: Some("worker".into()), ..joining("new") });
    assert_eq!(partitions(&upgraded), Some(vec![0, 1, 2, 3]), "its place and its partitions are kept");
    assert_eq!(world.coordinator.describe_consumer_group(GROUP).unwrap().members.len(), 1);
    let back = world.join(fixed(""));
    assert_eq!((back.error, world.state()), (ErrorCode::None, GroupState::Stable));
    let synced = world.sync(sync(&back.member_id, back.generation_id, &[]));
    assert_eq!(assigned(&synced.assignment), [0, 1, 2, 3]);
}

#[test]
fn the_policy_forbids() {
    let consumer = ConsumerGroupSettings {
        migration_policy: MigrationPolicy::Disabled,
        ..ConsumerGroupSettings::default()
    };
    let mut world = World::with(GroupSettings { consumer, ..GroupSettings::default() });
    let old = classic_group(&mut world);
    assert_eq!(world.beat(joining("new")).error, ErrorCode::GroupIdNotFound);
    assert_eq!(world.heartbeat(&old, 1), ErrorCode::None);
}

#[test]
fn a_group_that_is_no_consumers_stays_what_it_is() {
    let mut world = World::new();
    let connect = |id: &str| JoinGroupRequest { protocol_type: "connect".into(), ..dynamic(id) };
    let id = world.join(connect("")).member_id;
    assert_eq!(world.join(connect(&id)).error, ErrorCode::None);
    assert_eq!(world.beat(joining("new")).error, ErrorCode::GroupIdNotFound);
    world.come(ConsumerGroupHeartbeatRequest { group_id: "h".into(), ..joining("new") });
    let wrong = JoinGroupRequest { group_id: "h".into(), ..connect("") };
    assert_eq!(world.join(wrong).error, ErrorCode::InconsistentGroupProtocol);
}

#[test]
fn an_upgrade_that_is_not_written_has_not_happened() {
    let mut world = World::new();
    let old = classic_group(&mut world);
    let outcome = world.coordinator.consumer_group_heartbeat(world.now_ms, joining("new"));
    world.fail(outcome.effects);
    assert_eq!((world.state(), world.heartbeat(&old, 1)), (GroupState::Stable, ErrorCode::None));
}
