//! Produce, versions 3 to 13: records into logs.
//!
//! The synchronous part decodes, appends every partition's batch in the order of the request and remembers the newest
//! commit ticket; the answer waits for that one, because commit rounds end in order. With acks=-1 and acks=1 the answer
//! leaves when the records are durable; with acks=0 there is none, and an error closes the connection. Each partition has
//! its own verdict. Version 7 may carry zstd and those before may not (KIP-110), 8 has record errors (KIP-467), 10 tells
//! the leader (KIP-951), 11 knows TRANSACTION_ABORTABLE, from 12 on writing to a partition takes it into the transaction
//! (KIP-890), 13 names topics by id (KIP-516). Versions 0 to 2 carry record formats that are not stored.
//!
//! A batch that begins a transaction in its partition is appended only after the coordinator has confirmed that the partition
//! is part of it; later batches of the transaction need no question.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tidings_coordinator::{AddPartitionsRequest, TRANSACTION_VERSION_2};
use tidings_log::batch::{BatchHeader, Compression};
use tidings_log::{AppendError, AppendOptions, Appended, CommitError, CommitTicket, Origin, PartitionLog};
use tidings_model::ErrorCode;
use tidings_wire::messages::produce_request::{PartitionProduceData, ProduceRequest, TopicProduceData};
use tidings_wire::messages::produce_response::{
    PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
};
use tidings_wire::{ApiKey, Records};

use crate::connection::Answer;
use crate::handlers::{RequestError, encode};
use crate::shared::Shared;
use crate::topics::image::Topic;
use crate::transactions::{RefusedBatch, one_partition};

/// The oldest version served: the first with record batches of format 2.
pub(crate) const MIN_VERSION: i16 = 3;

/// The first version that may carry zstd.
const ZSTD: i16 = 7;

/// The first version that knows TRANSACTION_ABORTABLE.
const ABORTABLE: i16 = 11;

/// The first version whose batches add their partition to the transaction.
const ADDS_PARTITION: i16 = 12;

const BY_TOPIC_ID: i16 = 13;

const LEADER_EPOCH: i32 = 0;

/// A produce request whose records are appended and whose answer waits for the commit.
#[derive(Debug)]
pub(crate) struct PendingProduce {
    response: ProduceResponse,
    version: i16,
    correlation_id: i32,
    received: Instant,
    commit: CommitTicket,
    outcome: Option<Result<(), CommitError>>,
}

/// Appends the records of a request. None where the client wants no answer.
pub(crate) fn begin(
    shared: &Arc<Shared>,
    request: ProduceRequest,
    version: i16,
    correlation_id: i32,
    received: Instant,
) -> Result<Option<PendingProduce>, RequestError> {
    let acks = request.acks;
    let refusal = refuse_all(&request);
    let mut commit = CommitTicket::ready();
    let from = Source { version, transactional_id: request.transactional_id };
    let responses = request
        .topic_data
        .into_iter()
        .map(|topic| match &refusal {
            Some(verdict) => refused(topic, verdict),
            None => append_topic(shared, topic, &from, &mut commit),
        })
        .collect();
    if acks == 0 {
        shared.metrics.answered(ApiKey::Produce, received);
        let response = ProduceResponse { responses, ..ProduceResponse::default() };
        return match first_error(&response) {
            Some(error) => Err(RequestError::UnacknowledgedProduce { error }),
            None => Ok(None),
        };
    }
    let response = ProduceResponse { responses, ..ProduceResponse::default() };
    Ok(Some(PendingProduce { response, version, correlation_id, received, commit, outcome: None }))
}

/// Who produces, and how it speaks.
struct Source {
    version: i16,
    transactional_id: Option<String>,
}

/// What is wrong with one partition, for its part of the answer.
#[derive(Debug)]
struct Verdict {
    error: ErrorCode,
    message: Option<String>,
}

impl From<ErrorCode> for Verdict {
    fn from(error: ErrorCode) -> Verdict {
        Verdict { error, message: None }
    }
}

/// What is wrong with the request as a whole.
fn refuse_all(request: &ProduceRequest) -> Option<Verdict> {
    if !matches!(request.acks, -1..=1) {
        return Some(ErrorCode::InvalidRequiredAcks.into());
    }
    let mut headers = batches(request).filter(BatchHeader::is_transactional);
    let first = headers.next()?;
    if request.transactional_id.is_none() {
        return Some(ErrorCode::TransactionalIdAuthorizationFailed.into());
    }
    // As in Kafka: what is written in one request belongs to one producer.
    let differs = headers.any(|header| header.producer_id != first.producer_id);
    differs.then(|| Verdict {
        error: ErrorCode::InvalidProducerIdMapping,
        message: Some("Transactional records contained more than one producer ID".to_owned()),
    })
}

