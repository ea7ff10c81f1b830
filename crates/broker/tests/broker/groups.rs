//! Groups over the wire: a member's life, its offsets, and what a crash leaves of them.

use std::sync::Arc;

use bytes::Bytes;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tidings_broker::ManualClock;
use tidings_wire::messages::describe_groups_request::DescribeGroupsRequest;
use tidings_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use tidings_wire::messages::heartbeat_request::HeartbeatRequest;
use tidings_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use tidings_wire::messages::join_group_response::JoinGroupResponse;
use tidings_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use tidings_wire::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use tidings_wire::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestTopic};
use tidings_wire::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use tokio::io::AsyncWriteExt;

use crate::harness::{Client, TestBroker, batch, eventually, frame};
use crate::storage::delete_topic;

fn join_request(member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: "readers".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member_id.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".to_owned(),
            ..JoinGroupRequestProtocol::default()
        }],
        ..JoinGroupRequest::default()
    }
}

/// Joins alone, as its leader, and hands itself this assignment.
pub async fn join_alone(client: &mut Client, assignment: &'static [u8]) -> JoinGroupResponse {
    let given = client.call(9, &join_request("")).await;
    assert_eq!(given.error_code, 79);
    let joined = client.call(9, &join_request(&given.member_id)).await;
    assert_eq!((joined.error_code, &joined.leader), (0, &joined.member_id));
    let sync = SyncGroupRequest {
        group_id: "readers".to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: Some("consumer".to_owned()),
        protocol_name: Some("range".to_owned()),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: joined.member_id.clone(),
            assignment: Bytes::from_static(assignment),
            ..SyncGroupRequestAssignment::default()
        }],
        ..SyncGroupRequest::default()
    };
    let synced = client.call(5, &sync).await;
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, assignment));
    joined
}

async fn heartbeat(client: &mut Client, joined: &JoinGroupResponse) -> i16 {
    let request = HeartbeatRequest {
        group_id: "readers".to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..HeartbeatRequest::default()
    };
    client.call(4, &request).await.error_code
}

