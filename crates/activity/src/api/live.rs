//! `GET /api/v1/activities/live`: what arrives, as server-sent events.
//!
//! The filters are those of the list; the order is that of arrival. Each event is `id: <token>` and `data: <activity>`.
//! `Last-Event-ID`, or the parameter `last_event_id` where that is not sent, resumes behind such a token; without one it
//! begins with what arrives now. A token is good for the filters it was given out for. Every few seconds without an
//! event there is a comment and a token. Invariants: an event is sent once and in order, also to a reader that is too slow
//! for what is kept in memory: it gets what it missed from the store; only its own tenant's activities leave.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;
use tidings_http::{FieldError, Params, Problem};

use super::Api;
use super::filter::{FILTERS, filter};
use super::outflow::{Outflow, outflow};
use super::search::{ask, ask_within, cursor_key};
use crate::cursor::CursorKey;
use crate::limits::LIVE_PAGE_ITEMS;
use crate::live::{Heard, Listening};
use crate::query::{Filter, Matcher};
use crate::store::{Arrival, Arrived};

/// Where a reconnecting browser says how far it came.
const LAST_EVENT_ID: &str = "last-event-id";
/// After how many milliseconds a browser connects again.
const RETRY_MS: u32 = 1000;

/// Follows the store for one reader.
struct Follower {
    api: Arc<Api>,
    key: CursorKey,
    matcher: Matcher,
    /// Everything up to here was sent, or is not for this reader.
    position: Arrival,
    outflow: Outflow,
    sent_at: Instant,
}

/// The reader is gone, or the store does not answer: the stream breaks off, and the reader resumes it.
struct Over;

pub(super) async fn live(
    State(api): State<Arc<Api>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let key = cursor_key(&api)?;
    let (filter, resume) = parse(&key, uri.query(), &headers)?;
    let listening =
        api.live.listen().ok_or_else(|| Problem::unavailable("as many listen as may at once", 5))?;
    let last = ask(&api, |store| store.last_arrival()).await?;
    // A store that was put back to an earlier state has not come as far as the reader.
    let position = resume.map_or(last, |resume| resume.min(last));
    let (outflow, body) = outflow();
    let matcher = Matcher::new(filter);
    let follower = Follower { api, key, matcher, position, outflow, sent_at: Instant::now() };
    tokio::spawn(follower.run(listening));
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that collect answers would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

fn parse(
    key: &CursorKey,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<(Filter, Option<Arrival>), Problem> {
    let mut known = FILTERS.to_vec();
    known.push("last_event_id");
    let params = Params::parse(query, &known)?;
    let mut errors = Vec::new();
    let filter = filter(&params, &mut errors);
    if !errors.is_empty() {
        return Err(Problem::bad_parameters(errors));
    }
    // A browser that connects again keeps the address, parameters included: the header is the newer one.
    let (name, token) = match headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty()) {
        Some(value) => ("Last-Event-ID", Some(value.to_str().unwrap_or("?"))),
        None => ("last_event_id", params.get("last_event_id")),
    };
    let resume = token.map(|token| key.decode_arrival(&filter, token)).transpose();
    match resume {
        Ok(resume) => Ok((filter, resume)),
        Err(error) => Err(Problem::bad_parameters(vec![FieldError::new(name, error.to_string())])),
    }
}

impl Follower {
    async fn run(mut self, listening: Listening) {
        if let Ok(()) = self.follow(listening).await {
            self.outflow.end().await;
        }
    }

    /// Ends normally when the service does.
    async fn follow(&mut self, mut listening: Listening) -> Result<(), Over> {
        self.send(format!("retry: {RETRY_MS}\nid: {}\n\n", self.token(self.position)).into_bytes()).await?;
        self.catch_up().await?;
        loop {
            let heartbeat = (self.sent_at + self.api.live.heartbeat()).into();
            let heard = tokio::select! {
                heard = listening.next() => heard,
                () = tokio::time::sleep_until(heartbeat) => {
                    self.send_heartbeat().await?;
                    continue;
                }
                () = self.outflow.closed() => return Err(Over),
            };
            match heard {
                Heard::Batch(batch) if batch.after <= self.position => self.send_items(&batch.items).await?,
                Heard::Batch(_) | Heard::Missed => self.catch_up().await?,
                Heard::End => return Ok(()),
            }
        }
    }

    /// Sends what the store has after the position, up to its end.
    async fn catch_up(&mut self) -> Result<(), Over> {
        loop {
            let after = self.position;
            let page = ask_within(&self.api.catch_ups, &self.api.store, move |store| {
                store.arrived_after(after, LIVE_PAGE_ITEMS)
            });
            let page = page.await.map_err(|_| Over)?;
            if page.is_empty() {
                return Ok(());
            }
            self.send_items(&page).await?;
            if self.sent_at.elapsed() >= self.api.live.heartbeat() {
                self.send_heartbeat().await?;
            }
        }
    }

    /// Sends those that are new to the reader and match.
    async fn send_items(&mut self, items: &[Arrived]) -> Result<(), Over> {
        let mut events = Vec::new();
        for Arrived { arrival, activity } in items.iter().filter(|arrived| arrived.arrival > self.position) {
            if self.matcher.matches(activity) {
                events.extend_from_slice(format!("id: {}\ndata: ", self.token(*arrival)).as_bytes());
                // Activities have no line breaks, and cannot fail to be written into memory.
                let written = serde_json::to_writer(&mut events, activity);
                debug_assert!(written.is_ok());
                events.extend_from_slice(b"\n\n");
            }
        }
        if !events.is_empty() {
            self.send(events).await?;
        }
        if let Some(last) = items.last() {
            self.position = self.position.max(last.arrival);
        }
        Ok(())
    }

    /// With a token, so that a reader to whom little matches resumes near the end.
    async fn send_heartbeat(&mut self) -> Result<(), Over> {
        self.send(format!(": still here\nid: {}\n\n", self.token(self.position)).into_bytes()).await
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), Over> {
        let taken = self.outflow.push(bytes).await;
        self.sent_at = Instant::now();
        if taken { Ok(()) } else { Err(Over) }
    }

    fn token(&self, arrival: Arrival) -> String {
        self.key.encode_arrival(self.matcher.filter(), arrival)
    }
}