/// The first batch of each partition.
fn batches(request: &ProduceRequest) -> impl Iterator<Item = BatchHeader> {
    let partitions = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    partitions.filter_map(|partition| match &partition.records {
        Some(Records::Bytes(bytes)) => BatchHeader::parse(bytes),
        _ => None,
    })
}

fn refused(topic: TopicProduceData, verdict: &Verdict) -> TopicProduceResponse {
    let answer = |partition: PartitionProduceData| PartitionProduceResponse {
        error_message: verdict.message.clone(),
        ..failed(partition.index, verdict.error)
    };
    TopicProduceResponse {
        name: topic.name,
        topic_id: topic.topic_id,
        partition_responses: topic.partition_data.into_iter().map(answer).collect(),
        ..TopicProduceResponse::default()
    }
}

fn failed(index: i32, error: ErrorCode) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: error.code(),
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        ..PartitionProduceResponse::default()
    }
}

fn append_topic(
    shared: &Arc<Shared>,
    data: TopicProduceData,
    from: &Source,
    commit: &mut CommitTicket,
) -> TopicProduceResponse {
    let found = if from.version >= BY_TOPIC_ID {
        shared.topics.by_id(data.topic_id).ok_or(ErrorCode::UnknownTopicId)
    } else {
        shared.topics.by_name(&data.name).ok_or(ErrorCode::UnknownTopicOrPartition)
    };
    // Only the coordinators write there: their state is rebuilt from it.
    let found =
        found.and_then(
            |topic| if topic.is_internal() { Err(ErrorCode::InvalidTopicException) } else { Ok(topic) },
        );
    let mut partition_responses = Vec::with_capacity(data.partition_data.len());
    for PartitionProduceData { index, records, .. } in data.partition_data {
        let appended = match &found {
            Ok(topic) => append_partition(shared, topic, index, records, from, commit),
            Err(error) => Err((*error).into()),
        };
        partition_responses.push(appended.unwrap_or_else(|Verdict { error, message }| {
            PartitionProduceResponse { error_message: message, ..failed(index, error) }
        }));
    }
    let (name, topic_id) = (data.name, data.topic_id);
    TopicProduceResponse { name, topic_id, partition_responses, ..TopicProduceResponse::default() }
}

fn append_partition(
    shared: &Arc<Shared>,
    topic: &Topic,
    index: i32,
    records: Option<Records>,
    from: &Source,
    commit: &mut CommitTicket,
) -> Result<PartitionProduceResponse, Verdict> {
    let log = topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let Some(Records::Bytes(records)) = records else {
        return Err(Verdict {
            error: ErrorCode::InvalidRecord,
            message: Some("no record batch found".to_owned()),
        });
    };
    let bytes = records.len();
    let header = one_batch(&records, from.version)?;
    let refused = |error: AppendError| {
        let code = error.error_code();
        if code == ErrorCode::KafkaStorageError
            && let Some(suppressed) = shared.storage_errors.admit()
        {
            tracing::error!(%error, suppressed, "append failed");
        }
        Verdict { error: code, message: Some(error.to_string()) }
    };
    let options =
        AppendOptions { origin: Origin::Client, leader_epoch: LEADER_EPOCH, now_ms: shared.clock.wall_ms() };
    let begins_transaction =
        header.filter(|header| header.is_transactional() && !log.is_in_transaction(header));
    let appended = match begins_transaction {
        None => log.append_with_more(records, options).map_err(refused)?,
        Some(header) => {
            append_first(shared, log, records, options, &header, from).map_err(|error| match error {
                RefusedBatch::Append(error) => refused(error),
                RefusedBatch::Transaction(error) => {
                    if error.retriable() {
                        log.await_batch(&header);
                    }
                    let (knows_abortable, adds) = (from.version >= ABORTABLE, from.version >= ADDS_PARTITION);
                    transaction_error(error, knows_abortable, adds).into()
                }
            })?
        }
    };
    if !appended.duplicate {
        let count = appended.last_offset - appended.base_offset + 1;
        shared.metrics.produced(&topic.name, count.unsigned_abs(), bytes);
    }
    let newest = std::mem::replace(commit, CommitTicket::ready());
    *commit = newest.newest(appended.commit);
    Ok(PartitionProduceResponse {
        index,
        error_code: ErrorCode::None.code(),
        base_offset: appended.base_offset,
        log_append_time_ms: appended.log_append_time_ms.unwrap_or(-1),
        log_start_offset: appended.log_start_offset,
        ..PartitionProduceResponse::default()
    })
}

