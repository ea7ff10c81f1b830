//! Fetch sessions (KIP-227): what a consumer asks for again and again is remembered, so that its requests and our answers
//! name only what has changed.
//!
//! Owns the cache of sessions and Kafka's rule which one makes room for a new one. Invariants: at most
//! `max.incremental.fetch.session.cache.slots` sessions with [`MAX_PARTITIONS`] partitions in all, whatever clients ask for;
//! a client that gets no session sends full requests, so losing one costs bytes and nothing else. A request with another
//! epoch than the one that comes next changes nothing. Knows no logs.

mod session;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidings_model::ErrorCode;
use tidings_wire::messages::fetch_request::{FetchRequest, FetchTopic};
use tidings_wire::messages::fetch_response::FetchableTopicResponse;

use session::Session;

/// Partitions of all sessions together, some 40 MB when there are so many; topics count as well.
const MAX_PARTITIONS: usize = 200_000;

/// A session that was used or made within this time does not go for another one (Kafka's
/// MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS).
const EVICTION_MS: i64 = 120_000;

const NO_SESSION: i32 = 0;
const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

/// All sessions of the broker.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    slots: usize,
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    sessions: HashMap<i32, Slot>,
    weight: usize,
}

#[derive(Debug)]
struct Slot {
    session: Arc<Mutex<Session>>,
    created_ms: i64,
    used_ms: i64,
    weight: usize,
}

/// What a request is to its session.
pub(crate) enum Context {
    /// It has none and wants none.
    Sessionless,
    /// A full request, with which a session begins.
    Full,
    /// It changes and continues a session.
    Incremental { id: i32, epoch: i32, session: Arc<Mutex<Session>> },
}

impl FetchSessions {
    pub(crate) fn new(slots: usize) -> FetchSessions {
        FetchSessions { slots, cache: Mutex::default() }
    }

    /// Looks a request's session up and takes the request's changes into it.
    pub(crate) fn begin(
        &self,
        request: &FetchRequest,
        by_id: bool,
        now_ms: i64,
    ) -> Result<Context, ErrorCode> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch == INITIAL_EPOCH || epoch == FINAL_EPOCH {
            // Both end the session that the client had.
            self.cache.lock().remove(id);
            return Ok(if epoch == FINAL_EPOCH { Context::Sessionless } else { Context::Full });
        }
        let cache = &mut *self.cache.lock();
        let slot = cache.sessions.get_mut(&id).ok_or(ErrorCode::FetchSessionIdNotFound)?;
        let session = slot.session.clone();
        let mut state = session.lock();
        if state.epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if state.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        slot.used_ms = now_ms;
        state.update(request);
        let (before, after) = (slot.weight, state.weight());
        slot.weight = after;
        cache.weight = cache.weight + after - before;
        if state.is_empty() || cache.weight > MAX_PARTITIONS {
            // Of an empty session nothing can be asked; one that has grown too large is given up with this answer.
            cache.remove(id);
        }
        if state.is_empty() {
            return Ok(Context::Sessionless);
        }
        state.epoch = next_epoch(epoch);
        let epoch = state.epoch;
        drop(state);
        Ok(Context::Incremental { id, epoch, session })
    }

    /// Completes an answer: drops what has not changed, or begins a session. Returns the session's id for the answer.
    pub(crate) fn finish(
        &self,
        context: Context,
        by_id: bool,
        asked: &[FetchTopic],
        answers: &mut Vec<FetchableTopicResponse>,
        now_ms: i64,
    ) -> Result<i32, ErrorCode> {
        match context {
            Context::Sessionless => Ok(NO_SESSION),
            Context::Full => Ok(self.create(by_id, asked, answers, now_ms)),
            Context::Incremental { id, epoch, session } => {
                let mut session = session.lock();
                if session.epoch != epoch {
                    // Another connection has gone on with it.
                    return Err(ErrorCode::InvalidFetchSessionEpoch);
                }
                session.drop_unchanged(answers);
                Ok(id)
            }
        }
    }

    fn create(
        &self,
        by_id: bool,
        asked: &[FetchTopic],
        answers: &[FetchableTopicResponse],
        now_ms: i64,
    ) -> i32 {
        let partition_count: usize = asked.iter().map(|topic| topic.partitions.len()).sum();
        if partition_count == 0 || partition_count > MAX_PARTITIONS || self.slots == 0 {
            return NO_SESSION;
        }
        let session = Session::new(next_epoch(INITIAL_EPOCH), by_id, asked, answers);
        let weight = session.weight();
        let mut cache = self.cache.lock();
        let id = loop {
            // Random, so that a client which confuses brokers or restarts finds nothing rather than another's.
            let [a, b, c, d, ..] = crate::random::bytes();
            let id = i32::from_be_bytes([a, b, c, d]) & i32::MAX;
            if id != NO_SESSION && !cache.sessions.contains_key(&id) {
                break id;
            }
        };
        if !cache.make_room(self.slots, weight, now_ms) {
            return NO_SESSION;
        }
        cache.weight += weight;
        let session = Arc::new(Mutex::new(session));
        cache.sessions.insert(id, Slot { session, created_ms: now_ms, used_ms: now_ms, weight });
        id
    }
}

impl Context {
    /// Everything that is asked for, in the order in which it is read.
    pub(crate) fn wanted(&self, asked: Vec<FetchTopic>) -> Vec<FetchTopic> {
        match self {
            Context::Sessionless | Context::Full => asked,
            Context::Incremental { session, .. } => session.lock().wanted(),
        }
    }
}

impl Cache {
    fn remove(&mut self, id: i32) {
        if let Some(slot) = self.sessions.remove(&id) {
            self.weight -= slot.weight;
        }
    }

    /// Whether a session of this size may come in; one that is stale, or old and smaller, goes for it.
    fn make_room(&mut self, slots: usize, weight: usize, now_ms: i64) -> bool {
        if weight > MAX_PARTITIONS {
            return false;
        }
        while self.sessions.len() >= slots || self.weight + weight > MAX_PARTITIONS {
            let is_past = |time_ms: i64| now_ms.saturating_sub(time_ms) > EVICTION_MS;
            let stalest = self.sessions.iter().min_by_key(|(_, slot)| slot.used_ms);
            let smallest = self.sessions.iter().filter(|(_, slot)| is_past(slot.created_ms));
            let smallest = smallest.min_by_key(|(_, slot)| slot.weight);
            let stale = stalest.filter(|(_, slot)| is_past(slot.used_ms));
            let goes = stale.or(smallest.filter(|(_, slot)| slot.weight < weight));
            let Some(id) = goes.map(|(id, _)| *id) else { return false };
            self.remove(id);
        }
        true
    }
}

fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
mod tests;
