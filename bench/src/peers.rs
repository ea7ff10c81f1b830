//! Who is measured, and how each is started.
//!
//! A peer only says which command serves a data directory. Everything else, from the wait for its first answer to the
//! reading of its memory, is the same code for all, so that no peer is measured differently.

mod kafka;
mod tidings;

use crate::kafka_client::KafkaClient;
use crate::process::Process;
use anyhow::{Context, Result, bail};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tidings_postgres_server::PostgresServer;

pub use kafka::Kafka;
pub use tidings::{Tidings, TidingsOnPostgres};

/// How long a server may take to answer before the benchmark gives up.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Larger than any fetch: everything is copied through the broker's memory.
const NO_SENDFILE: &str = "socket.sendfile.min.bytes=2147483647";

/// A broker to measure.
pub trait Peer {
    /// Its name on the command line and in the results.
    fn name(&self) -> &'static str;

    /// What exactly is measured: version and settings, for the reader of the results.
    fn describe(&self) -> Result<String>;

    /// What must be done once with an empty data directory before the first start. Not measured.
    fn prepare(&self, data_dir: &Path, ports: &Ports) -> Result<()>;

    /// The command that serves `data_dir` at the Kafka port of `ports`.
    fn command(&self, data_dir: &Path, ports: &Ports) -> Command;

    /// The `tidings` executable, if this peer is one that also has an HTTP API and a store.
    fn platform(&self) -> Option<&Path> {
        None
    }

    /// The server of the database that the platform is to keep activities in, unless it has files of its own for them.
    fn postgres(&self) -> Option<&PostgresServer> {
        None
    }
}

/// Ports chosen before the start, so that a client can knock before the server is up.
pub struct Ports {
    /// For the Kafka protocol.
    pub kafka: u16,
    /// For whatever else a peer listens to: HTTP, or Kafka's controller.
    pub other: u16,
}

impl Ports {
    /// Two ports that were free a moment ago.
    pub fn free() -> Result<Self> {
        let (kafka, other) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
        Ok(Self { kafka: kafka.local_addr()?.port(), other: other.local_addr()?.port() })
    }
}

/// A running peer with a data directory of its own, which goes when it goes.
pub struct Server {
    // Fields drop in this order: the process ends before its directory is removed.
    process: Process,
    address: String,
    _directory: TempDir,
}

impl Server {
    /// Starts the process on an empty data directory and returns at once, so that a client can race its start-up.
    pub fn launch(peer: &dyn Peer, work_dir: &Path) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(peer.name()).tempdir_in(work_dir)?;
        let (data_dir, ports) = (directory.path().join("data"), Ports::free()?);
        peer.prepare(&data_dir, &ports).with_context(|| format!("prepare {}", peer.name()))?;
        let log = directory.path().join("server.log");
        let process = Process::spawn(peer.command(&data_dir, &ports), log)?;
        Ok(Self { process, address: format!("127.0.0.1:{}", ports.kafka), _directory: directory })
    }

    /// Starts it and waits until it answers at its Kafka port.
    pub fn start(peer: &dyn Peer, work_dir: &Path) -> Result<Self> {
        let mut server = Self::launch(peer, work_dir)?;
        while KafkaClient::connect_when_up(&server.address, Duration::ZERO)
            .and_then(|mut client| client.api_versions())
            .is_err()
        {
            if let Some(status) = server.process.ended()? {
                bail!("{} ended before it answered: {status}\n{}", peer.name(), server.process.last_words());
            }
            if server.process.started().elapsed() > START_LIMIT {
                bail!(
                    "{} did not answer within {START_LIMIT:?}\n{}",
                    peer.name(),
                    server.process.last_words()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Where it serves the Kafka protocol.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process, to read what it uses.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// The peers that `--peers` can name; those of others are fetched into `folder`.
pub fn all(binary: &Path, before: &Path, folder: &Path) -> Vec<Box<dyn Peer>> {
    vec![
        Box::new(Tidings::new("tidings", binary, "power")),
        Box::new(Tidings::new("tidings-process", binary, "process")),
        Box::new(Tidings::new("tidings-copy", binary, "power").with(NO_SENDFILE)),
        Box::new(Tidings::new("tidings-before", before, "power")),
        Box::new(TidingsOnPostgres::new(Tidings::new("tidings-postgres", binary, "power"))),
        Box::new(Kafka::new("kafka", folder, "")),
        Box::new(Kafka::new("kafka-flush", folder, "log.flush.interval.messages=1")),
    ]
}
