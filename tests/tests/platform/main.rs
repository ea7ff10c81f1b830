//! The platform from outside: `tidings` as a process, real requests, real kills.
//!
//! One program for all of it, so that its tests run side by side. A module is a promise of the platform.

mod activities;
mod backup;
mod backup_in_bucket;
mod cleaning;
mod crashes;
mod demo;
mod deploy;
mod disks;
mod export;
mod express;
mod failures;
mod formats;
mod groups;
mod hostile;
mod hostile_activities;
mod hung_store;
mod lifecycle;
mod live;
mod monitoring;
mod outages;
mod postgres;
mod postgres_tls;
mod retention;
mod site;
mod store;
mod support;
mod tower;
mod transactions;
mod under_load;

use rustix::process::Signal;
use tempfile::TempDir;
use tidings_tests::{Launch, Tidings};

/// A broker of a test's own beside its platform, which it may hurt.
pub struct Engine {
    broker: Tidings,
    _folder: TempDir,
}

impl Engine {
    /// Starts it.
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("make a directory for a broker");
        Self { broker: Launch::broker(folder.path()).start(), _folder: folder }
    }

    /// Where clients reach it.
    pub fn bootstrap(&self) -> String {
        self.broker.bootstrap()
    }

    /// Sends a signal to all of it.
    pub fn signal(&self, signal: Signal) {
        self.broker.signal(signal);
    }
}

/// Each test's own broker, that of its platform.
pub fn cluster_under_test() -> Option<String> {
    None
}
