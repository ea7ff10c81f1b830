//! How to reach a cluster: the bootstrap addresses and the client settings every part of the SDK starts from.
//!
//! **Invariant:** every client made here has capped buffers, so that a whole service idles in a few
//! megabytes: librdkafka alone would queue up to 1 GB to send and 64 MB to read. Settings given by
//! the caller win over ours.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use thiserror::Error;

use crate::security::{ConnectionFaults, Security};

/// Records a producer holds at most while they wait for the cluster, in kilobytes.
const PRODUCER_QUEUE_MAX_KBYTES: u32 = 16 * 1024;
/// The largest record a producer accepts, in bytes: a dead letter is its original plus context.
pub(crate) const RECORD_MAX_BYTES: u32 = 16 * 1024 * 1024;
/// Records a consumer fetches ahead of its handler, in kilobytes.
const CONSUMER_QUEUE_MAX_KBYTES: u32 = 2 * 1024;
/// Records a consumer fetches ahead of its handler for each partition, in number.
const CONSUMER_QUEUE_MIN_RECORDS: u32 = 4_000;
/// Bytes asked for from one partition in one fetch. A single larger record still arrives.
const FETCH_PARTITION_MAX_BYTES: u32 = 512 * 1024;
/// Bytes asked for in one fetch from one broker.
const FETCH_MAX_BYTES: u32 = 1024 * 1024;

/// Settings for members of the caller's groups. Clients that join none refuse some of them, or take them for their own.
const MEMBER_SETTINGS: [&str; 8] = [
    "group.instance.id",
    "group.protocol",
    "group.protocol.type",
    "group.remote.assignor",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
    "partition.assignment.strategy",
    "session.timeout.ms",
];

/// A Kafka cluster and how to talk to it. Cheap to clone; opens no connection by itself.
///
/// ```
/// use tidings::Cluster;
///
/// let cluster = Cluster::new("localhost:9092")
///     .client_id("order-service")
///     .set("socket.timeout.ms", "10000");
/// assert_eq!(cluster.bootstrap(), "localhost:9092");
/// ```
#[derive(Clone)]
pub struct Cluster {
    bootstrap: String,
    client_id: String,
    security: Security,
    settings: BTreeMap<String, String>,
}

/// Why a client could not be made at all. Not being connected is no such reason: clients connect lazily.
///
/// ```
/// use tidings::{Cluster, ClusterError, Producer, ProducerOptions};
///
/// let cluster = Cluster::new("localhost:9092").set("compresion.codec", "lz4");
/// match Producer::new(&cluster, ProducerOptions::default()) {
///     Err(ClusterError::Setting { key, reason, .. }) => println!("{key}: {reason}"),
///     other => panic!("the name is wrong, and yet: {other:?}"),
/// }
/// ```
#[derive(Debug, Clone, Error)]
pub enum ClusterError {
    /// The bootstrap list is empty.
    #[error("no bootstrap address given")]
    NoBootstrap,
    /// A client setting is unknown or has an unusable value.
    #[error("client setting {key}={value}: {reason}")]
    Setting {
        /// Name of the setting.
        key: String,
        /// The value given; hidden for secrets.
        value: String,
        /// librdkafka's words.
        reason: String,
    },
    /// librdkafka refused the combination of settings.
    #[error("cannot create a Kafka client: {reason}")]
    Create {
        /// librdkafka's words.
        reason: String,
    },
}

