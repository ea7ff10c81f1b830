//! A connection that speaks frames: requests go out and answers come back one by one, so that a test knows exactly what it
//! was told.
//!
//! Invariants: an error leaves the connection useless, and its user makes a new one. Retries nothing.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use bytes::Bytes;
use tidings_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use tidings_wire::{Chunk, Request, decode_response, encode_request};

use crate::wait::until;

/// An answer that takes longer is none. Long, for a machine that does much else; a broker that dies is noticed at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// What has a coordinator, by its number in the protocol.
#[derive(Debug, Clone, Copy)]
pub enum CoordinatorOf {
    /// A group.
    Group = 0,
    /// A transactional id.
    Transactions = 1,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    next_correlation_id: i32,
}

/// An error of the connection or of what came through it.
fn broken(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

impl Connection {
    /// Connects.
    pub fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, next_correlation_id: 1 })
    }

    /// The address of a coordinator; waits until there is one.
    ///
    /// # Panics
    /// If the cluster does not answer.
    #[track_caller]
    pub fn coordinator(&mut self, of: CoordinatorOf, key: &str) -> String {
        let request =
            FindCoordinatorRequest { key: key.to_owned(), key_type: of as i8, ..Default::default() };
        until("there is a coordinator", || {
            let found = self.call(2, &request).expect("ask for a coordinator");
            (found.error_code == 0).then(|| format!("{}:{}", found.host, found.port))
        })
    }

    /// Sends a request and reads its answer.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        let correlation_id = self.send(version, request)?;
        self.receive::<R>(version, correlation_id)
    }

    /// Sends a request whose answer is read later.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<i32> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        let mut frame = Vec::new();
        for chunk in encode_request(version, correlation_id, Some("tests"), request).map_err(broken)? {
            let Chunk::Bytes(bytes) = chunk else { return Err(broken("a request with external records")) };
            frame.extend_from_slice(&bytes);
        }
        self.stream.write_all(&frame)?;
        Ok(correlation_id)
    }

    /// Reads the next answer, which must be to this request.
    pub fn receive<R: Request>(&mut self, version: i16, correlation_id: i32) -> io::Result<R::Response> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(broken)?;
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame)?;
        let (found, response) = decode_response::<R>(version, Bytes::from(frame)).map_err(broken)?;
        if found != correlation_id {
            return Err(broken(format!("answer {found} where {correlation_id} was expected")));
        }
        Ok(response)
    }
}