pub fn commit_request(joined: &JoinGroupResponse, offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: "readers".to_owned(),
        generation_id_or_member_epoch: joined.generation_id,
        member_id: joined.member_id.clone(),
        topics: vec![OffsetCommitRequestTopic {
            name: "orders".to_owned(),
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: offset,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

pub async fn commit(client: &mut Client, joined: &JoinGroupResponse, offset: i64) -> i16 {
    let response = client.call(8, &commit_request(joined, offset)).await;
    response.topics[0].partitions[0].error_code
}

pub async fn committed(client: &mut Client) -> i64 {
    let topic = OffsetFetchRequestTopic {
        name: "orders".to_owned(),
        partition_indexes: vec![0],
        ..OffsetFetchRequestTopic::default()
    };
    let group_id = "readers".to_owned();
    let request = OffsetFetchRequest { group_id, topics: Some(vec![topic]), ..OffsetFetchRequest::default() };
    client.call(7, &request).await.topics[0].partitions[0].committed_offset
}

async fn state(client: &mut Client) -> (String, usize) {
    let request =
        DescribeGroupsRequest { groups: vec!["readers".to_owned()], ..DescribeGroupsRequest::default() };
    let group = client.call(5, &request).await.groups.remove(0);
    (group.group_state, group.members.len())
}

async fn until_state(client: &mut Client, expected: (&str, usize)) {
    let is_reached = async || {
        let (name, members) = state(client).await;
        (name.as_str(), members) == expected
    };
    eventually(&format!("the group's state is {expected:?}"), is_reached).await;
}

/// A group that has to be made anew.
struct Rebalance {
    /// Has joined, and is answered when the others have.
    waiting: Client,
    /// Of the one that waits.
    member_id: String,
    observer: Client,
    /// Has not joined again.
    _other: Client,
}

async fn rebalance(broker: &TestBroker) -> Rebalance {
    let (mut other, mut waiting) = (broker.client().await, broker.client().await);
    join_alone(&mut other, b"all").await;
    let JoinGroupResponse { member_id, .. } = waiting.call(9, &join_request("")).await;
    waiting.send(9, &join_request(&member_id)).await;
    let mut observer = broker.client().await;
    until_state(&mut observer, ("PreparingRebalance", 2)).await;
    Rebalance { waiting, member_id, observer, _other: other }
}

fn leave_request(member_id: &str) -> LeaveGroupRequest {
    let members = vec![MemberIdentity { member_id: member_id.to_owned(), ..MemberIdentity::default() }];
    LeaveGroupRequest { group_id: "readers".to_owned(), members, ..LeaveGroupRequest::default() }
}

/// It may be gone, and its leaving may stand behind.
#[tokio::test]
async fn a_join_that_waits_for_the_others_is_not_answered_where_no_more_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let Rebalance { mut waiting, _other, .. } = rebalance(&broker).await;
    waiting.stream.shutdown().await.unwrap();
    assert_eq!(waiting.frame().await, None);
}

/// As clients do that are closed during a rebalance: the group waited for the end of the member's session.
#[tokio::test]
async fn a_member_that_leaves_while_it_waits_for_the_others_is_gone_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let Rebalance { mut waiting, member_id, mut observer, _other } = rebalance(&broker).await;
    waiting.send(5, &leave_request(&member_id)).await;
    waiting.stream.shutdown().await.unwrap();
    assert_eq!(
        waiting.frame().await,
        None,
        "an answer to the second request would be taken for one to the first"
    );
    until_state(&mut observer, ("PreparingRebalance", 1)).await;
}

/// A reset was taken for the end of the first request behind the one that waited.
#[tokio::test]
async fn all_that_a_member_sent_behind_its_waiting_join_is_done_when_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let Rebalance { mut waiting, member_id, mut observer, _other } = rebalance(&broker).await;
    // Its deletion waits for the disk.
    observer.create_topic("orders", 1).await;
    waiting.send(5, &delete_topic("orders")).await;
    waiting.send(5, &leave_request(&member_id)).await;
    waiting.stream.set_zero_linger().unwrap();
    drop(waiting);
    until_state(&mut observer, ("PreparingRebalance", 1)).await;
}

#[tokio::test]
async fn a_member_joins_commits_and_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    let joined = join_alone(&mut client, b"all").await;
    assert_eq!(heartbeat(&mut client, &joined).await, 0);
    assert_eq!(commit(&mut client, &joined, 42).await, 0);
    assert_eq!(committed(&mut client).await, 42);
    let stranger = JoinGroupResponse { member_id: "stranger".to_owned(), ..joined.clone() };
    assert_eq!(commit(&mut client, &stranger, 43).await, 25);
    let older = JoinGroupResponse { generation_id: joined.generation_id - 1, ..joined.clone() };
    assert_eq!(commit(&mut client, &older, 43).await, 22);
    assert_eq!(state(&mut client).await, ("Stable".to_owned(), 1));
    assert_eq!(client.call(5, &leave_request(&joined.member_id)).await.members[0].error_code, 0);
    assert_eq!(state(&mut client).await, ("Empty".to_owned(), 0));
    assert_eq!(committed(&mut client).await, 42);
}

#[tokio::test]
async fn a_second_member_waits_for_the_first_to_rejoin() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let (mut first, mut second) = (broker.client().await, broker.client().await);
    let joined = join_alone(&mut first, b"all").await;
    let given = second.call(9, &join_request("")).await;
    let waiting = second.send(9, &join_request(&given.member_id)).await;
    let mut observer = broker.client().await;
    while heartbeat(&mut observer, &joined).await == 0 {}
    let again = first.call(9, &join_request(&joined.member_id)).await;
    let other = second.receive::<JoinGroupRequest>(9, waiting).await;
    assert_eq!((again.error_code, other.error_code), (0, 0));
    assert_eq!((again.generation_id, again.members.len()), (other.generation_id, 2));
    assert_eq!(again.generation_id, joined.generation_id + 1);
}

