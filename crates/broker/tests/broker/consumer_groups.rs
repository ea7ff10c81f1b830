//! Consumer groups (KIP-848) over the wire: sharing, committing, describing, and what a crash leaves of them.

use std::sync::Arc;

use tidings_broker::ManualClock;
use tidings_model::TopicId;
use tidings_wire::messages::api_versions_request::ApiVersionsRequest;
use tidings_wire::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use tidings_wire::messages::consumer_group_describe_response::DescribedGroup;
use tidings_wire::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use tidings_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use tidings_wire::messages::describe_groups_request::DescribeGroupsRequest;
use tidings_wire::messages::list_groups_request::ListGroupsRequest;
use tidings_wire::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use tidings_wire::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};

use crate::harness::{Client, TestBroker, eventually};

const GROUP: &str = "sharers";

fn joining(member_id: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: GROUP.to_owned(),
        member_id: member_id.to_owned(),
        member_epoch: 0,
        rebalance_timeout_ms: 10_000,
        subscribed_topic_names: Some(vec!["orders".to_owned()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

fn beating(member_id: &str, member_epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        member_epoch,
        rebalance_timeout_ms: -1,
        subscribed_topic_names: None,
        topic_partitions: None,
        ..joining(member_id)
    }
}

fn owning(
    member_id: &str,
    member_epoch: i32,
    topic_id: TopicId,
    partitions: &[i32],
) -> ConsumerGroupHeartbeatRequest {
    let owned = TopicPartitions { topic_id, partitions: partitions.to_vec(), ..TopicPartitions::default() };
    ConsumerGroupHeartbeatRequest { topic_partitions: Some(vec![owned]), ..beating(member_id, member_epoch) }
}

fn assigned(response: &ConsumerGroupHeartbeatResponse) -> Vec<i32> {
    let assignment = response.assignment.as_ref().expect("an assignment");
    assignment.topic_partitions.first().map(|topic| topic.partitions.clone()).unwrap_or_default()
}

async fn describe(client: &mut Client, group: &str) -> DescribedGroup {
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![group.to_owned()],
        ..ConsumerGroupDescribeRequest::default()
    };
    client.call(1, &request).await.groups.remove(0)
}

async fn commit(client: &mut Client, member_epoch: i32, offset: i64) -> i16 {
    let partition =
        OffsetCommitRequestPartition { committed_offset: offset, ..OffsetCommitRequestPartition::default() };
    let topic = OffsetCommitRequestTopic {
        name: "orders".to_owned(),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: GROUP.to_owned(),
        generation_id_or_member_epoch: member_epoch,
        member_id: "a".to_owned(),
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    client.call(9, &request).await.topics[0].partitions[0].error_code
}

async fn fetch(client: &mut Client, member_epoch: i32) -> (i16, Option<i64>) {
    let topic = OffsetFetchRequestTopics {
        name: "orders".to_owned(),
        partition_indexes: vec![0],
        ..OffsetFetchRequestTopics::default()
    };
    let group = OffsetFetchRequestGroup {
        group_id: GROUP.to_owned(),
        member_id: Some("a".to_owned()),
        member_epoch,
        topics: Some(vec![topic]),
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
    let group = client.call(9, &request).await.groups.remove(0);
    (group.error_code, group.topics.first().map(|topic| topic.partitions[0].committed_offset))
}

#[tokio::test]
async fn members_share_a_topic_and_a_crash_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 4).await;
    let first = client.call(1, &joining("a")).await;
    assert_eq!((first.error_code, first.member_epoch, assigned(&first)), (0, 1, vec![0, 1, 2, 3]));
    let orders = first.assignment.as_ref().unwrap().topic_partitions[0].topic_id;
    assert_eq!(commit(&mut client, 1, 7).await, 0);
    assert_eq!(commit(&mut client, 5, 8).await, 113);
    assert_eq!(fetch(&mut client, 1).await, (0, Some(7)));
    assert_eq!(fetch(&mut client, 2).await, (113, None));
    assert_eq!(assigned(&client.call(1, &joining("b")).await), Vec::<i32>::new());
    assert_eq!(assigned(&client.call(1, &beating("a", 1)).await), [0, 1]);
    drop(client);
    broker.handle.crash().await;

    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    let group = describe(&mut client, GROUP).await;
    assert_eq!(
        (group.error_code, group.group_state.as_str(), group.assignor_name.as_str()),
        (0, "Reconciling", "uniform")
    );
    assert_eq!((group.group_epoch, group.assignment_epoch, group.members.len()), (2, 2, 2));
    assert_eq!(client.call(1, &owning("a", 1, orders, &[0, 1])).await.member_epoch, 2);
    assert_eq!(assigned(&client.call(1, &beating("b", 2)).await), [2, 3]);
    let group = describe(&mut client, GROUP).await;
    assert_eq!(group.group_state, "Stable");
    let target = &group.members[1].target_assignment.topic_partitions[0];
    assert_eq!((target.topic_name.as_str(), target.partitions.as_slice()), ("orders", &[2, 3][..]));
    assert_eq!(fetch(&mut client, 2).await, (0, Some(7)));
}

#[tokio::test]
async fn topics_that_grow_reach_the_members_with_a_heartbeat() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    let pattern = ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: None,
        subscribed_topic_regex: Some("ord.*".to_owned()),
        ..joining("a")
    };
    assert_eq!(assigned(&client.call(1, &pattern).await), Vec::<i32>::new());
    client.create_topic("orders", 2).await;
    let told = client.call(1, &beating("a", 1)).await;
    assert_eq!((told.member_epoch, assigned(&told)), (2, vec![0, 1]));
    let wrong = ConsumerGroupHeartbeatRequest { subscribed_topic_regex: Some("(".to_owned()), ..pattern };
    let refused = client.call(1, &ConsumerGroupHeartbeatRequest { member_id: "b".to_owned(), ..wrong }).await;
    assert_eq!(refused.error_code, 128);
    assert!(refused.error_message.is_some());
}

