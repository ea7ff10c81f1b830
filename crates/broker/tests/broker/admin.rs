//! Topics made, changed and deleted; configs.

use tidings_model::TopicId;
use tidings_wire::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use tidings_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use tidings_wire::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use tidings_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use tidings_wire::messages::delete_groups_request::DeleteGroupsRequest;
use tidings_wire::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use tidings_wire::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use tidings_wire::messages::describe_groups_request::DescribeGroupsRequest;
use tidings_wire::messages::describe_log_dirs_request::DescribeLogDirsRequest;
use tidings_wire::messages::describe_producers_request::{DescribeProducersRequest, TopicRequest};
use tidings_wire::messages::describe_transactions_request::DescribeTransactionsRequest;
use tidings_wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use tidings_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use tidings_wire::messages::metadata_response::MetadataResponseTopic;
use tidings_wire::messages::offset_delete_request::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use tidings_wire::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic,
};

use crate::groups::join_alone;
use crate::harness::{Client, TestBroker, batch, fetch_request, only_fetched, values};

fn topic(name: &str) -> CreatableTopic {
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: -1,
        replication_factor: -1,
        ..CreatableTopic::default()
    }
}

fn create(topics: Vec<CreatableTopic>, validate_only: bool) -> CreateTopicsRequest {
    CreateTopicsRequest { topics, timeout_ms: 1000, validate_only, ..CreateTopicsRequest::default() }
}

async fn codes(client: &mut Client, topics: Vec<CreatableTopic>) -> Vec<(String, i16)> {
    let response = client.call(7, &create(topics, false)).await;
    response.topics.into_iter().map(|topic| (topic.name, topic.error_code)).collect()
}

async fn describe(
    client: &mut Client,
    topic: MetadataRequestTopic,
    may_create: bool,
) -> MetadataResponseTopic {
    let request = MetadataRequest {
        topics: Some(vec![topic]),
        allow_auto_topic_creation: may_create,
        ..MetadataRequest::default()
    };
    client.call(12, &request).await.topics.remove(0)
}

fn named(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic { name: Some(name.to_owned()), ..MetadataRequestTopic::default() }
}

#[tokio::test]
async fn each_new_topic_has_its_own_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    let config = |name: &str, value: Option<&str>| CreatableTopicConfig {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        ..CreatableTopicConfig::default()
    };
    let assignment = |broker| CreatableReplicaAssignment { broker_ids: vec![broker], ..Default::default() };
    let found = codes(
        &mut client,
        vec![
            topic("good.one"),
            topic("bad name"),
            topic("__cluster_metadata"),
            CreatableTopic { num_partitions: 0, ..topic("no-partitions") },
            CreatableTopic { replication_factor: 3, ..topic("three-replicas") },
            CreatableTopic { configs: vec![config("retention.ms", Some("soon"))], ..topic("bad-config") },
            CreatableTopic { configs: vec![config("no.such.thing", Some("1"))], ..topic("unknown-config") },
            CreatableTopic { assignments: vec![assignment(1)], ..topic("assigned") },
            CreatableTopic { assignments: vec![assignment(9)], ..topic("misassigned") },
            CreatableTopic { num_partitions: 2, assignments: vec![assignment(1)], ..topic("both") },
        ],
    )
    .await;
    let expected = [
        ("good.one", 0),
        ("bad name", 17),
        ("__cluster_metadata", 42),
        ("no-partitions", 37),
        ("three-replicas", 38),
        ("bad-config", 40),
        ("unknown-config", 40),
        ("assigned", 0),
        ("misassigned", 39),
        ("both", 42),
    ];
    assert_eq!(found, expected.map(|(name, code)| (name.to_owned(), code)));
    assert_eq!(codes(&mut client, vec![topic("good.one")]).await[0].1, 36);
    assert_eq!(codes(&mut client, vec![topic("good_one")]).await[0].1, 17);
    assert_eq!(codes(&mut client, vec![topic("twice"), topic("twice")]).await, [("twice".to_owned(), 42)]);
}

