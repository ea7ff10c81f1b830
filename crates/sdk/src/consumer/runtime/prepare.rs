//! What has to be there before a consumer can join: the cluster, its source topics and the topics of the failure inbox.
//! And the topics that join later, because they match a pattern.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use regex::bytes::{Regex, RegexBuilder};
use thiserror::Error;

use super::{Fatal, IDLE_WAIT, Runtime};
use crate::admin::AdminError;
use crate::consumer::ConsumerError;
use crate::consumer::atomic::AtomicError;
use crate::consumer::delay::DelayError;
use crate::consumer::failures::TOPICS_TIMEOUT;
use crate::consumer::key_order::KeyOrderError;
use crate::consumer::random::jitter;
use crate::consumer::state::Phase;
use crate::consumer::transactional::OpenError;
use crate::error::KafkaFault;
use crate::failure::{FailureTopics, read_parked};
use crate::native::FromItsBeginning;
use crate::reader::ReadError;

/// How long it may take to read what is parked.
const PARKED_TIMEOUT: Duration = Duration::from_secs(10);
/// What a compiled pattern may weigh.
const MAX_PATTERN_BYTES: usize = 1024 * 1024;
/// Ends of the names of topics that belong to failure inboxes.
const FAILURE_SUFFIXES: [&str; 5] = [".dlq", ".dlq.status", ".retry", ".parked", ".delay"];

/// The patterns among names of topics, each for the whole of a name.
pub(super) fn patterns(topics: &[String]) -> Result<Vec<Regex>, ConsumerError> {
    let patterns = topics.iter().filter(|topic| is_pattern(topic));
    let compile = |pattern: &String| {
        let mut whole = RegexBuilder::new(&format!("^(?:{pattern})$"));
        // Names of topics are ASCII: so are \w and \d, which need no tables of Unicode then.
        let whole = whole.unicode(false).size_limit(MAX_PATTERN_BYTES).build();
        whole.map_err(|error| ConsumerError::Pattern { pattern: pattern.clone(), reason: error.to_string() })
    };
    patterns.map(compile).collect()
}

fn is_pattern(topic: &str) -> bool {
    topic.starts_with('^')
}

/// Whether a pattern may match a topic at all: a consumer must not work on the letters it writes.
fn is_for_patterns(topic: &str) -> bool {
    !topic.starts_with("__") && !FAILURE_SUFFIXES.iter().any(|suffix| topic.ends_with(suffix))
}

/// Why the consumer cannot join yet.
#[derive(Debug, Error)]
enum PrepareError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    KeyOrder(#[from] KeyOrderError),
    #[error(transparent)]
    Delay(#[from] DelayError),
    #[error(
        "{count} records of {topic} wait in the order of their keys, which this consumer does not keep: \
         set preserve_key_order, or redrive or discard them first"
    )]
    StillParked { topic: Arc<str>, count: usize },
    #[error(transparent)]
    Parked(#[from] ReadError),
    #[error("{topic} was not read to its end within {} ms", PARKED_TIMEOUT.as_millis())]
    ParkedTimedOut { topic: Arc<str> },
}

/// What there is to read.
struct Found {
    sources: Vec<Arc<str>>,
    /// Those of them that have a topic of parked records for this group, and it.
    parked: Vec<(Arc<str>, Arc<str>)>,
}

/// The consumer does not start.
enum NotReady {
    /// Not yet.
    WaitingFor(String),
    /// Waiting does not heal it.
    Fatal(String),
}

impl PrepareError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Admin(error) => error.hint(),
            _ => None,
        }
    }

    /// Whether waiting does not help: a client cannot be made of these settings, or they are not those that are needed.
    fn is_final(&self) -> bool {
        match self {
            Self::Admin(error) | Self::Delay(DelayError::Admin(error)) => {
                matches!(error, AdminError::Cluster(_))
            }
            Self::KeyOrder(error) => {
                matches!(error, KeyOrderError::Client(_) | KeyOrderError::Open(OpenError::Client(_)))
            }
            Self::Delay(error) => matches!(error, DelayError::Client(_)),
            Self::StillParked { .. } => true,
            Self::Parked(_) | Self::ParkedTimedOut { .. } => false,
        }
    }
}

