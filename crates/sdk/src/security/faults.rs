//! What a client was told when it connected, kept for whoever waits for an answer.
//!
//! librdkafka goes on connecting whatever the brokers say, so an operation that a wrong password makes impossible ends as a
//! timeout, and the reason is told beside it, as an error of the client. **Invariant:** a refusal is not forgotten for the
//! outage that it looks like next. **Invariant:** what kept a record from being delivered while the brokers could be reached is
//! not forgotten because they can be reached: a full disk answers whatever is asked but takes nothing.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::Security;
use super::diagnosis::{Finding, diagnose};
use crate::error::{KafkaFault, TlsProblem};

/// At most so often a broker is asked what is wrong.
const DIAGNOSIS_INTERVAL: Duration = Duration::from_secs(1);

/// So many of the bootstrap addresses are asked.
const ADDRESSES_MAX: usize = 3;

/// What librdkafka says where security may be the reason, and a kill or a restart as well.
const SUSPICIOUS: [&str; 5] = [
    "incorrect security.protocol",
    "PLAINTEXT broker listener?",
    "broker might require SASL",
    "Invalid frame size",
    "SSL ",
];

/// The trouble of one client with its connections.
pub(crate) struct ConnectionFaults {
    bootstrap: String,
    /// `None` where the caller has set it by librdkafka's names.
    security: Option<Security>,
    last: Mutex<Last>,
    /// When a broker was asked last, and what came out.
    diagnosed: Mutex<Option<(Instant, Option<Diagnosis>)>>,
}

#[derive(Default)]
struct Last {
    fault: Option<KafkaFault>,
    /// Since when no record could be delivered for it, if that is all that is known of it.
    undelivered_at: Option<Instant>,
}

/// A broker's address, and what is wrong there.
type Diagnosis = (String, Finding);

