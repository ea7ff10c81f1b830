//! NDJSON: a stream of any length, answered line by line while it is read.
//!
//! Lines are gathered into chunks, a chunk is one batch to the cluster, and the results of chunks are sent back in
//! order. Invariants: memory is bounded by `NDJSON_CHUNKS_IN_FLIGHT` chunks and one line, however long the stream and
//! however late its caller reads the results (they wait in a `result_queue`); a stream has its place until its caller has read
//! them, or is given up; each line that is not blank has one result line; a bad line costs no other; after each chunk others
//! have their turn. With an `Idempotency-Key` each line is compared with what stood there the first time.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::{FutureExt, StreamExt, stream};
use serde::Serialize;
use tidings::Record;
use tidings_http::Problem;

use super::Api;
use super::submit::{Accepted, not_accepted};
use crate::answers::{self, LineMark, LineState, StreamClaim};
use crate::fallback::Via;
use crate::idempotency::IdempotencyKey;
use crate::limits::{
    MAX_ACTIVITY_BYTES, NDJSON_CHUNK_BYTES, NDJSON_CHUNK_LINES, NDJSON_CHUNKS_IN_FLIGHT, NDJSON_IDLE_TIMEOUT,
};
use crate::lines::{Line, Lines};
use crate::result_queue::{ResultWriter, result_queue};
use crate::submission;
use crate::timestamp::Timestamp;

/// The answer to a line that was not taken.
#[derive(Serialize)]
struct Refused {
    line: u64,
    error: Problem,
}

/// The key of a stream, and what is known of it.
#[derive(Clone)]
struct Keyed {
    key: IdempotencyKey,
    claim: Arc<StreamClaim>,
}

/// A line that is an activity.
struct Right {
    id: String,
    /// How it was accepted before, if it was.
    before: Option<Via>,
    /// What it is remembered by.
    mark: Option<LineMark>,
}

/// Lines read and not yet answered.
#[derive(Default)]
struct Chunk {
    keyed: Option<Keyed>,
    /// For each line its number and what it is, or what is wrong with it.
    lines: Vec<(u64, Result<Right, Problem>)>,
    /// The records of those that are right and new, in order.
    records: Vec<Record>,
    bytes: usize,
}

struct Reader {
    api: Arc<Api>,
    keyed: Option<Keyed>,
    body: Option<BodyDataStream>,
    lines: Lines,
}

pub(super) async fn post(
    api: Arc<Api>,
    key: Option<IdempotencyKey>,
    body: Body,
) -> Result<Response, Problem> {
    let place = Arc::clone(&api.streams).try_acquire_owned().map_err(|_| {
        Problem::unavailable("as many streams are being read or answered as may be at once", 1)
    })?;
    let keyed = match key {
        Some(key) => Some(Keyed { claim: Arc::new(api.answers.begin_stream(&key)?), key }),
        None => None,
    };
    let lines = Lines::new(MAX_ACTIVITY_BYTES);
    let (writer, results) = result_queue(&api.results, place);
    let reader = Reader { api, keyed, body: Some(body.into_data_stream()), lines };
    tokio::spawn(answer(reader, writer));
    let results =
        stream::unfold(results, async |mut results| results.next().await.map(|piece| (piece, results)));
    let mut response = Response::new(Body::from_stream(results));
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, ndjson);
    Ok(response)
}

/// Reads to the end, or until the caller is gone: then nobody knows what was taken, and the rest is not.
async fn answer(reader: Reader, results: ResultWriter) {
    match answer_lines(reader, &results).await {
        Ok(true) => results.end().await,
        Ok(false) => {}
        // An answer that breaks off is seen; one that just ends too early would be believed.
        Err(error) => results.fail(error).await,
    }
}

/// False if the caller is gone.
async fn answer_lines(reader: Reader, results: &ResultWriter) -> io::Result<bool> {
    let api = Arc::clone(&reader.api);
    let chunks =
        stream::unfold(reader, async |mut reader| reader.next_chunk().await.map(|chunk| (chunk, reader)));
    let sent = chunks.map(|chunk| chunk.send(&api)).buffered(NDJSON_CHUNKS_IN_FLIGHT);
    let mut sent = pin!(sent);
    while let Some(answered) = sent.next().await {
        let pushed = results.push(answered).await.inspect_err(|error| {
            let folder = api.results.folder().display();
            tracing::error!(%error, %folder, "results cannot be kept in a file");
        });
        if !pushed? {
            return Ok(false);
        }
        // Lines that are refused wait for nothing: without this, one piece of the body could be half a second of a worker,
        // the embedded broker's as well.
        tokio::task::yield_now().await;
    }
    Ok(true)
}

