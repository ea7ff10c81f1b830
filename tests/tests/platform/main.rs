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
mod engine;
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
mod outage_under_load;
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

/// Each test's own broker, that of its platform.
pub fn cluster_under_test() -> Option<String> {
    None
}