/// Appends a batch that begins the transaction in its partition.
fn append_first(
    shared: &Shared,
    log: &Arc<PartitionLog>,
    records: Bytes,
    options: AppendOptions,
    header: &BatchHeader,
    from: &Source,
) -> Result<Appended, RefusedBatch> {
    let topic_partition = log.topic_partition();
    let adds = from.version >= ADDS_PARTITION;
    let request = AddPartitionsRequest {
        transactional_id: from.transactional_id.clone().unwrap_or_default(),
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        partitions: one_partition(&topic_partition.topic, topic_partition.partition),
        client_version: if adds { TRANSACTION_VERSION_2 } else { 0 },
    };
    let options = AppendOptions { origin: Origin::Transaction, ..options };
    shared.transactions.append_first(request, adds, || log.append_with_more(records, options))
}

/// What the transaction coordinator's error is to a producer or a committer of offsets. Older clients do not know all of
/// them, and some are retried only under another name.
pub(crate) fn transaction_error(error: ErrorCode, knows_abortable: bool, adds: bool) -> ErrorCode {
    match error {
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        ErrorCode::TransactionAbortable if !knows_abortable => ErrorCode::InvalidTxnState,
        ErrorCode::ConcurrentTransactions if !adds => ErrorCode::NotEnoughReplicas,
        ErrorCode::CoordinatorNotAvailable => ErrorCode::NotEnoughReplicas,
        error => error,
    }
}

/// From version 3 on a partition carries one batch, of format 2. What else is wrong with it, the log says.
fn one_batch(records: &Bytes, version: i16) -> Result<Option<BatchHeader>, Verdict> {
    let Some(header) = BatchHeader::parse(records) else { return Ok(None) };
    if version < ZSTD && header.compression() == Ok(Compression::Zstd) {
        return Err(Verdict {
            error: ErrorCode::UnsupportedCompressionType,
            message: Some(format!("version {version} of Produce cannot carry zstd")),
        });
    }
    if header.size_bytes() < records.len() {
        return Err(Verdict {
            error: ErrorCode::InvalidRecord,
            message: Some("expected exactly one record batch for each partition, found more".to_owned()),
        });
    }
    Ok(Some(header))
}

fn first_error(response: &ProduceResponse) -> Option<ErrorCode> {
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    let error_code = partitions.find(|partition| partition.error_code != ErrorCode::None.code())?.error_code;
    ErrorCode::from_code(error_code)
}

impl PendingProduce {
    /// Lets the commit begin, which the appends have put off so that one sync serves the whole request.
    pub(crate) fn begin_commit(&self) {
        self.commit.begin();
    }

    /// The same, on this thread where that is cheapest; see [`CommitTicket::commit_here`].
    pub(crate) fn commit_here(&mut self) {
        self.commit.commit_here();
    }

    /// Whether the commit has ended, well or not.
    pub(crate) fn is_committed(&mut self) -> bool {
        if self.outcome.is_none() {
            self.outcome = self.commit.outcome();
        }
        self.outcome.is_some()
    }

    /// Ready when the commit has ended, well or not.
    pub(crate) fn poll_committed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.outcome.is_none() {
            match Pin::new(&mut self.commit).poll(cx) {
                Poll::Ready(outcome) => self.outcome = Some(outcome),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// The answer, once the commit has ended.
    pub(crate) fn answer(mut self, shared: &Shared) -> Result<Answer, RequestError> {
        if let Some(Err(error)) = &self.outcome {
            tracing::debug!(%error, "produce not durable");
            fail(&mut self.response);
        }
        shared.metrics.acknowledged(self.received);
        shared.metrics.answered(ApiKey::Produce, self.received);
        encode::<ProduceRequest>(self.version, self.correlation_id, &self.response)
    }
}

/// What was appended but not made durable is not acknowledged.
fn fail(response: &mut ProduceResponse) {
    for partition in response.responses.iter_mut().flat_map(|topic| topic.partition_responses.iter_mut()) {
        if partition.error_code == ErrorCode::None.code() {
            *partition = failed(partition.index, ErrorCode::KafkaStorageError);
        }
    }
}
