//! The broker as a whole: start, state, stop.
//!
//! Owns the order of the two ends. Start: settings are checked, the port is taken, the data directory is locked and
//! recovered, topics and groups are rebuilt from their logs, and only then is the first connection accepted. Stop: no new
//! connections, those there are finish what they are doing, the data directory is closed cleanly. Dropping the handle
//! instead is like a crash: nothing acknowledged is lost.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prometheus_client::registry::Registry;
use thiserror::Error;
use tidings_log::{
    CloseError, DataDir, DataDirOptions, Disk, Durability, LateStart, OpenError, RealDisk, RecoverError,
    RecoveryReport, SnapshotError, SnapshotFile, StorageState,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::connection::RequestBudget;
use crate::fetch_sessions::FetchSessions;
use crate::flushes;
use crate::group_configs::GroupConfigs;
use crate::groups::Groups;
use crate::housekeeping;
use crate::jobs::Jobs;
use crate::listener;
use crate::metadata_log::MetadataLog;
use crate::metrics::Metrics;
use crate::producer_ids::ProducerIds;
use crate::rate_limit::RateLimit;
use crate::replay::ReplayLogError;
use crate::settings::BrokerSettings;
use crate::shared::Shared;
use crate::topics::names::{OFFSETS_TOPIC, TRANSACTIONS_TOPIC};
use crate::topics::open::OpenTopicsError;
use crate::topics::{self, TopicRegistry};
use crate::transactions::Transactions;

/// What a broker is started with.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether to listen beyond loopback although nobody is authenticated.
    pub insecure: bool,
    /// The host and port that clients are told; none for the address at which they reached the broker.
    pub advertised: Option<(String, u16)>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Kafka's settings.
    pub settings: BrokerSettings,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Why a broker did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Nobody is authenticated yet, so nobody else's machine may reach the port.
    #[error(
        "refusing to listen on {listen}: it can be reached from other machines and clients are not authenticated"
    )]
    NotLoopback {
        /// The address asked for.
        listen: SocketAddr,
    },
    /// The port could not be taken.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The data directory could not be recovered.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The topics could not be opened.
    #[error(transparent)]
    Topics(#[from] OpenTopicsError),
    /// The groups could not be rebuilt.
    #[error("cannot rebuild groups: {0}")]
    Groups(#[source] ReplayLogError),
    /// The transactions could not be rebuilt.
    #[error("cannot rebuild transactions: {0}")]
    Transactions(#[source] ReplayLogError),
    /// The runtime ended while the broker was starting.
    #[error("the runtime ended during the start")]
    RuntimeEnded,
}

impl StartError {
    /// Whether the data directory is another broker's at present.
    pub fn is_in_use(&self) -> bool {
        matches!(self, Self::Open(OpenError::Locked { .. }))
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            StartError::NotLoopback { .. } => Some(
                "listen on 127.0.0.1, or pass --insecure if everybody who can reach the port may use it"
                    .to_owned(),
            ),
            StartError::Recover(error) => Some(error.hint()),
            StartError::Topics(OpenTopicsError::Replay(error))
            | StartError::Groups(error)
            | StartError::Transactions(error) => {
                let check = |log: String| {
                    format!("`tidings log check {log}`, with the broker's --data-dir, shows what can be done")
                };
                error.damaged_log().map(check)
            }
            _ => None,
        }
    }
}

/// A broker. [`Broker::start`] gives the handle that it lives by.
#[derive(Debug)]
pub struct Broker;

/// A running broker. Dropping it ends the broker as a crash would; [`BrokerHandle::shutdown`] ends it cleanly.
pub struct BrokerHandle {
    local_addr: SocketAddr,
    shared: Arc<Shared>,
    data_dir: Arc<DataDir>,
    recovery: RecoveryReport,
    stopping: watch::Sender<bool>,
    listener: JoinHandle<()>,
    jobs: Jobs,
}

impl Broker {
    /// Starts a broker on the caller's runtime. On return it accepts connections.
    pub async fn start(options: BrokerOptions) -> Result<BrokerHandle, StartError> {
        Broker::start_on(Arc::new(RealDisk), options).await
    }

    /// Starts a broker whose files are on this disk: simulations lose power and break it.
    pub async fn start_on(disk: Arc<dyn Disk>, options: BrokerOptions) -> Result<BrokerHandle, StartError> {
        let listen = options.listen;
        if !listen.ip().is_loopback() && !options.insecure {
            return Err(StartError::NotLoopback { listen });
        }
        let refused = |source| StartError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let local_addr = listener.local_addr().map_err(refused)?;
        let opening = options.clone();
        let opened = tokio::task::spawn_blocking(move || open(disk, &opening)).await;
        let Opened {
            data_dir,
            recovery,
            topics,
            producer_ids,
            groups,
            group_configs,
            transactions,
            settings,
        } = opened.map_err(|_| StartError::RuntimeEnded)??;
        let clock = options.clock;
        let shared = Arc::new(Shared {
            node_id: settings.int("node.id"),
            cluster_id: data_dir.cluster_id().to_owned(),
            advertised: options.advertised,
            socket_request_max_bytes: usize_of(&settings, "socket.request.max.bytes"),
            request_budget: Arc::new(RequestBudget::new(settings.long("queued.max.request.bytes"))),
            fetch_max_bytes: usize_of(&settings, "fetch.max.bytes"),
            fetch_sessions: FetchSessions::new(usize_of(
                &settings,
                "max.incremental.fetch.session.cache.slots",
            )),
            sendfile_min_bytes: usize_of(&settings, "socket.sendfile.min.bytes"),
            may_commit_here: tokio::runtime::Handle::current().metrics().num_workers() > 1,
            settings,
            clock,
            topics,
            groups,
            group_configs,
            transactions,
            producer_ids,
            data_dir: data_dir.clone(),
            metrics: Metrics::new(),
            storage_errors: RateLimit::new(std::time::Duration::from_secs(5)),
        });
        let (stopping, stopped) = watch::channel(false);
        let listener = tokio::spawn(listener::run(listener, shared.clone(), stopped));
        let jobs = start_jobs(&shared);
        Ok(BrokerHandle { local_addr, shared, data_dir, recovery, stopping, listener, jobs })
    }
}

fn start_jobs(shared: &Shared) -> Jobs {
    let mut jobs = Jobs::default();
    let (groups, transactions) = (shared.groups.clone(), shared.transactions.clone());
    let (data_dir, clock) = (&shared.data_dir, &shared.clock);
    jobs.start("the timers of groups", async move { groups.run_timers().await });
    jobs.start("transactions", transactions.run());
    jobs.start(
        "retention and compaction",
        housekeeping::run(data_dir.clone(), shared.settings.clone(), clock.clone()),
    );
    jobs.start("looks at the free space", housekeeping::watch_space(data_dir.clone(), clock.clone()));
    if durability(&shared.settings) == Durability::Process {
        jobs.start("flushes by time", flushes::run(data_dir.clone(), clock.clone()));
    }
    jobs
}

struct Opened {
    data_dir: Arc<DataDir>,
    recovery: RecoveryReport,
    topics: TopicRegistry,
    producer_ids: ProducerIds,
    groups: Arc<Groups>,
    group_configs: Arc<GroupConfigs>,
    transactions: Arc<Transactions>,
    settings: Arc<BrokerSettings>,
}

fn usize_of(settings: &BrokerSettings, name: &str) -> usize {
    usize::try_from(settings.int(name)).unwrap_or(usize::MAX)
}

fn durability(settings: &BrokerSettings) -> Durability {
    if settings.value("durability") == "process" { Durability::Process } else { Durability::Power }
}

/// Opens and recovers the data directory and rebuilds what its logs tell. Blocks.
fn open(disk: Arc<dyn Disk>, options: &BrokerOptions) -> Result<Opened, StartError> {
    let settings = Arc::new(options.settings.clone());
    let node_id = settings.int("node.id");
    let durability = durability(&settings);
    // -1 leaves it to the log, which takes a part of the disk.
    let min_free_bytes = u64::try_from(settings.long("log.min.free.bytes")).ok();
    let cleaner_key_map_bytes =
        usize::try_from(settings.long("log.cleaner.dedupe.buffer.size")).unwrap_or(usize::MAX);
    let data_dir_options = DataDirOptions {
        durability,
        node_id,
        min_free_bytes,
        cleaner_key_map_bytes,
        ..DataDirOptions::default()
    };
    let unrecovered = DataDir::open(disk, options.data_dir.clone(), data_dir_options)?;
    let (data_dir, recovery) = unrecovered.recover()?;
    report(&recovery);
    let opened = topics::open::open(&data_dir, &settings)?;
    let metadata = MetadataLog::new(opened.metadata_log, options.clock.clone());
    let producer_ids = ProducerIds::new(metadata.clone(), node_id, opened.next_producer_id);
    let group_configs = Arc::new(GroupConfigs::new(opened.group_configs, metadata.clone(), settings.clone()));
    let topics = TopicRegistry::new(opened.image, data_dir.clone(), metadata, settings.clone(), node_id);
    let groups =
        Groups::new(&settings, Arc::new(topics.clone()), group_configs.clone(), options.clock.clone());
    let groups = Arc::new(groups);
    if let Some(topic) = topics.by_name(OFFSETS_TOPIC) {
        groups.load(&topic.partitions).map_err(StartError::Groups)?;
        groups.forget_missing_topics();
    }
    let transactions =
        Arc::new(Transactions::new(&settings, options.clock.clone(), topics.clone(), groups.clone()));
    if let Some(topic) = topics.by_name(TRANSACTIONS_TOPIC) {
        transactions.load(&topic.partitions).map_err(StartError::Transactions)?;
    }
    transactions.abort_orphans(&data_dir.logs());
    Ok(Opened { data_dir, recovery, topics, producer_ids, groups, group_configs, transactions, settings })
}

/// Tells what recovery had to do; nothing after a clean end.
fn report(recovery: &RecoveryReport) {
    for cut in &recovery.cuts {
        let (file, kept) = (cut.file.display(), cut.kept.as_ref().map(|path| path.display().to_string()));
        let (position, bytes) = (cut.position, cut.bytes);
        tracing::warn!(partition = %cut.topic_partition, %file, position, bytes, ?kept, "cut a torn tail");
    }
    for LateStart { topic_partition, recorded, offset } in &recovery.late_starts {
        tracing::warn!(
            partition = %topic_partition, recorded, offset,
            "segments are missing at the beginning of the log, by the record of where it begins; restore its folder from a \
             backup, unless retention has removed them on a full disk"
        );
    }
    if !recovery.clean && recovery.logs_count > 0 {
        let (logs, bytes) = (recovery.logs_count, recovery.checked_bytes);
        tracing::info!(logs, checked_bytes = bytes, elapsed = ?recovery.elapsed, "recovered after an unclean end");
    }
}

impl BrokerHandle {
    /// The address listened on, with the port that was taken.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What recovery found and did at start.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// Registers the broker's metrics.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry, &self.shared);
    }

    /// Whether reads and writes are served; the error says why not.
    pub fn is_ready(&self) -> Result<(), String> {
        let ended = if self.listener.is_finished() { Some("the listener") } else { self.jobs.ended() };
        match (self.data_dir.storage_state(), ended) {
            (StorageState::Failed { why }, _) => Err(format!("writes have stopped until a restart: {why}")),
            (_, Some(job)) => Err(format!("a part of the broker has ended until a restart: {job}")),
            (StorageState::ReadOnly, None) => Err(format!(
                "the file system of {} takes no writes any more: see the system's log",
                self.data_dir.path().display()
            )),
            (StorageState::Healthy, None) => Ok(()),
            (StorageState::LowSpace(low), None) => Err(format!(
                "produces are refused: {} bytes are free on the disk, less than log.min.free.bytes = {}",
                low.available_bytes, low.min_free_bytes
            )),
        }
    }

    /// Bytes that must stay free on the disk for produces to be taken.
    pub fn min_free_bytes(&self) -> u64 {
        self.data_dir.min_free_bytes()
    }

    /// A snapshot of all logs as of one instant, as [`DataDir::snapshot`] makes it. Blocks.
    pub fn snapshot<Q>(
        &self,
        folder: &Path,
        quiet: impl FnOnce() -> Q,
    ) -> Result<Vec<SnapshotFile>, SnapshotError> {
        self.data_dir.snapshot(folder, quiet)
    }

    /// Stops: connections finish what they are doing, then the data directory is closed, so that the next start has
    /// nothing to recover.
    pub async fn shutdown(mut self) -> Result<(), CloseError> {
        let _ = self.stopping.send(true);
        let _ = (&mut self.listener).await;
        self.jobs.end().await;
        let data_dir = self.data_dir.clone();
        let closed = tokio::task::spawn_blocking(move || data_dir.close()).await;
        // Only a runtime that is going away itself leaves the directory as a crash would.
        closed.unwrap_or(Ok(()))
    }

    /// Ends the broker as a crash of the process would, but for what the system still holds in its cache: returns when
    /// the data directory can be opened again.
    pub async fn crash(mut self) {
        self.listener.abort();
        let _ = (&mut self.listener).await;
        self.jobs.end().await;
    }
}

impl Drop for BrokerHandle {
    fn drop(&mut self) {
        self.listener.abort();
    }
}