#[tokio::test]
async fn a_topic_that_is_only_validated_does_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    let response = client.call(7, &create(vec![topic("orders")], true)).await;
    assert_eq!((response.topics[0].error_code, response.topics[0].num_partitions), (0, 1));
    assert_eq!(describe(&mut client, named("orders"), false).await.error_code, 3);
}

#[tokio::test]
async fn unknown_topics_are_created_where_that_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::with_settings(&dir, &[("num.partitions", "3")]).await;
    let mut client = broker.client().await;
    assert_eq!(describe(&mut client, named("orders"), false).await.error_code, 3);
    let made = describe(&mut client, named("orders"), true).await;
    assert_eq!((made.error_code, made.partitions.len()), (0, 3));
    assert_eq!(describe(&mut client, named("bad name"), true).await.error_code, 17);
    let by_id = |topic_id| MetadataRequestTopic { topic_id, name: None, ..MetadataRequestTopic::default() };
    assert_eq!(describe(&mut client, by_id(made.topic_id), false).await.name.as_deref(), Some("orders"));
    assert_eq!(describe(&mut client, by_id(TopicId([9; 16])), false).await.error_code, 100);
    let by_id_and_empty_name = MetadataRequestTopic { name: Some(String::new()), ..by_id(made.topic_id) };
    assert_eq!(describe(&mut client, by_id_and_empty_name, false).await.name.as_deref(), Some("orders"));

    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::with_settings(&dir, &[("auto.create.topics.enable", "false")]).await;
    let mut client = broker.client().await;
    assert_eq!(describe(&mut client, named("orders"), true).await.error_code, 3);
}

#[tokio::test]
async fn a_deleted_topic_is_gone_and_its_name_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    client.produce("orders", 0, batch(&["old"])).await;
    let id = describe(&mut client, named("orders"), false).await.topic_id;
    let mut reader = broker.client().await;
    let waiting = reader.send(11, &fetch_request("orders", 0, 1, 60_000)).await;
    let delete = |topic: DeleteTopicState| DeleteTopicsRequest {
        topics: vec![topic],
        timeout_ms: 1000,
        ..DeleteTopicsRequest::default()
    };
    let by_id = DeleteTopicState { name: None, topic_id: id, ..DeleteTopicState::default() };
    let gone = client.call(6, &delete(by_id.clone())).await;
    assert_eq!((gone.responses[0].error_code, gone.responses[0].name.as_deref()), (0, Some("orders")));
    let answer = reader.receive::<tidings_wire::messages::fetch_request::FetchRequest>(11, waiting).await;
    assert_eq!(only_fetched(answer).error_code, 3, "the long poll ends with the topic");
    assert_eq!(client.call(6, &delete(by_id)).await.responses[0].error_code, 100);
    let by_name = DeleteTopicState { name: Some("orders".to_owned()), ..DeleteTopicState::default() };
    assert_eq!(client.call(6, &delete(by_name)).await.responses[0].error_code, 3);
    client.create_topic("orders", 1).await;
    assert_eq!(values(&client.fetch("orders", 0, 0).await), []);
    assert_ne!(describe(&mut client, named("orders"), false).await.topic_id, id);
    drop((client, reader));
    broker.handle.crash().await;

    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    assert_eq!(values(&client.fetch("orders", 0, 0).await), []);
}

