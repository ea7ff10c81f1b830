//! A small HTTP/1.1 client that sends exactly what the test says, wrong headers included, and reads one
//! answer per connection.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// The HTTP port of a running platform.
#[derive(Clone)]
pub struct Http {
    address: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, without transfer coding.
    pub body: Vec<u8>,
}

impl Http {
    /// The HTTP port at this address.
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned() }
    }

    /// Where it is, as `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// GET.
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    /// POST of a JSON document.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// POST of one JSON document per line.
    #[track_caller]
    pub fn post_ndjson(&self, path: &str, body: &str) -> Response {
        self.request("POST", path, &[("content-type", "application/x-ndjson")], body.as_bytes())
    }

    /// Sends a request with its true length and, unless given, its true host.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.attempt(method, path, headers, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The same, where the server may be gone at any moment.
    pub fn attempt(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        self.exchange(head.as_bytes(), body)
    }

    /// Sends the bytes and reads the answer until the server closes; an error if it is not whole.
    pub fn exchange(&self, head: &[u8], body: &[u8]) -> io::Result<Response> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(head)?;
        // A server that refuses may answer and close before it has read the whole body.
        let _ = stream.write_all(body);
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes);
        let cut = || ended.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
        Response::parse(&bytes).ok_or_else(cut)
    }

    /// Whether `/readyz` says yes.
    pub fn is_ready(&self) -> bool {
        self.get("/readyz").status == 200
    }

    /// The value of a metric, its labels in the order they are printed; `None` if it is not there.
    #[track_caller]
    pub fn metric(&self, name_and_labels: &str) -> Option<f64> {
        let page = self.get("/metrics").text();
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' ').map(str::to_owned))?;
        Some(line.trim().parse().expect("a metric is a number"))
    }
}

impl Response {
    /// Reads a whole answer; `None` if something of it is missing.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = position(bytes, b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut response = Self { status, headers, body: bytes[end + 4..].to_vec() };
        if response.header("transfer-encoding") == Some("chunked") {
            response.body = unchunked(&response.body)?;
        } else if let Some(length) = response.header("content-length") {
            let length: usize = length.parse().ok()?;
            response.body = response.body.get(..length)?.to_vec();
        }
        Some(response)
    }

    /// The value of a header; its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.text()))
    }

    /// One JSON value per line.
    #[track_caller]
    pub fn ndjson(&self) -> Vec<Value> {
        let text = self.text();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// The body as JSON, if the status is as expected.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }
}

fn unchunked(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = position(bytes, b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        let chunk = &bytes[end + 2..];
        body.extend_from_slice(chunk.get(..size)?);
        bytes = chunk.get(size + 2..)?;
    }
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
