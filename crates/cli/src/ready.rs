//! How the outside learns that the platform is ready: one line on standard output and, if asked for, a file.
//!
//! Invariant: the file appears complete or not at all, for it is renamed into place.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// Where everything listens; `None` for what does not run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ready {
    /// The Kafka protocol.
    pub kafka: Option<SocketAddr>,
    /// The schema registry.
    pub registry: Option<SocketAddr>,
    /// The HTTP API.
    pub http: Option<SocketAddr>,
    /// The process.
    pub pid: u32,
}

impl Ready {
    /// The addresses of this process.
    pub fn new(kafka: Option<SocketAddr>, http: Option<SocketAddr>) -> Ready {
        Ready { kafka, registry: None, http, pid: std::process::id() }
    }

    /// Writes the file, then prints the line: who waits for the line finds the file.
    pub fn announce(&self, file: Option<&Path>) -> anyhow::Result<()> {
        if let Some(path) = file {
            self.write_file(path).with_context(|| format!("write ready file {}", path.display()))?;
        }
        let mut out = std::io::stdout().lock();
        // Nobody reading the line is no reason to stop.
        if let Err(error) = writeln!(out, "{}", self.line()).and_then(|()| out.flush()) {
            tracing::debug!(%error, "cannot print the ready line");
        }
        Ok(())
    }

    fn line(&self) -> String {
        let mut line = "ready".to_owned();
        if let Some(kafka) = self.kafka {
            line.push_str(&format!(" kafka={kafka}"));
        }
        if let Some(http) = self.http {
            line.push_str(&format!(" http={http}"));
        }
        line
    }

    fn write_file(&self, path: &Path) -> anyhow::Result<()> {
        let mut name = path.file_name().context("not a file name")?.to_owned();
        name.push(format!(".{}.tmp", self.pid));
        let temporary = path.with_file_name(name);
        std::fs::write(&temporary, serde_json::to_vec(self)?)?;
        std::fs::rename(&temporary, path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_every_address() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        std::fs::write(&path, "old").unwrap();
        let ready = Ready {
            kafka: Some("127.0.0.1:9092".parse().unwrap()),
            registry: None,
            http: Some("127.0.0.1:8080".parse().unwrap()),
            pid: 7,
        };
        ready.announce(Some(&path)).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            r#"{"kafka":"127.0.0.1:9092","registry":null,"http":"127.0.0.1:8080","pid":7}"#
        );
        assert_eq!(ready.line(), "ready kafka=127.0.0.1:9092 http=127.0.0.1:8080");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