#[tokio::test]
async fn partitions_grow_and_never_shrink() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 2).await;
    let grow = |name: &str, count, assignments: Option<Vec<i32>>, validate_only| CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: name.to_owned(),
            count,
            assignments: assignments.map(|brokers| {
                let one =
                    |broker| CreatePartitionsAssignment { broker_ids: vec![broker], ..Default::default() };
                brokers.into_iter().map(one).collect()
            }),
            ..CreatePartitionsTopic::default()
        }],
        timeout_ms: 1000,
        validate_only,
        ..CreatePartitionsRequest::default()
    };
    let mut code =
        async |request: CreatePartitionsRequest| client.call(3, &request).await.results[0].error_code;
    assert_eq!(code(grow("orders", 2, None, false)).await, 37);
    assert_eq!(code(grow("orders", 1, None, false)).await, 37);
    assert_eq!(code(grow("nowhere", 5, None, false)).await, 3);
    assert_eq!(code(grow("orders", 4, Some(vec![1]), false)).await, 39);
    assert_eq!(code(grow("orders", 4, Some(vec![1, 2]), false)).await, 39);
    assert_eq!(code(grow("orders", 5, None, true)).await, 0);
    assert_eq!(code(grow("orders", 4, Some(vec![1, 1]), false)).await, 0);
    assert_eq!(client.produce("orders", 3, batch(&["a"])).await.error_code, 0);
    assert_eq!(client.produce("orders", 4, batch(&["a"])).await.error_code, 3);
    drop(client);
    broker.handle.crash().await;
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    assert_eq!(describe(&mut client, named("orders"), false).await.partitions.len(), 4);
}

#[tokio::test]
async fn configs_change_take_effect_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    let alter = |resource_type, name: &str, value: Option<&str>, operation| IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type,
            resource_name: "orders".to_owned(),
            configs: vec![AlterableConfig {
                name: name.to_owned(),
                config_operation: operation,
                value: value.map(str::to_owned),
                ..AlterableConfig::default()
            }],
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    let mut code = async |request: IncrementalAlterConfigsRequest| {
        client.call(1, &request).await.responses[0].error_code
    };
    assert_eq!(code(alter(2, "max.message.bytes", Some("100"), 0)).await, 0);
    assert_eq!(code(alter(2, "max.message.bytes", Some("many"), 0)).await, 40);
    assert_eq!(code(alter(2, "max.message.bytes", None, 0)).await, 42);
    assert_eq!(code(alter(2, "max.message.bytes", Some("1"), 9)).await, 42);
    assert_eq!(code(alter(4, "num.partitions", Some("3"), 0)).await, 42);
    assert_eq!(client.produce("orders", 0, batch(&[&"x".repeat(200)])).await.error_code, 10);
    drop(client);
    broker.handle.crash().await;

    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    assert_eq!(client.produce("orders", 0, batch(&[&"x".repeat(200)])).await.error_code, 10);
    let describe = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: 2,
            resource_name: "orders".to_owned(),
            configuration_keys: Some(vec!["max.message.bytes".to_owned()]),
            ..DescribeConfigsResource::default()
        }],
        include_synonyms: true,
        ..DescribeConfigsRequest::default()
    };
    let described = client.call(4, &describe).await;
    let config = &described.results[0].configs[0];
    assert_eq!((config.value.as_deref(), config.config_source, config.config_type), (Some("100"), 1, 3));
    let synonyms: Vec<(&str, i8)> = config.synonyms.iter().map(|one| (&*one.name, one.source)).collect();
    assert_eq!(synonyms, [("max.message.bytes", 1), ("message.max.bytes", 5)]);
    assert_eq!(client.call(1, &alter(2, "max.message.bytes", None, 1)).await.responses[0].error_code, 0);
    assert_eq!(client.produce("orders", 0, batch(&[&"x".repeat(200)])).await.error_code, 0);
}