impl ConnectionFaults {
    pub(crate) fn new(bootstrap: &str, security: Option<Security>) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            security,
            last: Mutex::default(),
            diagnosed: Mutex::default(),
        }
    }

    /// Takes an error that librdkafka tells. May ask the broker, which takes a moment.
    pub(crate) fn hear(&self, error: &KafkaError, reason: &str) {
        let fault = self.judge(error, reason);
        tracing::debug!(target: "tidings::kafka", %error, reason, %fault, "client error");
        self.set(Some(fault));
    }

    /// The last trouble, if nothing has succeeded since.
    pub(crate) fn last(&self) -> Option<KafkaFault> {
        self.last.lock().fault.clone()
    }

    /// Takes the outcome of something that was asked of the cluster.
    pub(crate) fn set(&self, fault: Option<KafkaFault>) {
        let mut last = self.last.lock();
        let hides_more =
            |fault: &KafkaFault| fault.is_outage() && last.fault.as_ref().is_some_and(KafkaFault::is_refusal);
        if !fault.as_ref().is_some_and(hides_more) {
            *last = Last { fault, undelivered_at: None };
        }
    }

    /// Takes what kept a record from being delivered. Where the connections are in trouble already, that is why.
    pub(crate) fn undelivered(&self, fault: KafkaFault) {
        let mut last = self.last.lock();
        if last.fault.is_none() || last.undelivered_at.is_some() {
            *last = Last { fault: Some(fault), undelivered_at: Some(Instant::now()) };
        }
    }

    /// Takes that the cluster has answered: its connections are in order.
    pub(crate) fn answered(&self) {
        let mut last = self.last.lock();
        if last.undelivered_at.is_none() {
            last.fault = None;
        }
    }

    /// Forgets what kept records from being delivered, if no record has met it for so long: nobody sends any, so that
    /// nobody would ever find out that it is over.
    pub(crate) fn forget_undelivered(&self, after: Duration) {
        let mut last = self.last.lock();
        if last.undelivered_at.is_some_and(|at| at.elapsed() >= after) {
            *last = Last::default();
        }
    }

    /// Forgets it, unless somebody is at it just now: for those who come here with every record.
    pub(crate) fn forget_soon(&self) {
        if let Some(mut last) = self.last.try_lock() {
            *last = Last::default();
        }
    }

    /// The same fault, or the refusal that is behind it.
    pub(crate) fn explain(&self, fault: KafkaFault) -> KafkaFault {
        if !fault.is_outage() && !fault.is_refusal() {
            return fault;
        }
        self.last().filter(KafkaFault::is_refusal).unwrap_or(fault)
    }

    fn judge(&self, error: &KafkaError, reason: &str) -> KafkaFault {
        let fault = KafkaFault::from_kafka(error, &self.bootstrap, Duration::ZERO);
        let bootstrap = self.bootstrap.clone();
        match error.rdkafka_error_code() {
            Some(Code::Authentication | Code::SaslAuthenticationFailed) => {
                let reason = core_of(reason);
                if reason.contains("SASL Handshake not supported by broker") {
                    return KafkaFault::Mechanism { bootstrap, offered: String::new() };
                }
                match reason.split_once("supported mechanisms:") {
                    Some((_, offered)) => {
                        // What librdkafka says where nobody told it any.
                        let offered = offered.trim().trim_start_matches("(n/a)");
                        KafkaFault::Mechanism { bootstrap, offered: offered.to_owned() }
                    }
                    None => KafkaFault::Authentication { bootstrap, reason: reason.to_owned() },
                }
            }
            // A listener that wants something else hangs up, which is told by this only.
            Some(Code::SSL | Code::BrokerTransportFailure | Code::AllBrokersDown)
                if is_suspicious(error, reason) =>
            {
                match self.diagnosis(reason) {
                    Some((address, Finding::Tls(problem))) => KafkaFault::Tls { address, problem },
                    Some((_, Finding::WantsLogin)) => {
                        let reason = "it wants a login (SASL), and none is configured".to_owned();
                        KafkaFault::Authentication { bootstrap, reason }
                    }
                    None if fault.is_refusal() => {
                        let problem = undiagnosed(core_of(reason).to_owned());
                        KafkaFault::Tls { address: address_of(reason).unwrap_or(bootstrap), problem }
                    }
                    None => fault,
                }
            }
            _ => fault,
        }
    }

    fn diagnosis(&self, reason: &str) -> Option<Diagnosis> {
        let security = self.security.as_ref()?;
        let mut diagnosed = self.diagnosed.lock();
        if let Some((at, found)) = &*diagnosed
            && at.elapsed() < DIAGNOSIS_INTERVAL
        {
            return found.clone();
        }
        let addresses = match address_of(reason) {
            Some(address) => vec![address],
            None => {
                self.bootstrap.split(',').take(ADDRESSES_MAX).map(|text| text.trim().to_owned()).collect()
            }
        };
        let ask = |address: String| diagnose(&address, security).map(|finding| (address, finding));
        let found = addresses.into_iter().find_map(ask);
        *diagnosed = Some((Instant::now(), found.clone()));
        found
    }
}

/// The problem by librdkafka's words alone, which are the same for an authority and for a host.
fn undiagnosed(reason: String) -> TlsProblem {
    if reason.contains("certificate verify failed") {
        TlsProblem::Untrusted { reason }
    } else {
        TlsProblem::Handshake { reason }
    }
}

fn is_suspicious(error: &KafkaError, reason: &str) -> bool {
    matches!(error.rdkafka_error_code(), Some(Code::SSL | Code::AllBrokersDown))
        || SUSPICIOUS.iter().any(|words| reason.contains(words))
}

/// `host:port` of `sasl_ssl://host:port/bootstrap: SSL handshake failed: …`.
fn address_of(reason: &str) -> Option<String> {
    let (_, rest) = reason.split_once("://")?;
    let end = rest.find(['/', ' ']).unwrap_or(rest.len());
    let address = rest[..end].trim_end_matches(':');
    address.contains(':').then(|| address.to_owned())
}

