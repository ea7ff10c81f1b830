//! Consumer groups (KIP-848) over time: members come, share, give up, and go.

use tidings_coordinator::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, ConsumerGroupSettings, Effects,
    GroupSettings, GroupState, LeaveGroupRequest, LeavingMember, NotAConsumerGroup,
};
use tidings_model::{ErrorCode, TopicId};

use crate::support::{GROUP, REBALANCE_MS, World, commit};

pub const SESSION_MS: i64 = 45_000;

/// What a member sends when it joins.
pub fn joining(member_id: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: GROUP.into(),
        member_id: member_id.into(),
        member_epoch: 0,
        rebalance_timeout_ms: REBALANCE_MS,
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        subscribed_topic_names: Some(vec!["orders".into()]),
        owned: Some(Vec::new()),
        requires_member_id: true,
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

/// What a member sends when nothing has changed.
pub fn beating(member_id: &str, member_epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        member_epoch,
        rebalance_timeout_ms: -1,
        subscribed_topic_names: None,
        owned: None,
        ..joining(member_id)
    }
}

pub fn owning(
    request: ConsumerGroupHeartbeatRequest,
    topic: TopicId,
    partitions: &[i32],
) -> ConsumerGroupHeartbeatRequest {
    let owned = if partitions.is_empty() { Vec::new() } else { vec![(topic, partitions.to_vec())] };
    ConsumerGroupHeartbeatRequest { owned: Some(owned), ..request }
}

impl World {
    pub fn beat(&mut self, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        let outcome = self.coordinator.consumer_group_heartbeat(self.now_ms, request);
        self.settle(outcome)
    }

    /// Joins and expects to be let in.
    pub fn come(&mut self, request: ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        let response = self.beat(request);
        assert_eq!((response.error, &response.message), (ErrorCode::None, &None));
        response
    }

    /// Sends a LeaveGroup about members, each with its id and instance; gives what became of each.
    fn remove(&mut self, members: &[(&str, Option<&str>)]) -> Vec<ErrorCode> {
        let leaving = |(member_id, instance_id): &(&str, Option<&str>)| LeavingMember {
            member_id: (*member_id).into(),
            group_instance_id: instance_id.map(str::to_owned),
        };
        let request =
            LeaveGroupRequest { group_id: GROUP.into(), members: members.iter().map(leaving).collect() };
        let outcome = self.coordinator.leave_group(self.now_ms, request);
        self.settle(outcome).members.into_iter().map(|member| member.error).collect()
    }

    pub fn consumer_state(&self) -> GroupState {
        self.coordinator.describe_consumer_group(GROUP).expect("a consumer group").state
    }
}

/// The partitions of the only topic in an assignment.
pub fn partitions(response: &ConsumerGroupHeartbeatResponse) -> Option<Vec<i32>> {
    let assignment = response.assignment.as_ref()?;
    Some(assignment.first().map(|(_, partitions)| partitions.clone()).unwrap_or_default())
}

#[test]
fn the_first_member_gets_everything_and_leaves() {
    let mut world = World::new();
    let orders = world.topics.set("orders", 3);
    let first = world.come(joining("a"));
    assert_eq!((first.member_epoch, first.heartbeat_interval_ms), (1, 5_000));
    assert_eq!(first.assignment, Some(vec![(orders, vec![0, 1, 2])]));
    assert_eq!(world.consumer_state(), GroupState::Stable);
    let again = world.come(beating("a", 1));
    assert_eq!((again.member_epoch, again.assignment), (1, None));
    let left = world.come(ConsumerGroupHeartbeatRequest { member_epoch: -1, ..beating("a", 0) });
    assert_eq!(left.member_epoch, -1);
    assert_eq!(world.consumer_state(), GroupState::Empty);
    assert_eq!(world.beat(beating("a", 1)).error, ErrorCode::UnknownMemberId);
}

