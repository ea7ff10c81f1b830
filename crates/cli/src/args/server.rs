//! Arguments of the commands that start something.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::address;

/// Settings that have the same name on the command line, in `tidings.toml` and in the environment. Only those given are
/// serialised, so that they override nothing else.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct ServerArgs {
    /// Directory that holds everything the platform keeps [default: ./tidings-data]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,

    /// Address of the Kafka protocol; port 0 takes a free one [default: 127.0.0.1:9092]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<String>,

    /// Where clients on other machines find the broker; by default at the address by which they reached it
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertised: Option<String>,

    /// File to write the addresses to, as JSON, when ready
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_file: Option<PathBuf>,

    /// What acknowledged data survives: `power` (a power cut) or `process` (a killed process, as in Kafka) [default: power]
    #[arg(long, value_name = "WHAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<String>,

    /// Allow addresses other than loopback: anyone who reaches them can read and write everything
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,

    /// A broker setting by its Kafka name, as num.partitions=4; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    #[serde(skip)]
    pub set: Vec<(String, String)>,

    /// Configuration file [default: tidings.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "TIDINGS_CONFIG")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// `tidings up`.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct UpArgs {
    /// What a broker needs too.
    #[command(flatten)]
    #[serde(flatten)]
    pub server: ServerArgs,

    /// Address of the HTTP API; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,

    /// A name, besides loopback, by which the HTTP API is addressed; may be repeated
    #[arg(long = "host-name", value_name = "NAME")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host_names: Vec<String>,

    /// Serve this Kafka cluster instead of starting a broker
    #[arg(long, value_name = "HOST:PORT,…", conflicts_with_all = ["kafka", "set", "durability"], value_parser = address::of_bootstrap)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<String>,
}

/// `tidings broker`.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct BrokerArgs {
    /// The settings.
    #[command(flatten)]
    #[serde(flatten)]
    pub server: ServerArgs,
}

/// `tidings demo`.
#[derive(Args, Clone, Debug, Default)]
pub struct DemoArgs {
    /// Directory that holds what the demo keeps; may hold an earlier run
    #[arg(long, value_name = "DIR", default_value = "./tidings-demo")]
    pub data_dir: PathBuf,

    /// Address of the Kafka protocol; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9092")]
    pub kafka: String,

    /// Address of the HTTP API; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub http: String,

    /// Play the whole year 2013 (about a million events) instead of two weeks
    #[arg(long)]
    pub full: bool,

    /// Stop when done; status 0 only if every event was stored exactly once
    #[arg(long)]
    pub exit: bool,

    /// Print the summary as JSON
    #[arg(long)]
    pub json: bool,

    /// Send at most this many events per second
    #[arg(long, value_name = "EVENTS", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,

    /// Give up when the events are not all stored after this many seconds [default: 120, with --full 900, and what --rate takes]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub time_limit: Option<u64>,
}

pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("expected key=value, as num.partitions=4".to_owned()),
    }
}
