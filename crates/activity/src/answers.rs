//! What was answered to requests with an `Idempotency-Key`, so that a repeated one is answered as the first was.
//!
//! A request in JSON counts for each tenant that it has activities of: under one key a tenant can have one body, and
//! other tenants' keys are none of its business. A stream cannot be compared before it is read: it is known by its key
//! alone while it runs, and its lines are compared one by one. Invariants: a key is taken by one request at a time, and
//! free again when that ends, however it ends; only what was accepted is remembered; memory is bounded by
//! [`MAX_REMEMBERED_BYTES`], and the oldest goes first. What is forgotten, by a restart too, costs only the comparison and
//! a second trip to the topic: the derived ids (`idempotency`) make that a no-op.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use axum::http::StatusCode;
use parking_lot::Mutex;
use tidings_http::Problem;

use crate::fallback::Via;
use crate::idempotency::IdempotencyKey;
use crate::limits::{MAX_REMEMBERED_BYTES, MAX_REMEMBERED_LINES};

/// About what an entry costs besides its list.
const ENTRY_BYTES: usize = 128;

/// The memory. Cheap to clone.
#[derive(Clone)]
pub struct Answers {
    memory: Arc<Mutex<Memory>>,
    hasher: RandomState,
}

/// A hash of key and tenant, or of a stream's key. It is keyed by chance: nobody can look for two that meet.
type Scope = u64;

struct Memory {
    entries: HashMap<Scope, Entry>,
    /// Those that have ended, oldest first, each with its number.
    order: VecDeque<(Scope, u64)>,
    next_number: u64,
    used_bytes: usize,
    max_bytes: usize,
}

enum Entry {
    Running { fingerprint: u64 },
    Ended { number: u64, answer: Answer },
}

#[derive(Clone)]
enum Answer {
    Json { fingerprint: u64, via: Arc<[Via]> },
    Stream(Vec<Option<KnownLine>>),
}

/// What is known of a line that was accepted.
#[derive(Debug, Clone, Copy)]
struct KnownLine {
    mark: LineMark,
    via: Via,
}

/// What a line is compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineMark {
    fingerprint: u64,
    tenant: u32,
}

/// How a request in JSON begins.
pub enum Begun {
    /// Nothing is known of it.
    First(Claim),
    /// It was accepted before, its elements in these ways.
    Repeated(Arc<[Via]>),
}

/// Holds a key for one request, until it is dropped.
pub struct Claim {
    answers: Answers,
    scopes: Vec<Scope>,
    fingerprint: u64,
    via: Option<Arc<[Via]>>,
}

/// Holds a key for one stream; what it has learned is remembered when it is dropped.
pub struct StreamClaim {
    answers: Answers,
    scope: Scope,
    /// By the line's number, less one.
    lines: Mutex<Vec<Option<KnownLine>>>,
}

/// What a line is to a stream under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineState {
    /// Not known.
    New,
    /// Accepted before.
    Repeated(Via),
    /// Another line of the same tenant was accepted in its place.
    Other,
}

impl Default for Answers {
    fn default() -> Self {
        Self::with_limit(MAX_REMEMBERED_BYTES)
    }
}

impl Answers {
    fn with_limit(max_bytes: usize) -> Self {
        let (entries, order) = (HashMap::new(), VecDeque::new());
        let memory = Memory { entries, order, next_number: 0, used_bytes: 0, max_bytes };
        Self { memory: Arc::new(Mutex::new(memory)), hasher: RandomState::new() }
    }

    /// Takes `key` for a body with activities of `tenants`; 409 while it is taken for the same body, 422 if it is, or was,
    /// for another.
    pub fn begin<'a>(
        &self,
        key: &IdempotencyKey,
        tenants: impl Iterator<Item = &'a str>,
        body: &[u8],
    ) -> Result<Begun, Problem> {
        let mut scopes: Vec<Scope> =
            tenants.map(|tenant| self.hasher.hash_one((key.as_str(), tenant))).collect();
        scopes.sort_unstable();
        scopes.dedup();
        let fingerprint = self.hasher.hash_one(body);
        let mut memory = self.memory.lock();
        let mut repeated = None;
        let mut is_running = false;
        for scope in &scopes {
            match memory.entries.get(scope) {
                Some(Entry::Running { fingerprint: same }) if *same == fingerprint => is_running = true,
                Some(Entry::Ended { answer: Answer::Json { fingerprint: same, via }, .. })
                    if *same == fingerprint =>
                {
                    repeated = Some(Arc::clone(via));
                }
                Some(_) => return Err(reused("with another body")),
                None => {}
            }
        }
        if is_running {
            return Err(outstanding());
        }
        if let Some(via) = repeated {
            return Ok(Begun::Repeated(via));
        }
        for scope in &scopes {
            memory.entries.insert(*scope, Entry::Running { fingerprint });
        }
        Ok(Begun::First(Claim { answers: self.clone(), scopes, fingerprint, via: None }))
    }

    /// Takes `key` for a stream; 409 while it is taken for one.
    pub fn begin_stream(&self, key: &IdempotencyKey) -> Result<StreamClaim, Problem> {
        // No tenant is a unit: a stream's scope is none of a tenant.
        let scope = self.hasher.hash_one((key.as_str(), ()));
        let mut memory = self.memory.lock();
        if matches!(memory.entries.get(&scope), Some(Entry::Running { .. })) {
            return Err(outstanding());
        }
        let lines = match memory.take(scope) {
            Some(Answer::Stream(lines)) => lines,
            Some(Answer::Json { .. }) | None => Vec::new(),
        };
        memory.entries.insert(scope, Entry::Running { fingerprint: 0 });
        Ok(StreamClaim { answers: self.clone(), scope, lines: Mutex::new(lines) })
    }
}

