//! The broker inside the test's process: its runtime, its directory, its port.
//!
//! **Invariant:** nothing here runs on the test's own runtime, nor blocks it for longer than a start or an end takes:
//! the broker has threads of its own, so that a test may be async or not, and may block.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use thiserror::Error;
use tidings_broker::{BrokerHandle, BrokerSettings, Disk, RealDisk, UnsyncedDisk};
use tokio::runtime::Runtime;

use super::BrokerOptions;
use super::clock::TestClock;

/// Threads that serve connections. More than one, as in production.
const WORKERS: usize = 2;
/// How long a start waits for what was killed before it: its directory is free once the last of its tasks is dropped.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// Why a broker did not start.
///
/// ```
/// use tidings::testing::{Broker, BrokerOptions, StartError, TestingError};
///
/// match Broker::with(BrokerOptions::default().set("num.partitions", "many")) {
///     Err(TestingError::Start(StartError::Setting { reason })) => println!("{reason}"),
///     other => panic!("that is no number, and yet: {other:?}"),
/// }
/// ```
#[derive(Debug, Error)]
pub enum StartError {
    /// There is no room for its data, or there are no threads.
    #[error("cannot {operation} for a broker: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A setting is unknown or has an unusable value.
    #[error("broker setting: {reason}")]
    Setting {
        /// What is wrong with it.
        reason: String,
    },
    /// The broker refused to start.
    #[error("the broker did not start: {reason}")]
    Refused {
        /// Its own words.
        reason: String,
    },
}

pub(super) struct Engine {
    runtime: Option<Runtime>,
    handle: Option<BrokerHandle>,
    disk: Arc<dyn Disk>,
    options: tidings_broker::BrokerOptions,
    clock: TestClock,
    /// Removed last.
    _directory: TempDir,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("listen", &self.options.listen).finish_non_exhaustive()
    }
}

impl Engine {
    pub(super) fn start(options: &BrokerOptions) -> Result<Self, StartError> {
        let system = |operation| move |source| StartError::System { operation, source };
        let disk: Arc<dyn Disk> = if options.durable { Arc::new(RealDisk) } else { Arc::new(UnsyncedDisk) };
        let settings = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let settings = BrokerSettings::parse(settings)
            .map_err(|error| StartError::Setting { reason: error.to_string() })?;
        let directory =
            tempfile::Builder::new().prefix("tidings-test-").tempdir().map_err(system("make a directory"))?;
        let clock = TestClock::new();
        let options = tidings_broker::BrokerOptions {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            insecure: false,
            advertised: None,
            data_dir: directory.path().join("data"),
            settings,
            clock: Arc::new(clock.clone()),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("test broker")
            .enable_all()
            .build()
            .map_err(system("start threads"))?;
        let mut engine =
            Self { runtime: Some(runtime), handle: None, disk, options, clock, _directory: directory };
        engine.restart()?;
        Ok(engine)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.options.listen
    }

    pub(super) fn clock(&self) -> TestClock {
        self.clock.clone()
    }

    pub(super) fn restart(&mut self) -> Result<(), StartError> {
        self.stop();
        let started = self.block_on(async {
            let deadline = Instant::now() + LOCK_PATIENCE;
            loop {
                let (disk, options) = (Arc::clone(&self.disk), self.options.clone());
                match tidings_broker::Broker::start_on(disk, options).await {
                    Err(error) if error.is_in_use() && Instant::now() < deadline => {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    started => break started,
                }
            }
        });
        let handle = started.map_err(|error| StartError::Refused { reason: error.to_string() })?;
        self.options.listen = handle.local_addr();
        self.handle = Some(handle);
        Ok(())
    }

    pub(super) fn stop(&mut self) {
        if let Some(handle) = self.handle.take()
            && let Err(error) = self.block_on(handle.shutdown())
        {
            tracing::warn!(%error, "test broker not closed cleanly; its next start recovers");
        }
    }

    pub(super) fn kill(&mut self) {
        if let Some(handle) = self.handle.take() {
            self.block_on(handle.crash());
        }
    }

    /// Waits for a future on a thread of its own: the caller may be on a runtime, where waiting for another is refused.
    fn block_on<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        let runtime = self.runtime.as_ref().expect("there until dropped");
        let waited = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(work)).join());
        waited.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Nothing of it is needed any more, but its files must be closed before they are removed.
        self.kill();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
