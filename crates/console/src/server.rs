//! The HTTP listener.
//!
//! Binding and serving are two steps, so that a taken port is found before anything else starts, and so that routes may be
//! built from what started in between. Invariants: at most [`Limits::connection_count`] connections are open at a time, and more
//! wait in the kernel's queue, whose length is bounded too; none is held for long by a client that asks nothing. How long a
//! request's body and the reader of an answer may take is the business of those who read and write them.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::registry::Registry;
use tidings_http::{HostGuard, Problem, protect};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::health::HealthCheck;
use crate::{health, metrics};

/// The pause after an accept that failed for want of a resource (descriptors, memory): trying at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Something else listens there.
    #[error("http address {address} is taken by another program")]
    AddressTaken {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// The address cannot be listened at.
    #[error("cannot listen for http at {address}: {source}")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most that are open at a time.
    pub connection_count: usize,
    /// How long the head of a request may take to arrive, counted from the connection's beginning or the end of the answer
    /// before: so this is also for how long a connection is kept idle. Then it is closed.
    pub head_timeout: Duration,
    /// The same for connections that are made while more than half of `connection_count` are open, so that those who ask
    /// nothing do not keep out those who do.
    pub crowded_head_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // Proxies keep idle connections for a minute, as a rule. Closed from here sooner, they would now and then send a
        // request into a connection that is just being closed.
        let (head_timeout, crowded_head_timeout) = (Duration::from_secs(75), Duration::from_secs(5));
        Self { connection_count: 1024, head_timeout, crowded_head_timeout }
    }
}

/// What to serve.
#[derive(Default)]
pub struct ServerOptions {
    /// The services' routes.
    pub router: Router,
    /// Everything counted.
    pub registry: Registry,
    /// What `/readyz` asks.
    pub checks: Vec<HealthCheck>,
    /// Host names besides loopback under which the server may be addressed.
    pub host_names: Vec<String>,
    /// What connections may take.
    pub limits: Limits,
}

/// A listener that does not serve yet: connections to it wait.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// A running server; dropping it does not stop it.
#[derive(Debug)]
pub struct ServerHandle {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl Server {
    /// Takes the address; port 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> Result<Server, ServerError> {
        let listener = TcpListener::bind(address).await.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ServerError::AddressTaken { address },
            _ => ServerError::Listen { address, source },
        })?;
        let address = listener.local_addr().map_err(|source| ServerError::Listen { address, source })?;
        Ok(Server { listener, address })
    }

    /// The address taken, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Begins to answer.
    pub fn serve(self, options: ServerOptions) -> ServerHandle {
        let ServerOptions { router, registry, checks, mut host_names, limits } = options;
        if !self.address.ip().is_unspecified() {
            host_names.push(self.address.ip().to_string());
        }
        let router = router
            .merge(metrics::router(registry))
            .merge(health::router(checks))
            .method_not_allowed_fallback(async || {
                let status = StatusCode::METHOD_NOT_ALLOWED;
                Problem::new(
                    status,
                    "method-not-allowed",
                    "Method not allowed",
                    "no such method for this path",
                )
            })
            .fallback(async || Problem::not_found("no such path"));
        let router = protect(router, HostGuard::new(host_names));
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(self.listener, router, limits, stopped));
        ServerHandle { address: self.address, stop, serving }
    }
}

impl ServerHandle {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets requests under way finish for at most `patience`, then cuts them off.
    pub async fn shutdown(mut self, patience: Duration) {
        let _already_ended = self.stop.send(());
        if tokio::time::timeout(patience, &mut self.serving).await.is_err() {
            tracing::warn!("requests were still under way after {patience:?}");
            self.serving.abort();
        }
    }
}

/// Serves connections until it is told to stop, and then for as long as requests are under way.
async fn serve(listener: TcpListener, router: Router, limits: Limits, stopped: oneshot::Receiver<()>) {
    let slots = Arc::new(Semaphore::new(limits.connection_count));
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut stopped = pin!(async {
        // An error means that the handle is gone, which is no reason to stop.
        if stopped.await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    loop {
        let (stream, slot) = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = &mut stopped => break,
        };
        let is_crowded = slots.available_permits() < limits.connection_count / 2;
        let head_timeout = if is_crowded { limits.crowded_head_timeout } else { limits.head_timeout };
        connections.spawn(converse(stream, slot, router.clone(), head_timeout, stopping.clone()));
        while connections.try_join_next().is_some() {}
    }
    drop((listener, stop));
    while connections.join_next().await.is_some() {}
}

/// Accepts when there is a free slot, and keeps small answers from waiting for each other.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let slot = loop {
        // The semaphore is never closed, so this never fails.
        if let Ok(slot) = Arc::clone(slots).acquire_owned().await {
            break slot;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                return (stream, slot);
            }
            Err(error) if is_the_connections_own(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept http connections");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_the_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Answers the requests of one connection, which holds its slot until it is closed. The sender of `stopping` goes when no more
/// requests are to be taken.
async fn converse(
    stream: TcpStream,
    _slot: OwnedSemaphorePermit,
    router: Router,
    head_timeout: Duration,
    mut stopping: watch::Receiver<()>,
) {
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_timeout)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "an http connection ended");
    }
}
