//! From a frame to its answer: one file per API, and the table of what is served.
//!
//! Owns the decision what to do with a frame: decode it with its API's codec, or refuse it. Invariants: what is not in
//! the table is neither advertised nor answered; a frame that its API cannot decode closes the connection, as in Kafka,
//! because its sender and we disagree about the protocol. API versions stop here: what lies below knows none.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use thiserror::Error;
use tidings_wire::messages::{
    add_offsets_to_txn_request::AddOffsetsToTxnRequest,
    add_partitions_to_txn_request::AddPartitionsToTxnRequest, alter_configs_request::AlterConfigsRequest,
    api_versions_request::ApiVersionsRequest, consumer_group_describe_request::ConsumerGroupDescribeRequest,
    consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest, create_acls_request::CreateAclsRequest,
    create_partitions_request::CreatePartitionsRequest, create_topics_request::CreateTopicsRequest,
    delete_acls_request::DeleteAclsRequest, delete_groups_request::DeleteGroupsRequest,
    delete_records_request::DeleteRecordsRequest, delete_topics_request::DeleteTopicsRequest,
    describe_acls_request::DescribeAclsRequest, describe_cluster_request::DescribeClusterRequest,
    describe_configs_request::DescribeConfigsRequest, describe_groups_request::DescribeGroupsRequest,
    describe_log_dirs_request::DescribeLogDirsRequest, describe_producers_request::DescribeProducersRequest,
    describe_topic_partitions_request::DescribeTopicPartitionsRequest,
    describe_transactions_request::DescribeTransactionsRequest, end_txn_request::EndTxnRequest,
    fetch_request::FetchRequest, find_coordinator_request::FindCoordinatorRequest,
    heartbeat_request::HeartbeatRequest, incremental_alter_configs_request::IncrementalAlterConfigsRequest,
    init_producer_id_request::InitProducerIdRequest, join_group_request::JoinGroupRequest,
    leave_group_request::LeaveGroupRequest, list_groups_request::ListGroupsRequest,
    list_offsets_request::ListOffsetsRequest, list_transactions_request::ListTransactionsRequest,
    metadata_request::MetadataRequest, offset_commit_request::OffsetCommitRequest,
    offset_delete_request::OffsetDeleteRequest, offset_fetch_request::OffsetFetchRequest,
    offset_for_leader_epoch_request::OffsetForLeaderEpochRequest, produce_request::ProduceRequest,
    sync_group_request::SyncGroupRequest, txn_offset_commit_request::TxnOffsetCommitRequest,
    write_txn_markers_request::WriteTxnMarkersRequest,
};
use tidings_wire::{
    ApiKey, DecodeError, Decoder, EncodeError, Message, Request, RequestHeader, encode_response,
};

use crate::connection::{Answer, Reservation};
use crate::lazy_timer::LazyTimer;
use crate::shared::Shared;

pub(crate) mod add_offsets_to_txn;
pub(crate) mod add_partitions_to_txn;
pub(crate) mod alter_configs;
pub(crate) mod api_versions;
pub(crate) mod consumer_group_describe;
pub(crate) mod consumer_group_heartbeat;
pub(crate) mod create_acls;
pub(crate) mod create_partitions;
pub(crate) mod create_topics;
pub(crate) mod delete_acls;
pub(crate) mod delete_groups;
pub(crate) mod delete_records;
pub(crate) mod delete_topics;
pub(crate) mod describe_acls;
pub(crate) mod describe_cluster;
pub(crate) mod describe_configs;
pub(crate) mod describe_groups;
pub(crate) mod describe_log_dirs;
pub(crate) mod describe_producers;
pub(crate) mod describe_topic_partitions;
pub(crate) mod describe_transactions;
pub(crate) mod end_txn;
pub(crate) mod fetch;
pub(crate) mod find_coordinator;
pub(crate) mod heartbeat;
pub(crate) mod incremental_alter_configs;
pub(crate) mod init_producer_id;
pub(crate) mod join_group;
pub(crate) mod leave_group;
pub(crate) mod list_groups;
pub(crate) mod list_offsets;
pub(crate) mod list_transactions;
pub(crate) mod metadata;
pub(crate) mod offset_commit;
pub(crate) mod offset_delete;
pub(crate) mod offset_fetch;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
pub(crate) mod sync_group;
pub(crate) mod txn_offset_commit;
pub(crate) mod write_txn_markers;

