//! Counts, in the store itself, whether every event that was played is there.
//!
//! Owns the demo's verdict. It asks for every event by tenant and id, one by one; the store holds at most one activity
//! per tenant and id, so found means stored exactly once. Earlier runs on the same directory do not confuse it, and memory
//! does not grow with the length of the data.

use std::sync::Arc;

use anyhow::Context;
use indicatif::ProgressBar;
use tidings_activity::Store;

use super::dataset::Dataset;
use super::playback::Playback;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Events played.
    pub played: u64,
    /// Those that are in the store.
    pub found: u64,
}

impl Verdict {
    /// Whether every event is stored exactly once.
    pub fn is_exactly_once(&self) -> bool {
        self.found == self.played
    }
}

/// Looks every event up; `progress` counts them.
pub async fn verify(
    store: Arc<dyn Store>,
    dataset: Dataset,
    progress: ProgressBar,
) -> anyhow::Result<Verdict> {
    let check = move || look_up(&*store, &dataset, &progress);
    tokio::task::spawn_blocking(check).await.context("the check panicked")?
}

fn look_up(store: &dyn Store, dataset: &Dataset, progress: &ProgressBar) -> anyhow::Result<Verdict> {
    let mut verdict = Verdict::default();
    for event in Playback::start(dataset)? {
        let event = event?;
        verdict.played += 1;
        verdict.found += u64::from(store.get(&event.tenant, &event.id.to_string())?.is_some());
        progress.inc(1);
    }
    progress.finish();
    Ok(verdict)
}
