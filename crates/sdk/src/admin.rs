//! Topics and groups of a cluster: create, list, describe, delete.
//!
//! **Invariant:** asking never creates a topic. Every call blocks for at most about the timeout given at the start
//! (listing the lag of a group asks several times).

mod groups;
mod known;
mod topics;

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use thiserror::Error;

use crate::cluster::{Cluster, ClusterError, LogContext};
use crate::drop_later::DropLater;
use crate::error::KafkaFault;
use crate::native::Refusal;
use crate::outsider::{connect, fault_of};
pub use groups::{GroupDescription, GroupMember, GroupOffset, GroupSummary};
pub use topics::{TopicDescription, TopicPartitionInfo, TopicSpec};

/// Why an administrative call failed.
///
/// ```
/// use std::time::Duration;
/// use tidings::Cluster;
/// use tidings::admin::{Admin, AdminError};
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// let admin = Admin::new(&cluster, Duration::from_secs(10))?;
/// match admin.describe_topic("orders") {
///     Ok(topic) => println!("{} partitions", topic.partitions.len()),
///     Err(AdminError::UnknownTopic { topic }) => println!("{topic} is still to be created"),
///     Err(error) => println!("{error}; {}", error.hint().unwrap_or_default()),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Error)]
pub enum AdminError {
    /// The client could not be made.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The topic does not exist.
    #[error("topic {topic} does not exist")]
    UnknownTopic {
        /// The topic.
        topic: String,
    },
    /// The cluster keeps groups or transactions in the topic, and deletes it for nobody.
    #[error("topic {topic} is internal and cannot be deleted")]
    InternalTopic {
        /// The topic.
        topic: String,
    },
    /// The topic exists already.
    #[error("topic {topic} exists already")]
    TopicExists {
        /// The topic.
        topic: String,
    },
    /// The group does not exist.
    #[error("group {group} does not exist")]
    UnknownGroup {
        /// The group.
        group: String,
    },
    /// The group has members: a group can be deleted only when they have left.
    #[error("group {group} still has members")]
    GroupNotEmpty {
        /// The group.
        group: String,
    },
    /// The cluster refused it, and says why.
    #[error("cannot {operation}: {name}: {reason}")]
    Refused {
        /// What was tried, with its object.
        operation: String,
        /// Kafka's name of the code.
        name: String,
        /// The cluster's own words.
        reason: String,
    },
    /// The cluster failed or could not be reached, or refused it without its own words.
    #[error("cannot {operation}: {fault}")]
    Kafka {
        /// What was tried, with its object.
        operation: String,
        /// Why it failed.
        #[source]
        fault: KafkaFault,
    },
}

impl AdminError {
    /// What the operator can do, in one sentence; `None` if the message says it all.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Kafka { fault, .. } => Some(fault.hint()),
            Self::GroupNotEmpty { .. } => Some(
                "stop the group's members first; one that did not leave, as static members never do, goes when its session times out, \
                 45 s by default"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// Administers a cluster. Holds a connection, so make it when needed and drop it after.
///
/// ```
/// use std::time::Duration;
/// use tidings::Cluster;
/// use tidings::admin::{Admin, TopicSpec};
///
/// let cluster = Cluster::new("localhost:9092");
/// # let broker = tidings::testing::Broker::start()?;
/// # let cluster = broker.cluster();
/// let admin = Admin::new(&cluster, Duration::from_secs(10))?;
/// admin.ensure_topics(&[TopicSpec::new("orders", 3), TopicSpec::new("orders.dlq", 1)])?;
/// println!("cluster {}", admin.cluster_id()?);
/// for topic in admin.list_topics()? {
///     println!("{} has {} partitions", topic.name, topic.partitions.len());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Admin {
    cluster: Cluster,
    client: DropLater<AdminClient<LogContext>>,
    query: BaseConsumer<LogContext>,
    timeout: Duration,
}

impl Admin {
    /// Makes the client; connects with the first call. Each request may take `timeout`.
    pub fn new(cluster: &Cluster, timeout: Duration) -> Result<Self, ClusterError> {
        let config = cluster.query_config()?;
        let context = || LogContext::of(cluster);
        let client = DropLater::new(config.create_with_context(context()).map_err(ClusterError::from_kafka)?);
        let query = config.create_with_context(context()).map_err(ClusterError::from_kafka)?;
        Ok(Self { cluster: cluster.clone(), client, query, timeout })
    }

    /// Connects, unless it is connected already. Whoever refuses the client is told of soon, and nobody who answers after the
    /// timeout.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use tidings::admin::Admin;
    /// use tidings::{Cluster, KafkaFault, Mechanism, Security};
    ///
    /// let security = Security::tls().sasl(Mechanism::ScramSha512, "orders", "not the password");
    /// let admin = Admin::new(&Cluster::new("kafka-1:9093").security(security), Duration::from_secs(10))?;
    /// match admin.connect() {
    ///     Err(fault @ KafkaFault::Authentication { .. }) => eprintln!("{fault}; {}", fault.hint()),
    ///     other => other?,
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn connect(&self) -> Result<(), KafkaFault> {
        connect(&self.query, self.timeout)
            .map_err(|error| fault_of(&self.query, &error, self.cluster.bootstrap(), self.timeout))
    }

    /// The client for what changes something. It tells no errors of its connections: the other one does.
    fn client(&self, operation: &str) -> Result<&AdminClient<LogContext>, AdminError> {
        self.connect().map_err(self.not_connected(operation))?;
        Ok(&self.client)
    }

    fn not_connected(&self, operation: &str) -> impl FnOnce(KafkaFault) -> AdminError + use<> {
        let operation = operation.to_string();
        move |fault| AdminError::Kafka { operation, fault }
    }

    /// The identity of the cluster, or why it does not answer.
    pub fn cluster_id(&self) -> Result<String, AdminError> {
        self.connect().map_err(self.not_connected("ask for the cluster id"))?;
        let unreachable = || KafkaFault::Unreachable { bootstrap: self.cluster.bootstrap().to_string() };
        self.query.client().fetch_cluster_id(self.timeout).ok_or_else(|| AdminError::Kafka {
            operation: "ask for the cluster id".into(),
            fault: unreachable(),
        })
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(self.timeout)).operation_timeout(Some(self.timeout))
    }

    fn failed(&self, operation: &str) -> impl FnOnce(KafkaError) -> AdminError + use<'_> {
        let operation = operation.to_string();
        move |error| AdminError::Kafka {
            operation,
            fault: fault_of(&self.query, &error, self.cluster.bootstrap(), self.timeout),
        }
    }

    /// With the cluster's own words, where it has some.
    fn not_created(&self, operation: String, refusal: Refusal) -> AdminError {
        let Refusal { code, reason } = refusal;
        // librdkafka's own about the code stand in where the cluster has none.
        let has_words = !code.to_string().contains(&reason);
        match self.refused(operation, code) {
            AdminError::Kafka { operation, fault: KafkaFault::Kafka { name, transient, .. } }
                if has_words =>
            {
                if transient {
                    return AdminError::Kafka {
                        operation,
                        fault: KafkaFault::Kafka { name, reason, transient },
                    };
                }
                AdminError::Refused { operation, name, reason }
            }
            other => other,
        }
    }

    fn refused(&self, operation: String, code: RDKafkaErrorCode) -> AdminError {
        AdminError::Kafka {
            operation,
            fault: KafkaFault::from_code(code, self.cluster.bootstrap(), self.timeout),
        }
    }
}
