//! Every API in every version that is advertised: asked, answered, decoded.

use tempfile::TempDir;
use tidings_model::TopicId;
use tidings_wire::messages::api_versions_request::ApiVersionsRequest;
use tidings_wire::messages::create_acls_request::{AclCreation, CreateAclsRequest};
use tidings_wire::messages::create_partitions_request::{CreatePartitionsRequest, CreatePartitionsTopic};
use tidings_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use tidings_wire::messages::delete_acls_request::{DeleteAclsFilter, DeleteAclsRequest};
use tidings_wire::messages::delete_groups_request::DeleteGroupsRequest;
use tidings_wire::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use tidings_wire::messages::describe_acls_request::DescribeAclsRequest;
use tidings_wire::messages::describe_cluster_request::DescribeClusterRequest;
use tidings_wire::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use tidings_wire::messages::describe_groups_request::DescribeGroupsRequest;
use tidings_wire::messages::fetch_request::FetchRequest;
use tidings_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use tidings_wire::messages::heartbeat_request::HeartbeatRequest;
use tidings_wire::messages::init_producer_id_request::InitProducerIdRequest;
use tidings_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use tidings_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use tidings_wire::messages::list_groups_request::ListGroupsRequest;
use tidings_wire::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use tidings_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use tidings_wire::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use tidings_wire::messages::offset_delete_request::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use tidings_wire::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use tidings_wire::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use tidings_wire::messages::produce_request::ProduceRequest;
use tidings_wire::messages::sync_group_request::SyncGroupRequest;
use tidings_wire::messages::{
    alter_configs_request as alter, incremental_alter_configs_request as incremental,
};
use tidings_wire::{ApiKey, Request};

use crate::harness::{
    Client, TestBroker, batch, fetch_request, only_fetched, only_partition, produce_request, values,
};

/// The served range of an API, as advertised.
async fn range(client: &mut Client, api: ApiKey) -> std::ops::RangeInclusive<i16> {
    let response = client.call(3, &software()).await;
    let listed =
        response.api_keys.iter().find(|listed| listed.api_key == api.code()).expect("the API is listed");
    let oldest = if api == ApiKey::Produce { 3 } else { listed.min_version };
    oldest..=listed.max_version
}

fn software() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: "test".to_owned(),
        client_software_version: "1".to_owned(),
        ..ApiVersionsRequest::default()
    }
}

/// Asks in every version; `check` sees every answer.
async fn ask<R: Request>(client: &mut Client, request: impl Fn(i16) -> R, check: impl Fn(i16, R::Response)) {
    for version in range(client, R::API_KEY).await {
        let response = client.call(version, &request(version)).await;
        check(version, response);
    }
}

async fn topic_id(client: &mut Client, name: &str) -> TopicId {
    let topics =
        Some(vec![MetadataRequestTopic { name: Some(name.to_owned()), ..MetadataRequestTopic::default() }]);
    let response = client.call(12, &MetadataRequest { topics, ..MetadataRequest::default() }).await;
    response.topics[0].topic_id
}

async fn started() -> (TempDir, TestBroker, Client) {
    let dir = tempfile::tempdir().expect("a folder");
    let broker = TestBroker::start(&dir).await;
    let mut client = broker.client().await;
    client.create_topic("orders", 2).await;
    (dir, broker, client)
}

#[tokio::test]
async fn api_versions_lists_itself() {
    let (_dir, _broker, mut client) = started().await;
    ask(
        &mut client,
        |version| if version < 3 { ApiVersionsRequest::default() } else { software() },
        |_, response| {
            assert_eq!(response.error_code, 0);
            assert!(response.api_keys.iter().any(|listed| listed.api_key == 18 && listed.max_version == 4));
        },
    )
    .await;
}

#[tokio::test]
async fn produce_and_fetch_in_every_version() {
    let (_dir, _broker, mut client) = started().await;
    let id = topic_id(&mut client, "orders").await;
    let mut offset = 0;
    for version in range(&mut client, ApiKey::Produce).await {
        let mut request: ProduceRequest = produce_request("orders", 0, batch(&["a"]));
        if version >= 13 {
            (request.topic_data[0].name, request.topic_data[0].topic_id) = (String::new(), id);
        }
        let answer = only_partition(client.call(version, &request).await);
        assert_eq!((answer.error_code, answer.base_offset), (0, offset), "version {version}");
        offset += 1;
    }
    for version in range(&mut client, ApiKey::Fetch).await {
        let mut request: FetchRequest = fetch_request("orders", 0, 0, 0);
        if version >= 13 {
            (request.topics[0].topic, request.topics[0].topic_id) = (String::new(), id);
        }
        let answer = only_fetched(client.call(version, &request).await);
        assert_eq!((answer.error_code, answer.high_watermark), (0, offset), "version {version}");
        assert_eq!(values(&answer).len(), usize::try_from(offset).unwrap(), "version {version}");
    }
}

