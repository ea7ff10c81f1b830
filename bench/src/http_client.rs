//! A keep-alive HTTP/1.1 client with nothing in it that could slow a measurement down.
//!
//! Knows just what our own HTTP API answers: a status line, a `content-length` or chunked body.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One connection to one server.
pub struct HttpClient {
    host: String,
    stream: BufReader<TcpStream>,
}

/// A whole answer.
pub struct Answer {
    /// The HTTP status code.
    pub status: u16,
    /// The body, decoded from its transfer encoding.
    pub body: Vec<u8>,
}

impl HttpClient {
    /// Connects to `host` (`address:port`).
    pub fn connect(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).with_context(|| format!("connect to {host}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { host: host.to_owned(), stream: BufReader::with_capacity(64 * 1024, stream) })
    }

    /// Posts a JSON body and waits for the whole answer.
    pub fn post_json(&mut self, path: &str, body: &[u8]) -> Result<Answer> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        let mut request = head.into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request)?;
        self.read_answer()
    }

    /// Gets a path.
    pub fn get(&mut self, path: &str) -> Result<Answer> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.host);
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.read_answer()
    }

    fn read_answer(&mut self) -> Result<Answer> {
        let status = self.read_line()?.split(' ').nth(1).context("read status line")?.parse()?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.read_line()?.to_ascii_lowercase();
            match line.split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse()?,
                Some(("transfer-encoding", value)) => chunked = value.trim() == "chunked",
                Some(_) => {}
                None if line.is_empty() => break,
                None => bail!("expected a header line, found {line:?}"),
            }
        }
        let mut body = Vec::new();
        if chunked {
            self.read_chunks(&mut body)?
        } else {
            self.read_exactly(length, &mut body)?
        }
        Ok(Answer { status, body })
    }

    fn read_chunks(&mut self, body: &mut Vec<u8>) -> Result<()> {
        loop {
            let length = usize::from_str_radix(&self.read_line()?, 16)?;
            self.read_exactly(length, body)?;
            self.read_line()?;
            if length == 0 {
                return Ok(());
            }
        }
    }

    fn read_exactly(&mut self, length: usize, body: &mut Vec<u8>) -> Result<()> {
        let start = body.len();
        body.resize(start + length, 0);
        Ok(self.stream.read_exact(&mut body[start..])?)
    }

    fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            bail!("the server closed the connection");
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}