impl Cluster {
    /// A cluster by its bootstrap list, `host:port` separated by commas.
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            client_id: "tidings".into(),
            security: Security::plaintext(),
            settings: BTreeMap::new(),
        }
    }

    /// The name under which the cluster's logs and quotas know this client.
    pub fn client_id(mut self, client_id: impl Into<String>) -> Self {
        self.client_id = client_id.into();
        self
    }

    /// What protects the connections of every client of this cluster, and how they log in.
    ///
    /// ```
    /// use tidings::{Cluster, Security};
    ///
    /// let cluster = Cluster::new("kafka-1:9093").security(Security::tls().ca_file("/etc/kafka/ca.pem"));
    /// ```
    pub fn security(mut self, security: Security) -> Self {
        self.security = security;
        self
    }

    /// Sets any librdkafka setting for every client of this cluster (timeouts, buffers); it wins over all others.
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(key.into(), value.into());
        self
    }

    /// The same cluster by another bootstrap list.
    pub(crate) fn at(mut self, bootstrap: &str) -> Self {
        self.bootstrap = bootstrap.to_string();
        self
    }

    /// The bootstrap list as given.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Where a client of this cluster keeps what it was told when it connected.
    pub(crate) fn connection_faults(&self) -> ConnectionFaults {
        let is_by_hand = self.settings.contains_key("security.protocol");
        ConnectionFaults::new(&self.bootstrap, (!is_by_hand).then(|| self.security.clone()))
    }

    fn base_config(&self) -> Result<ClientConfig, ClusterError> {
        if self.bootstrap.trim().is_empty() {
            return Err(ClusterError::NoBootstrap);
        }
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Warning);
        config.set("bootstrap.servers", &self.bootstrap);
        config.set("client.id", &self.client_id);
        // A broker that restarts is back within a second; ten seconds of backoff would hide that.
        config.set("reconnect.backoff.ms", "50");
        config.set("reconnect.backoff.max.ms", "1000");
        config.set("socket.keepalive.enable", "true");
        config.set("log.connection.close", "false");
        for (key, value) in self.security.settings() {
            config.set(key, value);
        }
        Ok(config)
    }

    fn with_settings(&self, mut config: ClientConfig) -> ClientConfig {
        for (key, value) in &self.settings {
            config.set(key, value);
        }
        config
    }

    pub(crate) fn producer_config(&self) -> Result<ClientConfig, ClusterError> {
        let mut config = self.base_config()?;
        config.set("acks", "all");
        config.set("queue.buffering.max.kbytes", PRODUCER_QUEUE_MAX_KBYTES.to_string());
        config.set("message.max.bytes", RECORD_MAX_BYTES.to_string());
        // The partition of a key is the one that Kafka's Java clients choose.
        config.set("partitioner", "murmur2_random");
        config.set("retry.backoff.ms", "20");
        // A missing topic is told from a slow cluster before senders lose patience.
        config.set("topic.metadata.propagation.max.ms", "1000");
        Ok(self.with_settings(config))
    }

    pub(crate) fn consumer_config(&self, group: &str) -> Result<ClientConfig, ClusterError> {
        let mut config = self.base_config()?;
        config.set("group.id", group);
        config.set("enable.auto.commit", "false");
        config.set("enable.auto.offset.store", "false");
        config.set("allow.auto.create.topics", "false");
        // A topic's new partitions are written to as soon as producers hear of them; they must not lie unread for 5 minutes.
        config.set("topic.metadata.refresh.interval.ms", "10000");
        config.set("queued.max.messages.kbytes", CONSUMER_QUEUE_MAX_KBYTES.to_string());
        config.set("queued.min.messages", CONSUMER_QUEUE_MIN_RECORDS.to_string());
        config.set("fetch.message.max.bytes", FETCH_PARTITION_MAX_BYTES.to_string());
        config.set("fetch.max.bytes", FETCH_MAX_BYTES.to_string());
        // librdkafka raises fetch.max.bytes to this; records of other producers may still be larger.
        config.set("message.max.bytes", FETCH_MAX_BYTES.to_string());
        // A full queue is small here: look again soon, not after librdkafka's second.
        config.set("fetch.queue.backoff.ms", "10");
        config.set("fetch.error.backoff.ms", "100");
        Ok(self.with_settings(config))
    }

    /// A consumer of our own: one that joins no group, or none that the caller knows.
    pub(crate) fn reader_config(&self, group: &str) -> Result<ClientConfig, ClusterError> {
        Ok(without_member_settings(self.consumer_config(group)?))
    }

    /// A client that only asks: metadata, offsets, groups. It never creates topics by asking for them.
    pub(crate) fn query_config(&self) -> Result<ClientConfig, ClusterError> {
        let mut config = self.base_config()?;
        config.set("allow.auto.create.topics", "false");
        Ok(without_member_settings(self.with_settings(config)))
    }
}