pub(crate) use produce::PendingProduce;

/// Why a frame cannot be answered; the connection ends.
#[derive(Debug, Error)]
pub(crate) enum RequestError {
    #[error("request header: {0}")]
    Header(#[source] DecodeError),
    #[error("{api:?} version {version}: {source}")]
    Body { api: ApiKey, version: i16, source: DecodeError },
    #[error("{api:?} is not served")]
    NotServed { api: ApiKey },
    #[error("{api:?} version {version} is not served: expected {min} to {max}")]
    Version { api: ApiKey, version: i16, min: i16, max: i16 },
    #[error("Produce with acks=0 failed: {error}")]
    UnacknowledgedProduce { error: tidings_model::ErrorCode },
    #[error("answer to {api:?} version {version}: {source}")]
    Encode { api: ApiKey, version: i16, source: EncodeError },
}

/// Who is at the other end.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) peer: SocketAddr,
    /// Our own address as this client reached it.
    pub(crate) local: SocketAddr,
}

/// What a handler may look at besides its request.
pub(crate) struct Cx<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) client: &'a Client,
    pub(crate) client_id: Option<&'a str>,
    pub(crate) version: i16,
}

/// Requests that are answered when other members of the group have done their part: they may wait for minutes, and must
/// not hold a part of the budget meanwhile. A Fetch waits, too, but is in memory as long.
const WAITS_FOR_MEMBERS: [ApiKey; 2] = [ApiKey::JoinGroup, ApiKey::SyncGroup];

/// A request whose header is read and whose version is served.
pub(crate) struct Incoming {
    header: RequestHeader,
    body: Decoder,
    received: Instant,
    reservation: Option<Reservation>,
}

impl Incoming {
    /// Whether the answer may wait for what others do, for minutes.
    pub(crate) fn waits_for_others(&self) -> bool {
        let api = self.header.api_key;
        api == ApiKey::Fetch || WAITS_FOR_MEMBERS.contains(&api)
    }

    /// Leaves the frame's part of the budget to the request, for as long as it is in memory.
    pub(crate) fn hold(&mut self, reservation: Option<Reservation>) {
        self.reservation = reservation;
    }

    fn decode<R: Request>(&mut self) -> Result<R, RequestError> {
        let (api, version) = (self.header.api_key, self.header.api_version);
        // Bytes after the end are ignored, as in Kafka: librdkafka sends some with Metadata.
        let decoded = R::decode(&mut self.body, version);
        if WAITS_FOR_MEMBERS.contains(&api) {
            // The handler copies what it keeps, and nothing else is left of the frame.
            self.body = Decoder::new(Bytes::new());
            self.header.unknown_tagged_fields = Vec::new();
            self.reservation = None;
        }
        decoded.map_err(|source| RequestError::Body { api, version, source })
    }

    fn encode<R: Request>(&self, response: &R::Response) -> Result<Answer, RequestError> {
        encode::<R>(self.header.api_version, self.header.correlation_id, response)
    }
}

pub(crate) fn encode<R: Request>(
    version: i16,
    correlation_id: i32,
    response: &R::Response,
) -> Result<Answer, RequestError> {
    let chunks = encode_response::<R>(version, correlation_id, response)
        .map_err(|source| RequestError::Encode { api: R::API_KEY, version, source })?;
    Ok(Answer { chunks, files: Vec::new() })
}

/// What became of a frame once its synchronous part is done.
pub(crate) enum Begun {
    /// Records are appended; the answer waits for the commit.
    Produce(PendingProduce),
    /// Records are appended and nobody wants an answer.
    Done,
    /// To be handled before the next frame is looked at.
    Other(Incoming),
}

