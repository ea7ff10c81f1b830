//! The activity stream on a cluster of three nodes of Apache Kafka in the place of the platform's own broker: the scenarios of
//! `platform` that do not stop the cluster, or only make it hang, and what only a cluster can show, nodes that die while others go on.

#[path = "../platform/activities.rs"]
mod activities;
#[path = "../platform/export.rs"]
mod export;
#[path = "../platform/failures.rs"]
mod failures;
#[path = "../platform/hostile_activities.rs"]
mod hostile_activities;
#[path = "../platform/hung_store.rs"]
mod hung_store;
#[path = "../platform/live.rs"]
mod live;
mod node_kills;
#[path = "../platform/retention.rs"]
mod retention;
#[path = "../platform/site.rs"]
mod site;
#[path = "../platform/support.rs"]
#[expect(dead_code, reason = "some of it is for tests of the platform with its own broker")]
mod support;
#[path = "../platform/under_load.rs"]
mod under_load;

use rustix::process::Signal;
use tidings_tests::{ApacheCluster, jars, shared_apache_cluster};

/// The cluster that all tests here share.
#[track_caller]
pub fn cluster_under_test() -> Option<String> {
    Some(shared_apache_cluster())
}

/// A cluster of a test's own, which it may hurt.
pub struct Engine(ApacheCluster);

impl Engine {
    /// Starts it.
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
}
