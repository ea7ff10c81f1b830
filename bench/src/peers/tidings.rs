//! Tidings: a release build, started as its user starts it.

use super::{Peer, Ports};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use tidings_postgres_server::PostgresServer;

/// `tidings broker` with its defaults, one durability, and at most one other setting.
pub struct Tidings {
    name: &'static str,
    binary: PathBuf,
    durability: &'static str,
    setting: Option<&'static str>,
}

impl Tidings {
    /// The executable `binary`, to be shown as `name`.
    pub fn new(name: &'static str, binary: &Path, durability: &'static str) -> Self {
        Self { name, binary: binary.to_owned(), durability, setting: None }
    }

    /// The same with `key=value`.
    pub fn with(self, setting: &'static str) -> Self {
        Self { setting: Some(setting), ..self }
    }
}

impl Peer for Tidings {
    fn name(&self) -> &'static str {
        self.name
    }

    fn describe(&self) -> Result<String> {
        let output = Command::new(&self.binary).arg("--version").output();
        let output = output.with_context(|| format!("run {}", self.binary.display()))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let setting = self.setting.map_or(String::new(), |setting| format!(", {setting}"));
        Ok(format!("{version}, defaults, durability {}{setting}", self.durability))
    }

    fn prepare(&self, _data_dir: &Path, _ports: &Ports) -> Result<()> {
        Ok(())
    }

    fn command(&self, data_dir: &Path, ports: &Ports) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("broker").arg("--data-dir").arg(data_dir);
        command.arg("--kafka").arg(format!("127.0.0.1:{}", ports.kafka));
        command.arg("--durability").arg(self.durability);
        if let Some(setting) = self.setting {
            command.arg("--set").arg(setting);
        }
        command
    }

    fn platform(&self) -> Option<&Path> {
        matches!(self.name, "tidings" | "tidings-before" | "tidings-postgres").then_some(&self.binary)
    }
}

/// The same with its activities in PostgreSQL, on this machine and with that program's defaults.
pub struct TidingsOnPostgres {
    tidings: Tidings,
    /// Started when it is first needed.
    server: OnceLock<Arc<PostgresServer>>,
}

impl TidingsOnPostgres {
    /// Of a broker whose name is shown.
    pub fn new(tidings: Tidings) -> Self {
        Self { tidings, server: OnceLock::new() }
    }
}

impl Peer for TidingsOnPostgres {
    fn name(&self) -> &'static str {
        self.tidings.name()
    }

    fn describe(&self) -> Result<String> {
        Ok(format!("{}, activities in PostgreSQL", self.tidings.describe()?))
    }

    fn prepare(&self, data_dir: &Path, ports: &Ports) -> Result<()> {
        self.tidings.prepare(data_dir, ports)
    }

    fn command(&self, data_dir: &Path, ports: &Ports) -> Command {
        self.tidings.command(data_dir, ports)
    }

    fn platform(&self) -> Option<&Path> {
        self.tidings.platform()
    }

    fn postgres(&self) -> Option<&PostgresServer> {
        Some(self.server.get_or_init(PostgresServer::shared))
    }
}
