//! What can go wrong between a client and a cluster, told apart by what the caller can do about it.
//!
//! Every operation has its own error enum; those that talk to a cluster carry a [`KafkaFault`]. This
//! module owns the one mapping from librdkafka's codes to faults.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use thiserror::Error;

/// A failure reported by the cluster, or the failure to reach it.
///
/// [`KafkaFault::hint`] says what to do about it; [`KafkaFault::is_transient`] whether waiting may help.
///
/// ```
/// use tidings::KafkaFault;
///
/// let fault = KafkaFault::Unreachable { bootstrap: "127.0.0.1:9".into() };
/// assert!(fault.is_transient());
/// assert!(fault.hint().contains("127.0.0.1:9"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KafkaFault {
    /// No broker of the bootstrap list answers.
    #[error("no broker answers at {bootstrap}")]
    Unreachable {
        /// The addresses tried.
        bootstrap: String,
    },
    /// A broker was reached, or may have been, but did not answer in time.
    #[error("no answer from {bootstrap} within {} ms", waited.as_millis())]
    TimedOut {
        /// The addresses of the cluster.
        bootstrap: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The cluster refused the credentials, or wants some.
    #[error("authentication refused by {bootstrap}: {reason}")]
    Authentication {
        /// The addresses of the cluster.
        bootstrap: String,
        /// The cluster's words, or the client's.
        reason: String,
    },
    /// The cluster has not switched on the mechanism by which the client logs in.
    #[error("SASL mechanism refused by {bootstrap}, which offers {}", offers(offered))]
    Mechanism {
        /// The addresses of the cluster.
        bootstrap: String,
        /// Those that it offers, with commas; empty if it has no SASL at all.
        offered: String,
    },
    /// There is no safe connection to a broker, or none at all because one side speaks TLS and the other does not.
    #[error("{address}: {problem}")]
    Tls {
        /// The broker, or the addresses of the cluster.
        address: String,
        /// What is wrong.
        #[source]
        problem: TlsProblem,
    },
    /// The principal may not do this.
    #[error("not authorized: {reason}")]
    Authorization {
        /// The cluster's words.
        reason: String,
    },
    /// The topic or the partition does not exist.
    #[error("unknown topic or partition")]
    UnknownTopic,
    /// The record is larger than the topic or the client allows.
    #[error("record too large")]
    RecordTooLarge,
    /// The client's own queue is full: records arrive faster than the cluster takes them.
    #[error("producer queue full")]
    QueueFull,
    /// Another member of the group uses the same `group.instance.id`.
    #[error("fenced: another member has the same group.instance.id")]
    Fenced,
    /// The member did not poll in time: its process was starved or stopped. It joins again, and what it worked on comes again.
    #[error("the member left its group: it did not poll within max.poll.interval.ms")]
    PolledTooLate,
    /// Any other answer, by Kafka's own name.
    #[error("{name}: {reason}")]
    Kafka {
        /// Name of the code.
        name: String,
        /// What it means.
        reason: String,
        /// Whether Kafka's clients retry it.
        transient: bool,
    },
}

/// What is wrong between two sides that should speak TLS.
///
/// ```
/// use tidings::{KafkaFault, TlsProblem};
///
/// let problem = TlsProblem::OtherHost { host: "kafka-1".into() };
/// assert!(problem.hint().contains("advertised.listeners"));
/// let fault = KafkaFault::Tls { address: "kafka-1:9093".into(), problem };
/// assert!(fault.is_refusal() && !fault.is_transient());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TlsProblem {
    /// Nobody who is trusted has signed the broker's certificate, or it is not valid now.
    #[error("the broker's certificate is not trusted: {reason}")]
    Untrusted {
        /// OpenSSL's words.
        reason: String,
    },
    /// The certificate is another host's.
    #[error("the broker's certificate is not for {host}")]
    OtherHost {
        /// The host connected to.
        host: String,
    },
    /// The client speaks plaintext to a listener with TLS.
    #[error("the broker wants TLS there, and the client speaks plaintext")]
    ServerSpeaksTls,
    /// The client speaks TLS to a listener without it.
    #[error("the broker speaks plaintext there, and the client wants TLS")]
    ServerSpeaksPlaintext,
    /// The broker wants a certificate of the client, or does not trust the one it has.
    #[error("the broker does not accept the client's certificate, or misses one: {reason}")]
    ClientCertificate {
        /// The broker's words.
        reason: String,
    },
    /// Anything else.
    #[error("no TLS connection: {reason}")]
    Handshake {
        /// OpenSSL's words.
        reason: String,
    },
}

