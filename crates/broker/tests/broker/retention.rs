//! Old records go by themselves, and others on demand.

use std::sync::Arc;

use tidings_broker::{Broker, BrokerOptions, BrokerSettings, ManualClock};
use tidings_wire::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};

use crate::harness::{Client, TestBroker, batch, eventually, options, values};

async fn delete_records(client: &mut Client, topic: &str, partition: i32, offset: i64) -> (i16, i64) {
    let partitions = vec![DeleteRecordsPartition {
        partition_index: partition,
        offset,
        ..DeleteRecordsPartition::default()
    }];
    let topics =
        vec![DeleteRecordsTopic { name: topic.to_owned(), partitions, ..DeleteRecordsTopic::default() }];
    let request = DeleteRecordsRequest { topics, timeout_ms: 1000, ..DeleteRecordsRequest::default() };
    let response = client.call(2, &request).await;
    let result = &response.topics[0].partitions[0];
    assert_eq!((response.topics[0].name.as_str(), result.partition_index), (topic, partition));
    (result.error_code, result.low_watermark)
}

#[tokio::test]
async fn records_are_deleted_up_to_an_offset_and_a_restart_keeps_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    for value in ["a", "b", "c"] {
        client.produce("orders", 0, batch(&[value])).await;
    }
    assert_eq!(delete_records(&mut client, "orders", 0, 2).await, (0, 2));
    assert_eq!(delete_records(&mut client, "orders", 0, 1).await, (0, 2), "nothing to do");
    assert_eq!(delete_records(&mut client, "orders", 0, 4).await, (1, -1));
    assert_eq!(delete_records(&mut client, "orders", 0, -2).await, (1, -1));
    assert_eq!(delete_records(&mut client, "orders", 5, 0).await, (3, -1));
    assert_eq!(delete_records(&mut client, "nowhere", 0, 0).await, (3, -1));
    assert_eq!(client.fetch("orders", 0, 1).await.error_code, 1);
    let fetched = client.fetch("orders", 0, 2).await;
    assert_eq!((values(&fetched), fetched.log_start_offset), (vec![(2, "c".to_owned())], 2));
    broker.handle.crash().await;
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    assert_eq!(client.fetch("orders", 0, 2).await.log_start_offset, 2);
    assert_eq!(delete_records(&mut client, "orders", 0, -1).await, (0, 3), "up to the high watermark");
}

#[tokio::test]
async fn old_records_go_when_the_time_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let now_ms = 1_800_000_000_000;
    let clock = Arc::new(ManualClock::new(now_ms));
    let settings = [
        ("log.retention.minutes", "60"),
        ("log.retention.check.interval.ms", "60000"),
        ("log.message.timestamp.type", "LogAppendTime"),
    ];
    let settings = BrokerSettings::parse(settings).unwrap();
    let options = BrokerOptions { settings, clock: clock.clone(), ..options(dir.path()) };
    let broker = TestBroker { handle: Broker::start(options).await.unwrap() };
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    client.produce("orders", 0, batch(&["a"])).await;
    clock.advance(59 * 60_000);
    client.produce("orders", 0, batch(&["b"])).await;
    assert_eq!(client.fetch("orders", 0, 0).await.log_start_offset, 0);
    // Both are in one segment, whose newest record decides.
    clock.advance(62 * 60_000);
    let client = tokio::sync::Mutex::new(client);
    eventually("the records are gone", || async {
        client.lock().await.fetch("orders", 0, 2).await.log_start_offset == 2
    })
    .await;
    let mut client = client.into_inner();
    assert_eq!(client.produce("orders", 0, batch(&["c"])).await.base_offset, 2);
}
