//! Settings: defaults, then `tidings.toml`, then `TIDINGS_*` in the environment, then the command line; the last one wins.
//!
//! Owns that order and every key's name. Invariants: a key nobody knows is an error that names the key and where it stands;
//! so is a value of the wrong type. Broker settings keep Kafka's names and stay text here: the broker itself judges them.

mod clients;
mod cluster;
mod layers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use figment::Figment;
use figment::providers::Serialized;
use serde::{Deserialize, Serialize};
use tidings_activity::postgres::PostgresOptions;
use tidings_activity::service::DEFAULT_TOPIC;

use crate::address;
use crate::args::{ServerArgs, UpArgs};
pub use clients::{ClientConfig, data_dir};
pub use cluster::ClusterConfig;
use layers::{BrokerFlags, EnvironmentLayer, FileLayer};

/// Read when it exists and no other file is named.
const DEFAULT_FILE: &str = "tidings.toml";
/// The most partitions that a broker, this one or Kafka's, makes at once.
const MAX_PARTITIONS: i32 = 10_000;

/// Everything `tidings up` and `tidings broker` can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of all data.
    pub data_dir: PathBuf,
    /// Where the broker listens.
    pub kafka: SocketAddr,
    /// The host and port that Kafka clients on other machines are told.
    pub advertised: Option<(String, u16)>,
    /// Where the HTTP API listens.
    pub http: SocketAddr,
    /// Names besides loopback by which HTTP is addressed; requests to other names are refused.
    pub host_names: Vec<String>,
    /// The cluster to serve instead of an own broker.
    pub bootstrap: Option<String>,
    /// How to log in there.
    pub cluster: ClusterConfig,
    /// Where to write the addresses when ready.
    pub ready_file: Option<PathBuf>,
    /// Whether addresses may be reached from other machines.
    pub insecure: bool,
    /// What is logged, as `info` or `warn,tidings_broker=debug`.
    pub log: String,
    /// Broker settings by Kafka's names, in no order, each with where it was set.
    pub broker: Vec<BrokerSetting>,
    /// Settings of the activity stream.
    pub activity: ActivityConfig,
}

/// One broker setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerSetting {
    /// Kafka's name of it.
    pub key: String,
    /// As written.
    pub value: String,
    /// Where it was set, for error messages.
    pub source: String,
}

/// Where activities are kept, as written: `sqlite`, or a URL that holds a password.
#[derive(Clone, Deserialize, Serialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct StoreSetting(String);

/// `[activity]` in the configuration file.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ActivityConfig {
    /// The topic of activities; its group, dead letters and retries are named after it.
    pub topic: String,
    /// Where activities are kept.
    pub store: StoreSetting,
    /// After how many days since it occurred an activity is deleted; 0 for never.
    pub retention_days: u32,
    /// The same for some tenants.
    pub retention_days_per_tenant: BTreeMap<String, u32>,
    /// Partitions of the topic `activities`, when it is created.
    pub partitions: i32,
    /// Partitions of the topic `activities.dlq`, when it is created.
    pub dlq_partitions: i32,
    /// How long a request waits for the cluster before its activities go to the fallback.
    pub ack_timeout_ms: u64,
    /// Failures in a row after which requests go to the fallback at once.
    pub breaker_failures: u32,
    /// How long they do so before one request tries the cluster again.
    pub breaker_open_ms: u64,
    /// How long the file may become that takes activities when neither the cluster nor the store does; 0 for no such file.
    pub spool_max_bytes: u64,
}

impl Default for ActivityConfig {
    fn default() -> Self {
        ActivityConfig {
            topic: DEFAULT_TOPIC.to_owned(),
            store: StoreSetting("sqlite".to_owned()),
            retention_days: 0,
            retention_days_per_tenant: BTreeMap::new(),
            partitions: 3,
            dlq_partitions: 1,
            ack_timeout_ms: 2000,
            breaker_failures: 5,
            breaker_open_ms: 30_000,
            spool_max_bytes: 0,
        }
    }
}