#[tokio::test]
async fn metadata_list_offsets_and_cluster_in_every_version() {
    let (_dir, _broker, mut client) = started().await;
    client.produce("orders", 0, batch(&["a", "b"])).await;
    let topic = MetadataRequestTopic { name: Some("orders".to_owned()), ..MetadataRequestTopic::default() };
    let metadata = |_| MetadataRequest {
        topics: Some(vec![topic.clone()]),
        allow_auto_topic_creation: true,
        ..MetadataRequest::default()
    };
    ask(&mut client, metadata, |version, response| {
        assert_eq!(response.topics[0].partitions.len(), 2, "version {version}");
        assert_eq!(response.brokers.len(), 1);
    })
    .await;
    let latest = |version| ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: "orders".to_owned(),
            partitions: vec![ListOffsetsPartition {
                timestamp: -1,
                max_num_offsets: if version == 0 { 5 } else { 1 },
                ..ListOffsetsPartition::default()
            }],
            ..ListOffsetsTopic::default()
        }],
        ..ListOffsetsRequest::default()
    };
    ask(&mut client, latest, |version, response| {
        let partition = &response.topics[0].partitions[0];
        assert_eq!(partition.error_code, 0, "version {version}");
        if version == 0 {
            assert_eq!(partition.old_style_offsets, [2, 0]);
        } else {
            assert_eq!(partition.offset, 2, "version {version}");
        }
    })
    .await;
    ask(
        &mut client,
        |_| DescribeClusterRequest::default(),
        |_, response| assert_eq!(response.brokers.len(), 1),
    )
    .await;
}

#[tokio::test]
async fn topics_are_made_and_grow_in_every_version() {
    let (_dir, _broker, mut client) = started().await;
    let named = |version: i16| format!("made-{version}");
    let create = |version| CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: named(version),
            num_partitions: 1,
            replication_factor: 1,
            ..CreatableTopic::default()
        }],
        timeout_ms: 1000,
        ..CreateTopicsRequest::default()
    };
    ask(&mut client, create, |version, response| {
        assert_eq!(response.topics[0].error_code, 0, "version {version}");
        if version >= 5 {
            assert_eq!((response.topics[0].num_partitions, &response.topics[0].error_message), (1, &None));
        }
    })
    .await;
    let grow = |version: i16| CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic {
            name: "orders".to_owned(),
            count: 3 + i32::from(version),
            assignments: None,
            ..CreatePartitionsTopic::default()
        }],
        timeout_ms: 1000,
        ..CreatePartitionsRequest::default()
    };
    ask(&mut client, grow, |version, response| {
        assert_eq!(response.results[0].error_code, 0, "version {version}")
    })
    .await;
}

#[tokio::test]
async fn configs_in_every_version() {
    let (_dir, _broker, mut client) = started().await;
    let incremental = |_| incremental::IncrementalAlterConfigsRequest {
        resources: vec![incremental::AlterConfigsResource {
            resource_type: 2,
            resource_name: "orders".to_owned(),
            configs: vec![incremental::AlterableConfig {
                name: "retention.ms".to_owned(),
                value: Some("5000".to_owned()),
                ..incremental::AlterableConfig::default()
            }],
            ..incremental::AlterConfigsResource::default()
        }],
        ..incremental::IncrementalAlterConfigsRequest::default()
    };
    ask(&mut client, incremental, |_, response| assert_eq!(response.responses[0].error_code, 0)).await;
    let describe = |_| DescribeConfigsRequest {
        resources: vec![
            DescribeConfigsResource {
                resource_type: 2,
                resource_name: "orders".to_owned(),
                configuration_keys: Some(vec!["retention.ms".to_owned()]),
                ..DescribeConfigsResource::default()
            },
            DescribeConfigsResource {
                resource_type: 4,
                resource_name: "1".to_owned(),
                configuration_keys: None,
                ..DescribeConfigsResource::default()
            },
        ],
        ..DescribeConfigsRequest::default()
    };
    ask(&mut client, describe, |_, response| {
        assert_eq!(response.results[0].configs[0].value.as_deref(), Some("5000"));
        assert!(response.results[1].configs.len() > 20);
    })
    .await;
    let replace = |_| alter::AlterConfigsRequest {
        resources: vec![alter::AlterConfigsResource {
            resource_type: 2,
            resource_name: "orders".to_owned(),
            ..alter::AlterConfigsResource::default()
        }],
        ..alter::AlterConfigsRequest::default()
    };
    ask(&mut client, replace, |_, response| assert_eq!(response.responses[0].error_code, 0)).await;
}

