//! A raw Kafka client over one blocking socket: as little as possible between the measurement and the broker.

use anyhow::{Context, Result};
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tidings_wire::{Chunk, Request, decode_response, encode_request};

/// One connection.
pub struct KafkaClient {
    stream: TcpStream,
    next_correlation_id: i32,
}

impl KafkaClient {
    /// Knocks until the listener answers or `limit` has passed.
    pub fn connect_when_up(address: &str, limit: Duration) -> Result<Self> {
        let start = Instant::now();
        loop {
            match TcpStream::connect(address) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(limit))?;
                    return Ok(Self { stream, next_correlation_id: 0 });
                }
                Err(error) if start.elapsed() > limit => {
                    return Err(error).with_context(|| format!("connect to {address}"));
                }
                Err(_) => std::thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    /// Sends a request and waits for its response.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> Result<R::Response> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        for chunk in encode_request(version, correlation_id, Some("tidings-bench"), request)? {
            let Chunk::Bytes(bytes) = chunk else { unreachable!("requests are made of memory") };
            self.stream.write_all(&bytes)?;
        }
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).context("read the response")?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length))?];
        self.stream.read_exact(&mut frame)?;
        Ok(decode_response::<R>(version, Bytes::from(frame))?.1)
    }
}