#[test]
fn a_newcomer_waits_until_the_others_have_given_up() {
    let mut world = World::new();
    let orders = world.topics.set("orders", 4);
    world.come(joining("a"));
    let second = world.come(joining("b"));
    assert_eq!((second.member_epoch, partitions(&second)), (2, Some(vec![])));
    let asked = world.come(beating("a", 1));
    assert_eq!((asked.member_epoch, partitions(&asked)), (1, Some(vec![0, 1])));
    assert_eq!(world.consumer_state(), GroupState::Reconciling);
    assert_eq!(world.come(beating("b", 2)).assignment, None, "nothing was given up yet");
    let gave_up = world.come(owning(beating("a", 1), orders, &[0, 1]));
    assert_eq!((gave_up.member_epoch, gave_up.assignment), (2, None));
    let given = world.come(beating("b", 2));
    assert_eq!(partitions(&given), Some(vec![2, 3]));
    assert_eq!(world.consumer_state(), GroupState::Stable);
}

#[test]
fn a_lost_answer_is_forgiven_and_a_stranger_is_fenced() {
    let mut world = World::new();
    let orders = world.topics.set("orders", 4);
    world.come(joining("a"));
    // The answer to the join got lost: it is sent again.
    let again = world.come(joining("a"));
    assert_eq!((again.member_epoch, partitions(&again)), (1, Some(vec![0, 1, 2, 3])));
    world.come(joining("b"));
    world.come(beating("a", 1));
    world.come(owning(beating("a", 1), orders, &[0, 1]));
    let behind = world.come(owning(beating("a", 1), orders, &[0, 1]));
    assert_eq!(behind.member_epoch, 2);
    assert_eq!(world.beat(owning(beating("a", 1), orders, &[0, 1, 2])).error, ErrorCode::FencedMemberEpoch);
    assert_eq!(world.beat(beating("a", 1)).error, ErrorCode::FencedMemberEpoch);
    assert_eq!(world.beat(beating("a", 3)).error, ErrorCode::FencedMemberEpoch);
    assert_eq!(world.beat(beating("c", 2)).error, ErrorCode::UnknownMemberId);
    // Whoever is fenced gives everything up and starts over.
    let over = world.come(joining("a"));
    assert_eq!((over.member_epoch, partitions(&over)), (2, Some(vec![0, 1])));
}

#[test]
fn silence_and_stubbornness_end_a_membership() {
    let mut world = World::new();
    world.topics.set("orders", 4);
    world.come(joining("a"));
    world.come(joining("b"));
    world.come(beating("a", 1));
    for _ in 0..REBALANCE_MS / 20_000 {
        assert_eq!(world.beat(beating("a", 1)).error, ErrorCode::None);
        world.come(beating("b", 2));
        world.pass(20_000);
    }
    assert_eq!(world.beat(beating("a", 1)).error, ErrorCode::UnknownMemberId, "it never gave anything up");
    assert_eq!(partitions(&world.come(beating("b", 2))), Some(vec![0, 1, 2, 3]));
    world.pass(SESSION_MS);
    assert_eq!(world.consumer_state(), GroupState::Empty);
    assert_eq!(world.coordinator.next_deadline_ms().filter(|at| *at < world.now_ms), None);
}

#[test]
fn a_static_member_keeps_its_partitions_while_it_is_away() {
    let mut world = World::new();
    world.topics.set("orders", 4);
    let fixed = |member_id: &str| ConsumerGroupHeartbeatRequest {
        instance_id: Some("worker".into()),
        ..joining(member_id)
    };
    let first = world.come(fixed("a"));
    assert_eq!(world.beat(fixed("b")).error, ErrorCode::UnreleasedInstanceId);
    let away = ConsumerGroupHeartbeatRequest { member_epoch: -2, ..fixed("a") };
    assert_eq!(world.come(away.clone()).member_epoch, -2);
    assert_eq!(partitions(&world.come(joining("other"))), Some(vec![]));
    let back = world.come(fixed("b"));
    assert_eq!(partitions(&back), Some(vec![0, 1]), "the rest is for the other one, which came meanwhile");
    assert!(back.member_epoch >= first.member_epoch);
    let old = ConsumerGroupHeartbeatRequest { instance_id: Some("worker".into()), ..beating("a", 1) };
    assert_eq!(world.beat(old).error, ErrorCode::FencedInstanceId);
    // The same client subscribes again, under the id that it has.
    world.come(ConsumerGroupHeartbeatRequest { member_epoch: -2, ..fixed("b") });
    assert_eq!(world.beat(fixed("b")).error, ErrorCode::None);
    // Whoever does not come back in time is out.
    world.come(ConsumerGroupHeartbeatRequest { member_epoch: -2, ..fixed("b") });
    world.pass(SESSION_MS);
    assert!(world.coordinator.describe_consumer_group(GROUP).unwrap().members.is_empty());
}

