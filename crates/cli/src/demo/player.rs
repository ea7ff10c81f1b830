//! Plays events into the platform through its HTTP API, as its users would.
//!
//! Owns batching, the connections and trying again. Invariant: an event counts as accepted only once the platform has
//! said so; what failed without a clear answer is sent again, which the derived ids make safe. Memory is bounded: at most
//! [`CONNECTIONS`] + [`BATCHES_AHEAD`] batches exist at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use hyper::StatusCode;
use indicatif::ProgressBar;
use serde::Deserialize;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::dataset::Dataset;
use super::playback::Playback;
use crate::http_client::HttpClient;

/// Events per request.
pub const BATCH_EVENTS: usize = 100;
/// Requests under way at a time.
pub const CONNECTIONS: usize = 8;
/// Batches read ahead of the connections.
const BATCHES_AHEAD: usize = 8;

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// What to play, and where.
pub struct PlayOptions {
    /// Address of the HTTP API.
    pub http: String,
    /// The events.
    pub dataset: Dataset,
    /// At most this many events per second.
    pub rate: Option<u32>,
    /// When to give up.
    pub deadline: Instant,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Played {
    /// Events the platform has taken over durably.
    pub accepted: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// How long each request took, in microseconds, ascending.
    pub ack_micros: Vec<u32>,
    /// Requests sent again.
    pub retries: u64,
}

impl Played {
    /// The time within which this share (0 to 1) of the requests was answered, in milliseconds.
    pub fn ack_quantile_ms(&self, share: f64) -> f64 {
        let Some(last) = self.ack_micros.len().checked_sub(1) else { return 0.0 };
        let index = (last as f64 * share).round() as usize;
        f64::from(self.ack_micros[index.min(last)]) / 1000.0
    }

    /// Events accepted per second.
    pub fn events_per_second(&self) -> f64 {
        self.accepted as f64 / self.elapsed.as_secs_f64().max(0.001)
    }
}

/// A JSON array of activities.
struct Batch {
    events: u64,
    body: Bytes,
}

#[derive(Deserialize)]
struct Results {
    results: Vec<serde::de::IgnoredAny>,
}

/// Plays all events; returns when every one was accepted, or fails at the deadline.
pub async fn play(options: PlayOptions, progress: &ProgressBar) -> anyhow::Result<Played> {
    let (batches, receiver) = mpsc::channel(BATCHES_AHEAD);
    let receiver = Arc::new(Mutex::new(receiver));
    let begun = Instant::now();
    let PlayOptions { http, dataset, rate, deadline } = options;
    let reading = tokio::task::spawn_blocking(move || read_batches(&dataset, rate, &batches));
    let mut sending = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let sender = Sender {
            client: HttpClient::new(&http),
            progress: progress.clone(),
            deadline,
            played: Played::default(),
        };
        sending.spawn(sender.run(Arc::clone(&receiver)));
    }
    drop(receiver);
    let mut total = Played::default();
    while let Some(sent) = sending.join_next().await {
        let part = sent.context("a sender panicked")??;
        total.accepted += part.accepted;
        total.retries += part.retries;
        total.ack_micros.extend(part.ack_micros);
    }
    reading.await.context("the reader panicked")??;
    total.elapsed = begun.elapsed();
    total.ack_micros.sort_unstable();
    Ok(total)
}

fn read_batches(dataset: &Dataset, rate: Option<u32>, batches: &mpsc::Sender<Batch>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut sent = 0u64;
    let mut playback = Playback::start(dataset)?.peekable();
    while playback.peek().is_some() {
        let mut body = Vec::with_capacity(BATCH_EVENTS * 400);
        let mut events = 0;
        for event in playback.by_ref().take(BATCH_EVENTS) {
            body.push(if events == 0 { b'[' } else { b',' });
            body.extend_from_slice(&event?.json);
            events += 1;
        }
        body.push(b']');
        if let Some(rate) = rate {
            let due = begun + Duration::from_secs_f64(sent as f64 / f64::from(rate));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        sent += events;
        // The senders are gone when one of them failed, and that one says why.
        if batches.blocking_send(Batch { events, body: body.into() }).is_err() {
            break;
        }
    }
    Ok(())
}

struct Sender {
    client: HttpClient,
    progress: ProgressBar,
    deadline: Instant,
    played: Played,
}

impl Sender {
    async fn run(mut self, batches: Arc<Mutex<mpsc::Receiver<Batch>>>) -> anyhow::Result<Played> {
        loop {
            let next = batches.lock().await.recv().await;
            let Some(batch) = next else { return Ok(self.played) };
            self.send(&batch).await?;
            self.played.accepted += batch.events;
            self.progress.inc(batch.events);
        }
    }

    async fn send(&mut self, batch: &Batch) -> anyhow::Result<()> {
        let mut pause = FIRST_RETRY;
        loop {
            let begun = Instant::now();
            let error = match self.attempt(batch).await? {
                Ok(()) => {
                    let micros = begun.elapsed().as_micros();
                    self.played.ack_micros.push(u32::try_from(micros).unwrap_or(u32::MAX));
                    return Ok(());
                }
                Err(error) => error,
            };
            if Instant::now() + pause > self.deadline {
                return Err(error.context("events were not accepted within the time limit"));
            }
            tracing::warn!(error = format!("{error:#}"), "sending a batch again");
            self.played.retries += 1;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RETRY);
        }
    }

    /// The outer error is final, the inner one may pass.
    async fn attempt(&mut self, batch: &Batch) -> anyhow::Result<anyhow::Result<()>> {
        let answer = self.client.post("/api/v1/activities", "application/json", batch.body.clone()).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error)),
        };
        if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS {
            return Ok(Err(answer.problem()));
        }
        let Results { results } = answer.into_json()?;
        if results.len() as u64 != batch.events {
            bail!("{} results for {} activities", results.len(), batch.events);
        }
        Ok(Ok(()))
    }
}
