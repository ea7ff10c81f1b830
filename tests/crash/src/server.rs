//! The broker under test: always at the same address and on the same data, as often as it is started.
//!
//! Owns the choice of the address and the arguments. Does not decide when it dies.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tidings_log::testing::Random;
use tidings_tests::{Launch, Tidings};

/// How a broker is started.
#[derive(Clone, Debug)]
pub struct Server {
    data_dir: PathBuf,
    address: String,
    arguments: Vec<String>,
}

impl Server {
    /// A broker with its data here, at an address that nobody else uses.
    pub fn new(data_dir: &Path, random: &mut Random) -> Result<Self> {
        let address = free_address(random)?;
        Ok(Self { data_dir: data_dir.to_owned(), address, arguments: Vec::new() })
    }

    /// A broker with its data here, at a known address.
    pub fn at(data_dir: &Path, address: &str) -> Self {
        Self { data_dir: data_dir.to_owned(), address: address.to_owned(), arguments: Vec::new() }
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

/// A port below those that the kernel gives to clients: one that tries to connect while the broker is down could be
/// given the broker's own port, and would be connected to itself.
pub fn free_address(random: &mut Random) -> Result<String> {
    let free = (0..100).find_map(|_| {
        let address = format!("127.0.0.1:{}", 12_000 + random.below(18_000));
        TcpListener::bind(&address).ok().map(|_| address)
    });
    free.context("find a free port")
}