/// An administrator's removal of members was answered with UNKNOWN_MEMBER_ID, and they stayed.
#[test]
fn an_administrator_removes_members() {
    let mut world = World::new();
    world.topics.set("orders", 4);
    let fixed = |member_id: &str, instance_id: &str| ConsumerGroupHeartbeatRequest {
        instance_id: Some(instance_id.into()),
        ..joining(member_id)
    };
    for request in [joining("a"), joining("b"), fixed("c", "one"), fixed("d", "two")] {
        world.come(request);
    }
    let removed = [
        ("a", None, ErrorCode::None),
        ("a", None, ErrorCode::None),
        ("stranger", None, ErrorCode::UnknownMemberId),
        ("", None, ErrorCode::UnknownMemberId),
        ("", Some("one"), ErrorCode::None),
        ("", Some("three"), ErrorCode::UnknownMemberId),
        ("c", Some("two"), ErrorCode::FencedInstanceId),
        ("b", Some("two"), ErrorCode::FencedInstanceId),
    ];
    assert_eq!(world.remove(&removed.map(|(id, instance, _)| (id, instance))), removed.map(|left| left.2));
    let remaining = |world: &World| -> Vec<String> {
        let group = world.coordinator.describe_consumer_group(GROUP).unwrap();
        group.members.into_iter().map(|member| member.member_id).collect()
    };
    assert_eq!(remaining(&world), ["b", "d"]);
    assert_eq!(world.beat(beating("a", 1)).error, ErrorCode::UnknownMemberId);
    world.restart();
    assert_eq!(world.remove(&[("b", None), ("d", Some("two"))]), [ErrorCode::None; 2]);
    assert_eq!(world.consumer_state(), GroupState::Empty);
    world.restart();
    assert_eq!((remaining(&world), world.consumer_state()), (vec![], GroupState::Empty));
}

#[test]
fn members_follow_their_topics() {
    let mut world = World::new();
    let pattern = |member_id: &str| ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: Some(vec![]),
        subscribed_topic_regex: Some("orders-[0-9]+".into()),
        ..joining(member_id)
    };
    let names = |response: &ConsumerGroupHeartbeatResponse| response.assignment.as_ref().map(Vec::len);
    assert_eq!(names(&world.come(pattern("a"))), Some(0));
    world.topics.set("orders-1", 2);
    world.topics.set("returns", 2);
    let one = world.come(beating("a", 1));
    assert_eq!((one.member_epoch, names(&one)), (2, Some(1)));
    world.topics.set("orders-2", 1);
    assert_eq!(names(&world.come(beating("a", 2))), Some(2));
    world.topics.set("orders-2", 5);
    let grown = world.come(beating("a", 3));
    assert_eq!(grown.assignment.unwrap()[1].1.len(), 5);
    world.topics.delete("orders-1");
    let shrunk = world.come(beating("a", 4));
    assert_eq!((shrunk.member_epoch, names(&shrunk)), (4, Some(1)), "asked to give up what is gone");
    let bad = ConsumerGroupHeartbeatRequest { subscribed_topic_regex: Some("(".into()), ..pattern("b") };
    assert_eq!(world.beat(bad).error, ErrorCode::InvalidRegularExpression);
    assert_eq!(world.coordinator.describe_consumer_group(GROUP).unwrap().members.len(), 1);
}

#[test]
fn a_restart_changes_nothing() {
    let mut world = World::new();
    let orders = world.topics.set("orders", 4);
    world.come(joining("a"));
    world.come(joining("b"));
    world.come(beating("a", 1));
    world.restart();
    assert_eq!(world.consumer_state(), GroupState::Reconciling);
    world.come(owning(beating("a", 1), orders, &[0, 1]));
    assert_eq!(partitions(&world.come(beating("b", 2))), Some(vec![2, 3]));
    world.restart();
    assert_eq!((world.come(beating("a", 2)).member_epoch, world.come(beating("b", 2)).member_epoch), (2, 2));
    assert_eq!(world.consumer_state(), GroupState::Stable);
}

