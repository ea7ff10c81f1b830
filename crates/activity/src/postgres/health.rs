//! Whether the server can be reached, known without asking it.
//!
//! A connection that breaks says so at once; from then on one task tries to connect until that works. Invariant: the fault
//! is cleared only by an answer of the server.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::options::PostgresOptions;
use super::schema::Identity;
use super::session::{Role, Session};

/// Between two attempts to reach the server.
const RETRY: Duration = Duration::from_millis(500);
/// How long an attempt may take.
const LIMIT: Duration = Duration::from_secs(5);

/// What is known of the server.
#[derive(Default)]
pub struct Health {
    /// Drawn when the tables were made; known from the first connection on.
    pub identity: OnceLock<Identity>,
    fault: Mutex<Option<String>>,
    suspicion: Notify,
}

impl Health {
    /// The reason why the store cannot be used now, if there is one.
    pub fn fault(&self) -> Option<String> {
        self.fault.lock().clone()
    }

    /// Something went wrong that may be the server's end.
    pub fn suspect(&self, why: String) {
        *self.fault.lock() = Some(why);
        self.suspicion.notify_one();
    }

    /// The server has answered.
    pub fn answered(&self) {
        let mut fault = self.fault.lock();
        if fault.is_some() {
            *fault = None;
        }
    }
}

/// Reaches the server for the first time, and again after each suspicion. Never ends.
pub async fn watch(options: PostgresOptions, health: Arc<Health>) {
    let mut told = None;
    loop {
        let attempt = tokio::time::timeout(LIMIT, Session::connect(&options, &health, Role::Reader, LIMIT));
        let why = match attempt.await {
            Ok(Ok(_session)) => None,
            Ok(Err(fault)) => Some(fault.to_string()),
            Err(_) => Some(format!("no answer within {} ms", LIMIT.as_millis())),
        };
        match why {
            None => {
                health.answered();
                if told.take().is_some() {
                    tracing::info!(store = options.name(), "the activity store can be reached again");
                }
                health.suspicion.notified().await;
            }
            Some(why) => {
                if told.as_ref() != Some(&why) {
                    tracing::warn!(store = options.name(), reason = why, "the activity store cannot be used");
                }
                *health.fault.lock() = Some(why.clone());
                told = Some(why);
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
