//! Fetch, versions 4 to 18: records out of logs.
//!
//! Waits up to `max.wait.ms` for `min.bytes`, woken when as many have come to the partitions asked for. Bytes are limited
//! for each partition and in all; the first partition that has something gives at least one batch, however large (KIP-74).
//! Records are not read here: the answer names file ranges, and the connection sends them.
//!
//! Version 5 tells the log's start, 7 brings [fetch sessions](crate::fetch_sessions) (KIP-227), 9 checks the leader epoch (KIP-320), 10 may carry zstd, 11 names a rack, 12 has tagged
//! fields, 13 names topics by id (KIP-516), 15 moves the replica id (KIP-903), 16 tells the leader (KIP-951), 17 and 18
//! are for followers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidings_log::{FetchWaiter, Fetched, FileSlice, PartitionLog, ReadError, UpTo};
use tidings_model::ErrorCode;
use tidings_wire::Records;
use tidings_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use tidings_wire::messages::fetch_response::{
    AbortedTransaction, FetchResponse, FetchableTopicResponse, PartitionData,
};
use tokio::time::Instant;

use crate::handlers::Cx;
use crate::lazy_timer::LazyTimer;

/// The oldest version served: the first with record batches of format 2.
pub(crate) const MIN_VERSION: i16 = 4;

const BY_TOPIC_ID: i16 = 13;
const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;
const LEADER_EPOCH: i32 = 0;

/// The longest a fetch waits, whatever it asks for: a connection must notice in the end that its peer is gone.
const MAX_WAIT: Duration = Duration::from_secs(300);

pub(crate) async fn handle(
    cx: &Cx<'_>,
    request: FetchRequest,
    timer: &mut LazyTimer,
) -> (FetchResponse, Vec<FileSlice>) {
    if !matches!(request.isolation_level, READ_UNCOMMITTED | READ_COMMITTED) {
        return (unknown_isolation_level(request, cx.version), Vec::new());
    }
    let (sessions, by_id) = (&cx.shared.fetch_sessions, cx.version >= BY_TOPIC_ID);
    let context = match sessions.begin(&request, by_id, cx.shared.clock.steady_ms()) {
        Ok(context) => context,
        Err(error) => return refused(error),
    };
    let mut request = request;
    request.topics = context.wanted(std::mem::take(&mut request.topics));
    let fetch = Fetch::resolve(cx, &request);
    let mut found = fetch.read();
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(MAX_WAIT);
    if !found.is_enough(fetch.min_bytes) && !wait.is_zero() {
        let deadline = Instant::now() + wait;
        loop {
            let waiter = FetchWaiter::new();
            fetch.register(&waiter);
            // What arrived before the registration would not wake us.
            found = fetch.read();
            if found.is_enough(fetch.min_bytes) {
                break;
            }
            waiter.expect(found.missing(fetch.min_bytes));
            let is_over = tokio::select! {
                biased;
                () = waiter.woken() => false,
                () = timer.until(deadline) => true,
            };
            found = fetch.read();
            if is_over || found.is_enough(fetch.min_bytes) {
                break;
            }
        }
    }
    let now_ms = cx.shared.clock.steady_ms();
    let session_id = match sessions.finish(context, by_id, &request.topics, &mut found.topics, now_ms) {
        Ok(session_id) => session_id,
        Err(error) => return refused(error),
    };
    cx.shared.metrics.fetched(found.bytes);
    (FetchResponse { responses: found.topics, session_id, ..FetchResponse::default() }, found.files)
}

/// What is wrong with the session concerns the request as a whole; the client begins anew.
fn refused(error: ErrorCode) -> (FetchResponse, Vec<FileSlice>) {
    (FetchResponse { error_code: error.code(), ..FetchResponse::default() }, Vec::new())
}

/// Kafka trips over a level that it does not know, and says so for each partition where a client may look for it there.
fn unknown_isolation_level(request: FetchRequest, version: i16) -> FetchResponse {
    let error = ErrorCode::UnknownServerError;
    let topics = if version >= BY_TOPIC_ID { Vec::new() } else { request.topics };
    let answer = |topic: FetchTopic| FetchableTopicResponse {
        partitions: topic.partitions.iter().map(|wanted| not_looked_up(wanted.partition, error)).collect(),
        topic: topic.topic,
        ..FetchableTopicResponse::default()
    };
    let responses = topics.into_iter().map(answer).collect();
    FetchResponse { error_code: error.code(), responses, ..FetchResponse::default() }
}

