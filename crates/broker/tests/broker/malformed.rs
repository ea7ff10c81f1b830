//! Frames that make no sense: the connection ends, the broker goes on.

use bytes::Bytes;
use tidings_wire::messages::api_versions_request::ApiVersionsRequest;
use tidings_wire::messages::api_versions_response::ApiVersionsResponse;
use tidings_wire::{Decoder, Message};
use tokio::io::AsyncWriteExt;

use crate::harness::{Client, TestBroker, batch};

async fn send_raw(client: &mut Client, body: &[u8]) {
    let length = i32::try_from(body.len()).unwrap().to_be_bytes();
    // The broker may close before it has read everything.
    let _ = client.stream.write_all(&length).await;
    let _ = client.stream.write_all(body).await;
}

/// API key, version, correlation id 9, no client id.
fn header(api: i16, version: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(api.to_be_bytes());
    bytes.extend(version.to_be_bytes());
    bytes.extend(9i32.to_be_bytes());
    bytes.extend((-1i16).to_be_bytes());
    bytes
}

async fn closes(broker: &TestBroker, body: &[u8]) {
    let mut client = broker.client().await;
    send_raw(&mut client, body).await;
    assert_eq!(client.frame().await, None, "{body:?}");
    let mut other = broker.client().await;
    other.call(0, &ApiVersionsRequest::default()).await;
}

#[tokio::test]
async fn frames_that_make_no_sense_close_the_connection_only() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    closes(&broker, &[]).await;
    closes(&broker, &[0, 3]).await;
    closes(&broker, &header(999, 0)).await;
    closes(&broker, &header(-1, 0)).await;
    // Not served: EndTxn. Not served in this version: Produce 2, Metadata 99.
    closes(&broker, &header(26, 3)).await;
    closes(&broker, &header(0, 2)).await;
    closes(&broker, &header(3, 99)).await;
    // A body that is cut short, and one that claims more elements than there are bytes.
    closes(&broker, &header(3, 1)).await;
    for api in [0i16, 1, 2, 3, 8, 9, 10, 11, 14, 19, 20, 32, 37, 42] {
        let version = if api == 1 { 4 } else { 3 };
        closes(&broker, &[header(api, version), vec![0x7f; 40]].concat()).await;
    }
}

#[tokio::test]
async fn lengths_that_cannot_be_close_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    for length in [-1, i32::MIN, i32::MAX, 104_857_601] {
        let mut client = broker.client().await;
        client.stream.write_all(&length.to_be_bytes()).await.unwrap();
        assert_eq!(client.frame().await, None, "length {length}");
    }
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    // A flexible header, and a body nobody knows.
    send_raw(&mut client, &[header(18, 99), vec![0, 1, 2, 3]].concat()).await;
    let mut frame = Decoder::new(client.frame().await.expect("an answer"));
    assert_eq!(frame.i32().unwrap(), 9);
    let response = ApiVersionsResponse::decode(&mut frame, 0).unwrap();
    assert_eq!(response.error_code, 35);
    assert!(response.api_keys.iter().any(|listed| listed.api_key == 18));
    // The connection goes on.
    client.call(0, &ApiVersionsRequest::default()).await;
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_a_frame_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut stuck = broker.client().await;
    stuck.stream.write_all(&[0, 0, 16, 0, 0, 3]).await.unwrap();
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    assert_eq!(client.produce("orders", 0, batch(&["a"])).await.error_code, 0);
}

#[tokio::test]
async fn damaged_batches_get_a_code_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    let good = batch(&["a"]);
    for position in 0..good.len() {
        let mut bad = good.to_vec();
        bad[position] ^= 0x40;
        let answer = client.produce("orders", 0, Bytes::from(bad)).await;
        // The base offset and the leader epoch are the broker's to fill in: what stands there does not count.
        let ours = (0..8).contains(&position) || (12..16).contains(&position);
        assert_eq!(answer.error_code == 0, ours, "byte {position}: {}", answer.error_code);
    }
    for length in 0..good.len() {
        let answer = client.produce("orders", 0, good.slice(..length)).await;
        assert_ne!(answer.error_code, 0, "length {length}");
    }
    let appended = client.produce("orders", 0, good).await;
    assert_eq!((appended.error_code, appended.base_offset), (0, 12));
}
