//! A circuit breaker: after failures in a row, nobody waits for what is down any more.
//!
//! Owns the three states and when they change: *closed* (calls go through), *open* (calls are refused at once) and
//! *half-open* (one call, the probe, goes through and decides). **Invariant:** at most one probe is under way.
//! **Invariant:** what a call tells after the breaker has changed its state changes nothing: a crowd that waited for the
//! same outage counts as that outage only. It is told the time, and knows nothing of what it guards.

use std::sync::atomic::AtomicI64;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// When a [`Breaker`] opens, and for how long.
///
/// ```
/// use std::time::Duration;
/// use tidings::breaker::BreakerOptions;
///
/// let patient = BreakerOptions { open_for: Duration::from_secs(60), ..BreakerOptions::default() };
/// assert!(patient.open_for > BreakerOptions::default().open_for);
/// ```
#[derive(Debug, Clone)]
pub struct BreakerOptions {
    /// Failures in a row that open it (5; 0 counts as 1).
    pub failures: u32,
    /// How long it stays open before a probe may go through (30 s).
    pub open_for: Duration,
    /// Where to count.
    pub metrics: BreakerMetrics,
}

impl Default for BreakerOptions {
    fn default() -> Self {
        Self { failures: 5, open_for: Duration::from_secs(30), metrics: BreakerMetrics::default() }
    }
}

/// What a breaker does with calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// They go through.
    Closed,
    /// One of them goes through, and decides.
    HalfOpen,
    /// They are refused at once.
    Open,
}

/// How a guarded call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// What is guarded did its work.
    Success,
    /// It answered, which does not say that it does its work: a breaker that is half-open closes, and the next failure
    /// opens it again; otherwise nothing changes.
    Answered,
    /// What is guarded is down, hangs or is too slow.
    Failure,
    /// The call says nothing about what is guarded: it was wrong itself, or it was abandoned.
    Unknown,
}

/// The gauge and the counters of a breaker; clones share them.
///
/// ```
/// use prometheus_client::registry::Registry;
/// use tidings::breaker::{BreakerMetrics, BreakerOptions};
///
/// let mut registry = Registry::default();
/// let metrics = BreakerMetrics::default();
/// metrics.register(&mut registry);
/// let options = BreakerOptions { metrics, ..BreakerOptions::default() };
/// # drop(options);
/// ```
#[derive(Debug, Clone, Default)]
pub struct BreakerMetrics {
    state: Gauge<i64, AtomicI64>,
    opened: Counter,
    refused: Counter,
}

impl BreakerMetrics {
    /// Adds `tidings_produce_breaker_state` (0 closed, 1 half-open, 2 open), `tidings_produce_breaker_opened_total` and
    /// `tidings_produce_breaker_refused_total`.
    pub fn register(&self, registry: &mut Registry) {
        self.register_as(registry, "tidings_produce_breaker", "the producer");
    }

    /// Adds `<name>_state`, `<name>_opened_total` and `<name>_refused_total`, for a breaker around something of the caller's.
    ///
    /// ```
    /// use prometheus_client::registry::Registry;
    /// use tidings::breaker::BreakerMetrics;
    ///
    /// let mut registry = Registry::default();
    /// BreakerMetrics::default().register_as(&mut registry, "shop_database_breaker", "the shop's database");
    /// ```
    pub fn register_as(&self, registry: &mut Registry, name: &str, guarded: &str) {
        let state = format!("Circuit breaker of {guarded}: 0 closed, 1 half-open, 2 open");
        registry.register(format!("{name}_state"), state, self.state.clone());
        let opened = format!("Times the circuit breaker of {guarded} opened");
        registry.register(format!("{name}_opened"), opened, self.opened.clone());
        let refused = format!("Calls refused at once because the circuit breaker of {guarded} was open");
        registry.register(format!("{name}_refused"), refused, self.refused.clone());
    }
}

/// The breaker.
///
/// ```
/// use std::time::{Duration, Instant};
/// use tidings::breaker::{Breaker, BreakerOptions, BreakerState, CallOutcome};
///
/// let breaker = Breaker::new(BreakerOptions { failures: 1, ..BreakerOptions::default() });
/// let now = Instant::now();
/// breaker.admit(now).unwrap().end(CallOutcome::Failure, now);
/// assert_eq!(breaker.state(), BreakerState::Open);
/// assert_eq!(breaker.admit(now).unwrap_err(), Duration::from_secs(30));
/// assert!(breaker.is_refusing(now) && !breaker.is_refusing(now + Duration::from_secs(30)));
/// ```
#[derive(Debug)]
pub struct Breaker {
    failures: u32,
    open_for: Duration,
    metrics: BreakerMetrics,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// Counts the changes of state, so that a call knows whether it began before the last one.
    epoch: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed { failures: u32 },
    Open { until: Instant },
    HalfOpen { probing: bool },
}