/// The oldest and newest version of an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) min: i16,
    pub(crate) max: i16,
}

macro_rules! served {
    ($($api:ident $(from $min:literal)?: $request:ident => $handler:path;)*) => {
        /// Every API that is served besides Produce, Fetch and ApiVersions, whose answers are made differently.
        const PLAIN_APIS: &[(ApiKey, Versions)] = &[$((
            ApiKey::$api,
            versions_of::<$request>(served!(@min $request $(, $min)?)),
        ),)*];

        async fn answer_plain(cx: &Cx<'_>, incoming: &mut Incoming) -> Result<Answer, RequestError> {
            match incoming.header.api_key {
                $(ApiKey::$api => {
                    let request: $request = incoming.decode()?;
                    let response = $handler(cx, request).await;
                    incoming.encode::<$request>(&response)
                })*
                api => Err(RequestError::NotServed { api }),
            }
        }
    };
    (@min $request:ident) => { <$request>::MIN_VERSION };
    (@min $request:ident, $min:literal) => { $min };
}

const fn versions_of<R: Request>(min: i16) -> Versions {
    Versions { min, max: R::MAX_STABLE_VERSION }
}

served! {
    ListOffsets: ListOffsetsRequest => list_offsets::handle;
    Metadata: MetadataRequest => metadata::handle;
    OffsetCommit: OffsetCommitRequest => offset_commit::handle;
    OffsetFetch: OffsetFetchRequest => offset_fetch::handle;
    FindCoordinator: FindCoordinatorRequest => find_coordinator::handle;
    JoinGroup: JoinGroupRequest => join_group::handle;
    Heartbeat: HeartbeatRequest => heartbeat::handle;
    LeaveGroup: LeaveGroupRequest => leave_group::handle;
    SyncGroup: SyncGroupRequest => sync_group::handle;
    DescribeGroups: DescribeGroupsRequest => describe_groups::handle;
    ListGroups: ListGroupsRequest => list_groups::handle;
    CreateTopics: CreateTopicsRequest => create_topics::handle;
    DeleteTopics: DeleteTopicsRequest => delete_topics::handle;
    DeleteRecords: DeleteRecordsRequest => delete_records::handle;
    OffsetForLeaderEpoch: OffsetForLeaderEpochRequest => offset_for_leader_epoch::handle;
    InitProducerId: InitProducerIdRequest => init_producer_id::handle;
    AddPartitionsToTxn: AddPartitionsToTxnRequest => add_partitions_to_txn::handle;
    AddOffsetsToTxn: AddOffsetsToTxnRequest => add_offsets_to_txn::handle;
    EndTxn: EndTxnRequest => end_txn::handle;
    WriteTxnMarkers from 1: WriteTxnMarkersRequest => write_txn_markers::handle;
    TxnOffsetCommit: TxnOffsetCommitRequest => txn_offset_commit::handle;
    DescribeAcls from 1: DescribeAclsRequest => describe_acls::handle;
    CreateAcls from 1: CreateAclsRequest => create_acls::handle;
    DeleteAcls from 1: DeleteAclsRequest => delete_acls::handle;
    DescribeConfigs: DescribeConfigsRequest => describe_configs::handle;
    AlterConfigs: AlterConfigsRequest => alter_configs::handle;
    CreatePartitions: CreatePartitionsRequest => create_partitions::handle;
    DeleteGroups: DeleteGroupsRequest => delete_groups::handle;
    IncrementalAlterConfigs: IncrementalAlterConfigsRequest => incremental_alter_configs::handle;
    OffsetDelete: OffsetDeleteRequest => offset_delete::handle;
    DescribeCluster: DescribeClusterRequest => describe_cluster::handle;
    DescribeLogDirs from 1: DescribeLogDirsRequest => describe_log_dirs::handle;
    DescribeTopicPartitions: DescribeTopicPartitionsRequest => describe_topic_partitions::handle;
    DescribeProducers: DescribeProducersRequest => describe_producers::handle;
    DescribeTransactions: DescribeTransactionsRequest => describe_transactions::handle;
    ListTransactions: ListTransactionsRequest => list_transactions::handle;
    ConsumerGroupHeartbeat: ConsumerGroupHeartbeatRequest => consumer_group_heartbeat::handle;
    ConsumerGroupDescribe: ConsumerGroupDescribeRequest => consumer_group_describe::handle;
}

