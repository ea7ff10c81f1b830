//! Ports of loopback for servers that go and come back: while one is down its port looks free to everybody.

use std::net::TcpListener;
use std::ops::Range;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::Mutex;

/// Below those that the kernel gives to clients: one that tries to connect while its server is down could be given the server's
/// own port, and would be connected to itself.
const PORTS: Range<u16> = 12_000..30_000;

/// A port that nobody uses, and that nobody else is given for as long as this lives.
#[derive(Debug)]
pub struct ReservedPort {
    port: u16,
    /// Bound to a name that only one process can bind.
    _name: UnixListener,
}

impl ReservedPort {
    /// Reserves one.
    #[expect(clippy::new_without_default, reason = "it takes something that is scarce")]
    pub fn new() -> Self {
        let first = std::process::id() as usize % PORTS.len();
        for port in PORTS.cycle().skip(first).take(PORTS.len()) {
            let name = format!("tidings-tests-port-{port}");
            let name = SocketAddr::from_abstract_name(name).expect("name a port");
            if let Ok(name) = UnixListener::bind_addr(&name)
                && TcpListener::bind(("127.0.0.1", port)).is_ok()
            {
                return Self { port, _name: name };
            }
        }
        panic!("no port is free of {PORTS:?}");
    }

    /// Where a server listens on it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// A [`ReservedPort`] for as long as this process lives.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Vec<ReservedPort>> = Mutex::new(Vec::new());
    let reserved = ReservedPort::new();
    let port = reserved.port;
    GIVEN.lock().expect("the ports given").push(reserved);
    port
}
