//! The parts put together: broker, activity stream, HTTP server.
//!
//! Owns the order in which they start and stop. Start: the HTTP port is taken first, so that a mistake there costs nothing;
//! then the broker, then what uses it; HTTP answers last. Stop: HTTP first, the broker last, so that nobody loses what
//! they still need. No part knows of another: each hands over its routes, its metrics and its health.

mod broker;
mod runtime;
pub mod snapshot;
mod space;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use prometheus_client::registry::Registry;
use tidings::breaker::BreakerOptions;
use tidings::consumer::ConsumerMetrics;
use tidings::{Cluster, ProducerMetrics};
use tidings_activity::{ActivityMetrics, ActivityOptions, ActivityService, Retention, Store, StoreOptions};
use tidings_broker::BrokerHandle;
use tidings_console::{HealthCheck, Limits, Server, ServerHandle, ServerOptions};

pub use broker::{check_settings, start_broker, stop_broker};
pub use runtime::{LogFilter, block_on, log_to_stderr};

use crate::address::reachable;
use crate::config::Config;
use crate::control::Control;
use crate::ready::Ready;

/// The store's file within the data directory.
pub const STORE_FILE: &str = "activities.db";
/// The spool's file within the data directory.
const SPOOL_FILE: &str = "activities.spool";

/// How long a start waits for the topics before it says ready all the same.
const SETTLE_PATIENCE: Duration = Duration::from_secs(2);
const SETTLE_POLL: Duration = Duration::from_millis(1);

/// How long requests under way get to finish at a shutdown.
const HTTP_PATIENCE: Duration = Duration::from_millis(1000);
/// How long the writer gets to finish its batch, commit and leave its group.
const WRITER_PATIENCE: Duration = Duration::from_millis(2000);

/// A running platform.
pub struct Platform {
    broker: Option<Arc<BrokerHandle>>,
    activity: ActivityService,
    http: ServerHandle,
    cluster: Cluster,
    control: Option<Control>,
}

impl Platform {
    /// Starts everything; returns when the Kafka port and HTTP answer.
    pub async fn start(config: &Config) -> anyhow::Result<Platform> {
        let server = Server::bind(config.http).await?;
        let broker = match config.bootstrap {
            Some(_) => None,
            None => Some(Arc::new(start_broker(config).await?)),
        };
        let bootstrap = match (&config.bootstrap, &broker) {
            (Some(bootstrap), _) => bootstrap.clone(),
            (None, Some(broker)) => reachable(broker.local_addr()).to_string(),
            (None, None) => anyhow::bail!("neither a broker nor a cluster to use"),
        };
        let cluster = Cluster::new(bootstrap).client_id("tidings").security(config.cluster.security()?);
        let mut registry = Registry::default();
        let activity = start_activity(config, &cluster, &mut registry).await?;
        let mut checks = vec![HealthCheck::new("activity", activity.readiness())];
        if let Some(broker) = &broker {
            broker.register_metrics(&mut registry);
            let broker = Arc::downgrade(broker);
            checks.push(HealthCheck::new("broker", move || match broker.upgrade() {
                Some(broker) => broker.is_ready(),
                None => Err("the broker is stopped".to_owned()),
            }));
        }
        tidings_console::metrics::register_process_metrics(&mut registry);
        space::register_space(&mut registry, config.data_dir.clone());
        let router = activity.router().merge(tidings_console::dlq::router(cluster.clone()));
        let host_names = config.host_names.clone();
        let limits = Limits::default();
        let http = server.serve(ServerOptions { router, registry, checks, host_names, limits });
        tracing::info!(address = %http.local_addr(), "http is up");
        if broker.is_some() {
            settle(&activity).await;
        }
        let take = snapshot::of_platform(&config.data_dir, broker.as_ref(), activity.copier());
        let control = Control::start(&config.data_dir, take);
        Ok(Platform { broker, activity, http, cluster, control })
    }

    /// Where everything listens.
    pub fn ready(&self) -> Ready {
        let kafka = self.broker.as_ref().map(|broker| broker.local_addr());
        Ready::new(kafka, Some(self.http.local_addr()))
    }

    /// Where HTTP can be reached from this machine.
    pub fn http_address(&self) -> SocketAddr {
        reachable(self.http.local_addr())
    }