impl Runtime {
    /// Waits until the source topics exist, and creates those of the failure inbox. `false` if asked to stop.
    pub(super) fn prepare_topics(&mut self) -> Result<bool, Fatal> {
        let mut failed_attempts = 0;
        while !self.monitor.is_stop_requested() {
            match self.try_prepare() {
                Ok(()) => return Ok(true),
                Err(NotReady::Fatal(reason)) => return Err(Fatal { reason, is_member: false }),
                Err(NotReady::WaitingFor(waiting_for)) => {
                    self.tell_what_is_waited_for(waiting_for);
                }
            }
            failed_attempts += 1;
            let until = Instant::now() + self.options.backoff.wait(failed_attempts, jitter());
            while Instant::now() < until && !self.monitor.is_stop_requested() {
                // Polling instead of sleeping: errors would pile up in the client's queue for as long as this takes.
                let left = until.saturating_duration_since(Instant::now());
                let _ = self.consumer.poll(left.min(IDLE_WAIT));
            }
        }
        Ok(false)
    }

    fn tell_what_is_waited_for(&self, waiting_for: String) {
        // Errors of the client are told within a poll.
        while self.consumer.poll(Duration::ZERO).is_some() {}
        let fault = self.membership().fault();
        // What the client was told says more than that nobody answered.
        let waiting_for = match fault.as_ref().filter(|fault| fault.is_refusal()) {
            Some(refusal) => {
                let waiting_for = format!("{refusal}; {}", refusal.hint());
                tracing::warn!(group = %self.options.group, waiting_for, "consumer not started yet");
                waiting_for
            }
            None => {
                tracing::info!(group = %self.options.group, waiting_for, "consumer not started yet");
                waiting_for
            }
        };
        self.monitor.update(|state| {
            state.fault = fault;
            state.phase = Phase::Starting { waiting_for: Some(waiting_for) };
        });
    }

    /// Everything that has to be there; an error says what is not, and what to do.
    fn try_prepare(&mut self) -> Result<(), NotReady> {
        self.try_prepare_topics().map_err(|error| {
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            let reason = format!("{error}{hint}");
            if error.is_final() { NotReady::Fatal(reason) } else { NotReady::WaitingFor(reason) }
        })?;
        let Some(handler) = self.workshop.handler.atomic() else { return Ok(()) };
        handler.lock().prepare().map_err(|error| match error {
            AtomicError::Again(error) => NotReady::WaitingFor(error.to_string()),
            AtomicError::NotOurs(reason) => NotReady::WaitingFor(reason),
            AtomicError::Fatal(reason) => NotReady::Fatal(reason),
        })
    }

    fn try_prepare_topics(&mut self) -> Result<(), PrepareError> {
        let Found { sources, parked } = self.find_sources()?;
        self.workshop.parking.set_sources(&sources);
        self.workshop.parking.ensure_to_subscribe(&mut self.known_topics)?;
        match &self.workshop.key_order {
            Some(key_order) => key_order.watch(&sources)?,
            None => self.refuse_parked(&parked)?,
        }
        if let Some(delay) = &self.workshop.delay {
            delay.watch(&sources)?;
        }
        self.sources = sources;
        Ok(())
    }

    /// Without the order of keys, what waits would be overtaken.
    fn refuse_parked(&self, parked: &[(Arc<str>, Arc<str>)]) -> Result<(), PrepareError> {
        for (source, topic) in parked.iter().filter(|(source, _)| !self.sources.contains(source)) {
            let book = read_parked(&self.cluster, topic, PARKED_TIMEOUT)?;
            let count = book.ok_or_else(|| PrepareError::ParkedTimedOut { topic: Arc::clone(topic) })?.len();
            if count > 0 {
                return Err(PrepareError::StillParked { topic: Arc::clone(source), count });
            }
        }
        Ok(())
    }

