//! Disks that fail and power that goes: what clients are told, and what is there afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidings_broker::{Clock, ManualClock, SystemClock};
use tidings_log::testing::{Loss, Operation, SimDisk};
use tidings_wire::messages::api_versions_request::ApiVersionsRequest;
use tidings_wire::messages::delete_topics_request::DeleteTopicsRequest;
use tidings_wire::messages::join_group_response::JoinGroupResponse;
use tidings_wire::messages::produce_request::ProduceRequest;
use tokio::io::AsyncWriteExt;

use crate::groups::{commit, commit_request, committed, join_alone};
use crate::harness::{TestBroker, batch, eventually, gauge, only_partition, produce_request, values};

const KAFKA_STORAGE_ERROR: i16 = 56;
const NOT_COORDINATOR: i16 = 16;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_and_reads_go_on() {
    let disk = SimDisk::new();
    let broker = TestBroker::on_disk(Arc::new(disk.clone())).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    assert_eq!(client.produce("orders", 0, batch(&["safe"])).await.error_code, 0);
    let member = join_alone(&mut client, b"all").await;
    assert_eq!(commit(&mut client, &member, 1).await, 0);
    disk.fail(Operation::Sync, "orders", 0, 1, EIO);
    assert_eq!(client.produce("orders", 0, batch(&["lost"])).await.error_code, KAFKA_STORAGE_ERROR);
    disk.heal();
    // A second sync could say that all is well while the bytes are gone: no writes until a restart.
    assert_eq!(client.produce("orders", 0, batch(&["late"])).await.error_code, KAFKA_STORAGE_ERROR);
    assert_eq!(commit(&mut client, &member, 2).await, NOT_COORDINATOR);
    assert_eq!(committed(&mut client).await, 1);
    assert_eq!(values(&client.fetch("orders", 0, 0).await), [(0, "safe".to_owned())]);
    assert!(broker.handle.is_ready().is_err());
    drop(client);
    broker.handle.crash().await;

    let broker = TestBroker::on_disk(Arc::new(disk.crash(Loss::Unsynced))).await;
    assert_eq!(broker.handle.is_ready(), Ok(()));
    let mut client = broker.client().await;
    assert_eq!(values(&client.fetch("orders", 0, 0).await), [(0, "safe".to_owned())]);
    assert_eq!(client.produce("orders", 0, batch(&["next"])).await.base_offset, 1);
    assert_eq!(committed(&mut client).await, 1);
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers_by_itself() {
    let disk = SimDisk::new();
    let broker = TestBroker::on_disk(Arc::new(disk.clone())).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    disk.fail(Operation::Write, "orders", 0, 1, ENOSPC);
    assert_eq!(client.produce("orders", 0, batch(&["a"])).await.error_code, KAFKA_STORAGE_ERROR);
    disk.heal();
    assert_eq!(client.produce("orders", 0, batch(&["b"])).await.base_offset, 0);
    assert_eq!(values(&client.fetch("orders", 0, 0).await), [(0, "b".to_owned())]);
}

#[tokio::test]
async fn a_topic_that_could_not_be_stored_does_not_exist() {
    let disk = SimDisk::new();
    let broker = TestBroker::on_disk(Arc::new(disk.clone())).await;
    let mut client = broker.client().await;
    client.create_topic("first", 1).await;
    disk.fail(Operation::Write, "__cluster_metadata", 0, 1, ENOSPC);
    let request = tidings_wire::messages::create_topics_request::CreateTopicsRequest {
        topics: vec![tidings_wire::messages::create_topics_request::CreatableTopic {
            name: "second".to_owned(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(client.call(7, &request).await.topics[0].error_code, KAFKA_STORAGE_ERROR);
    assert_eq!(client.produce("second", 0, batch(&["a"])).await.error_code, 3);
    disk.heal();
    assert_eq!(client.call(7, &request).await.topics[0].error_code, 0, "its folders must not be in the way");
    drop(client);
    broker.handle.crash().await;
    let broker = TestBroker::on_disk(Arc::new(disk.crash(Loss::Unsynced))).await;
    let mut client = broker.client().await;
    assert_eq!(client.produce("second", 0, batch(&["a"])).await.error_code, 0);
}

/// What was acknowledged before the power went.
#[derive(Default)]
struct Acknowledged {
    records: Vec<(i64, String)>,
    offset: i64,
}

#[tokio::test]
async fn what_was_acknowledged_survives_power_cuts() {
    let mut disk = SimDisk::new();
    let mut known = Acknowledged { offset: -1, ..Acknowledged::default() };
    let mut member: Option<JoinGroupResponse> = None;
    for round in 0..30 {
        let broker = TestBroker::on_disk(Arc::new(disk.clone())).await;
        let mut client = broker.client().await;
        if round == 0 {
            client.create_topic("orders", 1).await;
            member = Some(join_alone(&mut client, b"all").await);
        }
        let found = values(&client.fetch("orders", 0, 0).await);
        assert_eq!(found.get(..known.records.len()), Some(&known.records[..]), "round {round}");
        assert!(committed(&mut client).await >= known.offset, "round {round}");
        known.records = found;
        let next = i64::try_from(known.records.len()).unwrap();
        let mut sent = Vec::new();
        for index in next..next + 10 {
            let value = format!("{round}:{index}");
            let request = produce_request("orders", 0, batch(&[&value]));
            sent.push((client.send(9, &request).await, value));
        }
        // Only some answers are read before the power goes.
        for (correlation_id, value) in sent.into_iter().take(round % 11) {
            let answer = only_partition(client.receive::<ProduceRequest>(9, correlation_id).await);
            assert_eq!(answer.error_code, 0);
            known.records.push((answer.base_offset, value));
        }
        if round % 3 == 0 {
            let mut other = broker.client().await;
            assert_eq!(commit(&mut other, member.as_ref().unwrap(), next).await, 0);
            known.offset = next;
        }
        disk = disk.crash(Loss::Random(round as u64));
        drop(client);
        tokio::time::timeout(Duration::from_secs(60), broker.handle.crash()).await.expect("the broker ends");
    }
}

pub fn delete_topic(name: &str) -> DeleteTopicsRequest {
    DeleteTopicsRequest { topic_names: vec![name.to_owned()], timeout_ms: 1000, ..Default::default() }
}

/// A broker on whose disk a group has read `orders` up to 1000.
async fn with_committed_offset(disk: &SimDisk) -> TestBroker {
    let broker = TestBroker::on_disk(Arc::new(disk.clone())).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    let member = join_alone(&mut client, b"all").await;
    assert_eq!(commit(&mut client, &member, 1000).await, 0);
    assert_eq!(committed(&mut client).await, 1000);
    broker
}

/// What groups had read of it was forgotten by the request's own task, which ends with its connection: a new topic of
/// that name was then read from where the old one had been left.
#[tokio::test]
async fn offsets_go_with_their_topic_when_its_client_hangs_up_too() {
    let disk = SimDisk::new();
    let broker = with_committed_offset(&disk).await;
    let mut client = broker.client().await;
    let mut leaving = broker.client().await;
    let connections = async || gauge(&broker, "tidings_broker_connections") == 1;
    disk.hold_syncs();
    leaving.send(5, &delete_topic("orders")).await;
    eventually("the deletion has begun", async || disk.held_syncs_count() > 0).await;
    // A reset: one that has only finished sending would be answered.
    leaving.stream.set_zero_linger().unwrap();
    drop(leaving);
    eventually("the broker has noticed", connections).await;
    disk.release_syncs(false);
    client.create_topic("orders", 1).await;
    assert_eq!(committed(&mut client).await, -1);
}

#[tokio::test]
async fn what_is_being_done_for_a_client_that_has_finished_sending_is_answered() {
    let disk = SimDisk::new();
    let broker = with_committed_offset(&disk).await;
    let (mut client, mut other) = (broker.client().await, broker.client().await);
    disk.hold_syncs();
    let deleted = client.send(5, &delete_topic("orders")).await;
    let asked = client.send(0, &ApiVersionsRequest::default()).await;
    client.stream.shutdown().await.unwrap();
    eventually("the deletion has begun", async || disk.held_syncs_count() > 0).await;
    // The broker hears of the end before it hears of this.
    other.call(0, &ApiVersionsRequest::default()).await;
    disk.release_syncs(false);
    assert_eq!(client.receive::<DeleteTopicsRequest>(5, deleted).await.responses[0].error_code, 0);
    assert_eq!(client.receive::<ApiVersionsRequest>(0, asked).await.error_code, 0);
    assert_eq!(client.frame().await, None);
}

#[tokio::test]
async fn offsets_of_a_deleted_topic_go_when_their_tombstones_can_be_written_again() {
    let disk = SimDisk::new();
    let broker = with_committed_offset(&disk).await;
    let mut client = broker.client().await;
    disk.fail(Operation::Write, "__consumer_offsets", 0, 1, ENOSPC);
    assert_eq!(client.call(5, &delete_topic("orders")).await.responses[0].error_code, 0);
    disk.heal();
    client.create_topic("orders", 1).await;
    assert_eq!(committed(&mut client).await, -1);
}

#[tokio::test]
async fn offsets_of_a_deleted_topic_go_at_the_next_start_where_a_crash_came_first() {
    let disk = SimDisk::new();
    let broker = with_committed_offset(&disk).await;
    let mut client = broker.client().await;
    disk.fail(Operation::Write, "__consumer_offsets", 0, 1, ENOSPC);
    assert_eq!(client.call(5, &delete_topic("orders")).await.responses[0].error_code, 0);
    drop(client);
    broker.handle.crash().await;
    let broker = TestBroker::on_disk(Arc::new(disk.crash(Loss::Unsynced))).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    assert_eq!(committed(&mut client).await, -1);
    assert_eq!(broker.handle.is_ready(), Ok(()));
}

/// The first line about an error cannot be written, as on a full disk that the broker's own log lies on.
#[derive(Default)]
struct FullLog {
    has_panicked: AtomicBool,
}

impl tracing::Subscriber for FullLog {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }

    fn event(&self, event: &tracing::Event<'_>) {
        assert!(self.has_panicked.swap(true, Ordering::Relaxed), "cannot write: {event:?}");
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// The panic came between the failed append and what it means for the groups: from then on every request of a group of
/// that partition ended its connection, until a restart.
#[tokio::test]
async fn groups_outlive_a_log_line_that_cannot_be_written() {
    let disk = SimDisk::new();
    let broker = TestBroker::on_disk(Arc::new(disk.clone())).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    let member = join_alone(&mut client, b"all").await;
    // The broker's tasks run on this thread.
    let logging = tracing::subscriber::set_default(FullLog::default());
    disk.fail(Operation::Write, "__consumer_offsets", 0, 1, ENOSPC);
    client.send(8, &commit_request(&member, 1)).await;
    assert_eq!(client.frame().await, None, "the line was in the way of the answer");
    drop(logging);
    disk.heal();
    let mut client = broker.client().await;
    assert_eq!(commit(&mut client, &member, 2).await, 0);
    assert_eq!(committed(&mut client).await, 2);
}

/// It called itself ready: each write failed by itself, and nothing was wrong in between.
#[tokio::test]
async fn a_file_system_that_takes_no_writes_is_told_and_read() {
    let disk = SimDisk::new();
    let clock = Arc::new(ManualClock::new(SystemClock::new().wall_ms()));
    let broker = TestBroker::on_disk_with_clock(Arc::new(disk.clone()), clock.clone()).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    assert_eq!(client.produce("orders", 0, batch(&["before"])).await.error_code, 0);
    disk.fail(Operation::EnsureAlive, "", 0, usize::MAX, EROFS);
    disk.fail(Operation::Write, "orders", 0, usize::MAX, EROFS);
    assert_eq!(client.produce("orders", 0, batch(&["a"])).await.error_code, KAFKA_STORAGE_ERROR);
    let why = broker.handle.is_ready().unwrap_err();
    assert!(why.ends_with("takes no writes any more: see the system's log"), "{why}");
    clock.advance(1_000);
    assert_eq!(values(&client.fetch("orders", 0, 0).await), [(0, "before".to_owned())]);
    disk.heal();
    clock.advance(1_000);
    eventually("the broker has noticed", async || broker.handle.is_ready().is_ok()).await;
    assert_eq!(client.produce("orders", 0, batch(&["b"])).await.base_offset, 1);
}

/// All jobs were one task: the end of one was the end of all, and the broker still called itself ready.
#[tokio::test]
async fn a_job_that_has_ended_is_told_and_does_not_end_the_others() {
    let disk = SimDisk::new();
    let clock = Arc::new(ManualClock::new(SystemClock::new().wall_ms()));
    let broker = TestBroker::on_disk_with_clock(Arc::new(disk.clone()), clock.clone()).await;
    let mut client = broker.client().await;
    join_alone(&mut client, b"all").await;
    assert_eq!(broker.handle.is_ready(), Ok(()));
    let logging = tracing::subscriber::set_default(FullLog::default());
    disk.fail(Operation::Write, "__consumer_offsets", 0, 1, ENOSPC);
    clock.advance(11_000);
    eventually("the timers end", async || broker.handle.is_ready().is_err()).await;
    assert_eq!(
        broker.handle.is_ready(),
        Err("a part of the broker has ended until a restart: the timers of groups".to_owned())
    );
    drop(logging);
    disk.heal();
    // What writes the markers of transactions goes on.
    crate::transactions::completes_a_transaction(broker.client().await).await;
}