    /// The cluster in use.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The store of activities.
    pub fn store(&self) -> Arc<dyn Store> {
        self.activity.store()
    }

    /// Takes over what can change while it runs.
    pub fn apply(&self, config: &Config) {
        self.activity.set_retention(retention(config));
    }

    /// What the activity stream has counted.
    pub fn activity_metrics(&self) -> &ActivityMetrics {
        self.activity.metrics()
    }

    /// Stops everything, in the reverse order of the start.
    pub async fn shutdown(self) {
        let Platform { broker, activity, http, cluster: _, control } = self;
        drop(control);
        activity.end_live();
        http.shutdown(HTTP_PATIENCE).await;
        let stopped = tokio::task::spawn_blocking(move || activity.stop(WRITER_PATIENCE)).await;
        match stopped {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error, "the activity writer did not stop in time"),
            Err(error) => tracing::error!(%error, "stopping the activity writer panicked"),
        }
        if let Some(broker) = broker {
            match Arc::try_unwrap(broker) {
                Ok(broker) => stop_broker(broker).await,
                Err(_) => tracing::warn!("the broker is still in use and ends with the process"),
            }
        }
    }
}

/// Waits for the topics: before they exist, a client that writes to them at once would have them created with other settings.
async fn settle(activity: &ActivityService) {
    let deadline = Instant::now() + SETTLE_PATIENCE;
    while !activity.has_topics() && Instant::now() < deadline {
        tokio::time::sleep(SETTLE_POLL).await;
    }
}

/// Opens the store and starts the service; topics and writer follow in the background.
async fn start_activity(
    config: &Config,
    cluster: &Cluster,
    registry: &mut Registry,
) -> anyhow::Result<ActivityService> {
    let (producer_metrics, consumer_metrics) = (ProducerMetrics::default(), ConsumerMetrics::default());
    producer_metrics.register(registry);
    consumer_metrics.register(registry);
    let foreign_cluster = config.bootstrap.is_some();
    if foreign_cluster {
        // The embedded broker counts every producer's records and the lag of every group itself.
        producer_metrics.register_produced(registry);
        consumer_metrics.register_lag(registry);
    }
    let mut options = ActivityOptions::new(cluster.clone(), store(config)?, &config.data_dir);
    options.partitions = config.activity.partitions;
    options.dlq_partitions = config.activity.dlq_partitions;
    options.topic.clone_from(&config.activity.topic);
    options.is_shared = foreign_cluster;
    options.retention = retention(config);
    options.ack_timeout = Duration::from_millis(config.activity.ack_timeout_ms);
    options.breaker = breaker(config);
    options.breaker.metrics.register(registry);
    options.store_breaker = breaker(config);
    let store_metrics = &options.store_breaker.metrics;
    store_metrics.register_as(registry, "tidings_activity_store_breaker", "the activity store");
    let spool = config.data_dir.join(SPOOL_FILE);
    // What one has left is taken out, also when none is wanted any more.
    if config.activity.spool_max_bytes > 0 || spool.exists() {
        options.spool = Some((spool, config.activity.spool_max_bytes));
    }
    options.producer_metrics = producer_metrics;
    options.consumer_metrics = consumer_metrics;
    let start = move || ActivityService::start(options);
    let service =
        tokio::task::spawn_blocking(start).await.context("starting the activity service panicked")??;
    service.register_metrics(registry);
    Ok(service)
}

fn breaker(config: &Config) -> BreakerOptions {
    BreakerOptions {
        failures: config.activity.breaker_failures,
        open_for: Duration::from_millis(config.activity.breaker_open_ms),
        ..BreakerOptions::default()
    }
}

fn retention(config: &Config) -> Retention {
    let kept = |days: u32| (days > 0).then(|| Duration::from_secs(u64::from(days) * 86_400));
    let activity = &config.activity;
    let tenants = activity.retention_days_per_tenant.iter();
    Retention {
        default: kept(activity.retention_days),
        tenants: tenants.map(|(tenant, days)| (tenant.clone(), kept(*days))).collect(),
    }
}

fn store(config: &Config) -> anyhow::Result<StoreOptions> {
    Ok(match config.activity.store.postgres()? {
        Some(postgres) => StoreOptions::Postgres(Box::new(postgres)),
        None => StoreOptions::Sqlite(config.data_dir.join(STORE_FILE)),
    })
}