impl Claim {
    /// All was accepted: this is to be remembered.
    pub fn accepted(mut self, via: impl Iterator<Item = Via>) {
        self.via = Some(via.collect());
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut memory = self.answers.memory.lock();
        for scope in &self.scopes {
            memory.entries.remove(scope);
            if let Some(via) = &self.via {
                let answer = Answer::Json { fingerprint: self.fingerprint, via: Arc::clone(via) };
                memory.remember(*scope, answer);
            }
        }
    }
}

impl StreamClaim {
    /// The mark of a line.
    pub fn mark(&self, tenant: &str, line: &[u8]) -> LineMark {
        let hasher = &self.answers.hasher;
        LineMark { fingerprint: hasher.hash_one(line), tenant: hasher.hash_one(tenant) as u32 }
    }

    /// What the line is at this number.
    pub fn state(&self, number: u64, mark: LineMark) -> LineState {
        let known = place(number).and_then(|at| self.lines.lock().get(at).copied().flatten());
        match known {
            Some(known) if known.mark == mark => LineState::Repeated(known.via),
            Some(known) if known.mark.tenant == mark.tenant => LineState::Other,
            _ => LineState::New,
        }
    }

    /// The line was accepted.
    pub fn accepted(&self, number: u64, mark: LineMark, via: Via) {
        let Some(at) = place(number) else { return };
        let mut lines = self.lines.lock();
        if lines.len() <= at {
            lines.resize(at + 1, None);
        }
        lines[at] = Some(KnownLine { mark, via });
    }
}

impl Drop for StreamClaim {
    fn drop(&mut self) {
        let mut memory = self.answers.memory.lock();
        memory.entries.remove(&self.scope);
        let lines = std::mem::take(self.lines.get_mut());
        if !lines.is_empty() {
            memory.remember(self.scope, Answer::Stream(lines));
        }
    }
}

impl Memory {
    fn remember(&mut self, scope: Scope, answer: Answer) {
        self.used_bytes += answer.held_bytes();
        let number = self.next_number;
        self.next_number += 1;
        self.entries.insert(scope, Entry::Ended { number, answer });
        self.order.push_back((scope, number));
        while self.used_bytes > self.max_bytes || self.order.len() > self.max_bytes / ENTRY_BYTES {
            let Some((oldest, number)) = self.order.pop_front() else { break };
            // A stream that was sent again is remembered anew: its first place in the order is nobody's.
            if matches!(self.entries.get(&oldest), Some(Entry::Ended { number: found, .. }) if *found == number)
            {
                self.take(oldest);
            }
        }
    }

    /// Forgets what has ended.
    fn take(&mut self, scope: Scope) -> Option<Answer> {
        match self.entries.remove(&scope)? {
            Entry::Ended { answer, .. } => {
                self.used_bytes -= answer.held_bytes();
                Some(answer)
            }
            running @ Entry::Running { .. } => {
                self.entries.insert(scope, running);
                None
            }
        }
    }
}

impl Answer {
    fn held_bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::Json { via, .. } => size_of_val(&**via),
                Self::Stream(lines) => lines.capacity() * size_of::<Option<KnownLine>>(),
            }
    }
}

/// Where a line is remembered, if it is.
fn place(number: u64) -> Option<usize> {
    usize::try_from(number).ok()?.checked_sub(1).filter(|at| *at < MAX_REMEMBERED_LINES)
}

fn outstanding() -> Problem {
    let title = "A request is outstanding for this Idempotency-Key";
    let detail = "the first request with this key has not been answered yet";
    let mut problem = Problem::new(StatusCode::CONFLICT, "idempotency-key-outstanding", title, detail);
    problem.retry_after_s = Some(1);
    problem
}

