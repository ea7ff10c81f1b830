//! A broker of a test's own beside its platform, which it may hurt.

use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tidings_tests::{Launch, Tidings, kept_address};

/// How long it may take until the platform goes on as if nothing had happened.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// Whether what is published late may be written twice.
pub const MAY_REPEAT: bool = false;

pub struct Engine {
    /// None while it is down.
    broker: Option<Tidings>,
    bootstrap: String,
    folder: TempDir,
}

impl Engine {
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("make a directory for a broker");
        let broker = Launch::broker(folder.path()).at(&kept_address()).start();
        Self { bootstrap: broker.bootstrap(), broker: Some(broker), folder }
    }

    /// Where clients reach it.
    pub fn bootstrap(&self) -> String {
        self.bootstrap.clone()
    }

    /// Sends a signal to all of it.
    pub fn signal(&self, signal: Signal) {
        self.broker.as_ref().expect("the broker runs").signal(signal);
    }

    /// `kill -9` of all of it.
    pub fn kill(&mut self) {
        self.broker.take().expect("the broker runs").kill_now();
    }

    /// Starts it again, with its data.
    #[track_caller]
    pub fn revive(&mut self) {
        self.broker = Some(Launch::broker(self.folder.path()).at(&self.bootstrap).start());
    }
}