fn without_member_settings(mut config: ClientConfig) -> ClientConfig {
    for name in MEMBER_SETTINGS {
        config.remove(name);
    }
    config
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings: BTreeMap<&str, &str> =
            self.settings.iter().map(|(key, value)| (key.as_str(), shown(key, value))).collect();
        f.debug_struct("Cluster")
            .field("bootstrap", &self.bootstrap)
            .field("client_id", &self.client_id)
            .field("security", &self.security)
            .field("settings", &settings)
            .finish()
    }
}

/// The value of a setting, or that it is a secret.
fn shown<'a>(key: &str, value: &'a str) -> &'a str {
    let is_secret = key.contains("password") || key.contains("secret") || key.contains("key.pem");
    if is_secret { "(hidden)" } else { value }
}

impl ClusterError {
    pub(crate) fn from_kafka(error: KafkaError) -> Self {
        match error {
            KafkaError::ClientConfig(_, reason, key, value) => {
                Self::Setting { value: shown(&key, &value).to_owned(), key, reason }
            }
            other => Self::Create { reason: other.to_string() },
        }
    }
}

/// Forwards librdkafka's log to `tracing`, and keeps its errors. Clients without callbacks of their own use it as context.
pub(crate) struct LogContext {
    pub(crate) faults: ConnectionFaults,
}

impl LogContext {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        Self { faults: cluster.connection_faults() }
    }
}

impl rdkafka::ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log_line(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.faults.hear(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for LogContext {}

pub(crate) fn log_line(level: RDKafkaLogLevel, fac: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => {
            // librdkafka calls every refused connection an error; callers report those as faults.
            tracing::info!(target: "tidings::kafka", fac, "{message}");
        }
        _ => tracing::debug!(target: "tidings::kafka", fac, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caller_settings_win_and_caps_hold() {
        let cluster = Cluster::new("a:1").set("queue.buffering.max.kbytes", "64");
        let config = cluster.producer_config().unwrap();
        assert_eq!(config.get("queue.buffering.max.kbytes"), Some("64"));
        assert_eq!(config.get("acks"), Some("all"));
        let config = cluster.consumer_config("g").unwrap();
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
        assert_eq!(config.get("queued.max.messages.kbytes"), Some("2048"));
    }

    #[test]
    fn what_is_meant_for_members_reaches_members_only() {
        let cluster = Cluster::new("a:1").set("max.poll.interval.ms", "500").set("fetch.wait.max.ms", "7");
        let (member, reader) = (cluster.consumer_config("g").unwrap(), cluster.reader_config("g").unwrap());
        assert_eq!(
            (member.get("max.poll.interval.ms"), reader.get("max.poll.interval.ms")),
            (Some("500"), None)
        );
        assert_eq!(reader.get("fetch.wait.max.ms"), Some("7"));
        // It is shorter than a session by default, which a member of a classic group must not be, and others need not care.
        assert!(cluster.query_config().unwrap().create_native_config().is_ok());
    }

    #[test]
    fn an_empty_bootstrap_is_refused() {
        assert!(matches!(Cluster::new(" ").query_config(), Err(ClusterError::NoBootstrap)));
    }

    #[test]
    fn bad_settings_are_named_and_secrets_hidden() {
        let made =
            Cluster::new("a:1").set("no.such.setting", "1").query_config().unwrap().create_native_config();
        let error = ClusterError::from_kafka(made.err().unwrap());
        assert!(error.to_string().starts_with("client setting no.such.setting=1"), "{error}");
        let made = Cluster::new("a:1")
            .set("sasl.passwordx", "hunter2")
            .query_config()
            .unwrap()
            .create_native_config();
        let error = ClusterError::from_kafka(made.err().unwrap());
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
