//! When to stop: SIGTERM or SIGINT asks for it, a second one insists.
//!
//! Invariant: from the first signal on the process lives at most [`SHUTDOWN_LIMIT`], whatever hangs; what was
//! acknowledged is durable without any farewell.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The longest a shutdown may take. A supervisor expects five seconds; the rest is for the exit itself.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_millis(4500);

/// Both signals, taken over from the moment this is made.
pub struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    /// Takes over the signals.
    pub fn install() -> anyhow::Result<StopSignal> {
        let terminate = signal(SignalKind::terminate()).context("install a handler for SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("install a handler for SIGINT")?;
        Ok(StopSignal { terminate, interrupt })
    }

    /// Waits for one of them.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Runs the shutdown; a second signal, or the limit, cuts it short.
    pub async fn finish(&mut self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = shutdown => {}
            () = self.received() => tracing::warn!("stopped at once by a second signal"),
            () = tokio::time::sleep(SHUTDOWN_LIMIT) => {
                tracing::warn!("stopped after {SHUTDOWN_LIMIT:?}, before everything had finished");
            }
        }
    }
}