    /// The topics given by name, all of which must exist, and those that match a pattern: at least one altogether.
    fn find_sources(&self) -> Result<Found, AdminError> {
        let fault = |fault| AdminError::Kafka { operation: "list topics".into(), fault };
        let metadata = self.consumer.fetch_metadata(None, TOPICS_TIMEOUT).map_err(|error| {
            fault(KafkaFault::from_kafka(&error, self.cluster.bootstrap(), TOPICS_TIMEOUT))
        })?;
        let existing: Vec<&str> = metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none())
            .map(|topic| topic.name())
            .collect();
        let names: Vec<&str> =
            self.options.topics.iter().map(String::as_str).filter(|topic| !is_pattern(topic)).collect();
        if let Some(missing) = names.iter().find(|topic| !existing.contains(topic)) {
            return Err(AdminError::UnknownTopic { topic: (*missing).to_string() });
        }
        let is_matched = |topic: &&str| {
            is_for_patterns(topic)
                && !names.contains(topic)
                && self.patterns.iter().any(|pattern| pattern.is_match(topic.as_bytes()))
        };
        let mut matched: Vec<&str> = existing.iter().copied().filter(is_matched).collect();
        matched.sort_unstable();
        let sources: Vec<Arc<str>> = names.iter().copied().chain(matched).map(Arc::from).collect();
        if sources.is_empty() {
            return Err(AdminError::UnknownTopic { topic: self.options.topics.join(" or ") });
        }
        let parked = |source: &Arc<str>| {
            let topic = FailureTopics::of(source).parked(&self.options.group);
            existing.contains(&&*topic).then(|| (Arc::clone(source), topic))
        };
        let parked = sources.iter().filter_map(parked).collect();
        Ok(Found { sources, parked })
    }

    /// Subscribes to the sources and their retry topics.
    pub(super) fn subscribe(&mut self) -> Result<(), Fatal> {
        let retry_topics = self.workshop.parking.set_sources(&self.sources);
        self.read_from_their_beginnings(&retry_topics);
        self.subscribed = self.sources.iter().cloned().chain(retry_topics).collect();
        self.next_topics = Instant::now() + self.options.topics_refresh;
        self.subscribe_to(&self.subscribed)
    }

    /// What is in a retry topic is for this group, also what came before it read there for the first time.
    fn read_from_their_beginnings(&mut self, retry_topics: &[Arc<str>]) {
        let client = self.consumer.client();
        let mut known = std::mem::take(&mut self.retry_topics);
        let kept = retry_topics.iter().filter_map(|topic| {
            let kept = known.remove(topic).or_else(|| FromItsBeginning::new(client, topic))?;
            Some((Arc::clone(topic), kept))
        });
        self.retry_topics = kept.collect();
    }

    pub(super) fn subscribe_to(&self, topics: &[Arc<str>]) -> Result<(), Fatal> {
        let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        let subscribed = self.consumer.subscribe(&names);
        subscribed.map_err(|error| Fatal { reason: format!("cannot subscribe: {error}"), is_member: false })
    }

    /// Subscribes to topics that match a pattern since, if it is time to look.
    pub(super) fn look_for_topics(&mut self) -> Result<(), Fatal> {
        if self.patterns.is_empty() || Instant::now() < self.next_topics {
            return Ok(());
        }
        self.next_topics = Instant::now() + self.options.topics_refresh;
        let before = self.sources.clone();
        match self.try_prepare_topics() {
            Ok(()) if self.sources != before => self.subscribe(),
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::debug!(group = %self.options.group, %error, "topics not looked for");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names_and_no_failure_topics() {
        let patterns =
            patterns(&["orders".into(), "^eu-.*".into(), "^a|b".into(), r"^\w+\.\d".into()]).unwrap();
        let is_matched = |topic: &str| {
            is_for_patterns(topic) && patterns.iter().any(|pattern| pattern.is_match(topic.as_bytes()))
        };
        for topic in ["eu-orders", "a", "b", "orders.1"] {
            assert!(is_matched(topic), "{topic}");
        }
        for topic in [
            "orders",
            "not-eu-orders",
            "eu-orders.dlq",
            "eu-orders.dlq.status",
            "eu-orders.g.retry",
            "eu-orders.g.parked",
            "ab",
            // No name of a topic; it shows that classes are those of ASCII.
            "\u{e9}.\u{661}",
        ] {
            assert!(!is_matched(topic), "{topic}");
        }
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let error = patterns(&["^(".into()]).unwrap_err();
        assert!(error.to_string().contains("^("), "{error}");
        assert!(patterns(&["^(a{1000}){1000}".into()]).is_err(), "too large to compile");
    }
}
