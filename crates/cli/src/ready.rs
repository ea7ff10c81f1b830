//! How the outside learns that the platform is ready: one line on standard output and, if asked for, a file.
//!
//! Invariants: the file appears complete or not at all, for it is renamed into place; what a start finds there goes before
//! anything can fail, and what this process has written goes when it stops.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

/// Removes what an earlier process has left: who waits for the file would take this start for a success. A server that still runs
/// keeps its own.
pub fn remove_stale(file: Option<&Path>) -> anyhow::Result<()> {
    let Some(path) = file else { return Ok(()) };
    if is_of_a_running_server(path) {
        return Ok(());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove ready file {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Another process may have the number by now, in a container even this one: then it is no server, or it is us.
fn is_of_a_running_server(path: &Path) -> bool {
    let found = std::fs::read(path).ok().and_then(|found| serde_json::from_slice::<Value>(&found).ok());
    let Some(pid) = found.as_ref().and_then(|found| found["pid"].as_u64()) else { return false };
    let name = |process: &str| std::fs::read(format!("/proc/{process}/comm")).ok();
    pid != u64::from(std::process::id())
        && name(&pid.to_string()).is_some_and(|found| name("self") == Some(found))
}

/// Where everything listens; `None` for what does not run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ready {
    /// The Kafka protocol.
    pub kafka: Option<SocketAddr>,
    /// The HTTP API.
    pub http: Option<SocketAddr>,
    /// The process.
    pub pid: u32,
}

impl Ready {
    /// The addresses of this process.
    pub fn new(kafka: Option<SocketAddr>, http: Option<SocketAddr>) -> Ready {
        Ready { kafka, http, pid: std::process::id() }
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

    /// Removes the file, unless the next process has written its own by now.
    pub fn withdraw(&self, file: Option<&Path>) {
        let Some(path) = file else { return };
        let is_ours =
            std::fs::read(path).is_ok_and(|found| serde_json::to_vec(self).is_ok_and(|own| own == found));
        if is_ours && let Err(error) = std::fs::remove_file(path) {
            tracing::warn!(%error, path = %path.display(), "the ready file cannot be removed");
        }
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
            http: Some("127.0.0.1:8080".parse().unwrap()),
            pid: 7,
        };
        ready.announce(Some(&path)).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            r#"{"kafka":"127.0.0.1:9092","http":"127.0.0.1:8080","pid":7}"#
        );
        assert_eq!(ready.line(), "ready kafka=127.0.0.1:9092 http=127.0.0.1:8080");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        Ready { pid: 8, ..ready }.withdraw(Some(&path));
        assert!(path.exists());
        ready.withdraw(Some(&path));
        assert!(!path.exists());
        ready.withdraw(Some(&path));
    }

    #[test]
    fn what_an_earlier_process_has_left_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        std::fs::write(&path, "old").unwrap();
        remove_stale(Some(&path)).unwrap();
        assert!(!path.exists());
        remove_stale(Some(&path)).unwrap();
        remove_stale(None).unwrap();
        let error = remove_stale(Some(directory.path())).unwrap_err().to_string();
        assert_eq!(error, format!("remove ready file {}", directory.path().display()));
    }
}
