//! Frames and records with known contents, as Apache Kafka writes them: see fixtures/README.md.
//!
//! The other tests show that fields are of the right size and order; these show that each has the right name.

use bytes::Bytes;
use tidings_model::TopicId;
use tidings_wire::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, MetadataRequest, MetadataResponse,
    OffsetCommitKey, OffsetCommitValue, PartitionRecord, ProduceRequest, TopicRecord,
    api_versions_response::ApiVersion, fetch_response, metadata_response, produce_request,
};
use tidings_wire::{
    Chunk, DecodeError, Decoder, Message, MetadataRecordHeader, RecordMessage, Records, Request,
    RequestHeader, coordinator_key_type, decode_coordinator_key, decode_request, decode_response,
    decode_versioned, encode_coordinator_key, encode_metadata_record, encode_request, encode_response,
    encode_versioned,
};

const ID: TopicId = TopicId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

fn fixture(name: &str, version: i16) -> String {
    let prefix = format!("{name} {version} ");
    let line = include_str!("fixtures/samples.txt").lines().find_map(|line| line.strip_prefix(&prefix));
    line.expect("the sample exists").to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn joined(chunks: &[Chunk]) -> Bytes {
    let bytes = chunks.iter().flat_map(|chunk| match chunk {
        Chunk::Bytes(bytes) => bytes.to_vec(),
        Chunk::External { .. } => panic!("no records are external here"),
    });
    bytes.collect()
}

fn check_request<R: Request + PartialEq + std::fmt::Debug>(name: &str, version: i16, request: &R) {
    let frame =
        joined(&encode_request(version, 77, Some("me"), request).expect("the sample has a byte form"));
    assert_eq!(hex(&frame), fixture(name, version));
    let mut d = Decoder::new(frame.slice(4..));
    let header = RequestHeader::decode(&mut d).expect("the header is Kafka's");
    assert_eq!((header.api_key, header.api_version, header.correlation_id), (R::API_KEY, version, 77));
    assert_eq!(header.client_id.as_deref(), Some("me"));
    assert_eq!(decode_request::<R>(&mut d, version).as_ref(), Ok(request));
}

fn check_response<R: Request>(name: &str, version: i16, response: &R::Response)
where
    R::Response: PartialEq + std::fmt::Debug,
{
    let frame = joined(&encode_response::<R>(version, 77, response).expect("the sample has a byte form"));
    assert_eq!(hex(&frame), fixture(name, version));
    assert_eq!(decode_response::<R>(version, frame.slice(4..)), Ok((77, response.clone_by_version(version))));
}

/// What is left of a message after a version that does not carry all of it.
trait CloneByVersion {
    fn clone_by_version(&self, version: i16) -> Self;
}

impl<M: Message> CloneByVersion for M {
    fn clone_by_version(&self, version: i16) -> Self {
        let mut e = tidings_wire::Encoder::new();
        self.encode(&mut e, version).expect("the sample has a byte form");
        let mut d = Decoder::new(e.into_bytes().expect("no records are external here"));
        M::decode(&mut d, version).expect("the sample can be read")
    }
}

#[test]
fn produce_request() {
    for version in [3, 9, 13] {
        let by_id = version >= 13;
        let request = ProduceRequest {
            acks: -1,
            timeout_ms: 30000,
            topic_data: vec![produce_request::TopicProduceData {
                name: if by_id { String::new() } else { "orders".to_owned() },
                topic_id: if by_id { ID } else { TopicId::ZERO },
                partition_data: vec![produce_request::PartitionProduceData {
                    index: 3,
                    records: Some(Records::Bytes(Bytes::from_static(b"records"))),
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        check_request("produce_request", version, &request);
    }
}

fn fetch(version: i16) -> FetchResponse {
    let by_id = version >= 13;
    let mut partition = fetch_response::PartitionData {
        partition_index: 3,
        high_watermark: 100,
        last_stable_offset: 90,
        aborted_transactions: Some(vec![fetch_response::AbortedTransaction {
            producer_id: 7,
            first_offset: 80,
            ..Default::default()
        }]),
        records: Some(Records::Bytes(Bytes::from_static(b"records"))),
        ..Default::default()
    };
    let mut response = FetchResponse { throttle_time_ms: 1, ..Default::default() };
    if by_id {
        partition.current_leader.leader_id = 1;
        partition.current_leader.leader_epoch = 6;
        let node =
            fetch_response::NodeEndpoint { node_id: 1, host: "h".into(), port: 9092, ..Default::default() };
        response.node_endpoints.push(node);
    }
    response.responses.push(fetch_response::FetchableTopicResponse {
        topic: if by_id { String::new() } else { "orders".to_owned() },
        topic_id: if by_id { ID } else { TopicId::ZERO },
        partitions: vec![partition],
        ..Default::default()
    });
    response
}

#[test]
fn fetch_response() {
    for version in [4, 12, 16] {
        check_response::<FetchRequest>("fetch_response", version, &fetch(version));
    }
}

#[test]
fn external_records_are_left_to_the_writer() {
    let mut response = fetch(12);
    response.responses[0].partitions[0].records = Some(Records::External { token: 9, len: 7 });
    let chunks = encode_response::<FetchRequest>(12, 77, &response).expect("external records have a place");
    let [Chunk::Bytes(head), Chunk::External { token: 9, len: 7 }, Chunk::Bytes(tail)] = &chunks[..] else {
        panic!("expected bytes, the records' place, bytes; found {chunks:?}");
    };
    assert_eq!(hex(head) + &hex(b"records") + &hex(tail), fixture("fetch_response", 12));
}

#[test]
fn metadata_response() {
    for version in [1, 12] {
        let response = MetadataResponse {
            controller_id: 1,
            cluster_id: (version >= 2).then(|| "c".to_owned()),
            brokers: vec![metadata_response::MetadataResponseBroker {
                node_id: 1,
                host: "h".into(),
                port: 9092,
                ..Default::default()
            }],
            topics: vec![metadata_response::MetadataResponseTopic {
                name: Some("orders".into()),
                topic_id: if version >= 10 { ID } else { TopicId::ZERO },
                partitions: vec![metadata_response::MetadataResponsePartition {
                    partition_index: 3,
                    leader_id: 1,
                    replica_nodes: vec![1],
                    isr_nodes: vec![1],
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        };
        check_response::<MetadataRequest>("metadata_response", version, &response);
    }
}

#[test]
fn api_versions_response_keeps_the_oldest_header() {
    for version in [0, 3] {
        let response = ApiVersionsResponse {
            error_code: 35,
            api_keys: vec![ApiVersion { api_key: 18, min_version: 0, max_version: 4, ..Default::default() }],
            finalized_features_epoch: if version >= 3 { 7 } else { -1 },
            ..Default::default()
        };
        check_response::<ApiVersionsRequest>("api_versions_response", version, &response);
    }
}

#[test]
fn committed_offsets() {
    let key = OffsetCommitKey { group: "g".into(), topic: "orders".into(), partition: 3 };
    let bytes = encode_coordinator_key(&key).expect("the sample has a byte form");
    assert_eq!(hex(&bytes), fixture("offset_commit_key", 0));
    assert_eq!(coordinator_key_type(&bytes), Ok(OffsetCommitKey::RECORD_TYPE));
    assert_eq!(decode_coordinator_key(bytes), Ok(key));
    let other = decode_coordinator_key::<OffsetCommitKey>(Bytes::from_static(&[0, 2, 0, 0]));
    assert_eq!(other, Err(DecodeError::RecordType { message: "OffsetCommitKey", expected: 1, found: 2 }));
    for version in [3, 4] {
        let value = OffsetCommitValue {
            offset: 42,
            metadata: "m".into(),
            commit_timestamp: 1000,
            leader_epoch: 5,
            ..Default::default()
        };
        let bytes = encode_versioned(&value, version).expect("the sample has a byte form");
        assert_eq!(hex(&bytes), fixture("offset_commit_value", version));
        assert_eq!(decode_versioned(bytes), Ok(value));
    }
}

fn check_metadata_record<M: RecordMessage + PartialEq + std::fmt::Debug>(name: &str, record: &M) {
    let bytes = encode_metadata_record(record, 0).expect("the sample has a byte form");
    assert_eq!(hex(&bytes), fixture(name, 0));
    let mut d = Decoder::new(bytes);
    let header = MetadataRecordHeader { record_type: M::RECORD_TYPE, version: 0 };
    assert_eq!(MetadataRecordHeader::decode(&mut d), Ok(header));
    assert_eq!(M::decode(&mut d, 0).as_ref(), Ok(record));
}

#[test]
fn metadata_records() {
    check_metadata_record(
        "topic_record",
        &TopicRecord { name: "orders".into(), topic_id: ID, ..Default::default() },
    );
    let partition = PartitionRecord {
        partition_id: 3,
        topic_id: ID,
        replicas: vec![1],
        isr: vec![1],
        leader: 1,
        leader_epoch: 2,
        partition_epoch: 9,
        ..Default::default()
    };
    check_metadata_record("partition_record", &partition);
}

#[test]
fn unknown_apis_are_refused_and_unknown_versions_left_to_the_caller() {
    let mut d = Decoder::new(Bytes::from_static(&[0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff]));
    assert_eq!(RequestHeader::decode(&mut d), Err(DecodeError::UnknownApiKey { api_key: 0x7fff }));
    let mut d = Decoder::new(Bytes::from_static(&[0, 18, 0, 99, 0, 0, 0, 1, 0xff, 0xff, 0]));
    let header = RequestHeader::decode(&mut d).expect("an ApiVersions header of any version can be read");
    assert_eq!((header.api_version, header.correlation_id), (99, 1));
}