/// A request with its topics looked up once.
struct Fetch {
    topics: Vec<Wanted>,
    max_bytes: usize,
    /// At most `max_bytes`, as in Kafka: more never comes.
    min_bytes: usize,
    up_to: UpTo,
    read_committed: bool,
}

struct Wanted {
    answer: FetchableTopicResponse,
    partitions: Vec<(FetchPartition, Result<Arc<PartitionLog>, ErrorCode>)>,
}

/// What one look at the logs gave.
struct Found {
    topics: Vec<FetchableTopicResponse>,
    files: Vec<FileSlice>,
    bytes: usize,
    /// What counts for `fetch.min.bytes`: the bytes, and where a limit cut a partition short, the limit. Whole batches may be
    /// less than a limit that Kafka, which cuts within a batch, fills to the byte.
    counted_bytes: usize,
    /// Whether there is a partition to wait for.
    has_log: bool,
    /// Whether one of those cannot be read.
    has_error: bool,
    /// Where an open transaction holds back what was written.
    holds_back: bool,
}

impl Found {
    /// Whether the answer should leave at once. An error must not wait for other partitions' data, unless it is
    /// that a partition does not exist, as in Kafka: who asks on for a deleted one among others would never rest.
    fn is_enough(&self, min_bytes: usize) -> bool {
        self.has_error || !self.has_log || self.counted_bytes >= min_bytes
    }

    /// Bytes that have to be written before it can be enough. The end of a transaction releases what was written before:
    /// then any news may do.
    fn missing(&self, min_bytes: usize) -> usize {
        match self.holds_back {
            true => 0,
            false => min_bytes.saturating_sub(self.counted_bytes),
        }
    }
}

impl Fetch {
    fn resolve(cx: &Cx<'_>, request: &FetchRequest) -> Fetch {
        let limit = cx.shared.fetch_max_bytes;
        let max_bytes = usize::try_from(request.max_bytes).unwrap_or(0).min(limit);
        let read_committed = request.isolation_level == READ_COMMITTED;
        Fetch {
            topics: request.topics.iter().map(|topic| resolve_topic(cx, topic)).collect(),
            max_bytes,
            min_bytes: usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes),
            up_to: if read_committed { UpTo::LastStable } else { UpTo::HighWatermark },
            read_committed,
        }
    }

    fn register(&self, waiter: &Arc<FetchWaiter>) {
        for log in
            self.topics.iter().flat_map(|topic| &topic.partitions).filter_map(|(_, log)| log.as_ref().ok())
        {
            log.add_fetch_waiter(waiter.clone());
        }
    }

    fn read(&self) -> Found {
        let mut found = Found {
            topics: Vec::with_capacity(self.topics.len()),
            files: Vec::new(),
            bytes: 0,
            counted_bytes: 0,
            has_log: false,
            has_error: false,
            holds_back: false,
        };
        for topic in &self.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for (wanted, log) in &topic.partitions {
                let data = match log {
                    Ok(log) => {
                        found.has_log = true;
                        self.read_partition(wanted, log, &mut found).unwrap_or_else(|error| {
                            found.has_error = true;
                            failed(wanted.partition, error)
                        })
                    }
                    Err(error) => not_looked_up(wanted.partition, *error),
                };
                partitions.push(data);
            }
            found.topics.push(FetchableTopicResponse { partitions, ..topic.answer.clone() });
        }
        found
    }

    fn read_partition(
        &self,
        wanted: &FetchPartition,
        log: &PartitionLog,
        found: &mut Found,
    ) -> Result<PartitionData, ErrorCode> {
        // Any negative epoch is none here.
        check_leader_epoch(wanted.current_leader_epoch.max(-1))?;
        let remaining = self.max_bytes.saturating_sub(found.bytes);
        let limit = usize::try_from(wanted.partition_max_bytes).unwrap_or(0).min(remaining);
        let fetched = log
            .read(wanted.fetch_offset, limit, self.up_to, found.bytes == 0)
            .map_err(|error| code(&error))?;
        found.count(&fetched, limit, self.up_to);
        found.holds_back |= self.read_committed && fetched.last_stable_offset < fetched.high_watermark;
        let aborted_transactions = match self.read_committed {
            true => Some(aborted(log, wanted.fetch_offset, &fetched)?),
            false => None,
        };
        Ok(PartitionData {
            partition_index: wanted.partition,
            error_code: ErrorCode::None.code(),
            high_watermark: fetched.high_watermark,
            last_stable_offset: fetched.last_stable_offset,
            log_start_offset: fetched.log_start_offset,
            aborted_transactions,
            records: Some(found.take(fetched.slice)),
            ..PartitionData::default()
        })
    }
}