/// Clients compare what they read with what they would write: the same value has the same text, however it was sent.
#[tokio::test]
async fn configs_are_described_in_one_form_and_must_fit_together() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    let config = |name: &str, value: &str| CreatableTopicConfig {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..CreatableTopicConfig::default()
    };
    let expected = [
        ("cleanup.policy", "compact, delete,compact", "compact,delete"),
        ("min.cleanable.dirty.ratio", "1e-1", "0.1"),
        ("min.compaction.lag.ms", "+100", "100"),
        ("preallocate", "TRUE", "true"),
        ("retention.bytes", "-5", "-5"),
    ];
    let configs = expected.map(|(name, sent, _)| config(name, sent)).to_vec();
    assert_eq!(codes(&mut client, vec![CreatableTopic { configs, ..topic("orders") }]).await[0].1, 0);
    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: "orders".to_owned(),
        configuration_keys: Some(expected.map(|(name, ..)| name.to_owned()).to_vec()),
        ..DescribeConfigsResource::default()
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        ..DescribeConfigsRequest::default()
    };
    let described = client.call(4, &request).await.results.remove(0).configs;
    for (config, (name, _, value)) in described.iter().zip(expected) {
        assert_eq!((config.name.as_str(), config.value.as_deref()), (name, Some(value)));
        assert_eq!(config.synonyms[0].value.as_deref(), Some(value), "{name}");
    }
    let change = AlterableConfig {
        name: "max.compaction.lag.ms".to_owned(),
        value: Some("50".to_owned()),
        ..AlterableConfig::default()
    };
    let resource = AlterConfigsResource {
        resource_type: 2,
        resource_name: "orders".to_owned(),
        configs: vec![change],
        ..AlterConfigsResource::default()
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    assert_eq!(client.call(1, &request).await.responses[0].error_code, 40);
}

#[tokio::test]
async fn configs_of_a_group_count_and_survive() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    let alter = |name: &str, value: &str| IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 32,
            resource_name: "readers".to_owned(),
            configs: vec![AlterableConfig {
                name: name.to_owned(),
                value: Some(value.to_owned()),
                ..AlterableConfig::default()
            }],
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    for (name, value, expected) in [
        ("consumer.heartbeat.interval.ms", "7000", 0),
        ("consumer.heartbeat.interval.ms", "15001", 40),
        ("consumer.session.timeout.ms", "44999", 40),
        ("consumer.no.such.config", "1", 40),
    ] {
        let answer = client.call(1, &alter(name, value)).await;
        assert_eq!(answer.responses[0].error_code, expected, "{name} = {value}");
    }
    drop(client);
    broker.handle.crash().await;

    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    for (group, expected_ms) in [("readers", 7000), ("others", 5000)] {
        let join = ConsumerGroupHeartbeatRequest {
            group_id: group.to_owned(),
            member_id: "a-member".to_owned(),
            rebalance_timeout_ms: 30_000,
            subscribed_topic_names: Some(vec!["orders".to_owned()]),
            topic_partitions: Some(Vec::new()),
            ..ConsumerGroupHeartbeatRequest::default()
        };
        let answer = client.call(1, &join).await;
        assert_eq!((answer.error_code, answer.heartbeat_interval_ms), (0, expected_ms), "{group}");
    }
}

#[tokio::test]
async fn log_dirs_tell_what_partitions_take() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 2).await;
    let records = batch(&["a", "b"]);
    let bytes = i64::try_from(records.len()).unwrap();
    assert_eq!(client.produce("orders", 0, records).await.error_code, 0);
    let described = client.call(5, &DescribeLogDirsRequest { topics: None, ..Default::default() }).await;
    let [log_dir] = &described.results[..] else { panic!("expected one directory: {described:?}") };
    assert_eq!(log_dir.log_dir, dir.path().display().to_string());
    assert!(0 < log_dir.usable_bytes && log_dir.usable_bytes <= log_dir.total_bytes, "{log_dir:?}");
    let [topic] = &log_dir.topics[..] else { panic!("expected one topic: {log_dir:?}") };
    let sizes: Vec<(i32, i64)> = topic
        .partitions
        .iter()
        .map(|partition| (partition.partition_index, partition.partition_size))
        .collect();
    assert_eq!((topic.name.as_str(), sizes), ("orders", vec![(0, bytes), (1, 0)]));
}