#[tokio::test]
async fn a_silent_member_expires_when_the_clock_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let broker = TestBroker::with_clock(&dir, clock.clone()).await;
    let mut client = broker.client().await;
    join_alone(&mut client, b"all").await;
    clock.advance(9_000);
    assert_eq!(state(&mut client).await, ("Stable".to_owned(), 1));
    clock.advance(2_000);
    let client = tokio::sync::Mutex::new(client);
    eventually("the member expires", || async {
        state(&mut *client.lock().await).await == ("Empty".to_owned(), 0)
    })
    .await;
}

#[tokio::test]
async fn groups_and_offsets_survive_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    let joined = join_alone(&mut client, b"all").await;
    for offset in 0..50 {
        assert_eq!(commit(&mut client, &joined, offset).await, 0);
    }
    drop(client);
    broker.handle.crash().await;

    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    assert_eq!(committed(&mut client).await, 49);
    assert_eq!(heartbeat(&mut client, &joined).await, 0, "the member goes on where it was");
    assert_eq!(commit(&mut client, &joined, 50).await, 0);
}

#[tokio::test]
async fn the_offsets_topic_is_made_on_first_use_and_is_not_for_clients_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    let folder = dir.path().join("__consumer_offsets-0");
    assert!(!folder.exists());
    let find = FindCoordinatorRequest { key: "readers".to_owned(), ..FindCoordinatorRequest::default() };
    assert_eq!(client.call(3, &find).await.error_code, 0);
    assert!(folder.exists());
    assert_eq!(client.produce("__consumer_offsets", 0, batch(&["x"])).await.error_code, 17);
}

#[tokio::test]
async fn metrics_tell_records_lag_and_sizes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut registry = Registry::default();
    broker.handle.register_metrics(&mut registry);
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    client.produce("orders", 0, batch(&["a", "b", "c"])).await;
    let joined = join_alone(&mut client, b"all").await;
    assert_eq!(commit(&mut client, &joined, 1).await, 0);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for line in [
        "kafka_messages_produced_total{topic=\"orders\"} 3",
        "kafka_consumer_lag{topic=\"orders\",partition=\"0\",group=\"readers\"} 2",
        "tidings_broker_high_watermark{topic=\"orders\",partition=\"0\"} 3",
        "tidings_broker_connections 1",
        "tidings_broker_ack_seconds_count 1",
    ] {
        assert!(text.contains(line), "{line} in:\n{text}");
    }
}

/// A terminal that speaks Latin-1 names its client and its group so. The connection was closed, and never told why.
#[tokio::test]
async fn names_that_are_not_utf8_are_repaired_and_survive_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    let outside = JoinGroupResponse { generation_id: -1, ..JoinGroupResponse::default() };
    let request = OffsetCommitRequest { group_id: "greXupe".to_owned(), ..commit_request(&outside, 7) };
    let mut bytes = frame(8, 77, &request);
    // The client's name is "test".
    for name in [b"test", b"greX"] {
        let at = bytes.windows(4).position(|window| window == name).expect("the name");
        bytes[at + 3] = 0xe9;
    }
    client.stream.write_all(&bytes).await.unwrap();
    let response = client.receive::<OffsetCommitRequest>(8, 77).await;
    assert_eq!(response.topics[0].partitions[0].error_code, 0);
    broker.handle.crash().await;

    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    let group_id = "gre\u{fffd}upe".to_owned();
    let request = OffsetFetchRequest { group_id, topics: None, ..OffsetFetchRequest::default() };
    let response = client.call(7, &request).await;
    assert_eq!(response.topics[0].partitions[0].committed_offset, 7);
}