impl TlsProblem {
    /// What the operator can do, in one sentence.
    pub fn hint(&self) -> String {
        match self {
            Self::Untrusted { .. } => {
                "name the file of the authority that has signed the brokers' certificates (ca_file), and check their dates"
            }
            Self::OtherHost { .. } => {
                "use a name that the certificate has in bootstrap and advertised.listeners, or switch the check off \
                 (verify_host_name)"
            }
            Self::ServerSpeaksTls => "switch TLS on (security_protocol ssl or sasl_ssl), or use the plaintext listener's port",
            Self::ServerSpeaksPlaintext => {
                "switch TLS off (security_protocol plaintext or sasl_plaintext), or use the port of the listener with TLS"
            }
            Self::ClientCertificate { .. } => {
                "give the client a certificate and key that the brokers trust (certificate_file, key_file)"
            }
            Self::Handshake { .. } => "check security_protocol, and read the brokers' log",
        }
        .into()
    }
}

fn offers(offered: &str) -> &str {
    if offered.is_empty() { "none" } else { offered }
}

impl KafkaFault {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } | Self::QueueFull | Self::PolledTooLate => true,
            Self::Kafka { transient, .. } => *transient,
            Self::Authentication { .. }
            | Self::Mechanism { .. }
            | Self::Tls { .. }
            | Self::Authorization { .. }
            | Self::UnknownTopic
            | Self::RecordTooLarge
            | Self::Fenced => false,
        }
    }

    /// Whether the brokers and this client do not come together at all, because of credentials or TLS. Whatever is asked then
    /// fails until somebody changes a setting.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Authentication { .. } | Self::Mechanism { .. } | Self::Tls { .. })
    }

    /// Whether nobody answered.
    pub(crate) fn is_outage(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. })
    }

    /// What the operator can do, in one sentence.
    pub fn hint(&self) -> String {
        match self {
            Self::Unreachable { bootstrap } => {
                format!(
                    "check that a broker listens at {bootstrap}, and the bootstrap address in the configuration"
                )
            }
            Self::TimedOut { .. } => "check the load and the log of the brokers, or allow more time".into(),
            Self::Authentication { .. } => {
                "check user and password, and that the cluster knows the user for this mechanism".into()
            }
            Self::Mechanism { offered, .. } if offered.is_empty() => {
                "log in without SASL (security_protocol plaintext or ssl), or use the port of a listener that has it".into()
            }
            Self::Mechanism { .. } => {
                "set the mechanism to one of those, or switch it on at the brokers (sasl.enabled.mechanisms)".into()
            }
            Self::Tls { problem, .. } => problem.hint(),
            Self::Authorization { .. } => "grant the principal the operation with an ACL".into(),
            Self::UnknownTopic => "create the topic, or check its name".into(),
            Self::RecordTooLarge => "raise max.message.bytes of the topic, or make the record smaller".into(),
            Self::QueueFull => "send slower, or raise queue.buffering.max.kbytes".into(),
            Self::Fenced => "give every running member its own instance id".into(),
            Self::PolledTooLate => {
                "raise max.poll.interval.ms, or give the process more of the machine".into()
            }
            Self::Kafka { .. } => {
                "look the code up in Kafka's protocol guide and read the brokers' log".into()
            }
        }
    }

    pub(crate) fn from_kafka(error: &KafkaError, bootstrap: &str, waited: Duration) -> Self {
        match error {
            KafkaError::AdminOp(code) => Self::from_code(*code, bootstrap, waited),
            other => match other.rdkafka_error_code() {
                Some(code) => Self::from_code(code, bootstrap, waited),
                None => Self::Kafka { name: "client".into(), reason: other.to_string(), transient: false },
            },
        }
    }

    pub(crate) fn from_code(code: Code, bootstrap: &str, waited: Duration) -> Self {
        let bootstrap = bootstrap.to_string();
        match code {
            // The last one: it has left the cluster, and the client has given it up.
            Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve | Code::DestroyBroker => {
                Self::Unreachable { bootstrap }
            }
            Code::OperationTimedOut | Code::MessageTimedOut | Code::TimedOutQueue | Code::RequestTimedOut => {
                Self::TimedOut { bootstrap, waited }
            }
            Code::Authentication | Code::SaslAuthenticationFailed => {
                Self::Authentication { bootstrap, reason: code.to_string() }
            }
            Code::UnsupportedSASLMechanism | Code::IllegalSASLState => {
                Self::Mechanism { bootstrap, offered: String::new() }
            }
            Code::SSL => {
                let problem = TlsProblem::Handshake { reason: code.to_string() };
                Self::Tls { address: bootstrap, problem }
            }
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed => Self::Authorization { reason: code.to_string() },
            Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition => Self::UnknownTopic,
            Code::MessageSizeTooLarge | Code::InvalidMessageSize => Self::RecordTooLarge,
            Code::QueueFull => Self::QueueFull,
            Code::FencedInstanceId | Code::Fenced => Self::Fenced,
            Code::PollExceeded => Self::PolledTooLate,
            other => Self::Kafka {
                name: format!("{other:?}"),
                reason: meaning(other),
                transient: is_transient_code(other),
            },
        }
    }
}

