//! Input from strangers: wrong hosts and origins, bodies over their limit, and bytes that are no Kafka request.
//!
//! After every one of them the platform answers the next good request, has not grown beyond a fixed bound,
//! and has not panicked.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use tidings_tests::{LONG, Launch, Tidings, until};

use crate::support::{ACTIVITIES, activity, until_stored};

const MIB: u64 = 1 << 20;

#[track_caller]
fn unharmed(tidings: &Tidings) {
    assert!(!tidings.logged().contains("panicked"), "{}", tidings.logged());
    tidings.kafka().produce("still-there", &[(None, b"v")]);
}

#[test]
fn foreign_hosts_and_origins_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
    let http = tidings.http();
    let body = activity("acme", "one", 1).to_string();
    for headers in [
        vec![("host", "evil.example")],
        vec![("host", "evil.example:8080")],
        vec![("origin", "https://evil.example")],
        vec![("origin", "null")],
    ] {
        for (method, path) in [("POST", ACTIVITIES), ("GET", "/metrics"), ("GET", "/api/v1/dlq/activities")] {
            let mut all = vec![("content-type", "application/json")];
            all.extend(&headers);
            let refused =
                http.request(method, path, &all, if method == "POST" { body.as_bytes() } else { b"" });
            assert!((400..500).contains(&refused.status), "{method} {path} {headers:?}: {}", refused.status);
        }
    }
    let without_host = http.exchange(b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n", b"").unwrap();
    assert!((400..500).contains(&without_host.status));
    let port = tidings.ready()["http"].as_str().unwrap().rsplit_once(':').unwrap().1.to_owned();
    let local = format!("localhost:{port}");
    assert_eq!(http.request("GET", "/healthz", &[("host", &local)], b"").status, 200);
    let origin = format!("http://{local}");
    let own = [("content-type", "application/json"), ("host", local.as_str()), ("origin", origin.as_str())];
    assert_eq!(http.request("POST", ACTIVITIES, &own, body.as_bytes()).status, 200);
    assert_eq!(until_stored(&http, "acme", 1).len(), 1);
}

#[test]
fn bad_bodies_get_a_precise_answer_in_bounded_memory() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::up(directory.path()).start();
    let http = tidings.http();
    let before = tidings.resident_bytes();
    let json_type = [("content-type", "application/json")];
    let post = |headers: &[(&str, &str)], body: &[u8]| http.request("POST", ACTIVITIES, headers, body);
    for (body, statuses) in [
        (&b"{"[..], &[400, 422][..]),
        (b"", &[400, 422]),
        (b"null", &[400, 422]),
        (b"\xff\xfe", &[400, 422]),
        (b"[1, 2]", &[400, 422]),
        (b"{\"tenant\": 7, \"action\": \"a\"}", &[422]),
        (b"{\"tenant\": \"\", \"action\": \"a\"}", &[422]),
        (b"{\"tenant\": \"t\"}", &[422]),
        (b"{\"tenant\": \"t\", \"action\": \"a\", \"occurred_at\": \"yesterday\"}", &[422]),
        (b"{\"tenant\": \"t\", \"action\": \"a\", \"surprise\": 1}", &[422]),
    ] {
        let refused = post(&json_type, body);
        let shown = String::from_utf8_lossy(body);
        assert!(statuses.contains(&refused.status), "{shown}: {} {}", refused.status, refused.text());
        assert_eq!(refused.header("content-type"), Some("application/problem+json"), "{shown}");
    }
    assert_eq!(post(&[("content-type", "text/plain")], b"{}").status, 415);
    let deep = format!(
        "{{\"tenant\":\"t\",\"action\":\"a\",\"metadata\":{}{}}}",
        "{\"a\":".repeat(100_000),
        "}".repeat(100_000)
    );
    assert!((400..500).contains(&post(&json_type, deep.as_bytes()).status));
    let huge = vec![b' '; 64 << 20];
    assert_eq!(post(&json_type, &huge).status, 413);
    let claimed =
        format!("POST {ACTIVITIES} HTTP/1.1\r\nhost: {}\r\n", tidings.ready()["http"].as_str().unwrap());
    let claimed = claimed
        + "content-type: application/json\r\ncontent-length: 99999999999\r\nconnection: close\r\n\r\n";
    assert_eq!(http.exchange(claimed.as_bytes(), b"[").unwrap().status, 413);
    // A line without end is refused when it is over its limit, not when memory is.
    let line = format!("{{\"tenant\":\"t\",\"action\":\"a\",\"id\":\"{}\"}}\n", "x".repeat(32 << 20));
    let answer = http.post_ndjson(ACTIVITIES, &(line + &activity("acme", "after", 1).to_string()));
    assert!(answer.status == 200 || answer.status == 413, "{}", answer.status);
    for path in
        ["/nowhere", "/api/v1/activities/%ff?tenant=t", "/api/v1/dlq/no-such-topic", "/api/v1/dlq/%ff"]
    {
        let refused = http.get(path);
        assert!((400..500).contains(&refused.status), "{path}: {} {}", refused.status, refused.text());
        assert_eq!(refused.header("content-type"), Some("application/problem+json"), "{path}");
    }
    let grown = tidings.resident_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "grew by {} MiB", grown / MIB);
    http.post(ACTIVITIES, &json!([activity("acme", "good", 1)])).expect(200);
    unharmed(&tidings);
}

