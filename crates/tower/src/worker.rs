//! Sends activities, one request at a time.
//!
//! Invariants: a batch is sent until each of its activities is durable or refused, so that activities arrive in order;
//! what was sent without an answer is sent again under the same ids, and the platform stores it once; what is wrong with one
//! activity, or with the way to the platform, costs no other.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::recorder::{Counters, RecorderOptions};

const PATH: &str = "/api/v1/activities";
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Of one request's body: what a slow network brings within the timeout, too.
const MAX_BATCH_BYTES: usize = 1_000_000;
/// More than the answer to the largest batch.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// How much of an answer is told.
const MAX_REASON_BYTES: usize = 200;

type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Worker {
    /// `host:port`.
    authority: String,
    options: RecorderOptions,
    queue: mpsc::Receiver<Line>,
    end: watch::Receiver<Option<Instant>>,
    counters: Arc<Counters>,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// Activities of the next request: fewer than allowed after one that was refused or was not answered in time.
    batch_size: usize,
    /// Whether the last request was refused, so that its halves are tried at once.
    is_searching: bool,
    /// The last status of those that say that the way is not right, which is told once.
    told: Option<u16>,
}

/// An activity in JSON.
type Line = Vec<u8>;

enum Answer {
    Lines(Vec<LineAnswer>),
    /// Another status than 2xx, and the beginning of what it said.
    Status(u16, String),
}

/// The answer to one line.
#[derive(Deserialize)]
struct LineAnswer {
    line: usize,
    error: Option<Value>,
}

impl Worker {
    pub fn new(
        authority: String,
        options: RecorderOptions,
        queue: mpsc::Receiver<Line>,
        end: watch::Receiver<Option<Instant>>,
        counters: Arc<Counters>,
    ) -> Self {
        let batch_size = options.max_batch.max(1);
        Self {
            authority,
            options,
            queue,
            end,
            counters,
            connection: None,
            batch_size,
            is_searching: false,
            told: None,
        }
    }

