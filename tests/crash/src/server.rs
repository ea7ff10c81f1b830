//! The broker under test: always at the same address and on the same data, as often as it is started.
//!
//! Owns the choice of the address and the arguments. Does not decide when it dies.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use tidings_tests::{Launch, Tidings};

/// How a broker is started.
#[derive(Clone, Debug)]
pub struct Server {
    data_dir: PathBuf,
    address: Address,
    arguments: Vec<String>,
}

impl Server {
    /// A broker with its data here, at an address that nobody else uses.
    pub fn new(data_dir: &Path) -> Result<Self> {
        let address = Address::reserve()?;
        Ok(Self { data_dir: data_dir.to_owned(), address, arguments: Vec::new() })
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
        self.address.text()
    }

    /// Where its data lies.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The command, for those who change something about it.
    pub fn launch(&self) -> Launch {
        let launch = Launch::broker(&self.data_dir).at(self.address.text());
        launch.arguments(self.arguments.iter().map(String::as_str))
    }

    /// Starts it and waits until it is ready.
    pub fn start(&self) -> Tidings {
        self.launch().start()
    }
}

/// An address that nobody else uses, reserved as long as this lives.
#[derive(Clone, Debug)]
pub struct Address {
    text: String,
    /// A name that only one process can bind: while a broker is dead its port looks free to everybody. Other
    /// tests reserve theirs by such names, too.
    _reservation: Arc<UnixListener>,
}

impl Address {
    /// Reserves one below the ports that the kernel gives to clients: a client that tries to connect while the broker
    /// is down could be given the broker's own port, and would be connected to itself.
    pub fn reserve() -> Result<Self> {
        let mut port = 12_000 + std::process::id() % 18_000;
        for _ in 0..1_000 {
            port = if port < 30_000 { port + 1 } else { 12_000 };
            let text = format!("127.0.0.1:{port}");
            let name = SocketAddr::from_abstract_name(format!("tidings-tests-port-{port}"))?;
            if let Ok(reservation) = UnixListener::bind_addr(&name)
                && TcpListener::bind(&text).is_ok()
            {
                return Ok(Self { text, _reservation: Arc::new(reservation) });
            }
        }
        bail!("find a free port")
    }

    /// As clients and brokers take it.
    pub fn text(&self) -> &str {
        &self.text
    }
}
