//! A connection that sends any bytes and tells what became of them.
//!
//! Owns the socket and the patience. Knows frames, not messages.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(5);
/// No answer of a scenario is larger.
const MAX_FRAME_BYTES: usize = 64 << 20;

/// A connection to one broker.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    next_correlation_id: i32,
}

/// What came.
#[derive(Debug)]
pub enum Received {
    /// A frame, without its length.
    Frame(Vec<u8>),
    /// The other side has closed the connection.
    Closed,
    /// Nothing.
    Silence,
}

impl Connection {
    /// Connects.
    pub fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, next_correlation_id: 1 })
    }

    /// A correlation id that this connection has not had.
    pub fn correlation_id(&mut self) -> i32 {
        self.next_correlation_id += 1;
        self.next_correlation_id - 1
    }

    /// Sends bytes. A connection that the other side has closed is noticed when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Reads the next frame.
    pub fn receive(&mut self) -> Result<Received> {
        let mut length = [0; 4];
        if let Some(ended) = self.fill(&mut length)? {
            return Ok(ended);
        }
        let length = usize::try_from(i32::from_be_bytes(length)).context("read a frame's length")?;
        ensure!(length <= MAX_FRAME_BYTES, "a frame of {length} bytes");
        let mut frame = vec![0; length];
        Ok(self.fill(&mut frame)?.unwrap_or(Received::Frame(frame)))
    }

    /// Reads as many bytes; answers why not, where the connection has ended.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<Option<Received>> {
        match self.stream.read_exact(bytes) {
            Ok(()) => Ok(None),
            Err(error) => match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    Ok(Some(Received::Closed))
                }
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(Some(Received::Silence)),
                _ => Err(error).context("read an answer"),
            },
        }
    }
}