    /// Goes on until it is closed; answers how many activities were left behind.
    pub async fn run(mut self) -> usize {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                count = self.queue.recv_many(&mut batch, self.options.max_batch.max(1)) => {
                    if count == 0 {
                        return 0;
                    }
                }
                _ = self.end.changed() => {
                    self.closed();
                    continue;
                }
            }
            let left = self.send(batch).await;
            if left > 0 {
                return left + self.queue.len();
            }
        }
    }

    /// Sends a batch until it is through, or the end has come; answers how many were left behind.
    async fn send(&mut self, mut waiting: Vec<Line>) -> usize {
        let mut failures = 0;
        while !waiting.is_empty() {
            let size = self.next_size(&waiting);
            let behind = waiting.split_off(size);
            self.is_searching = false;
            let mut again = self.try_once(waiting).await;
            let left = again.len();
            again.extend(behind);
            waiting = again;
            if left == 0 {
                continue;
            }
            if self.end.borrow().is_some_and(|end| end <= Instant::now()) {
                return waiting.len();
            }
            if self.is_searching {
                continue;
            }
            failures = if left < size { 0 } else { failures + 1 };
            self.counters.retries.fetch_add(1, Relaxed);
            self.pause(failures).await;
        }
        0
    }

    /// How many of those that wait go into one request.
    fn next_size(&self, waiting: &[Line]) -> usize {
        let mut bytes = 0;
        let fits = |line: &&Line| {
            bytes += line.len() + 1;
            bytes <= MAX_BATCH_BYTES
        };
        waiting.iter().take(self.batch_size).take_while(fits).count().max(1)
    }

    /// Answers what is to be sent again.
    async fn try_once(&mut self, batch: Vec<Line>) -> Vec<Line> {
        let limit = until_end(self.end.clone(), Instant::now() + self.options.timeout);
        let answered = tokio::select! {
            answered = self.post(&batch) => answered,
            () = limit => {
                // What takes longer than the timeout would never get through.
                self.halve(&batch);
                Err("there was no answer in time".into())
            }
        };
        let error = match answered {
            Ok(Answer::Lines(answers)) => {
                self.told = None;
                self.grow(&batch);
                return self.settle(batch, &answers);
            }
            Ok(Answer::Status(status, text)) => match verdict(status) {
                Verdict::Activity => return self.search(batch, &format!("status {status}: {text}")),
                Verdict::Deployment if self.told.replace(status) != Some(status) => {
                    tracing::warn!(status, text, "activities wait: the way to the platform is not right");
                    return batch;
                }
                _ => format!("status {status}: {text}"),
            },
            Err(error) => {
                self.connection = None;
                error.to_string()
            }
        };
        tracing::debug!(error, "activities could not be sent, they will be sent again");
        batch
    }

    /// Searches by halves for what is refused, so that it costs no other.
    fn search(&mut self, batch: Vec<Line>, error: &str) -> Vec<Line> {
        if batch.len() > 1 {
            self.halve(&batch);
            self.is_searching = true;
            return batch;
        }
        batch.iter().for_each(|line| self.refuse(line, error));
        Vec::new()
    }

    fn halve(&mut self, batch: &[Line]) {
        self.batch_size = (batch.len() / 2).max(1);
    }

    /// In small steps: where only so much gets through, each step too far costs a refusal or a timeout.
    fn grow(&mut self, batch: &[Line]) {
        // A batch that was smaller for other reasons says nothing about larger ones.
        if batch.len() >= self.batch_size {
            let grown = self.batch_size + self.batch_size.div_ceil(8);
            self.batch_size = grown.min(self.options.max_batch.max(1));
        }
    }

    async fn post(&mut self, batch: &[Line]) -> Result<Answer, Failure> {
        let mut body = Vec::with_capacity(batch.iter().map(|line| line.len() + 1).sum());
        for line in batch {
            body.extend_from_slice(line);
            body.push(b'\n');
        }
        let request = Request::post(PATH)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .body(Full::new(Bytes::from(body)))?;
        let response = self.connected().await?.send_request(request).await?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await?.to_bytes();
        if status.is_success() {
            let answers = serde_json::Deserializer::from_slice(&answer).into_iter();
            return Ok(Answer::Lines(answers.collect::<Result<_, _>>()?));
        }
        let text = String::from_utf8_lossy(&answer[..answer.len().min(MAX_REASON_BYTES)]).into_owned();
        Ok(Answer::Status(status.as_u16(), text))
    }

    async fn connected(&mut self) -> Result<&mut SendRequest<Full<Bytes>>, Failure> {
        if self.connection.as_ref().is_none_or(SendRequest::is_closed) {
            let stream = TcpStream::connect(&self.authority).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            self.connection = Some(sender);
        }
        let connection = self.connection.as_mut().expect("just made");
        connection.ready().await?;
        Ok(connection)
    }

    /// Counts what is through; answers what is to be sent again.
    fn settle(&self, batch: Vec<Line>, answers: &[LineAnswer]) -> Vec<Line> {
        let mut answers = answers.iter().peekable();
        let mut again = Vec::new();
        for (number, line) in (1..).zip(batch) {
            while answers.next_if(|answer| answer.line < number).is_some() {}
            let Some(answer) = answers.next_if(|answer| answer.line == number) else {
                again.push(line);
                continue;
            };
            match &answer.error {
                None => {
                    self.counters.sent.fetch_add(1, Relaxed);
                    self.counters.queued_bytes.fetch_sub(line.len(), Relaxed);
                }
                Some(error) if is_about_activity(error) => self.refuse(&line, &error.to_string()),
                Some(_) => again.push(line),
            }
        }
        again
    }

    fn refuse(&self, line: &Line, error: &str) {
        self.counters.refused.fetch_add(1, Relaxed);
        self.counters.queued_bytes.fetch_sub(line.len(), Relaxed);
        let activity = String::from_utf8_lossy(line);
        tracing::warn!(%activity, error, "an activity is refused");
    }

    /// Waits before the next try; not beyond the end.
    async fn pause(&mut self, failures: u32) {
        let longest = FIRST_RETRY_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let longest = longest.min(self.options.max_retry_delay);
        // Not all recorders of a platform that was down come back in the same moment.
        let random = uuid::Uuid::now_v7().as_bytes()[15];
        let delay = longest.mul_f64(0.5 + f64::from(random) / 512.0);
        // Not taken note of: whoever waits for more is told of the end, too.
        let end = *self.end.borrow();
        let until = Instant::now() + delay;
        tokio::select! {
            () = tokio::time::sleep_until(end.map_or(until, |end| end.min(until))) => {}
            // One more try at once.
            _ = self.end.changed(), if end.is_none() => self.closed(),
        }
    }

    /// Nothing more comes: it was closed, or whoever could give it anything is gone.
    fn closed(&mut self) {
        self.queue.close();
        if self.end.borrow().is_none() {
            let end = Some(Instant::now() + self.options.timeout);
            self.end = watch::channel(end).1;
        }
    }
}

