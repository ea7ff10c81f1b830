//! What has to be there before a consumer can join: the cluster, its source topics and the topics of the failure inbox.

use std::time::{Duration, Instant};

use super::{IDLE_WAIT, Runtime, jitter};
use crate::admin::{Admin, AdminError};
use crate::consumer::state::Phase;

/// How long each attempt may take.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(2);

impl Runtime {
    /// Waits until the source topics exist, and creates those of the failure inbox. `false` if asked to stop.
    pub(super) fn prepare_topics(&mut self) -> bool {
        let mut failed_attempts = 0;
        while !self.monitor.is_stop_requested() {
            match self.try_prepare_topics() {
                Ok(()) => return true,
                Err(error) => {
                    let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
                    let waiting_for = format!("{error}{hint}");
                    tracing::info!(group = %self.options.group, waiting_for, "consumer not started yet");
                    self.monitor
                        .update(|state| state.phase = Phase::Starting { waiting_for: Some(waiting_for) });
                }
            }
            failed_attempts += 1;
            let until = Instant::now() + self.options.backoff.wait(failed_attempts, jitter());
            while Instant::now() < until && !self.monitor.is_stop_requested() {
                // Polling instead of sleeping: errors would pile up in the client's queue for as long as this takes.
                let left = until.saturating_duration_since(Instant::now());
                let _ = self.consumer.poll(left.min(IDLE_WAIT));
            }
        }
        false
    }

    pub(super) fn try_prepare_topics(&self) -> Result<(), AdminError> {
        let admin = Admin::new(&self.cluster, PREPARE_TIMEOUT)?;
        let existing = admin.list_topics()?;
        let is_missing = |topic: &&String| !existing.iter().any(|found| found.name == **topic);
        if let Some(topic) = self.options.topics.iter().find(is_missing) {
            return Err(AdminError::UnknownTopic { topic: topic.clone() });
        }
        let mut specs = Vec::new();
        for topics in &self.failure_topics {
            specs.extend(topics.specs(self.options.letter_partitions));
            specs.push(topics.retry_spec(&self.options.group));
        }
        admin.ensure_topics(&specs)?;
        Ok(())
    }
}