/// A frame of 65 KB that named one topic thousands of times made an answer larger than the memory there was.
#[tokio::test]
async fn what_is_named_again_and_again_is_described_once() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 100).await;
    join_alone(&mut client, b"all").await;
    let again = |name: &str| vec![name.to_owned(); 1000];
    for version in [1, 4, 9] {
        let topics = Some(vec![named("orders"); 1000]);
        let described = client.call(version, &MetadataRequest { topics, ..Default::default() }).await;
        assert_eq!(described.topics.len(), 1, "version {version}");
    }
    let topic_id = describe(&mut client, named("orders"), false).await.topic_id;
    let by_id = MetadataRequestTopic { name: None, topic_id, ..Default::default() };
    let request = MetadataRequest { topics: Some(vec![by_id; 1000]), ..Default::default() };
    assert_eq!(client.call(12, &request).await.topics.len(), 1);
    let broker_configs =
        DescribeConfigsResource { resource_type: 4, resource_name: "1".to_owned(), ..Default::default() };
    let request = DescribeConfigsRequest { resources: vec![broker_configs; 1000], ..Default::default() };
    assert_eq!(client.call(1, &request).await.results.len(), 1);
    let partitions = TopicRequest {
        name: "orders".to_owned(),
        partition_indexes: [0, 1].repeat(1000),
        ..Default::default()
    };
    let request = DescribeProducersRequest { topics: vec![partitions; 10], ..Default::default() };
    let described = client.call(0, &request).await;
    assert_eq!(described.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>(), 2);
    let request = DescribeGroupsRequest { groups: again("readers"), ..Default::default() };
    assert_eq!(client.call(5, &request).await.groups.len(), 1);
    let request = ConsumerGroupDescribeRequest { group_ids: again("readers"), ..Default::default() };
    assert_eq!(client.call(0, &request).await.groups.len(), 1);
    let request = DescribeTransactionsRequest { transactional_ids: again("payments"), ..Default::default() };
    assert_eq!(client.call(0, &request).await.transaction_states.len(), 1);
    let all = OffsetFetchRequestGroup { group_id: "readers".to_owned(), ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![all; 1000], ..Default::default() };
    assert_eq!(client.call(8, &request).await.groups.len(), 1);
    let topic = OffsetFetchRequestTopic {
        name: "orders".to_owned(),
        partition_indexes: [0, 1].repeat(1000),
        ..Default::default()
    };
    let request = OffsetFetchRequest {
        group_id: "readers".to_owned(),
        topics: Some(vec![topic; 10]),
        ..Default::default()
    };
    let fetched = client.call(7, &request).await;
    assert_eq!(fetched.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>(), 2);
}

/// Each name was sought among all before it: 900 KB of names took a minute of the thread that serves others, too.
#[tokio::test]
async fn many_names_in_a_request_take_no_longer_than_it_takes_to_read_them() {
    let dir = tempfile::tempdir().unwrap();
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 1).await;
    join_alone(&mut client, b"all").await;
    const COUNT: usize = 150_000;
    let names: Vec<String> = (0..COUNT).map(|index| format!("missing-{index}")).collect();
    let twice: Vec<String> = names.iter().chain(&names).cloned().collect();
    let request = DeleteTopicsRequest { topic_names: names.clone(), ..Default::default() };
    assert_eq!(client.call(5, &request).await.responses.len(), COUNT);
    let request = DeleteTopicsRequest { topic_names: twice.clone(), ..Default::default() };
    assert_eq!(client.call(5, &request).await.responses.len(), COUNT);
    let topics = twice.iter().map(|name| topic(name)).collect();
    assert_eq!(client.call(5, &create(topics, true)).await.topics.len(), COUNT);
    let request = DeleteGroupsRequest { groups_names: twice.clone(), ..Default::default() };
    assert_eq!(client.call(1, &request).await.results.len(), COUNT);
    let topic = |name: String| OffsetDeleteRequestTopic {
        name,
        partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
    };
    let topics = names.into_iter().map(topic).collect();
    let request = OffsetDeleteRequest { group_id: "readers".to_owned(), topics };
    assert_eq!(client.call(0, &request).await.topics.len(), COUNT);
}
