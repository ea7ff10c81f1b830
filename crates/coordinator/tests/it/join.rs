//! JoinGroup: who gets in, with which id, and what the group then speaks.

use bytes::Bytes;
use tidings_coordinator::{GroupSettings, GroupState, JoinGroupRequest, Protocol};
use tidings_model::ErrorCode;

use crate::support::{GROUP, REBALANCE_MS, World, dynamic, protocol, static_member, sync};

fn check_refused(request: JoinGroupRequest, expect: ErrorCode) {
    let mut world = World::new();
    let response = world.join(request);
    assert_eq!(response.error, expect);
    assert_eq!((response.generation_id, response.leader.as_str()), (-1, ""));
}

#[test]
fn requests_that_cannot_be_are_refused() {
    check_refused(JoinGroupRequest { group_id: String::new(), ..dynamic("") }, ErrorCode::InvalidGroupId);
    check_refused(
        JoinGroupRequest { session_timeout_ms: 5_999, ..dynamic("") },
        ErrorCode::InvalidSessionTimeout,
    );
    check_refused(
        JoinGroupRequest { session_timeout_ms: 1_800_001, ..dynamic("") },
        ErrorCode::InvalidSessionTimeout,
    );
    check_refused(
        JoinGroupRequest { protocols: vec![], ..dynamic("") },
        ErrorCode::InconsistentGroupProtocol,
    );
    check_refused(
        JoinGroupRequest { protocol_type: String::new(), ..dynamic("") },
        ErrorCode::InconsistentGroupProtocol,
    );
    check_refused(
        JoinGroupRequest { client_id: "c".repeat(32_750), ..dynamic("") },
        ErrorCode::InvalidRequest,
    );
    check_refused(dynamic("made-up"), ErrorCode::UnknownMemberId);
}

#[test]
fn an_unknown_member_of_a_known_group_is_refused() {
    let mut world = World::new();
    world.stable(1);
    assert_eq!(world.join(dynamic("made-up")).error, ErrorCode::UnknownMemberId);
}

#[test]
fn a_dynamic_member_is_given_an_id_before_it_counts() {
    let mut world = World::new();
    let required = world.join(dynamic(""));
    assert_eq!(required.error, ErrorCode::MemberIdRequired);
    assert!(required.member_id.starts_with("client-"), "{}", required.member_id);
    assert_eq!(required.member_id.len(), "client-".len() + 36);
    assert_eq!(world.state(), GroupState::Empty);
    let joined = world.join(dynamic(&required.member_id));
    assert_eq!((joined.error, joined.generation_id), (ErrorCode::None, 1));
    assert_eq!(joined.leader, required.member_id);
    assert_eq!(joined.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.members[0].metadata, protocol("range", &["orders"]).metadata);
    assert_eq!(world.state(), GroupState::CompletingRebalance);
}

#[test]
fn before_version_4_a_member_joins_at_once() {
    let mut world = World::new();
    let joined = world.join(JoinGroupRequest { requires_known_member_id: false, ..dynamic("") });
    assert_eq!((joined.error, joined.generation_id), (ErrorCode::None, 1));
    assert_eq!(joined.leader, joined.member_id);
}

#[test]
fn an_id_that_was_given_out_cannot_become_a_static_member() {
    let mut world = World::new();
    let pending = world.join(dynamic("")).member_id;
    assert_eq!(world.join(static_member("i", &pending)).error, ErrorCode::UnknownServerError);
}

#[test]
fn a_pending_member_holds_the_rebalance_until_it_joins_or_its_session_ends() {
    let mut world = World::new();
    let (ids, _) = world.stable(1);
    let pending = world.join(dynamic("")).member_id;
    let leader = world.send_join(dynamic(&ids[0]));
    assert!(world.is_waiting(leader));
    let second = world.send_join(dynamic(&pending));
    assert_eq!(world.joined(leader).members.len(), 2);
    assert_eq!(world.joined(second).generation_id, 2);

    let mut world = World::new();
    let (ids, _) = world.stable(1);
    world.join(dynamic(""));
    let leader = world.send_join(dynamic(&ids[0]));
    world.pass(9_999);
    assert!(world.is_waiting(leader));
    world.pass(1);
    assert_eq!(world.joined(leader).members.len(), 1);
}