/// The reason without the broker's address in front and without what librdkafka adds about its states.
fn core_of(reason: &str) -> &str {
    let core = match reason.split_once("://") {
        Some((_, rest)) => rest.split_once(": ").map_or(rest, |(_, core)| core),
        None => reason,
    };
    core.rsplit_once(" (after ").map_or(core, |(core, _)| core)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_reasons_are_found_in_librdkafkas_words() {
        let check = |reason: &str, address: Option<&str>, core: &str| {
            assert_eq!(address_of(reason).as_deref(), address, "{reason}");
            assert_eq!(core_of(reason), core, "{reason}");
        };
        check(
            "sasl_ssl://kafka-1:9093/bootstrap: SASL authentication error: no (after 3ms in state AUTH_REQ)",
            Some("kafka-1:9093"),
            "SASL authentication error: no",
        );
        check("ssl://[::1]:9093/1: SSL handshake failed: x", Some("[::1]:9093"), "SSL handshake failed: x");
        check("GroupCoordinator: down", None, "GroupCoordinator: down");
    }

    #[test]
    fn a_refusal_outlives_the_outage_it_looks_like() {
        let faults = ConnectionFaults::new("b:1", None);
        faults.hear(
            &KafkaError::Global(Code::Authentication),
            "sasl_ssl://b:1/1: SASL authentication error: no",
        );
        faults.hear(&KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        let refusal = KafkaFault::Authentication {
            bootstrap: "b:1".into(),
            reason: "SASL authentication error: no".into(),
        };
        assert_eq!(faults.last(), Some(refusal.clone()));
        assert_eq!(faults.explain(KafkaFault::Unreachable { bootstrap: "b:1".into() }), refusal);
        assert_eq!(faults.explain(KafkaFault::UnknownTopic), KafkaFault::UnknownTopic);
        faults.answered();
        assert_eq!(faults.last(), None);
    }

    #[test]
    fn an_answer_ends_trouble_with_connections_but_not_with_records() {
        let faults = ConnectionFaults::new("b:1", None);
        let unreachable = KafkaFault::Unreachable { bootstrap: "b:1".into() };
        let late = KafkaFault::TimedOut { bootstrap: "b:1".into(), waited: Duration::ZERO };
        // Whoever was sent to a cluster that is away says nothing new.
        faults.hear(&KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        faults.undelivered(late.clone());
        assert_eq!(faults.last(), Some(unreachable.clone()));
        faults.answered();
        assert_eq!(faults.last(), None);
        // A cluster that answers and takes nothing.
        faults.undelivered(late.clone());
        faults.answered();
        faults.forget_undelivered(Duration::from_secs(3600));
        assert_eq!(faults.last(), Some(late.clone()));
        faults.forget_undelivered(Duration::ZERO);
        assert_eq!(faults.last(), None);
        // It goes away besides.
        faults.undelivered(late);
        faults.hear(&KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(faults.last(), Some(unreachable));
        faults.answered();
        assert_eq!(faults.last(), None);
    }

    #[test]
    fn what_the_brokers_offer_is_told() {
        let faults = ConnectionFaults::new("b:1", None);
        let reason = "sasl_ssl://b:1/1: SASL SCRAM-SHA-256 mechanism handshake failed: Broker: Unsupported SASL mechanism: \
                      broker's supported mechanisms: PLAIN,SCRAM-SHA-512 (after 1ms in state AUTH_HANDSHAKE)";
        faults.hear(&KafkaError::Global(Code::Authentication), reason);
        let expected =
            KafkaFault::Mechanism { bootstrap: "b:1".into(), offered: "PLAIN,SCRAM-SHA-512".into() };
        assert_eq!(faults.last(), Some(expected));
        let reason = "sasl_plaintext://b:1/bootstrap: Failed to initialize SASL authentication: SASL Handshake not supported by broker \
                      (required by mechanism PLAIN) (after 1ms in state CONNECT)";
        faults.hear(&KafkaError::Global(Code::Authentication), reason);
        let without_sasl = faults.last().unwrap();
        assert_eq!(without_sasl, KafkaFault::Mechanism { bootstrap: "b:1".into(), offered: String::new() });
        assert!(without_sasl.hint().starts_with("log in without SASL"), "{}", without_sasl.hint());
    }
}