/// The aborted transactions with records in what was read: the client skips them.
fn aborted(
    log: &PartitionLog,
    fetch_offset: i64,
    fetched: &Fetched,
) -> Result<Vec<AbortedTransaction>, ErrorCode> {
    if fetched.slice.is_empty() {
        return Ok(Vec::new());
    }
    let found = log.aborted_transactions(fetch_offset, fetched.end_offset).map_err(|error| code(&error))?;
    let show = |aborted: tidings_log::AbortedTransaction| AbortedTransaction {
        producer_id: aborted.producer_id,
        first_offset: aborted.first_offset,
        ..AbortedTransaction::default()
    };
    Ok(found.into_iter().map(show).collect())
}

impl Found {
    /// Counts what was read of a partition, which is not taken yet.
    fn count(&mut self, fetched: &Fetched, limit: usize, up_to: UpTo) {
        let readable_end = match up_to {
            UpTo::LastStable => fetched.last_stable_offset,
            _ => fetched.high_watermark,
        };
        // Where nothing was read at all, a cleaned log may have nothing: the answer must have something, or the client
        // would ask again and again.
        let has_something = self.bytes > 0 || !fetched.slice.is_empty();
        let is_cut_short = fetched.end_offset < readable_end && has_something;
        self.counted_bytes += if is_cut_short { fetched.slice.len.max(limit) } else { fetched.slice.len };
    }

    fn take(&mut self, slice: FileSlice) -> Records {
        let (Ok(len), Ok(token)) = (u32::try_from(slice.len), u32::try_from(self.files.len())) else {
            return Records::Bytes(Bytes::new());
        };
        if len == 0 {
            return Records::Bytes(Bytes::new());
        }
        self.bytes += slice.len;
        self.files.push(slice);
        Records::External { token, len }
    }
}

fn resolve_topic(cx: &Cx<'_>, topic: &FetchTopic) -> Wanted {
    let found = if cx.version >= BY_TOPIC_ID {
        cx.shared.topics.by_id(topic.topic_id).ok_or(ErrorCode::UnknownTopicId)
    } else {
        cx.shared.topics.by_name(&topic.topic).ok_or(ErrorCode::UnknownTopicOrPartition)
    };
    let log = |partition: i32| match &found {
        Ok(topic) => topic.partition(partition).cloned().ok_or(ErrorCode::UnknownTopicOrPartition),
        Err(error) => Err(*error),
    };
    Wanted {
        partitions: topic.partitions.iter().map(|wanted| (wanted.clone(), log(wanted.partition))).collect(),
        answer: FetchableTopicResponse {
            topic: topic.topic.clone(),
            topic_id: topic.topic_id,
            ..FetchableTopicResponse::default()
        },
    }
}

/// A client that knows a newer leader epoch than ours, or an older one, must refresh its metadata.
pub(crate) fn check_leader_epoch(current: i32) -> Result<(), ErrorCode> {
    match current {
        -1 | LEADER_EPOCH => Ok(()),
        newer if newer > LEADER_EPOCH => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Err(ErrorCode::FencedLeaderEpoch),
    }
}

fn code(error: &ReadError) -> ErrorCode {
    let code = error.error_code();
    if code == ErrorCode::KafkaStorageError {
        tracing::error!(%error, "read failed");
    }
    code
}

/// An error of a partition that was not even looked for in a log.
fn not_looked_up(partition_index: i32, error: ErrorCode) -> PartitionData {
    PartitionData { aborted_transactions: Some(Vec::new()), ..failed(partition_index, error) }
}

fn failed(partition_index: i32, error: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index,
        error_code: error.code(),
        high_watermark: -1,
        aborted_transactions: None,
        records: Some(Records::Bytes(Bytes::new())),
        ..PartitionData::default()
    }
}