#[test]
fn what_is_not_written_has_not_happened() {
    let mut world = World::new();
    world.topics.set("orders", 2);
    let outcome = world.coordinator.consumer_group_heartbeat(world.now_ms, joining("a"));
    world.fail(outcome.effects);
    assert_eq!(world.coordinator.describe_consumer_group(GROUP), Err(NotAConsumerGroup::Missing));
    world.come(joining("a"));
    world.topics.set("orders", 3);
    let outcome = world.coordinator.consumer_group_heartbeat(world.now_ms, beating("a", 1));
    assert!(!outcome.effects.records.is_empty());
    world.fail(outcome.effects);
    assert_eq!(partitions(&world.come(beating("a", 1))), Some(vec![0, 1, 2]), "it looks again");
}

#[test]
fn offsets_are_committed_by_members_in_their_epoch() {
    let mut world = World::new();
    world.topics.set("orders", 1);
    world.come(joining("a"));
    assert_eq!(world.commit("a", 1, 7), ErrorCode::None);
    assert_eq!(world.commit("a", 2, 8), ErrorCode::StaleMemberEpoch);
    assert_eq!(world.commit("b", 1, 8), ErrorCode::UnknownMemberId);
    assert_eq!(world.commit("", -1, 8), ErrorCode::UnknownMemberId);
    let mut old = commit("a", 1, 8);
    old.knows_group_id_not_found = false;
    let outcome = world.coordinator.offset_commit(world.now_ms, old);
    assert_eq!(world.settle(outcome).topics[0].partitions[0].1, ErrorCode::UnsupportedVersion);
    assert_eq!(world.fetch("orders", 0), 7);
    let check =
        |world: &World, member_id, epoch| world.coordinator.check_offset_fetch(GROUP, member_id, epoch);
    assert_eq!(check(&world, None, -1), ErrorCode::None);
    assert_eq!(check(&world, Some("a"), 1), ErrorCode::None);
    assert_eq!(check(&world, Some("a"), 2), ErrorCode::StaleMemberEpoch);
    assert_eq!(check(&world, Some("b"), 1), ErrorCode::UnknownMemberId);
    world.come(ConsumerGroupHeartbeatRequest { member_epoch: -1, ..beating("a", 0) });
    assert_eq!(world.commit("", -1, 9), ErrorCode::None);
}

