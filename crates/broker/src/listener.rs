//! The listening socket: accepts connections and ends with the broker.
//!
//! Owns how many connections there are at a time (`max.connections`): beyond it nobody is accepted until somebody
//! leaves, and whoever waits does so in the kernel's queue. Each connection is one task; when the listener is dropped,
//! they all are.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::connection::{self, Closed};
use crate::rate_limit::RateLimit;
use crate::shared::Shared;

/// How long to wait after the system refused a connection for want of descriptors or memory.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// How long connections may take to finish what they are doing when the broker stops.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// At most one line in this time about connections that broke the protocol.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Accepts until told to stop, then waits for the connections to end.
pub(crate) async fn run(listener: TcpListener, shared: Arc<Shared>, mut stopping: watch::Receiver<bool>) {
    let max_connections = usize::try_from(shared.settings.int("max.connections")).unwrap_or(usize::MAX);
    let mut connections = JoinSet::new();
    let protocol_errors = Arc::new(RateLimit::new(LOG_INTERVAL));
    loop {
        tokio::select! {
            biased;
            () = stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < max_connections => match accepted {
                Ok((stream, _)) => {
                    let serving = serve(stream, shared.clone(), stopping.clone(), protocol_errors.clone());
                    connections.spawn(serving);
                }
                Err(error) => pause_after(&error).await,
            }
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_PATIENCE, all_ended).await.is_err() {
        connections.shutdown().await;
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the handle is gone, and the broker with it.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

async fn pause_after(error: &io::Error) {
    // A peer that hung up before it was accepted is no news.
    if error.kind() != io::ErrorKind::ConnectionAborted {
        tracing::warn!(%error, "cannot accept connections");
        tokio::time::sleep(REFUSED_PAUSE).await;
    }
}

async fn serve(
    stream: TcpStream,
    shared: Arc<Shared>,
    stopping: watch::Receiver<bool>,
    errors: Arc<RateLimit>,
) {
    let (Ok(peer), Ok(local), Ok(())) = (stream.peer_addr(), stream.local_addr(), stream.set_nodelay(true))
    else {
        return;
    };
    let _open = shared.metrics.connection_opened();
    let closed: Closed = connection::serve(stream, peer, local, shared.clone(), stopping).await;
    if closed.is_protocol_error() {
        if let Some(suppressed) = errors.admit() {
            tracing::warn!(%peer, reason = %closed, suppressed, "closed a connection");
        }
    } else {
        tracing::debug!(%peer, reason = %closed, "connection ended");
    }
}