/// A frame: its length, then the bytes.
fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(bytes);
    frame
}

/// A request header of version 1 with an empty client id, then the body.
fn request(api_key: i16, version: i16, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&api_key.to_be_bytes());
    bytes.extend_from_slice(&version.to_be_bytes());
    bytes.extend_from_slice(&7i32.to_be_bytes());
    bytes.extend_from_slice(&(-1i16).to_be_bytes());
    bytes.extend_from_slice(body);
    framed(&bytes)
}

/// Sends the bytes and reads until the broker closes or says nothing more for a moment.
fn exchange(tidings: &Tidings, bytes: &[u8]) {
    let mut stream = TcpStream::connect(tidings.bootstrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let _ = stream.write_all(bytes);
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

/// Sends a request and reads how its answer begins: length, correlation id, error code.
fn answer_head(stream: &mut TcpStream, bytes: &[u8]) -> [u8; 10] {
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut head = [0; 10];
    stream.read_exact(&mut head).unwrap();
    head
}

#[test]
fn frames_that_are_no_requests_close_their_connection_only() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::broker(directory.path()).start();
    let mut other = TcpStream::connect(tidings.bootstrap()).unwrap();
    let huge_array = [0x7f, 0xff, 0xff, 0xff];
    for bytes in [
        framed(b""),
        framed(b"\x00"),
        framed(b"\x00\x03\x00\x01"),
        (-1i32).to_be_bytes().to_vec(),
        i32::MAX.to_be_bytes().to_vec(),
        i32::MIN.to_be_bytes().to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        request(9999, 0, b""),
        request(3, 1, &huge_array),
        request(3, 1, b"\x00\x00\x00\x01\x7f\xff"),
        request(0, 3, b"\xff\xff\x00\x01\x00\x00\x00\x00\x7f\xff\xff\xff"),
        request(1, 4, &huge_array.repeat(6)),
        request(11, 0, &huge_array),
        request(19, 2, &huge_array),
    ] {
        exchange(&tidings, &bytes);
    }
    // A version nobody knows is answered in version 0 with the versions there are. The header of such a request
    // is a flexible one: it ends with a count of tagged fields.
    let mut stream = TcpStream::connect(tidings.bootstrap()).unwrap();
    let head = answer_head(&mut stream, &request(18, 999, b"\x00\x01\x01\x00"));
    assert!(u32::from_be_bytes(head[..4].try_into().unwrap()) > 6, "{head:?}");
    assert_eq!(&head[4..], b"\x00\x00\x00\x07\x00\x23", "correlation id 7, error 35: unsupported version");
    // Another connection never noticed.
    let head = answer_head(&mut other, &request(18, 0, b""));
    assert_eq!(&head[4..], b"\x00\x00\x00\x07\x00\x00");
    unharmed(&tidings);
}

#[test]
fn connections_that_promise_much_and_send_little_cost_little() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::broker(directory.path()).start();
    unharmed(&tidings);
    let before = tidings.resident_bytes();
    let mut connections = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(tidings.bootstrap()).unwrap();
        stream.write_all(&(90i32 << 20).to_be_bytes()).unwrap();
        stream.write_all(&[0; 5000]).unwrap();
        connections.push(stream);
    }
    unharmed(&tidings);
    let grown = tidings.resident_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "200 connections grew it by {} MiB", grown / MIB);
}

#[test]
fn random_requests_harm_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let tidings = Launch::broker(directory.path()).start();
    unharmed(&tidings);
    let before = tidings.resident_bytes();
    let mut random = Random(0x5eed);
    for round in 0..400 {
        let mut bytes = Vec::new();
        for _ in 0..1 + random.below(8) {
            let body: Vec<u8> = (0..random.below(120)).map(|_| random.interesting_byte()).collect();
            let api_key = i16::try_from(random.below(75)).unwrap();
            bytes.extend(request(api_key, i16::try_from(random.below(18)).unwrap(), &body));
        }
        let Ok(mut stream) = TcpStream::connect(tidings.bootstrap()) else {
            panic!("round {round}: nobody listens")
        };
        let _ = stream.write_all(&bytes);
        // Half of the connections wait for what comes, the others are gone at once.
        if random.below(2) == 0 {
            stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            let _ = stream.read(&mut [0; 1024]);
        }
    }
    unharmed(&tidings);
    until("memory is back within its bound", || {
        (tidings.resident_bytes().saturating_sub(before) < 64 * MIB).then_some(())
    });
}

/// The same sequence in every run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Bytes that lengths are made of come more often than others.
    fn interesting_byte(&mut self) -> u8 {
        match self.below(4) {
            0 => 0,
            1 => 0xff,
            2 => 0x7f,
            _ => self.next().to_le_bytes()[0],
        }
    }
}
