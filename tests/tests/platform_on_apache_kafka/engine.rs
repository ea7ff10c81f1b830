//! A cluster of a test's own beside its platform, which it may hurt.

use std::time::Duration;

use rustix::process::Signal;
use tidings_tests::{ApacheCluster, jars};

/// How long it may take until the platform goes on as if nothing had happened: Kafka takes some seconds to find out that a node is
/// gone, and more to come back.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// Whether what is published late may be written twice: acknowledgements come later than anybody waits for, while nodes come back.
pub const MAY_REPEAT: bool = true;

pub struct Engine(ApacheCluster);

impl Engine {
    #[track_caller]
    pub fn start() -> Self {
        Self(ApacheCluster::start(&jars()))
    }

    /// Where clients reach it.
    pub fn bootstrap(&self) -> String {
        self.0.bootstrap()
    }

    /// Sends a signal to all of it.
    pub fn signal(&self, signal: Signal) {
        self.0.signal_all(signal);
    }

    /// `kill -9` of all of it.
    pub fn kill(&mut self) {
        (0..self.0.nodes_count()).for_each(|index| self.0.kill(index));
    }

    /// Starts it again, with its data.
    #[track_caller]
    pub fn revive(&mut self) {
        self.0.revive();
    }
}