/// The versions in which an API is served, if it is.
pub(crate) fn served_versions(api: ApiKey) -> Option<Versions> {
    served_apis().find(|(served, _)| *served == api).map(|(_, versions)| versions)
}

/// Every API that is served.
pub(crate) fn served_apis() -> impl Iterator<Item = (ApiKey, Versions)> {
    [
        (ApiKey::Produce, versions_of::<ProduceRequest>(produce::MIN_VERSION)),
        (ApiKey::Fetch, versions_of::<FetchRequest>(fetch::MIN_VERSION)),
        (ApiKey::ApiVersions, versions_of::<ApiVersionsRequest>(0)),
    ]
    .into_iter()
    .chain(PLAIN_APIS.iter().copied())
}

/// Reads a frame's header and does what must be done before the next frame is looked at.
pub(crate) fn begin(shared: &Arc<Shared>, frame: Bytes) -> Result<Begun, RequestError> {
    let received = Instant::now();
    let mut body = Decoder::new(frame);
    let header = RequestHeader::decode(&mut body).map_err(RequestError::Header)?;
    let (api, version) = (header.api_key, header.api_version);
    let Versions { min, max } = served_versions(api).ok_or(RequestError::NotServed { api })?;
    // A client that knows a newer ApiVersions than we do must still get an answer (KIP-511).
    if !(min..=max).contains(&version) && api != ApiKey::ApiVersions {
        return Err(RequestError::Version { api, version, min, max });
    }
    let mut incoming = Incoming { header, body, received, reservation: None };
    if api != ApiKey::Produce {
        return Ok(Begun::Other(incoming));
    }
    let request: ProduceRequest = incoming.decode()?;
    let produce = produce::begin(shared, request, version, incoming.header.correlation_id, received)?;
    Ok(produce.map_or(Begun::Done, Begun::Produce))
}

/// Handles what `begin` left to do.
pub(crate) async fn finish(
    shared: &Arc<Shared>,
    client: &Client,
    mut incoming: Incoming,
    long_poll: &mut LazyTimer,
) -> Result<Answer, RequestError> {
    let api = incoming.header.api_key;
    let client_id = incoming.header.client_id.take();
    let cx = Cx { shared, client, client_id: client_id.as_deref(), version: incoming.header.api_version };
    let answer = match api {
        ApiKey::Fetch => {
            let request: FetchRequest = incoming.decode()?;
            let (response, files) = fetch::handle(&cx, request, long_poll).await;
            Answer { files, ..incoming.encode::<FetchRequest>(&response)? }
        }
        ApiKey::ApiVersions => answer_api_versions(&mut incoming)?,
        _ => answer_plain(&cx, &mut incoming).await?,
    };
    shared.metrics.answered(api, incoming.received);
    Ok(answer)
}

fn answer_api_versions(incoming: &mut Incoming) -> Result<Answer, RequestError> {
    if !ApiVersionsRequest::has_version(incoming.header.api_version) {
        let response = api_versions::unsupported();
        return encode::<ApiVersionsRequest>(0, incoming.header.correlation_id, &response);
    }
    let request: ApiVersionsRequest = incoming.decode()?;
    incoming.encode::<ApiVersionsRequest>(&api_versions::handle(&request, incoming.header.api_version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_api_is_listed_twice_and_every_range_is_one() {
        let apis: Vec<_> = served_apis().collect();
        let mut keys: Vec<_> = apis.iter().map(|(api, _)| *api).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), apis.len());
        assert!(apis.iter().all(|(_, versions)| versions.min <= versions.max));
    }
}