#[test]
fn a_group_keeps_to_its_protocol_type_and_needs_a_protocol_in_common() {
    let mut world = World::new();
    world.stable(1);
    let connect = JoinGroupRequest { protocol_type: "connect".into(), ..dynamic("") };
    assert_eq!(world.join(connect).error, ErrorCode::InconsistentGroupProtocol);
    let other = JoinGroupRequest { protocols: vec![protocol("sticky", &[])], ..dynamic("") };
    assert_eq!(world.join(other).error, ErrorCode::InconsistentGroupProtocol);
}

#[test]
fn the_protocol_with_most_first_votes_among_the_common_ones_wins() {
    let check = |members: &[&[&str]], expect: &str| {
        let settings = GroupSettings { initial_rebalance_delay_ms: 3_000, ..GroupSettings::default() };
        let mut world = World::with(settings);
        let tokens: Vec<_> = members
            .iter()
            .map(|names| {
                let protocols = names.iter().map(|name| protocol(name, &[])).collect();
                let request = JoinGroupRequest { protocols, requires_known_member_id: false, ..dynamic("") };
                world.send_join(request)
            })
            .collect();
        world.pass(i64::from(REBALANCE_MS));
        assert_eq!(world.joined(tokens[0]).protocol_name.as_deref(), Some(expect), "{members:?}");
    };
    check(&[&["range", "sticky"], &["sticky", "range"], &["sticky", "range"]], "sticky");
    check(&[&["range", "sticky"], &["sticky"], &["range", "sticky"]], "sticky");
    check(&[&["a", "b"], &["a"]], "a");
}

#[test]
fn of_two_protocols_with_one_name_the_first_counts() {
    let mut world = World::new();
    let twice =
        vec![protocol("range", &["orders"]), Protocol { name: "range".into(), metadata: Bytes::new() }];
    let request = JoinGroupRequest { protocols: twice, requires_known_member_id: false, ..dynamic("") };
    let joined = world.join(request);
    assert_eq!(joined.members[0].metadata, protocol("range", &["orders"]).metadata);
}

#[test]
fn any_protocol_type_is_taken_with_opaque_metadata() {
    let mut world = World::new();
    let request = JoinGroupRequest {
        protocol_type: "connect".into(),
        protocols: vec![Protocol { name: "sessioned".into(), metadata: Bytes::from_static(b"\xff") }],
        requires_known_member_id: false,
        ..dynamic("")
    };
    let joined = world.join(request);
    assert_eq!(joined.protocol_type.as_deref(), Some("connect"));
}

#[test]
fn a_follower_that_joins_again_unchanged_learns_the_generation_without_a_rebalance() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    let again = world.join(dynamic(&ids[1]));
    assert_eq!((again.error, again.generation_id, again.members.len()), (ErrorCode::None, generation, 0));
    assert_eq!(again.leader, ids[0]);
    assert_eq!(world.state(), GroupState::Stable);
}

