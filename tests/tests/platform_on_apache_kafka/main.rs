//! The activity stream on a cluster of three nodes of Apache Kafka in the place of the platform's own broker: the scenarios of
//! `platform` that do not reach into that broker, and what only a cluster can show, nodes that die while others go on.

#[path = "../platform/activities.rs"]
mod activities;
mod engine;
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
#[path = "../platform/outage_under_load.rs"]
mod outage_under_load;
#[path = "../platform/retention.rs"]
mod retention;
#[path = "../platform/site.rs"]
mod site;
#[path = "../platform/support.rs"]
#[expect(dead_code, reason = "some of it is for tests of the platform with its own broker")]
mod support;
#[path = "../platform/under_load.rs"]
mod under_load;

use tidings_tests::shared_apache_cluster;

/// The cluster that all tests here share.
#[track_caller]
pub fn cluster_under_test() -> Option<String> {
    Some(shared_apache_cluster())
}