impl State {
    fn shown(self) -> BreakerState {
        match self {
            Self::Closed { .. } => BreakerState::Closed,
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
            Self::Open { .. } => BreakerState::Open,
        }
    }
}

/// Leave for one call; dropping it says nothing about what is guarded.
///
/// ```
/// use std::time::Instant;
/// use tidings::breaker::{Breaker, BreakerOptions, CallOutcome, Permit};
///
/// fn call(permit: Permit<'_>, address: &str) -> std::io::Result<()> {
///     let connected = std::net::TcpStream::connect(address);
///     let outcome = if connected.is_ok() { CallOutcome::Success } else { CallOutcome::Failure };
///     permit.end(outcome, Instant::now());
///     connected.map(drop)
/// }
///
/// let breaker = Breaker::new(BreakerOptions::default());
/// match breaker.admit(Instant::now()) {
///     Ok(permit) => println!("{:?}", call(permit, "127.0.0.1:9")),
///     Err(wait) => println!("not before {wait:?} from now"),
/// }
/// ```
#[derive(Debug)]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    epoch: u64,
    ended: bool,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(options: BreakerOptions) -> Self {
        let BreakerOptions { failures, open_for, metrics } = options;
        let inner = Mutex::new(Inner { state: State::Closed { failures: 0 }, epoch: 0 });
        Self { failures: failures.max(1), open_for, metrics, inner }
    }

    /// Leave for a call, or how long to stay away: zero while a probe is under way.
    pub fn admit(&self, now: Instant) -> Result<Permit<'_>, Duration> {
        let mut inner = self.inner.lock();
        if let State::Open { until } = inner.state
            && now >= until
        {
            self.change(&mut inner, State::HalfOpen { probing: false });
        }
        match &mut inner.state {
            State::Closed { .. } => {}
            State::HalfOpen { probing: probing @ false } => *probing = true,
            State::HalfOpen { probing: true } => {
                self.metrics.refused.inc();
                return Err(Duration::ZERO);
            }
            State::Open { until } => {
                self.metrics.refused.inc();
                return Err(*until - now);
            }
        }
        Ok(Permit { breaker: self, epoch: inner.epoch, ended: false })
    }

    /// The state as of the last call: an open breaker stays open until somebody calls after its time.
    pub fn state(&self) -> BreakerState {
        self.inner.lock().state.shown()
    }

    /// Whether a call at this moment would be told to stay away.
    pub fn is_refusing(&self, now: Instant) -> bool {
        match self.inner.lock().state {
            State::Closed { .. } => false,
            State::HalfOpen { probing } => probing,
            State::Open { until } => now < until,
        }
    }

    /// Answers the new state, if there is one.
    fn end(&self, epoch: u64, outcome: CallOutcome, now: Instant) -> Option<BreakerState> {
        let mut inner = self.inner.lock();
        if inner.epoch != epoch {
            return None;
        }
        match (&mut inner.state, outcome) {
            (State::Closed { failures }, CallOutcome::Success) => *failures = 0,
            (State::Closed { failures }, CallOutcome::Failure) => {
                *failures += 1;
                if *failures >= self.failures {
                    self.open(&mut inner, now);
                }
            }
            (State::HalfOpen { .. }, CallOutcome::Success) => {
                self.change(&mut inner, State::Closed { failures: 0 });
            }
            (State::HalfOpen { .. }, CallOutcome::Answered) => {
                self.change(&mut inner, State::Closed { failures: self.failures - 1 });
            }
            (State::HalfOpen { .. }, CallOutcome::Failure) => self.open(&mut inner, now),
            (State::HalfOpen { probing }, CallOutcome::Unknown) => *probing = false,
            // No call is admitted in the epoch of an open breaker.
            (State::Closed { .. }, CallOutcome::Answered | CallOutcome::Unknown)
            | (State::Open { .. }, _) => {}
        }
        (inner.epoch != epoch).then(|| inner.state.shown())
    }

    fn open(&self, inner: &mut Inner, now: Instant) {
        self.metrics.opened.inc();
        self.change(inner, State::Open { until: now + self.open_for });
    }

    fn change(&self, inner: &mut Inner, state: State) {
        inner.epoch += 1;
        inner.state = state;
        self.metrics.state.set(match state {
            State::Closed { .. } => 0,
            State::HalfOpen { .. } => 1,
            State::Open { .. } => 2,
        });
    }
}

