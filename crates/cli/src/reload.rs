//! SIGHUP: the settings are read again while everything runs.
//!
//! What can change at run time does (`log`, and what the caller applies); for the rest it is told that it waits for a restart. Invariant: settings that
//! are wrong, in whatever place, change nothing.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::platform::{LogFilter, check_settings};
use crate::report::one_line;

/// Reads the settings as the start did.
type Load = Box<dyn Fn() -> anyhow::Result<Config> + Send + Sync>;

/// Takes the signal over from the moment this is made.
pub struct Reload {
    hangup: Signal,
    load: Load,
    log_filter: LogFilter,
    /// As they were read last, applied or not.
    config: Config,
}

impl Reload {
    /// For a program that was started with `config`, as `load` gives it.
    pub fn install(
        config: Config,
        log_filter: LogFilter,
        load: impl Fn() -> anyhow::Result<Config> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let hangup = signal(SignalKind::hangup()).context("install a handler for SIGHUP")?;
        Ok(Self { hangup, load: Box::new(load), log_filter, config })
    }

    /// Reloads at each signal, for as long as it is polled; `apply` gets settings that are right.
    pub async fn run(&mut self, apply: impl Fn(&Config)) {
        while self.hangup.recv().await.is_some() {
            self.reload(&apply);
        }
        std::future::pending().await
    }

    fn reload(&mut self, apply: impl Fn(&Config)) {
        let read = (self.load)().and_then(|config| {
            check_settings(&config)?;
            // Before anything else, because it can still be refused.
            self.log_filter.set(&config.log)?;
            Ok(config)
        });
        match read {
            Ok(config) => {
                apply(&config);
                let waiting = self.config.needing_restart(&config);
                let log = &config.log;
                if waiting.is_empty() {
                    tracing::info!(log, "the settings were read again");
                } else {
                    let settings = waiting.join(", ");
                    tracing::warn!(
                        log,
                        settings,
                        "the settings were read again; some changes wait for a restart"
                    );
                }
                // What waits is told each time, until the restart.
                self.config.log = config.log;
            }
            Err(error) => {
                tracing::error!(error = one_line(&error), "the settings are wrong: all stay as they were");
            }
        }
    }
}