#[test]
fn a_follower_with_another_subscription_and_the_leader_in_any_case_start_a_rebalance() {
    let mut world = World::new();
    let (ids, generation) = world.stable(2);
    let changed = JoinGroupRequest { protocols: vec![protocol("range", &["returns"])], ..dynamic(&ids[1]) };
    let follower = world.send_join(changed);
    assert_eq!(world.state(), GroupState::PreparingRebalance);
    assert_eq!(world.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
    let leader = world.send_join(dynamic(&ids[0]));
    assert_eq!(world.joined(leader).generation_id, generation + 1);
    world.sync_all(&ids, &world.joined(follower).leader.clone(), generation + 1);

    let leader_again = world.send_join(dynamic(&ids[0]));
    assert!(world.is_waiting(leader_again));
    assert_eq!(world.state(), GroupState::PreparingRebalance);
}

#[test]
fn a_member_that_lost_the_answer_joins_again_during_completion() {
    let mut world = World::new();
    let (id, _) = world.enter();
    let again = world.join(dynamic(&id));
    assert_eq!((again.error, again.generation_id, again.members.len()), (ErrorCode::None, 1, 1));
    let changed = world.join(JoinGroupRequest { protocols: vec![protocol("range", &[])], ..dynamic(&id) });
    assert_eq!(changed.generation_id, 2);
}

#[test]
fn a_second_join_of_one_member_takes_the_place_of_the_first() {
    let mut world = World::new();
    let (ids, _) = world.stable(2);
    let first = world.send_join(dynamic(&ids[0]));
    let second = world.send_join(dynamic(&ids[0]));
    assert_eq!(world.joined(first).error, ErrorCode::RebalanceInProgress);
    assert!(world.is_waiting(second));
}

#[test]
fn a_group_takes_no_more_members_than_it_may_have() {
    let mut world = World::with(GroupSettings { max_size: 2, ..GroupSettings::default() });
    let (ids, _) = world.stable(2);
    assert_eq!(world.join(dynamic("")).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.join(dynamic(&ids[1])).error, ErrorCode::None);
}

#[test]
fn a_group_that_became_too_large_shrinks_after_a_restart() {
    let mut world = World::new();
    let (ids, _) = world.stable(3);
    let mut small = World::with(GroupSettings { max_size: 2, ..GroupSettings::default() });
    small.log = world.log.clone();
    small.restart();
    assert_eq!(small.state(), GroupState::PreparingRebalance);
    let first = small.send_join(dynamic(&ids[0]));
    let second = small.send_join(dynamic(&ids[1]));
    assert_eq!(small.join(dynamic(&ids[2])).error, ErrorCode::GroupMaxSizeReached);
    small.pass(i64::from(REBALANCE_MS));
    assert_eq!(small.joined(first).error, ErrorCode::None);
    assert_eq!(small.joined(second).error, ErrorCode::None);
    assert_eq!(small.coordinator.describe_group(GROUP).unwrap().members.len(), 2);
}

#[test]
fn an_empty_group_waits_for_members_as_long_as_they_keep_coming() {
    let settings = GroupSettings { initial_rebalance_delay_ms: 3_000, ..GroupSettings::default() };
    let mut world = World::with(settings);
    let (_, first) = world.enter();
    world.pass(2_000);
    let (_, second) = world.enter();
    world.pass(1_000);
    assert!(world.is_waiting(first), "a newcomer extends the delay");
    world.pass(3_000);
    assert_eq!(world.joined(first).generation_id, 1);
    assert_eq!(world.joined(second).generation_id, 1);
}

#[test]
fn the_initial_delay_ends_with_the_rebalance_timeout() {
    let settings = GroupSettings { initial_rebalance_delay_ms: 3_000, ..GroupSettings::default() };
    let mut world = World::with(settings);
    let mut tokens = Vec::new();
    for _ in 0..6 {
        let request =
            JoinGroupRequest { rebalance_timeout_ms: 5_000, requires_known_member_id: false, ..dynamic("") };
        tokens.push(world.send_join(request));
        world.pass(1_000);
    }
    assert_eq!(world.joined(tokens[0]).generation_id, 1);
}

#[test]
fn sync_of_another_protocol_is_refused() {
    let mut world = World::new();
    let (id, _) = world.enter();
    let mut request = sync(&id, 1, &[]);
    request.protocol_name = Some("sticky".into());
    assert_eq!(world.sync(request).error, ErrorCode::InconsistentGroupProtocol);
    let mut request = sync(&id, 1, &[]);
    request.protocol_type = Some("connect".into());
    assert_eq!(world.sync(request).error, ErrorCode::InconsistentGroupProtocol);
}
