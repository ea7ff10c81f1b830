//! The broker: Kafka's protocol over TCP on top of the log and the coordinators.
//!
//! Owns the listener, one handler file per API, the registry of topics, the coordinators' logs and timers, and the
//! broker's metrics. Invariants: what a client was told is durable; answers leave in the order of their requests; what a
//! stranger can make it allocate is bounded. Does not know record formats beyond batch headers (the log does), nor the
//! group protocol's rules (the coordinator does), nor any application.
//!
//! Reading order: `broker` (start and stop), `listener`, `connection`, `handlers`, then `topics` and `groups`.

mod broker;
mod clock;
mod connection;
mod fetch_sessions;
mod flushes;
mod group_configs;
mod groups;
mod handlers;
mod housekeeping;
mod jobs;
mod lazy_timer;
mod listener;
mod mentions;
mod metadata_log;
mod metrics;
mod operations;
mod producer_ids;
mod random;
mod rate_limit;
mod replay;
mod settings;
mod shared;
mod topics;
mod transactions;

pub use broker::{Broker, BrokerHandle, BrokerOptions, StartError};
pub use clock::{Clock, ManualClock, Sleep, SystemClock};
pub use replay::ReplayLogError;
pub use settings::{BrokerSettings, SettingError};
pub use tidings_log::{Disk, RealDisk, UnsyncedDisk};
pub use topics::offline::{BadFolder, bad_folders};
pub use topics::open::OpenTopicsError;
pub use topics::records::MetadataError;
