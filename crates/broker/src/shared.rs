//! What every connection sees of the broker.
//!
//! Owns nothing by itself: it ties together the parts, made once at start, and the few values that are read for every
//! request.

use std::sync::Arc;

use tidings_log::DataDir;
use tidings_model::ErrorCode;

use crate::clock::Clock;
use crate::connection::RequestBudget;
use crate::fetch_sessions::FetchSessions;
use crate::group_configs::GroupConfigs;
use crate::groups::Groups;
use crate::handlers::Client;
use crate::metrics::Metrics;
use crate::producer_ids::ProducerIds;
use crate::rate_limit::RateLimit;
use crate::settings::BrokerSettings;
use crate::topics::TopicRegistry;
use crate::topics::image::Topic;
use crate::topics::names::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
use crate::topics::plan::NewTopic;
use crate::transactions::Transactions;

/// The parts of a running broker.
pub(crate) struct Shared {
    pub(crate) settings: Arc<BrokerSettings>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) node_id: i32,
    pub(crate) cluster_id: String,
    /// Host and port to tell clients; none for the address at which they reached us.
    pub(crate) advertised: Option<(String, u16)>,
    pub(crate) socket_request_max_bytes: usize,
    /// `queued.max.request.bytes`, shared by all connections.
    pub(crate) request_budget: Arc<RequestBudget>,
    pub(crate) fetch_max_bytes: usize,
    pub(crate) fetch_sessions: FetchSessions,
    pub(crate) sendfile_min_bytes: usize,
    /// Whether a connection's thread may wait for the disk: others must be there to go on meanwhile.
    pub(crate) may_commit_here: bool,
    pub(crate) topics: TopicRegistry,
    pub(crate) groups: Arc<Groups>,
    pub(crate) group_configs: Arc<GroupConfigs>,
    pub(crate) transactions: Arc<Transactions>,
    pub(crate) producer_ids: ProducerIds,
    /// For what the storage as a whole has to tell.
    pub(crate) data_dir: Arc<DataDir>,
    pub(crate) metrics: Metrics,
    /// Limits the log lines about appends that the disk refused.
    pub(crate) storage_errors: RateLimit,
}

impl Shared {
    /// The host and port under which this client finds the broker. Who is on the same machine needs no name for it.
    pub(crate) fn advertised(&self, client: &Client) -> (String, i32) {
        match &self.advertised {
            Some((host, port)) if !client.local.ip().is_loopback() => (host.clone(), i32::from(*port)),
            _ => (client.local.ip().to_string(), i32::from(client.local.port())),
        }
    }

    /// Makes sure that groups can be coordinated: creates the offsets topic the first time.
    pub(crate) async fn groups_ready(&self) -> Result<(), ErrorCode> {
        if self.groups.is_loaded() {
            return Ok(());
        }
        let topic = self.internal_topic(OFFSETS_TOPIC).await?;
        self.groups.load(&topic.partitions).map_err(|error| {
            tracing::error!(%error, "cannot load groups");
            ErrorCode::CoordinatorNotAvailable
        })
    }

    /// Makes sure that transactions can be coordinated: creates their topic the first time.
    pub(crate) async fn transactions_ready(&self) -> Result<(), ErrorCode> {
        if self.transactions.is_loaded() {
            return Ok(());
        }
        let topic = self.internal_topic(TRANSACTIONS_TOPIC).await?;
        self.transactions.load(&topic.partitions).map_err(|error| {
            tracing::error!(%error, "cannot load transactions");
            ErrorCode::CoordinatorNotAvailable
        })
    }

    async fn internal_topic(&self, name: &str) -> Result<Arc<Topic>, ErrorCode> {
        if self.topics.by_name(name).is_none() {
            let created = self.topics.create(vec![NewTopic::with_defaults(name)], false).await;
            for error in created.into_iter().filter_map(Result::err) {
                // Somebody else may have been faster; anything else shows below.
                tracing::debug!(%error, "create {name}");
            }
        }
        self.topics.by_name(name).ok_or(ErrorCode::CoordinatorNotAvailable)
    }
}