#[tokio::test]
async fn a_silent_member_is_out_when_the_clock_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let broker = TestBroker::with_clock(&dir, clock.clone()).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    for member_id in ["a", "b", "c"] {
        assert_eq!(client.call(1, &joining(member_id)).await.error_code, 0);
    }
    clock.advance(46_000);
    let client = tokio::sync::Mutex::new(client);
    eventually("all members expire", || async {
        let group = describe(&mut *client.lock().await, GROUP).await;
        group.group_state == "Empty" && group.members.is_empty()
    })
    .await;
}

#[tokio::test]
async fn each_protocol_has_its_own_description_and_lists_tell_the_type() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.call(1, &joining("a")).await;
    crate::groups::join_alone(&mut client, b"all").await;
    assert_eq!(describe(&mut client, "readers").await.error_code, 69);
    assert_eq!(describe(&mut client, "nobody").await.error_code, 69);
    let classic =
        DescribeGroupsRequest { groups: vec![GROUP.to_owned()], ..DescribeGroupsRequest::default() };
    let described = client.call(6, &classic).await.groups.remove(0);
    assert_eq!((described.error_code, described.group_state.as_str()), (69, "Dead"));
    for (types, states, expect) in [
        (vec![], vec![], vec!["readers", GROUP]),
        (vec!["consumer"], vec![], vec![GROUP]),
        (vec!["classic"], vec!["stable"], vec!["readers"]),
        (vec!["share"], vec![], vec![]),
    ] {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let request = ListGroupsRequest {
            types_filter: owned(&types),
            states_filter: owned(&states),
            ..ListGroupsRequest::default()
        };
        let listed = client.call(5, &request).await.groups;
        let names: Vec<&str> = listed.iter().map(|group| group.group_id.as_str()).collect();
        assert_eq!(names, expect, "{types:?} {states:?}");
    }
    let software = ApiVersionsRequest {
        client_software_name: "test".to_owned(),
        client_software_version: "1".to_owned(),
        ..ApiVersionsRequest::default()
    };
    let features = client.call(4, &software).await.finalized_features;
    assert!(features.iter().any(|feature| feature.name == "group.version" && feature.max_version_level == 1));
}
