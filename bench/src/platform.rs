//! The whole platform, `tidings up`, on a data directory and ports of its own.

use crate::peers::{Peer, Ports};
use crate::process::Process;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidings_postgres_server::PostgresServer;

/// How long it may take to become ready before the benchmark gives up.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A running platform, killed when dropped, with its data.
pub struct Platform {
    // Fields drop in this order: the process ends before its directory is removed.
    process: Process,
    ready_file: PathBuf,
    /// Address of the Kafka listener.
    pub kafka: String,
    /// Address of the HTTP listener.
    pub http: String,
    /// The URL of the database with its activities, unless they are in `directory`.
    database: Option<String>,
    directory: TempDir,
}

impl Platform {
    /// Starts the process and returns at once, so that a client can race its start-up.
    pub fn launch(peer: &dyn Peer, work_dir: &Path) -> Result<Self> {
        let binary = peer.platform().context("only Tidings is a platform")?;
        let directory = tempfile::Builder::new().prefix("platform").tempdir_in(work_dir)?;
        let ports = Ports::free()?;
        let kafka = format!("127.0.0.1:{}", ports.kafka);
        let http = format!("127.0.0.1:{}", ports.other);
        let ready_file = directory.path().join("ready.json");
        let mut command = Command::new(binary);
        command.arg("up").arg("--data-dir").arg(directory.path().join("data"));
        command.arg("--kafka").arg(&kafka).arg("--http").arg(&http).arg("--ready-file").arg(&ready_file);
        let database = peer.postgres().map(PostgresServer::database);
        if let Some(url) = &database {
            command.env("TIDINGS_ACTIVITY_STORE", url);
        }
        let process = Process::spawn(command, directory.path().join("server.log"))?;
        Ok(Self { process, ready_file, kafka, http, database, directory })
    }

    /// Starts it, waits for its ready file and answers how long that took.
    pub fn start(peer: &dyn Peer, work_dir: &Path) -> Result<(Self, Duration)> {
        let mut platform = Self::launch(peer, work_dir)?;
        while !platform.ready_file.exists() {
            if let Some(status) = platform.process.ended()? {
                bail!("the platform ended before it was ready: {status}\n{}", platform.process.last_words());
            }
            if platform.started().elapsed() > START_LIMIT {
                bail!("the platform was not ready within {START_LIMIT:?}\n{}", platform.process.last_words());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        let ready_after = platform.started().elapsed();
        Ok((platform, ready_after))
    }

    /// When the process was started.
    pub fn started(&self) -> Instant {
        self.process.started()
    }

    /// Where its data is.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The name of the database with its activities, if it has one.
    pub fn database(&self) -> Option<&str> {
        self.database.as_deref()?.rsplit_once('/').map(|(_, name)| name)
    }

    /// The process, to read what it uses.
    pub fn process(&self) -> &Process {
        &self.process
    }
}
