//! The server as its clients see it: guard, health, metrics, errors, shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tidings_console::{HealthCheck, Server, ServerError, ServerHandle, ServerOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

async fn start(healthy: Arc<AtomicBool>) -> ServerHandle {
    let mut registry = Registry::default();
    tidings_console::metrics::register_process_metrics(&mut registry);
    let check = HealthCheck::new("disk", move || match healthy.load(Ordering::Relaxed) {
        true => Ok(()),
        false => Err("the disk is gone".to_owned()),
    });
    let router = Router::new().route("/hello", get(async || "hello"));
    let options = ServerOptions { router, registry, checks: vec![check], host_names: Vec::new() };
    Server::bind(LOOPBACK).await.unwrap().serve(options)
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