/// The key was used differently: `how`.
pub fn reused(how: &str) -> Problem {
    let detail = format!("the key was used {how}: a new request needs a new key");
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "idempotency-key-reused",
        "Idempotency-Key is already used",
        detail,
    )
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::idempotency::IDEMPOTENCY_KEY;

    fn key(text: &str) -> IdempotencyKey {
        let value = HeaderValue::from_str(text).unwrap();
        IdempotencyKey::of(&HeaderMap::from_iter([(
            axum::http::HeaderName::from_static(IDEMPOTENCY_KEY),
            value,
        )]))
        .unwrap()
        .unwrap()
    }

    /// What `begin` says: a claim, the ways of the first, or a status.
    fn begin(answers: &Answers, text: &str, tenants: &[&str], body: &str) -> Result<Option<Claim>, u16> {
        match answers.begin(&key(text), tenants.iter().copied(), body.as_bytes()) {
            Ok(Begun::First(claim)) => Ok(Some(claim)),
            Ok(Begun::Repeated(via)) => {
                assert_eq!(*via, [Via::Stream, Via::Fallback]);
                Ok(None)
            }
            Err(problem) => Err(problem.status.as_u16()),
        }
    }

    fn accepted(claim: Result<Option<Claim>, u16>) {
        claim.unwrap().unwrap().accepted([Via::Stream, Via::Fallback].into_iter());
    }

    #[test]
    fn a_repeated_request_is_known_and_another_refused_within_a_tenant() {
        let answers = Answers::default();
        let running = begin(&answers, "k", &["a", "b", "a"], "body");
        for tenants in [&["a"][..], &["b", "c"]] {
            assert_eq!(begin(&answers, "k", tenants, "body").err(), Some(409));
            assert_eq!(begin(&answers, "k", tenants, "other").err(), Some(422));
        }
        assert!(begin(&answers, "k", &["c"], "other").unwrap().is_some());
        assert!(begin(&answers, "l", &["a"], "other").unwrap().is_some());
        accepted(running);
        assert!(begin(&answers, "k", &["a", "b"], "body").unwrap().is_none());
        assert_eq!(begin(&answers, "k", &["b"], "other").err(), Some(422));
        // One that was not accepted leaves nothing behind.
        drop(begin(&answers, "m", &["a"], "body"));
        assert!(begin(&answers, "m", &["a"], "other").unwrap().is_some());
        assert!(begin(&answers, "n", &[], "[]").unwrap().is_some());
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_is_forgotten() {
        let answers = Answers::with_limit(ENTRY_BYTES * 100);
        for number in 0..1000 {
            accepted(begin(&answers, &format!("k{number}"), &["t"], "body"));
        }
        assert!(begin(&answers, "k999", &["t"], "body").unwrap().is_none());
        assert!(begin(&answers, "k0", &["t"], "body").unwrap().is_some());
        let memory = answers.memory.lock();
        assert!(memory.used_bytes <= memory.max_bytes && memory.entries.len() <= 100);
        assert!(memory.order.len() <= 100);
        drop(memory);
        // A stream that is sent again and again takes one place.
        for _ in 0..1000 {
            let stream = answers.begin_stream(&key("s")).unwrap();
            stream.accepted(1, stream.mark("t", b"line"), Via::Stream);
        }
        let stream = answers.begin_stream(&key("s")).unwrap();
        assert_eq!(stream.state(1, stream.mark("t", b"line")), LineState::Repeated(Via::Stream));
        assert!(answers.memory.lock().order.len() <= 100);
    }

    #[test]
    fn lines_of_a_stream_are_known_one_by_one() {
        let answers = Answers::default();
        let state = |stream: &StreamClaim, number, tenant, line: &str| {
            stream.state(number, stream.mark(tenant, line.as_bytes()))
        };
        let first = answers.begin_stream(&key("k")).unwrap();
        assert_eq!(answers.begin_stream(&key("k")).err().map(|problem| problem.status.as_u16()), Some(409));
        assert!(begin(&answers, "k", &["t"], "body").unwrap().is_some());
        assert_eq!(state(&first, 1, "t", "one"), LineState::New);
        first.accepted(3, first.mark("t", b"three"), Via::Spool);
        first.accepted(1, first.mark("t", b"one"), Via::Stream);
        first.accepted(u64::MAX, first.mark("t", b"far"), Via::Stream);
        drop(first);
        let again = answers.begin_stream(&key("k")).unwrap();
        assert_eq!(state(&again, 1, "t", "one"), LineState::Repeated(Via::Stream));
        assert_eq!(state(&again, 2, "t", "two"), LineState::New);
        assert_eq!(state(&again, 3, "t", "three"), LineState::Repeated(Via::Spool));
        assert_eq!(state(&again, 3, "t", "other"), LineState::Other);
        assert_eq!(state(&again, 3, "u", "other"), LineState::New);
        assert_eq!(state(&again, u64::MAX, "t", "far"), LineState::New);
        assert_eq!(state(&again, 0, "t", ""), LineState::New);
    }
}