/// librdkafka's words about a code, without the code.
fn meaning(code: Code) -> String {
    let words = code.to_string();
    let inner = words.strip_prefix(&format!("{code:?} (")).and_then(|words| words.strip_suffix(')'));
    inner.map_or_else(|| words.clone(), str::to_owned)
}

/// The codes which Kafka's own clients retry, as far as they are not faults of their own above.
fn is_transient_code(code: Code) -> bool {
    matches!(
        code,
        Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::ReplicaNotAvailable
            | Code::NetworkException
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::NotEnoughReplicas
            | Code::NotEnoughReplicasAfterAppend
            | Code::NotController
            | Code::RebalanceInProgress
            | Code::KafkaStorageError
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
            | Code::PreferredLeaderNotAvailable
            | Code::WaitingForCoordinator
            | Code::NoOffset
            | Code::Retry
            | Code::PurgeQueue
            | Code::PurgeInflight
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_map_to_faults_by_what_helps() {
        let check = |code, transient: bool, text: &str| {
            let fault = KafkaFault::from_code(code, "host:9092", Duration::from_millis(20));
            assert_eq!(fault.is_transient(), transient, "{fault:?}");
            assert!(fault.to_string().contains(text), "{fault}");
            assert!(!fault.hint().is_empty());
        };
        check(Code::AllBrokersDown, true, "host:9092");
        check(Code::DestroyBroker, true, "host:9092");
        check(Code::OperationTimedOut, true, "20 ms");
        check(Code::SaslAuthenticationFailed, false, "authentication");
        check(Code::TopicAuthorizationFailed, false, "not authorized");
        check(Code::UnknownTopicOrPartition, false, "unknown topic");
        check(Code::MessageSizeTooLarge, false, "too large");
        check(Code::NotCoordinator, true, "NotCoordinator");
        check(Code::FencedInstanceId, false, "instance");
        check(Code::PollExceeded, true, "max.poll.interval.ms");
        check(Code::InvalidTopic, false, "InvalidTopic");
    }

    #[test]
    fn admin_errors_keep_their_code() {
        let error = KafkaError::AdminOp(Code::UnknownTopicOrPartition);
        assert_eq!(KafkaFault::from_kafka(&error, "h:1", Duration::ZERO), KafkaFault::UnknownTopic);
    }
}