impl Permit<'_> {
    /// Tells how the call ended. Answers the new state of the breaker, if that changed it.
    pub fn end(mut self, outcome: CallOutcome, now: Instant) -> Option<BreakerState> {
        self.ended = true;
        self.breaker.end(self.epoch, outcome, now)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // Of no consequence but for a probe that its caller abandoned: the next call is one.
            self.breaker.end(self.epoch, CallOutcome::Unknown, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CallOutcome::{Answered, Failure, Success, Unknown};
    use super::*;

    const OPEN_FOR: Duration = Duration::from_secs(30);

    fn call(breaker: &Breaker, outcome: CallOutcome, now: Instant) {
        breaker.admit(now).unwrap().end(outcome, now);
    }

    fn opened(now: Instant) -> Breaker {
        let breaker = Breaker::new(BreakerOptions::default());
        for _ in 0..5 {
            assert_eq!(breaker.state(), BreakerState::Closed);
            call(&breaker, Failure, now);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_others_do_not() {
        let now = Instant::now();
        let breaker = Breaker::new(BreakerOptions::default());
        for _ in 0..10 {
            for outcome in [Failure, Failure, Unknown, Failure, Failure, Success] {
                call(&breaker, outcome, now);
            }
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        for outcome in [Failure, Failure, Unknown, Failure, Unknown, Failure, Failure] {
            call(&breaker, outcome, now);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        assert_eq!(breaker.metrics.opened.get(), 1);
    }

    #[test]
    fn one_probe_decides() {
        let begun = Instant::now();
        let breaker = opened(begun);
        assert_eq!(breaker.admit(begun + Duration::from_secs(10)).unwrap_err(), Duration::from_secs(20));
        let later = begun + OPEN_FOR;
        let probe = breaker.admit(later).unwrap();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(later).unwrap_err(), Duration::ZERO);
        assert_eq!(probe.end(Failure, later), Some(BreakerState::Open));
        assert_eq!(breaker.admit(later).unwrap_err(), OPEN_FOR);
        let later = later + OPEN_FOR;
        call(&breaker, Success, later);
        assert_eq!(breaker.state(), BreakerState::Closed);
        // It takes as many failures as before to open it again.
        for _ in 0..4 {
            call(&breaker, Failure, later);
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert_eq!((breaker.metrics.opened.get(), breaker.metrics.refused.get()), (2, 3));
    }

    #[test]
    fn a_mere_answer_closes_it_on_trial_and_hides_no_failure() {
        let begun = Instant::now();
        let breaker = Breaker::new(BreakerOptions::default());
        for outcome in [Failure, Answered, Failure, Answered, Failure, Answered, Failure, Answered] {
            call(&breaker, outcome, begun);
            assert_eq!(breaker.state(), BreakerState::Closed);
        }
        call(&breaker, Failure, begun);
        assert_eq!(breaker.state(), BreakerState::Open);
        let later = begun + OPEN_FOR;
        call(&breaker, Answered, later);
        assert_eq!(breaker.state(), BreakerState::Closed);
        call(&breaker, Failure, later);
        assert_eq!(breaker.state(), BreakerState::Open);
        let later = later + OPEN_FOR;
        for outcome in [Answered, Success, Failure, Failure, Failure, Failure] {
            call(&breaker, outcome, later);
            assert_eq!(breaker.state(), BreakerState::Closed);
        }
    }

    #[test]
    fn an_abandoned_probe_makes_room_for_the_next() {
        let begun = Instant::now();
        let breaker = opened(begun);
        let later = begun + OPEN_FOR;
        drop(breaker.admit(later).unwrap());
        call(&breaker, Unknown, later);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        call(&breaker, Success, later);
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn calls_from_before_a_change_do_not_count() {
        let begun = Instant::now();
        let breaker = Breaker::new(BreakerOptions::default());
        let mut crowd: Vec<_> = (0..20).map(|_| breaker.admit(begun).unwrap()).collect();
        let late = crowd.split_off(5);
        assert_eq!(crowd.into_iter().filter_map(|permit| permit.end(Failure, begun)).count(), 1);
        let mut late = late.into_iter();
        // Neither a late success closes it nor do late failures keep it open for longer.
        assert_eq!(late.next().unwrap().end(Success, begun), None);
        assert_eq!(breaker.state(), BreakerState::Open);
        let probe = breaker.admit(begun + OPEN_FOR).unwrap();
        assert_eq!(late.filter_map(|permit| permit.end(Failure, begun + OPEN_FOR)).count(), 0);
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(probe.end(Success, begun + OPEN_FOR), Some(BreakerState::Closed));
        assert_eq!(breaker.state(), BreakerState::Closed);
    }
}
