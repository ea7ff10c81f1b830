//! Fetch sessions over the wire: what is named once is not named again.

use tidings_model::TopicId;
use tidings_wire::messages::fetch_request::{FetchRequest, ForgottenTopic};
use tidings_wire::messages::fetch_response::FetchResponse;
use tidings_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};

use crate::harness::{Client, TestBroker, batch, fetch_request, values};

/// A request that names nothing.
fn incremental(session_id: i32, session_epoch: i32) -> FetchRequest {
    FetchRequest { session_id, session_epoch, topics: Vec::new(), ..fetch_request("", 0, 0, 0) }
}

/// Partition, error code, and the records with their offsets.
type Told = (i32, i16, Vec<(i64, String)>);

fn told(response: &FetchResponse) -> Vec<Told> {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|data| (data.partition_index, data.error_code, values(data))).collect()
}

async fn topic_id(client: &mut Client, name: &str) -> TopicId {
    let topics =
        Some(vec![MetadataRequestTopic { name: Some(name.to_owned()), ..MetadataRequestTopic::default() }]);
    let response = client.call(12, &MetadataRequest { topics, ..MetadataRequest::default() }).await;
    response.topics[0].topic_id
}

#[tokio::test]
async fn a_session_goes_on_from_request_to_request() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 2).await;
    let mut full = FetchRequest { session_epoch: 0, ..fetch_request("orders", 0, 0, 0) };
    let mut second = full.topics[0].partitions[0].clone();
    second.partition = 1;
    full.topics[0].partitions.push(second);
    let response = client.call(12, &full).await;
    let id = response.session_id;
    assert!(response.error_code == 0 && id != 0);
    assert_eq!(told(&response), [(0, 0, vec![]), (1, 0, vec![])]);

    assert!(told(&client.call(12, &incremental(id, 1)).await).is_empty());
    client.produce("orders", 1, batch(&["a"])).await;
    let response = client.call(12, &incremental(id, 2)).await;
    assert_eq!((response.session_id, told(&response)), (id, vec![(1, 0, vec![(0, "a".to_owned())])]));
    // The offset moves on; the other partition stays as it was.
    let mut moved = incremental(id, 3);
    moved.topics = fetch_request("orders", 1, 1, 0).topics;
    assert!(told(&client.call(12, &moved).await).is_empty());
    // A wrong epoch or version changes nothing, an unknown session is told.
    assert_eq!(client.call(12, &incremental(id, 3)).await.error_code, 71);
    assert_eq!(client.call(13, &incremental(id, 4)).await.error_code, 106);
    assert_eq!(client.call(12, &incremental(id ^ 1, 1)).await.error_code, 70);
    client.produce("orders", 0, batch(&["b"])).await;
    client.produce("orders", 1, batch(&["c"])).await;
    let forget = ForgottenTopic { topic: "orders".into(), partitions: vec![0], ..ForgottenTopic::default() };
    let forgetting = FetchRequest { forgotten_topics_data: vec![forget], ..incremental(id, 4) };
    assert_eq!(told(&client.call(12, &forgetting).await), [(1, 0, vec![(1, "c".to_owned())])]);
    // The last epoch ends it.
    assert_eq!(client.call(12, &incremental(id, -1)).await.session_id, 0);
    assert_eq!(client.call(12, &incremental(id, 5)).await.error_code, 70);
}

#[tokio::test]
async fn a_topic_that_was_made_anew_is_unknown_to_a_session_by_id() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    let mut full = FetchRequest { session_epoch: 0, ..fetch_request("", 0, 0, 0) };
    full.topics[0].topic_id = topic_id(&mut client, "orders").await;
    let id = client.call(13, &full).await.session_id;
    let delete = tidings_wire::messages::delete_topics_request::DeleteTopicsRequest {
        topic_names: vec!["orders".to_owned()],
        ..Default::default()
    };
    assert_eq!(client.call(5, &delete).await.responses[0].error_code, 0);
    client.create_topic("orders", 1).await;
    client.produce("orders", 0, batch(&["a"])).await;
    // Told each time, until the client forgets it.
    for epoch in 1..3 {
        assert_eq!(told(&client.call(13, &incremental(id, epoch)).await), [(0, 100, vec![])]);
    }
}