#[test]
fn offsets_that_nobody_reads_expire_and_take_the_group_along() {
    let mut world = World::new();
    world.restart();
    world.topics.set("orders", 1);
    world.come(joining("a"));
    world.commit("a", 1, 7);
    let week_ms = GroupSettings::default().offsets_retention_ms;
    for _ in 0..week_ms / 30_000 + 50 {
        world.come(beating("a", 1));
        world.pass(30_000);
    }
    assert_eq!(world.fetch("orders", 0), 7, "it lives as long as the group reads the topic");
    world.come(ConsumerGroupHeartbeatRequest { member_epoch: -1, ..beating("a", 0) });
    world.pass(1_200_000);
    assert_eq!(world.fetch("orders", 0), -1);
    assert_eq!(world.coordinator.describe_consumer_group(GROUP), Err(NotAConsumerGroup::Missing));
    assert!(world.reload().list_groups(&[], &[]).is_empty());
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let settings = ConsumerGroupSettings { max_size: 1, ..ConsumerGroupSettings::default() };
    let mut world = World::with(GroupSettings { consumer: settings, ..GroupSettings::default() });
    world.topics.set("orders", 1);
    let empty = || Some(String::new());
    for (request, error) in [
        (
            ConsumerGroupHeartbeatRequest { group_id: String::new(), ..joining("a") },
            ErrorCode::InvalidRequest,
        ),
        (joining(""), ErrorCode::InvalidRequest),
        (ConsumerGroupHeartbeatRequest { instance_id: empty(), ..joining("a") }, ErrorCode::InvalidRequest),
        (ConsumerGroupHeartbeatRequest { rack_id: empty(), ..joining("a") }, ErrorCode::InvalidRequest),
        (
            ConsumerGroupHeartbeatRequest { rebalance_timeout_ms: -1, ..joining("a") },
            ErrorCode::InvalidRequest,
        ),
        (ConsumerGroupHeartbeatRequest { owned: None, ..joining("a") }, ErrorCode::InvalidRequest),
        (
            ConsumerGroupHeartbeatRequest { subscribed_topic_names: None, ..joining("a") },
            ErrorCode::InvalidRequest,
        ),
        (ConsumerGroupHeartbeatRequest { member_epoch: -3, ..joining("a") }, ErrorCode::InvalidRequest),
        (ConsumerGroupHeartbeatRequest { member_epoch: -2, ..joining("a") }, ErrorCode::InvalidRequest),
        (
            ConsumerGroupHeartbeatRequest { server_assignor: Some("mine".into()), ..joining("a") },
            ErrorCode::UnsupportedAssignor,
        ),
        (beating("a", 1), ErrorCode::GroupIdNotFound),
        (ConsumerGroupHeartbeatRequest { member_epoch: -1, ..joining("a") }, ErrorCode::GroupIdNotFound),
    ] {
        assert_eq!(world.beat(request.clone()).error, error, "{request:?}");
    }
    assert!(world.log.is_empty());
    world.come(joining("a"));
    assert_eq!(world.beat(joining("b")).error, ErrorCode::GroupMaxSizeReached);
    let made =
        ConsumerGroupHeartbeatRequest { requires_member_id: false, group_id: "h".into(), ..joining("") };
    assert_eq!(world.come(made).member_id.unwrap().len(), 22);
}

/// Neither the session that ended nor the leave that could not be written came to anything, and no deadline was left:
/// the member held its partitions for ever.
#[test]
fn a_member_whose_removal_cannot_be_written_goes_when_writes_succeed_again() {
    let mut world = World::new();
    world.topics.set("orders", 3);
    world.come(joining("a"));
    world.now_ms += SESSION_MS;
    for _ in 0..3 {
        let effects = world.coordinator.on_deadline(world.now_ms);
        assert!(!effects.records.is_empty(), "the session has ended");
        world.fail(effects);
        assert_eq!(world.coordinator.on_deadline(world.now_ms), Effects::default(), "not at once");
        world.now_ms = world.coordinator.next_deadline_ms().expect("another try");
    }
    assert_eq!(world.consumer_state(), GroupState::Stable);
    world.pass(1_000);
    assert_eq!(world.consumer_state(), GroupState::Empty);
    assert_eq!(partitions(&world.come(joining("b"))), Some(vec![0, 1, 2]));

    let leave = ConsumerGroupHeartbeatRequest { member_epoch: -1, ..beating("b", 0) };
    let outcome = world.coordinator.consumer_group_heartbeat(world.now_ms, leave);
    world.fail(outcome.effects);
    assert_eq!(world.consumer_state(), GroupState::Stable);
    world.pass(SESSION_MS);
    assert_eq!(world.consumer_state(), GroupState::Empty);
}

/// The member lives, but does not give up what it must: the end of its time could not be written.
#[test]
fn a_stubborn_member_whose_removal_cannot_be_written_goes_all_the_same() {
    let mut world = World::new();
    world.topics.set("orders", 4);
    world.come(joining("a"));
    world.come(joining("b"));
    world.come(beating("a", 1));
    let give_up_ms = world.now_ms + i64::from(REBALANCE_MS);
    while world.now_ms < give_up_ms - 20_000 {
        world.pass(20_000);
        world.come(beating("a", 1));
        world.come(beating("b", 2));
    }
    world.now_ms = give_up_ms;
    let effects = world.coordinator.on_deadline(world.now_ms);
    assert!(!effects.records.is_empty(), "it did not give up in time");
    world.fail(effects);
    world.come(beating("a", 1));
    world.pass(1_000);
    assert_eq!(world.beat(beating("a", 1)).error, ErrorCode::UnknownMemberId);
    assert_eq!(partitions(&world.come(beating("b", 2))), Some(vec![0, 1, 2, 3]));
}
