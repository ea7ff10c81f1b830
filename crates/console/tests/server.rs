//! The server as its clients see it: guard, health, metrics, errors, limits of connections, shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use prometheus_client::registry::Registry;
use tidings::Cluster;
use tidings_console::{HealthCheck, Limits, Server, ServerError, ServerHandle, ServerOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn start(healthy: Arc<AtomicBool>) -> ServerHandle {
    start_limited(healthy, Limits::default()).await
}

async fn start_limited(healthy: Arc<AtomicBool>, limits: Limits) -> ServerHandle {
    let mut registry = Registry::default();
    tidings_console::metrics::register_process_metrics(&mut registry);
    let check = HealthCheck::new("disk", move || match healthy.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err("the disk is gone".to_owned()),
    });
    let router = Router::new()
        .route("/hello", get(async || "hello"))
        .route("/slow", get(slow))
        .route("/echo", post(async |body: String| body))
        .merge(tidings_console::dlq::router(Cluster::new("127.0.0.1:1")));
    let options = ServerOptions { router, registry, checks: vec![check], host_names: Vec::new(), limits };
    Server::bind(LOOPBACK).await.unwrap().serve(options)
}

/// Begins at once, and then says a word every 100 ms, ten in all.
async fn slow() -> Body {
    let words = futures_util::stream::unfold(0, async |count| {
        tokio::time::sleep(Duration::from_millis(100)).await;
        (count < 10).then_some((Ok::<_, std::convert::Infallible>("word "), count + 1))
    });
    Body::from_stream(words)
}

/// Sends one request and returns the status and everything after it.
async fn request(server: &ServerHandle, request_line: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    let request = format!("{request_line} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (status_line, rest) = answer.split_once("\r\n").unwrap();
    (status_line.split(' ').nth(1).unwrap().parse().unwrap(), rest.to_owned())
}

#[tokio::test]
async fn serves_routes_health_and_metrics() {
    let healthy = Arc::new(AtomicBool::new(true));
    let server = start(Arc::clone(&healthy)).await;
    let host = "host: localhost\r\n";
    assert_eq!(request(&server, "GET /hello", host).await.0, 200);
    assert_eq!(request(&server, "GET /healthz", host).await.0, 200);
    assert_eq!(request(&server, "GET /readyz", host).await.0, 200);
    healthy.store(false, Ordering::Relaxed);
    let (status, answer) = request(&server, "GET /readyz", host).await;
    assert_eq!(status, 503);
    assert!(answer.contains("the disk is gone"), "{answer}");
    assert_eq!(request(&server, "GET /healthz", host).await.0, 200);
    let (status, answer) = request(&server, "GET /metrics", host).await;
    assert_eq!(status, 200);
    assert!(answer.contains("process_resident_memory_bytes "), "{answer}");
}

#[tokio::test]
async fn refuses_what_it_does_not_know_and_whom_it_does_not_serve() {
    let server = start(Arc::default()).await;
    let host = "host: 127.0.0.1\r\n";
    for (line, headers, expect) in [
        ("GET /nothing", host, 404),
        ("DELETE /hello", host, 405),
        ("GET /hello", "host: evil.example\r\n", 403),
        ("GET /metrics", "host: evil.example\r\n", 403),
        ("GET /nothing", "host: evil.example\r\n", 403),
        ("GET /hello", "host: localhost\r\norigin: https://evil.example\r\n", 403),
        ("GET /hello", "", 400),
        ("GET /api/v1/dlq/%ff", host, 400),
        ("GET /api/v1/dlq/%ff/0-1", host, 400),
        ("GET /api/v1/dlq/t/%ff", host, 400),
        ("GET /api/v1/dlq/%ff/queues", host, 400),
        ("POST /api/v1/dlq/%ff/redrive", host, 400),
        ("POST /api/v1/dlq/%ff/discard", host, 400),
        ("GET /%ff", host, 404),
    ] {
        let (status, answer) = request(&server, line, headers).await;
        assert_eq!(status, expect, "{line} {headers}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
}

#[tokio::test]
async fn a_taken_address_is_a_clear_error() {
    let server = start(Arc::default()).await;
    let error = Server::bind(server.local_addr()).await.unwrap_err();
    assert!(matches!(error, ServerError::AddressTaken { .. }));
    assert_eq!(
        error.to_string(),
        format!("http address {} is taken by another program", server.local_addr())
    );
}

const HEAD_TIMEOUT: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(30);

/// As many connections as there may be, on which nothing was ever asked, kept even `/healthz` from being answered.
#[tokio::test]
async fn connections_that_ask_nothing_keep_nobody_out() {
    // The first of them are made while there is room, and have more time than the test.
    let limits =
        Limits { connection_count: 8, head_timeout: 2 * PATIENCE, crowded_head_timeout: HEAD_TIMEOUT };
    let server = start_limited(Arc::default(), limits).await;
    let mut idle = Vec::new();
    for _ in 0..limits.connection_count {
        idle.push(TcpStream::connect(server.local_addr()).await.unwrap());
    }
    let answered = request(&server, "GET /healthz", "host: localhost\r\n");
    let (status, _) = tokio::time::timeout(PATIENCE, answered).await.expect("an answer");
    assert_eq!(status, 200);
    let first = idle[0].try_read(&mut [0]).unwrap_err();
    assert_eq!(first.kind(), std::io::ErrorKind::WouldBlock, "it is open still");
}

#[tokio::test]
async fn a_head_that_does_not_come_or_does_not_end_closes_its_connection() {
    let server =
        start_limited(Arc::default(), Limits { head_timeout: HEAD_TIMEOUT, ..Limits::default() }).await;
    let answer = "GET /hello HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for (begin, expect_answer) in [("", false), ("GET /hello HTTP/1.1\r\nhost: ", false), (answer, true)] {
        let before = std::time::Instant::now();
        let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
        stream.write_all(begin.as_bytes()).await.unwrap();
        let mut read = String::new();
        let closed = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut read)).await;
        closed.unwrap_or_else(|_| panic!("it is closed after {begin:?}")).unwrap();
        assert!(before.elapsed() >= HEAD_TIMEOUT);
        assert_eq!(read.starts_with("HTTP/1.1 200 OK"), expect_answer, "{begin:?}: {read}");
    }
}

#[tokio::test]
async fn what_is_under_way_takes_the_time_that_it_takes() {
    let server =
        start_limited(Arc::default(), Limits { head_timeout: HEAD_TIMEOUT, ..Limits::default() }).await;
    let (status, answer) = request(&server, "GET /slow", "host: localhost\r\n").await;
    assert_eq!((status, answer.matches("word").count()), (200, 10));
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    let head = "POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    for letter in b"hello" {
        tokio::time::sleep(HEAD_TIMEOUT / 2).await;
        stream.write_all(&[*letter]).await.unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_idle_connections() {
    let server = start(Arc::default()).await;
    let mut idle = TcpStream::connect(server.local_addr()).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    let before = std::time::Instant::now();
    server.shutdown(Duration::from_secs(30)).await;
    assert!(before.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn shutdown_lets_an_answer_end_or_cuts_it_off_after_its_patience() {
    for (patience, is_whole) in [(PATIENCE, true), (Duration::from_millis(100), false)] {
        let server = start(Arc::default()).await;
        let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
        stream.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        server.shutdown(patience).await;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        let words = String::from_utf8_lossy(&rest).matches("word").count();
        assert_eq!(words == 10, is_whole, "{words}");
    }
}
