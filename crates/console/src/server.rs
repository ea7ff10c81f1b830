//! The HTTP listener.
//!
//! Binding and serving are two steps, so that a taken port is found before anything else starts, and so that routes may be
//! built from what started in between. Invariant: at most [`MAX_CONNECTIONS`] connections are open at a time; more wait in
//! the kernel's queue, whose length is bounded too.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::serve::Listener;
use prometheus_client::registry::Registry;
use tidings_http::{HostGuard, Problem, protect};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use crate::health::HealthCheck;
use crate::{health, metrics};

/// The most connections open at a time.
pub const MAX_CONNECTIONS: usize = 1024;

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
        let ServerOptions { router, registry, checks, mut host_names } = options;
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
        let listener =
            LimitedListener { inner: self.listener, slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)) };
        let serving = tokio::spawn(async move {
            let serving = axum::serve(listener, router).with_graceful_shutdown(async {
                // An error means that the handle is gone, which is no reason to stop.
                if stopped.await.is_err() {
                    std::future::pending::<()>().await;
                }
            });
            if let Err(error) = serving.await {
                tracing::error!(%error, "the http server ended");
            }
        });
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

/// Accepts only while there is a free slot, and keeps small answers from waiting for each other.
struct LimitedListener {
    inner: TcpListener,
    slots: Arc<Semaphore>,
}

/// A connection that holds its slot.
struct LimitedConnection {
    stream: TcpStream,
    _slot: OwnedSemaphorePermit,
}

impl Listener for LimitedListener {
    type Io = LimitedConnection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LimitedConnection, SocketAddr) {
        let slot = loop {
            // The semaphore is never closed, so this never fails.
            if let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await {
                break slot;
            }
        };
        loop {
            match self.inner.accept().await {
                Ok((stream, address)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "cannot set TCP_NODELAY");
                    }
                    return (LimitedConnection { stream, _slot: slot }, address);
                }
                Err(error) if is_the_connections_own(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept http connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

fn is_the_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

impl AsyncRead for LimitedConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for LimitedConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