impl ActivityConfig {
    /// The same with the retention of another, which can change while the platform runs.
    fn with_retention_of(&self, other: &Self) -> Self {
        Self {
            retention_days: other.retention_days,
            retention_days_per_tenant: other.retention_days_per_tenant.clone(),
            ..self.clone()
        }
    }
}

impl std::fmt::Debug for StoreSetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0 == "sqlite" { "sqlite" } else { "postgres" })
    }
}

impl StoreSetting {
    /// The PostgreSQL database that is named, or `None` for SQLite.
    pub fn postgres(&self) -> anyhow::Result<Option<PostgresOptions>> {
        if self.0 == "sqlite" {
            return Ok(None);
        }
        if !["postgres://", "postgresql://"].iter().any(|scheme| self.0.starts_with(scheme)) {
            bail!("activity.store: expected sqlite or postgres://USER:PASSWORD@HOST:PORT/DATABASE");
        }
        self.0.parse().map(Some).context("activity.store")
    }
}

/// Kafka's rule for names, with room for what those of the other topics and of the group add.
fn check_topic(name: &str) -> anyhow::Result<()> {
    const MAX_CHARS: usize = 100;
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > MAX_CHARS || name == "." || name == ".." || !name.bytes().all(is_legal)
    {
        bail!(
            "activity.topic: {name:?} is no name for it: expected 1 to {MAX_CHARS} of the letters a to z, A to Z, digits, \
             dots, underscores and hyphens"
        );
    }
    Ok(())
}

/// The settings as they are written down.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    data_dir: PathBuf,
    kafka: String,
    advertised: Option<String>,
    http: String,
    host_names: Vec<String>,
    bootstrap: Option<String>,
    ready_file: Option<PathBuf>,
    durability: Option<String>,
    insecure: bool,
    log: String,
    cluster: ClusterConfig,
    broker: figment::value::Dict,
    activity: ActivityConfig,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            data_dir: PathBuf::from("./tidings-data"),
            kafka: "127.0.0.1:9092".to_owned(),
            advertised: None,
            http: "127.0.0.1:8080".to_owned(),
            host_names: Vec::new(),
            bootstrap: None,
            ready_file: None,
            durability: None,
            insecure: false,
            log: "info".to_owned(),
            cluster: ClusterConfig::default(),
            broker: figment::value::Dict::new(),
            activity: ActivityConfig::default(),
        }
    }
}

impl Config {
    /// The settings of `tidings up`.
    pub fn of_up(args: &UpArgs) -> anyhow::Result<Config> {
        Config::up(args, std::env::vars())
    }

    fn up(args: &UpArgs, environment: impl IntoIterator<Item = (String, String)>) -> anyhow::Result<Config> {
        let figment = with_flags(&args.server, args, environment)?;
        if let Some(file) = config_file(args.server.config.as_deref())? {
            check_one_broker(&figment, &file)?;
        }
        let config = Config::of(&figment)?;
        if config.bootstrap.is_none() && !config.cluster.is_default() {
            bail!(
                "cluster: the broker within the platform takes neither TLS nor a login: name the cluster that does in \
                 bootstrap, or take the settings of [cluster] out"
            );
        }
        config.cluster.security()?;
        Ok(config)
    }

    /// The settings of `tidings broker`.
    pub fn of_broker(args: &ServerArgs) -> anyhow::Result<Config> {
        Config::of(&with_flags(args, args, std::env::vars())?)
    }

    /// The settings of the demo: nothing but defaults and these, so that it does the same everywhere.
    pub fn of_demo(data_dir: &Path, kafka: &str, http: &str) -> anyhow::Result<Config> {
        let settings = Settings {
            data_dir: data_dir.to_owned(),
            kafka: kafka.to_owned(),
            http: http.to_owned(),
            log: std::env::var("TIDINGS_LOG").unwrap_or_else(|_| "warn".to_owned()),
            ..Settings::default()
        };
        Config::from_settings(settings, Vec::new())
    }

