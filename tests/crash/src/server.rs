//! The broker under test: always at the same address and on the same data, as often as it is started.
//!
//! Owns the choice of the address and the arguments. Does not decide when it dies.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidings_tests::{Launch, ReservedPort, Tidings};

/// How a broker is started.
#[derive(Clone, Debug)]
pub struct Server {
    data_dir: PathBuf,
    address: String,
    /// Kept while the broker is dead.
    _reserved: Arc<ReservedPort>,
    arguments: Vec<String>,
}

impl Server {
    /// A broker with its data here, at an address that nobody else uses.
    pub fn new(data_dir: &Path) -> Self {
        let reserved = ReservedPort::new();
        let (data_dir, address) = (data_dir.to_owned(), reserved.address());
        Self { data_dir, address, _reserved: Arc::new(reserved), arguments: Vec::new() }
    }

    /// The same broker with other data.
    pub fn with_data(&self, data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned(), ..self.clone() }
    }

    /// With a broker setting, by its Kafka name.
    pub fn set(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        self
    }

    /// Acknowledges what the kernel has, as Kafka does: the control of what syncs are for.
    pub fn without_syncs(mut self) -> Self {
        self.arguments.extend(["--durability".to_owned(), "process".to_owned()]);
        self
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where its data lies.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The command, for those who change something about it.
    pub fn launch(&self) -> Launch {
        let launch = Launch::broker(&self.data_dir).at(&self.address);
        launch.arguments(self.arguments.iter().map(String::as_str))
    }

    /// Starts it and waits until it is ready.
    pub fn start(&self) -> Tidings {
        self.launch().start()
    }
}