/// Ends at `limit`, or earlier if the recorder's own end is.
async fn until_end(mut end: watch::Receiver<Option<Instant>>, limit: Instant) {
    loop {
        let until = end.borrow_and_update().map_or(limit, |end| end.min(limit));
        tokio::select! {
            () = tokio::time::sleep_until(until) => return,
            Ok(()) = end.changed() => {}
        }
    }
}

/// Whose fault it is that an activity is not durable.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Nobody's that another try might not cure.
    Later,
    /// The way there: an address, credentials, a proxy. It concerns all activities alike and none in particular.
    Deployment,
    /// What was sent: sending it again changes nothing.
    Activity,
}

/// What a status other than 2xx says.
fn verdict(status: u16) -> Verdict {
    match status {
        500.. | 408 | 409 | 425 | 429 => Verdict::Later,
        400 | 413 | 422 => Verdict::Activity,
        _ => Verdict::Deployment,
    }
}

fn is_about_activity(error: &Value) -> bool {
    let status = error["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    status.is_some_and(|status| verdict(status) == Verdict::Activity)
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Mutex;

    use axum::Router;
    use axum::routing::post;
    use tokio::net::TcpListener;

    use super::*;
    use crate::{Activity, Recorder};

    const LIMIT: Duration = Duration::from_secs(10);

    /// The number of lines and of bytes of each request.
    type Sizes = Arc<Mutex<Vec<(usize, usize)>>>;

    /// Answers requests of at most so many lines, and no others.
    async fn platform(max_lines: usize) -> (String, Sizes) {
        let sizes = Sizes::default();
        let seen = sizes.clone();
        let answer = move |body: String| async move {
            let count = body.lines().count();
            seen.lock().unwrap().push((count, body.len()));
            if count > max_lines {
                pending::<()>().await;
            }
            (1..=count).map(|line| format!("{{\"line\":{line}}}\n")).collect::<String>()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async { axum::serve(listener, Router::new().route(PATH, post(answer))).await });
        (format!("http://{address}"), sizes)
    }

    #[tokio::test]
    async fn a_platform_that_takes_long_is_sent_less_at_a_time() {
        let (url, sizes) = platform(5).await;
        let timeout = Duration::from_millis(250);
        let options = RecorderOptions { timeout, max_retry_delay: timeout / 10, ..Default::default() };
        let recorder = Recorder::start(&url, options).unwrap();
        (0..40).for_each(|_| recorder.record(Activity::new("acme", "a")));
        assert_eq!((recorder.close(LIMIT).await, recorder.counts().sent), (0, 40));
        let counts: Vec<_> = sizes.lock().unwrap().iter().map(|(count, _)| *count).collect();
        assert_eq!(counts[..6], [40, 20, 10, 5, 6, 3]);
        let late = counts.iter().filter(|count| **count > 5).count();
        assert_eq!(recorder.counts().retries, late as u64);
    }

    #[tokio::test]
    async fn a_request_is_bounded_in_size_too() {
        let (url, sizes) = platform(usize::MAX).await;
        let recorder = Recorder::start(&url, RecorderOptions::default()).unwrap();
        let text = "é".repeat(10_000);
        (0..100).for_each(|_| recorder.record(Activity::new("acme", "a").metadata("text", text.as_str())));
        assert_eq!((recorder.close(LIMIT).await, recorder.counts().sent), (0, 100));
        let sizes = sizes.lock().unwrap();
        assert_eq!(sizes.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [49, 49, 2]);
        assert!(sizes.iter().all(|(_, bytes)| *bytes <= MAX_BATCH_BYTES), "{sizes:?}");
    }
}