    /// The settings that differ in `new` and that only a start reads, by their names.
    pub fn needing_restart(&self, new: &Config) -> Vec<String> {
        let named = [
            ("data_dir", self.data_dir != new.data_dir),
            ("kafka", self.kafka != new.kafka),
            ("advertised", self.advertised != new.advertised),
            ("http", self.http != new.http),
            ("host_names", self.host_names != new.host_names),
            ("bootstrap", self.bootstrap != new.bootstrap),
            ("cluster", self.cluster != new.cluster),
            ("ready_file", self.ready_file != new.ready_file),
            ("insecure", self.insecure != new.insecure),
            ("activity", self.activity != new.activity.with_retention_of(&self.activity)),
        ];
        let mut names: Vec<String> =
            named.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).collect();
        let values = |config: &Config| -> BTreeMap<String, String> {
            config.broker.iter().map(|setting| (setting.key.clone(), setting.value.clone())).collect()
        };
        let (old, new) = (values(self), values(new));
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let differing = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
        names.extend(differing.map(|key| format!("broker.{key}")));
        names
    }

    fn of(figment: &Figment) -> anyhow::Result<Config> {
        let settings: Settings = figment.extract().map_err(|error| layers::one_line(&error))?;
        let broker = broker_settings(figment, &settings.broker)?;
        Config::from_settings(settings, broker)
    }

    fn from_settings(settings: Settings, mut broker: Vec<BrokerSetting>) -> anyhow::Result<Config> {
        let activity = settings.activity;
        let counts = [
            ("partitions", i64::from(activity.partitions)),
            ("dlq_partitions", i64::from(activity.dlq_partitions)),
            ("ack_timeout_ms", i64::try_from(activity.ack_timeout_ms).unwrap_or(i64::MAX)),
            ("breaker_failures", i64::from(activity.breaker_failures)),
        ];
        for (key, count) in counts {
            if count < 1 {
                bail!("activity.{key}: expected at least 1, found {count}");
            }
        }
        for (key, count) in [("partitions", activity.partitions), ("dlq_partitions", activity.dlq_partitions)]
        {
            if count > MAX_PARTITIONS {
                bail!("activity.{key}: expected at most {MAX_PARTITIONS}, found {count}");
            }
        }
        check_topic(&activity.topic)?;
        if settings.data_dir.is_file() {
            bail!("data_dir: expected a directory, found the file {}", settings.data_dir.display());
        }
        activity.store.postgres()?;
        if let Some(value) = settings.durability {
            let key = "durability".to_owned();
            broker.retain(|setting| setting.key != key);
            broker.push(BrokerSetting { key, value, source: String::new() });
        }
        Ok(Config {
            kafka: listen_address("kafka", &settings.kafka, settings.insecure)?,
            advertised: settings.advertised.as_deref().map(advertised_address).transpose()?,
            http: listen_address("http", &settings.http, settings.insecure)?,
            data_dir: settings.data_dir,
            host_names: settings.host_names.iter().map(|name| host_name(name)).collect::<Result<_, _>>()?,
            bootstrap: settings.bootstrap.as_deref().map(bootstrap_addresses).transpose()?,
            cluster: settings.cluster,
            ready_file: settings.ready_file,
            insecure: settings.insecure,
            log: settings.log,
            broker,
            activity,
        })
    }
}

/// Defaults, file, environment and command line.
fn with_flags(
    server: &ServerArgs,
    flags: &impl Serialize,
    environment: impl IntoIterator<Item = (String, String)>,
) -> anyhow::Result<Figment> {
    let layered = layered(server.config.as_deref(), environment)?;
    Ok(layered.merge(Serialized::defaults(flags)).merge(BrokerFlags(&server.set)))
}

/// Refuses a file that names a cluster and says what a broker of one's own is to do, as the command line does: one of them has no
/// effect. In different places both may stand: a container's environment has the broker's address, whoever names a cluster.
fn check_one_broker(figment: &Figment, file: &Path) -> anyhow::Result<()> {
    let file = file.display().to_string();
    let is_of_file = |value: &figment::value::Value| {
        figment.get_metadata(value.tag()).is_some_and(|metadata| layers::place(metadata) == file)
    };
    let stands_in_file = |key: &&str| match figment.find_value(key) {
        Ok(figment::value::Value::Dict(_, nested)) => nested.values().any(is_of_file),
        Ok(value) => is_of_file(&value),
        Err(_) => false,
    };
    if !stands_in_file(&"bootstrap") {
        return Ok(());
    }
    if let Some(key) = ["kafka", "durability", "broker"].iter().find(|key| stands_in_file(key)) {
        bail!(
            "{file}: {key} has no effect beside bootstrap, which names another broker: take one of the two out"
        );
    }
    Ok(())
}

