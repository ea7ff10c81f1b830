//! What the commands that talk to a running platform or cluster, or look at its data, take from the settings of the server.
//!
//! Invariant: where a server listens on every interface, they are told loopback.

use std::path::{Path, PathBuf};

use anyhow::anyhow;

use super::{ClusterConfig, Settings, bootstrap_addresses, layered, layers};
use crate::address;

/// Where a platform or cluster is by the settings, and how to log in there.
pub struct ClientConfig {
    bootstrap: Option<String>,
    kafka: String,
    http: String,
    data_dir: PathBuf,
    /// How to log in at the cluster.
    pub cluster: ClusterConfig,
}

impl ClientConfig {
    /// Reads the file named, or else the one that a server started here would read, and the environment.
    pub fn load(file: Option<&Path>) -> anyhow::Result<ClientConfig> {
        let named = std::env::var_os("TIDINGS_CONFIG").map(PathBuf::from);
        ClientConfig::of(file.or(named.as_deref()), std::env::vars())
    }

    fn of(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> anyhow::Result<ClientConfig> {
        let figment = layered(file, environment)?;
        let settings: Settings = figment.extract().map_err(|error| layers::one_line(&error))?;
        let Settings { bootstrap, kafka, http, data_dir, cluster, .. } = settings;
        Ok(ClientConfig { bootstrap, kafka, http, data_dir, cluster })
    }

    /// The addresses of the cluster that is served: another one, or the platform's own broker.
    pub fn bootstrap(&self) -> anyhow::Result<String> {
        self.bootstrap
            .as_deref()
            .map_or_else(|| Ok(address::reachable_text(&self.kafka)), bootstrap_addresses)
    }

    /// The address of the platform's HTTP API.
    pub fn http(&self) -> anyhow::Result<String> {
        address::of_http(&self.http).map_err(|what| anyhow!("http: {what}"))
    }
}

/// The data directory that was given, or else that of the settings. They need not be right where one is given.
pub fn data_dir(given: Option<&Path>, file: Option<&Path>) -> anyhow::Result<PathBuf> {
    match given {
        Some(given) => Ok(given.to_owned()),
        None => Ok(ClientConfig::load(file)?.data_dir),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn addresses_are_where_the_server_would_be() {
        let check = |file: &str, environment: &[(&str, &str)], bootstrap: &str, http: &str| {
            let mut named = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
            named.write_all(file.as_bytes()).unwrap();
            let environment =
                environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let config = ClientConfig::of(Some(named.path()), environment).unwrap();
            assert_eq!(
                (config.bootstrap().unwrap().as_str(), config.http().unwrap().as_str()),
                (bootstrap, http)
            );
        };
        check("", &[], "127.0.0.1:9092", "127.0.0.1:8080");
        let file = "kafka = '0.0.0.0:19092'\nhttp = '0.0.0.0:18080'\n";
        check(file, &[], "127.0.0.1:19092", "127.0.0.1:18080");
        check(
            file,
            &[("TIDINGS_BOOTSTRAP", "kafka-1:1,kafka-2:1")],
            "kafka-1:1,kafka-2:1",
            "127.0.0.1:18080",
        );
        let file = "bootstrap = 'kafka-1:1'\n";
        let environment = [("TIDINGS_KAFKA", "0.0.0.0:2"), ("TIDINGS_HTTP", "localhost:3")];
        check(file, &environment, "kafka-1:1", "localhost:3");
        let environment = [("TIDINGS_BOOTSTRAP".to_owned(), "kafka-1".to_owned())];
        let error = ClientConfig::of(None, environment).unwrap().bootstrap().unwrap_err().to_string();
        assert!(
            error.starts_with("bootstrap: expected HOST:PORT ") && error.ends_with("\"kafka-1\""),
            "{error}"
        );
    }
}
