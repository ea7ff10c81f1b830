//! Large requests on many connections: together they take no more than `queued.max.request.bytes`.

use std::sync::Arc;

use bytes::Bytes;
use tidings_broker::{Clock, ManualClock, SystemClock};
use tidings_wire::messages::api_versions_request::ApiVersionsRequest;
use tidings_wire::messages::describe_groups_request::DescribeGroupsRequest;
use tidings_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use tidings_wire::messages::produce_request::ProduceRequest;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::harness::{Client, TestBroker, batch, eventually, frame, gauge, only_partition, produce_request};

const MIB: usize = 1 << 20;

/// What a client claims that never sends it all.
const CLAIM_BYTES: usize = 600 * 1024;

fn reserved_bytes(broker: &TestBroker) -> usize {
    gauge(broker, "tidings_broker_reserved_request_bytes")
}

async fn reserves(broker: &TestBroker, bytes: usize) {
    eventually("the reservation", async || reserved_bytes(broker) == bytes).await;
}

/// A client that has sent a frame's length and a little of its body.
async fn claiming(broker: &TestBroker, bytes: usize) -> Client {
    let mut client = broker.client().await;
    client.stream.write_all(&i32::try_from(bytes).unwrap().to_be_bytes()).await.unwrap();
    client.stream.write_all(&[0; 1000]).await.unwrap();
    client
}

fn large_batch() -> Bytes {
    batch(&["x".repeat(CLAIM_BYTES).as_str()])
}

async fn is_unanswered(client: &Client) -> bool {
    let mut byte = [0];
    client.stream.try_read(&mut byte).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn many_large_requests_share_the_budget_and_all_get_through() {
    let dir = tempfile::tempdir().unwrap();
    let budget = 2 * MIB;
    let broker = TestBroker::with_settings(&dir, &[("queued.max.request.bytes", &budget.to_string())]).await;
    let mut small = broker.client().await;
    small.create_topic("orders", 1).await;
    let mut senders = JoinSet::new();
    for _ in 0..40 {
        let mut client = broker.client().await;
        senders.spawn(async move {
            for _ in 0..3 {
                assert_eq!(client.produce("orders", 0, large_batch()).await.error_code, 0);
            }
        });
    }
    while !senders.is_empty() {
        assert_eq!(small.produce("orders", 0, batch(&["small"])).await.error_code, 0);
        let reserved = reserved_bytes(&broker);
        assert!(reserved <= budget, "{reserved}");
        while let Some(ended) = senders.try_join_next() {
            ended.unwrap();
        }
    }
    assert_eq!(reserved_bytes(&broker), 0);
}

#[tokio::test]
async fn who_waits_for_the_budget_goes_on_when_others_leave_and_small_clients_always_do() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::with_settings(&dir, &[("queued.max.request.bytes", "1048576")]).await;
    let mut small = broker.client().await;
    small.create_topic("orders", 1).await;
    let holder = claiming(&broker, CLAIM_BYTES).await;
    reserves(&broker, CLAIM_BYTES).await;
    let mut waiting = broker.client().await;
    let sending = tokio::spawn(async move { waiting.produce("orders", 0, large_batch()).await });
    for _ in 0..50 {
        assert_eq!(small.produce("orders", 0, batch(&["small"])).await.error_code, 0);
    }
    assert!(!sending.is_finished());
    assert!(reserved_bytes(&broker) <= MIB);
    drop(holder);
    assert_eq!(sending.await.unwrap().error_code, 0);
    reserves(&broker, 0).await;
}

#[tokio::test]
async fn a_request_larger_than_the_budget_goes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::with_settings(&dir, &[("queued.max.request.bytes", "100000")]).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    for _ in 0..2 {
        assert_eq!(client.produce("orders", 0, large_batch()).await.error_code, 0);
    }
    assert_eq!(reserved_bytes(&broker), 0);
}

#[tokio::test]
async fn a_body_that_stalls_loses_its_reservation_and_its_connection() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(SystemClock::new().wall_ms()));
    let broker = TestBroker::with_clock(&dir, clock.clone()).await;
    let mut stalled = claiming(&broker, 8 * MIB).await;
    reserves(&broker, 8 * MIB).await;
    // Enough progress buys more time; a trickle does not.
    stalled.stream.write_all(&vec![0; 2 * MIB]).await.unwrap();
    let mut other = broker.client().await;
    for _ in 0..3 {
        clock.advance(9_000);
        other.call(0, &ApiVersionsRequest::default()).await;
        stalled.stream.write_all(&[0; 100]).await.unwrap();
        assert!(is_unanswered(&stalled).await);
        assert_eq!(reserved_bytes(&broker), 8 * MIB);
    }
    eventually("the stalled connection ends", async || {
        clock.advance(30_000);
        reserved_bytes(&broker) == 0
    })
    .await;
    let mut byte = [0];
    let ended = tokio::io::AsyncReadExt::read(&mut stalled.stream, &mut byte).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

#[tokio::test]
async fn a_slow_body_that_makes_progress_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(SystemClock::new().wall_ms()));
    let broker = TestBroker::with_clock(&dir, clock.clone()).await;
    let mut slow = broker.client().await;
    slow.create_topic("orders", 1).await;
    let frame = frame(9, 7, &produce_request("orders", 0, large_batch()));
    let (first, rest) = frame.split_at(100_000);
    slow.stream.write_all(first).await.unwrap();
    reserves(&broker, frame.len() - 4).await;
    clock.advance(29_000);
    slow.stream.write_all(rest).await.unwrap();
    let answer = slow.receive::<ProduceRequest>(9, 7).await;
    assert_eq!(only_partition(answer).error_code, 0);
}

/// A member that waited for the others of its group kept what its request had reserved, and two such members kept every
/// larger produce of all clients waiting.
#[tokio::test]
async fn a_request_that_waits_for_others_has_given_its_reservation_back() {
    let dir = tempfile::tempdir().unwrap();
    let settings = [("queued.max.request.bytes", "1048576"), ("group.initial.rebalance.delay.ms", "600000")];
    let broker = TestBroker::with_settings(&dir, &settings).await;
    let (mut joining, mut client) = (broker.client().await, broker.client().await);
    client.create_topic("orders", 1).await;
    let join = JoinGroupRequest {
        group_id: "readers".to_owned(),
        session_timeout_ms: 600_000,
        rebalance_timeout_ms: 600_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".to_owned(),
            metadata: vec![0; CLAIM_BYTES].into(),
            ..JoinGroupRequestProtocol::default()
        }],
        ..JoinGroupRequest::default()
    };
    joining.send(3, &join).await;
    let describe =
        DescribeGroupsRequest { groups: vec!["readers".to_owned()], ..DescribeGroupsRequest::default() };
    while client.call(5, &describe).await.groups[0].members.is_empty() {}
    assert_eq!(client.produce("orders", 0, large_batch()).await.error_code, 0);
    reserves(&broker, 0).await;
    assert!(is_unanswered(&joining).await);
}