/// Defaults, file and environment.
fn layered(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> anyhow::Result<Figment> {
    let mut figment = Figment::from(Serialized::defaults(Settings::default()));
    if let Some(file) = config_file(file)? {
        figment = figment.merge(FileLayer::read(&file)?);
    }
    Ok(figment.merge(EnvironmentLayer::of(environment)))
}

/// The file named, or the default one if it is there.
fn config_file(named: Option<&Path>) -> anyhow::Result<Option<PathBuf>> {
    if let Some(named) = named {
        if !named.is_file() {
            bail!("no configuration file at {}", named.display());
        }
        return Ok(Some(named.to_owned()));
    }
    let default = PathBuf::from(DEFAULT_FILE);
    Ok(default.is_file().then_some(default))
}

/// Reads an address to listen at, and refuses one that others can reach unless that was asked for.
fn listen_address(key: &str, text: &str, insecure: bool) -> anyhow::Result<SocketAddr> {
    let text = text.strip_prefix("localhost:").map_or(text.to_owned(), |port| format!("127.0.0.1:{port}"));
    let address: SocketAddr = text
        .parse()
        .with_context(|| format!("{key}: expected IP:PORT such as 127.0.0.1:9092, found {text:?}"))?;
    if !address.ip().is_loopback() && !insecure {
        bail!(
            "{key}: {address} can be reached from other machines, and nothing asks who is there: add --insecure to allow it"
        );
    }
    Ok(address)
}

/// Checks where a cluster is, as the command line does.
fn bootstrap_addresses(text: &str) -> anyhow::Result<String> {
    address::of_bootstrap(text).map_err(|what| anyhow!("bootstrap: {what}"))
}

/// Checks a name by which HTTP is addressed: with more than a host in it, it would never be the host of a request.
fn host_name(text: &str) -> anyhow::Result<String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if bare.parse::<IpAddr>().is_err() && (text.is_empty() || !text.bytes().all(is_legal)) {
        bail!(
            "host_names: expected a host name or an IP address alone, such as tidings.lan or 10.0.0.5, found {text:?}"
        );
    }
    Ok(text.to_owned())
}

/// Reads a host and a port that others connect to; the host is their business to resolve.
fn advertised_address(text: &str) -> anyhow::Result<(String, u16)> {
    let expected = || format!("advertised: expected HOST:PORT such as tidings.lan:9092, found {text:?}");
    let (host, port) = text.rsplit_once(':').with_context(expected)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port > 0).with_context(expected)?;
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
        bail!(expected());
    }
    if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
        bail!("{}: that is where one listens, and nowhere to connect to", expected());
    }
    Ok((host.to_owned(), port))
}

/// The broker's settings as text, each with its source.
fn broker_settings(figment: &Figment, values: &figment::value::Dict) -> anyhow::Result<Vec<BrokerSetting>> {
    use figment::value::Value;
    let mut settings = Vec::with_capacity(values.len());
    for (key, value) in values {
        let source = figment.get_metadata(value.tag()).map_or_else(String::new, layers::place);
        let text = match value {
            Value::String(_, text) => text.clone(),
            Value::Bool(_, flag) => flag.to_string(),
            Value::Num(_, number) => number
                .to_i128()
                .map(|whole| whole.to_string())
                .or_else(|| number.to_f64().map(|fraction| fraction.to_string()))
                .unwrap_or_default(),
            other => bail!("{source}: broker.{key}: expected a value, found {}", other.to_actual()),
        };
        settings.push(BrokerSetting { key: key.clone(), value: text, source });
    }
    Ok(settings)
}

#[cfg(test)]
mod tests;
