//! Sends activities, one request at a time.
//!
//! Invariants: a batch is sent until each of its activities is durable or refused, so that activities arrive in order;
//! what was sent without an answer is sent again under the same ids, and the platform stores it once.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::activity::Activity;
use crate::recorder::{Counters, RecorderOptions};

const PATH: &str = "/api/v1/activities";
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(100);
/// More than the answer to the largest batch.
const MAX_ANSWER_BYTES: usize = 16 << 20;

type Failure = Box<dyn std::error::Error + Send + Sync>;

pub(crate) struct Worker {
    /// `host:port`.
    authority: String,
    options: RecorderOptions,
    queue: mpsc::Receiver<Activity>,
    end: watch::Receiver<Option<Instant>>,
    counters: Arc<Counters>,
    connection: Option<SendRequest<Full<Bytes>>>,
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
        queue: mpsc::Receiver<Activity>,
        end: watch::Receiver<Option<Instant>>,
        counters: Arc<Counters>,
    ) -> Self {
        Self { authority, options, queue, end, counters, connection: None }
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
    async fn send(&mut self, mut batch: Vec<Activity>) -> usize {
        let mut failures = 0;
        loop {
            let before = batch.len();
            batch = match tokio::time::timeout(self.options.timeout, self.post(&batch)).await {
                Ok(Ok(answers)) => self.settle(batch, &answers),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "activities could not be sent, they will be sent again");
                    self.connection = None;
                    batch
                }
                Err(_) => {
                    tracing::debug!("activities were not answered in time, they will be sent again");
                    self.connection = None;
                    batch
                }
            };
            if batch.is_empty() {
                return 0;
            }
            if self.end.borrow().is_some_and(|end| end <= Instant::now()) {
                return batch.len();
            }
            failures = if batch.len() < before { 0 } else { failures + 1 };
            self.counters.retries.fetch_add(1, Relaxed);
            self.pause(failures).await;
        }
    }

    async fn post(&mut self, batch: &[Activity]) -> Result<Vec<LineAnswer>, Failure> {
        let mut body = Vec::with_capacity(batch.len() * 256);
        for activity in batch {
            serde_json::to_writer(&mut body, activity)?;
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
            return serde_json::Deserializer::from_slice(&answer)
                .into_iter()
                .collect::<Result<_, _>>()
                .map_err(Into::into);
        }
        let text = String::from_utf8_lossy(&answer);
        if is_temporary(status.as_u16()) {
            return Err(format!("{status}: {text}").into());
        }
        let error = Value::from(format!("{status}: {text}"));
        Ok((1..=batch.len()).map(|line| LineAnswer { line, error: Some(error.clone()) }).collect())
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
    fn settle(&self, batch: Vec<Activity>, answers: &[LineAnswer]) -> Vec<Activity> {
        let mut answers = answers.iter().peekable();
        let mut again = Vec::new();
        for (line, activity) in (1..).zip(batch) {
            while answers.next_if(|answer| answer.line < line).is_some() {}
            let Some(answer) = answers.next_if(|answer| answer.line == line) else {
                again.push(activity);
                continue;
            };
            match &answer.error {
                None => drop(self.counters.sent.fetch_add(1, Relaxed)),
                Some(error) if is_temporary_error(error) => again.push(activity),
                Some(error) => {
                    self.counters.refused.fetch_add(1, Relaxed);
                    tracing::warn!(?activity, %error, "the platform refuses an activity");
                }
            }
        }
        again
    }

    /// Waits before the next try; not beyond the end.
    async fn pause(&mut self, failures: u32) {
        let longest = FIRST_RETRY_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(16));
        let longest = longest.min(self.options.max_retry_delay);
        // Not all recorders of a platform that was down come back in the same moment.
        let random = uuid::Uuid::now_v7().as_bytes()[15];
        let delay = longest.mul_f64(0.5 + f64::from(random) / 512.0);
        let end = *self.end.borrow_and_update();
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

fn is_temporary_error(error: &Value) -> bool {
    error["status"].as_u64().is_some_and(|status| u16::try_from(status).is_ok_and(is_temporary))
}

/// Whether the same request may succeed later.
fn is_temporary(status: u16) -> bool {
    status >= 500
        || status == StatusCode::TOO_MANY_REQUESTS.as_u16()
        || status == StatusCode::REQUEST_TIMEOUT.as_u16()
}