impl Reader {
    /// The next chunk: full, or what there is when the stream pauses or ends.
    async fn next_chunk(&mut self) -> Option<Chunk> {
        let mut chunk = Chunk { keyed: self.keyed.clone(), ..Chunk::default() };
        loop {
            while let Some(line) = self.lines.next_line() {
                chunk.add(&self.api, line);
                if chunk.lines.len() >= NDJSON_CHUNK_LINES || chunk.bytes >= NDJSON_CHUNK_BYTES {
                    return Some(chunk);
                }
            }
            let Some(body) = &mut self.body else { break };
            let piece = if chunk.lines.is_empty() {
                idle_limited(body.next()).await
            } else {
                // Somebody waits for these results: more lines join only if they are here already.
                match body.next().now_or_never() {
                    Some(piece) => piece,
                    None => return Some(chunk),
                }
            };
            match piece {
                Some(Ok(piece)) => self.lines.push(piece),
                ended => {
                    self.body = None;
                    // What a broken connection cut off is no line.
                    if ended.is_none()
                        && let Some(line) = self.lines.finish()
                    {
                        chunk.add(&self.api, line);
                    }
                }
            }
        }
        (!chunk.lines.is_empty()).then_some(chunk)
    }
}

/// The next piece; a stream that stays silent for too long is over, so that it does not hold its place for ever.
async fn idle_limited(
    next: impl Future<Output = Option<Result<Bytes, axum::Error>>>,
) -> Option<Result<Bytes, axum::Error>> {
    const LIMIT: Duration = NDJSON_IDLE_TIMEOUT;
    let silent = || axum::Error::new(std::io::Error::from(std::io::ErrorKind::TimedOut));
    tokio::time::timeout(LIMIT, next).await.unwrap_or_else(|_| Some(Err(silent())))
}

impl Chunk {
    fn add(&mut self, api: &Api, line: Line) {
        let read = match &line.bytes {
            None => Err(Problem::too_large("the line", MAX_ACTIVITY_BYTES)),
            Some(bytes) => {
                self.bytes += bytes.len();
                self.read(api, line.number, bytes)
            }
        };
        let result = read.map_err(|mut problem| {
            api.ingest.metrics().refused.inc();
            for error in &mut problem.errors {
                error.line = Some(line.number);
            }
            problem
        });
        self.lines.push((line.number, result));
    }

    fn read(&mut self, api: &Api, number: u64, line: &Bytes) -> Result<Right, Problem> {
        let key = self.keyed.as_ref().map(|keyed| &keyed.key);
        let activity = submission::read_line(line, number, Timestamp::now(), key)?;
        let mut mark = None;
        let before = match &self.keyed {
            None => None,
            Some(keyed) => {
                let line = *mark.insert(keyed.claim.mark(&activity.tenant, line));
                match keyed.claim.state(number, line) {
                    LineState::New => None,
                    LineState::Repeated(via) => Some(via),
                    LineState::Other => return Err(answers::reused("with another line in this place")),
                }
            }
        };
        if before.is_none() {
            self.records.push(api.ingest.record(&activity));
        }
        Ok(Right { id: activity.id.to_string(), before, mark })
    }

    /// Sends the records and writes one result line for each line.
    async fn send(self, api: &Api) -> Bytes {
        let mut accepted = api.ingest.accept(&self.records).await.into_iter();
        let key = self.keyed.as_ref().map(|keyed| &keyed.key);
        let mut answer = Vec::with_capacity(self.lines.len() * 80);
        for (line, result) in self.lines {
            let result = match result {
                Ok(right) => {
                    // There is one answer for each record.
                    let via = match right.before {
                        Some(via) => Some(Ok(via)),
                        None => accepted.next(),
                    };
                    match via {
                        Some(Ok(via)) => {
                            if let (Some(keyed), Some(mark)) = (&self.keyed, right.mark) {
                                keyed.claim.accepted(line, mark, via);
                            }
                            Ok(Accepted { line: Some(line), id: right.id, via: via.as_str() })
                        }
                        Some(Err(error)) => Err(not_accepted(&error, key)),
                        None => Err(Problem::internal("the line has no answer")),
                    }
                }
                Err(problem) => Err(problem),
            };
            // Writing into memory cannot fail.
            let _ = match result {
                Ok(accepted) => serde_json::to_writer(&mut answer, &accepted),
                Err(error) => serde_json::to_writer(&mut answer, &Refused { line, error }),
            };
            answer.push(b'\n');
        }
        answer.into()
    }
}