#[tokio::test]
async fn topics_are_deleted_in_every_version() {
    let (_dir, _broker, mut client) = started().await;
    for version in range(&mut client, ApiKey::DeleteTopics).await {
        client.create_topic(&format!("made-{version}"), 1).await;
    }
    let named = |version: i16| format!("made-{version}");
    let delete = |version| {
        let (topics, topic_names) = if version < 6 {
            (Vec::new(), vec![named(version)])
        } else {
            (vec![DeleteTopicState { name: Some(named(version)), ..DeleteTopicState::default() }], Vec::new())
        };
        DeleteTopicsRequest { topics, topic_names, timeout_ms: 1000, ..DeleteTopicsRequest::default() }
    };
    ask(&mut client, delete, |version, response| {
        assert_eq!(response.responses[0].error_code, 0, "version {version}")
    })
    .await;
}

#[tokio::test]
async fn offsets_in_every_version() {
    let (_dir, _broker, mut client) = started().await;
    let id = topic_id(&mut client, "orders").await;
    let by_id =
        |version: i16| if version >= 10 { (String::new(), id) } else { ("orders".to_owned(), TopicId::ZERO) };
    let commit = |version: i16| {
        let (name, topic_id) = by_id(version);
        OffsetCommitRequest {
            group_id: "readers".to_owned(),
            generation_id_or_member_epoch: -1,
            topics: vec![OffsetCommitRequestTopic {
                name,
                topic_id,
                partitions: vec![OffsetCommitRequestPartition {
                    committed_offset: 7,
                    committed_metadata: Some(String::new()),
                    ..OffsetCommitRequestPartition::default()
                }],
                ..OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        }
    };
    ask(&mut client, commit, |version, response| {
        assert_eq!(response.topics[0].partitions[0].error_code, 0, "version {version}");
    })
    .await;
    let fetch = |version: i16| {
        let (name, topic_id) = by_id(version);
        let partition_indexes = vec![0, 1];
        if version < 8 {
            let topic =
                OffsetFetchRequestTopic { name, partition_indexes, ..OffsetFetchRequestTopic::default() };
            let group_id = "readers".to_owned();
            return OffsetFetchRequest {
                group_id,
                topics: Some(vec![topic]),
                ..OffsetFetchRequest::default()
            };
        }
        let topic = OffsetFetchRequestTopics {
            name,
            topic_id,
            partition_indexes,
            ..OffsetFetchRequestTopics::default()
        };
        let group = OffsetFetchRequestGroup {
            group_id: "readers".to_owned(),
            topics: Some(vec![topic]),
            ..OffsetFetchRequestGroup::default()
        };
        OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() }
    };
    ask(&mut client, fetch, |version, response| {
        let offsets: Vec<i64> = if version < 8 {
            response.topics[0].partitions.iter().map(|partition| partition.committed_offset).collect()
        } else {
            response.groups[0].topics[0]
                .partitions
                .iter()
                .map(|partition| partition.committed_offset)
                .collect()
        };
        assert_eq!(offsets, [7, -1], "version {version}");
    })
    .await;
}

#[tokio::test]
async fn offsets_are_deleted_in_every_version() {
    let (_dir, _broker, mut client) = started().await;
    // A group that committed something exists.
    let commit = OffsetCommitRequest {
        group_id: "readers".to_owned(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: "orders".to_owned(),
            partitions: vec![OffsetCommitRequestPartition::default()],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    client.call(8, &commit).await;
    let delete = |_| OffsetDeleteRequest {
        group_id: "readers".to_owned(),
        topics: vec![OffsetDeleteRequestTopic {
            name: "orders".to_owned(),
            partitions: vec![OffsetDeleteRequestPartition::default()],
        }],
    };
    ask(&mut client, delete, |_, response| {
        assert_eq!((response.error_code, response.topics[0].partitions[0].error_code), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn groups_in_every_version() {
    let (_dir, _broker, mut client) = started().await;
    let find = |version| {
        let key = "readers".to_owned();
        if version < 4 {
            return FindCoordinatorRequest { key, ..FindCoordinatorRequest::default() };
        }
        FindCoordinatorRequest { coordinator_keys: vec![key], ..FindCoordinatorRequest::default() }
    };
    ask(&mut client, find, |version, response| {
        let node = if version < 4 { response.node_id } else { response.coordinators[0].node_id };
        assert_eq!(node, 1, "version {version}");
    })
    .await;
    // A group of its own for each version; from version 4 on the first answer is the member id.
    let join = |version: i16| JoinGroupRequest {
        group_id: format!("group-{version}"),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: if version == 0 { -1 } else { 10_000 },
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".to_owned(),
            ..JoinGroupRequestProtocol::default()
        }],
        ..JoinGroupRequest::default()
    };
    ask(&mut client, join, |version, response| {
        assert_eq!(response.error_code, if version < 4 { 0 } else { 79 }, "version {version}");
        assert!(!response.member_id.is_empty());
    })
    .await;
}

#[tokio::test]
async fn strangers_to_a_group_are_told_so_in_every_version() {
    let (_dir, _broker, mut client) = started().await;
    let unknown_member = 25;
    let member_id = || "nobody".to_owned();
    let sync = |version: i16| SyncGroupRequest {
        group_id: "readers".to_owned(),
        member_id: member_id(),
        protocol_type: (version >= 5).then(|| "consumer".to_owned()),
        protocol_name: (version >= 5).then(|| "range".to_owned()),
        ..SyncGroupRequest::default()
    };
    ask(&mut client, sync, |_, response| assert_eq!(response.error_code, unknown_member)).await;
    let beat = |_| HeartbeatRequest {
        group_id: "readers".to_owned(),
        member_id: member_id(),
        ..HeartbeatRequest::default()
    };
    ask(&mut client, beat, |_, response| assert_eq!(response.error_code, unknown_member)).await;
    let leave = |version: i16| {
        let group_id = "readers".to_owned();
        if version < 3 {
            return LeaveGroupRequest { group_id, member_id: member_id(), ..LeaveGroupRequest::default() };
        }
        let members = vec![MemberIdentity {
            member_id: member_id(),
            group_instance_id: None,
            ..MemberIdentity::default()
        }];
        LeaveGroupRequest { group_id, members, ..LeaveGroupRequest::default() }
    };
    ask(&mut client, leave, |version, response| {
        let error = if version < 3 { response.error_code } else { response.members[0].error_code };
        assert_eq!(error, unknown_member, "version {version}");
    })
    .await;
}

#[tokio::test]
async fn groups_are_listed_described_and_deleted_in_every_version() {
    let (_dir, _broker, mut client) = started().await;
    ask(&mut client, |_| ListGroupsRequest::default(), |_, response| assert!(response.groups.is_empty()))
        .await;
    let describe =
        |_| DescribeGroupsRequest { groups: vec!["gone".to_owned()], ..DescribeGroupsRequest::default() };
    ask(&mut client, describe, |version, response| {
        assert_eq!(response.groups[0].error_code, if version < 6 { 0 } else { 69 }, "version {version}");
    })
    .await;
    let delete =
        |_| DeleteGroupsRequest { groups_names: vec!["gone".to_owned()], ..DeleteGroupsRequest::default() };
    ask(&mut client, delete, |_, response| assert_eq!(response.results[0].error_code, 69)).await;
    let init = |_| InitProducerIdRequest {
        transactional_id: None,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequest::default()
    };
    ask(&mut client, init, |_, response| assert_eq!((response.error_code, response.producer_epoch), (0, 0)))
        .await;
}

#[tokio::test]
async fn acls_are_refused_one_by_one_in_every_version() {
    let (_dir, _broker, mut client) = started().await;
    let security_disabled = 54;
    assert_eq!(range(&mut client, ApiKey::DescribeAcls).await, 1..=3);
    ask(
        &mut client,
        |_| DescribeAclsRequest::default(),
        |version, response| {
            assert_eq!(response.error_code, security_disabled, "version {version}");
            assert!(response.error_message.is_some_and(|message| message.contains("No Authorizer")));
            assert!(response.resources.is_empty());
        },
    )
    .await;
    let creations = || vec![AclCreation::default(), AclCreation::default()];
    let create = |_| CreateAclsRequest { creations: creations(), ..CreateAclsRequest::default() };
    ask(&mut client, create, |version, response| {
        let codes: Vec<i16> = response.results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [security_disabled; 2], "version {version}");
    })
    .await;
    let filters = || vec![DeleteAclsFilter::default(), DeleteAclsFilter::default()];
    let delete = |_| DeleteAclsRequest { filters: filters(), ..DeleteAclsRequest::default() };
    ask(&mut client, delete, |version, response| {
        let codes: Vec<i16> = response.filter_results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [security_disabled; 2], "version {version}");
    })
    .await;
}

#[tokio::test]
async fn leader_epochs_in_every_version() {
    let (_dir, _broker, mut client) = started().await;
    client.produce("orders", 0, batch(&["a", "b"])).await;
    let request = |_| OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics: vec![OffsetForLeaderTopic {
            topic: "orders".to_owned(),
            partitions: vec![OffsetForLeaderPartition::default()],
            ..OffsetForLeaderTopic::default()
        }],
        ..OffsetForLeaderEpochRequest::default()
    };
    ask(&mut client, request, |version, response| {
        let found = &response.topics[0].partitions[0];
        assert_eq!((found.error_code, found.end_offset), (0, 2), "version {version}");
    })
    .await;
}
