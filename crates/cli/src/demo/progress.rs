//! How far the writer is: what it has counted, and what it has committed.
//!
//! Invariant: the lag is what the cluster says, not what this process believes: committed offsets against the ends of the
//! topic. An offset is committed only when its record is stored, so a lag of 0 means that everything is.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use tidings::Cluster;
use tidings::admin::{Admin, AdminError};
use tidings_activity::service::{DEFAULT_TOPIC, writer_group};

use crate::output::thousands;
use crate::platform::Platform;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// Waits until the writer has worked on as many records as are played, and has caught up with the topic.
pub async fn until_stored(
    platform: &Platform,
    events: u64,
    bar: &ProgressBar,
    deadline: Instant,
) -> anyhow::Result<()> {
    let metrics = platform.activity_metrics();
    loop {
        let done = metrics.stored.get() + metrics.duplicates.get() + metrics.dead_letters.get();
        bar.set_position(done.min(events));
        // The writer may also have had to catch up with an earlier run, so the count alone says only "not yet".
        if done >= events && metrics.accepted.get() >= events && writer_lag(platform).await? == 0 {
            bar.finish();
            return Ok(());
        }
        if Instant::now() > deadline {
            let (played, stored) = (metrics.accepted.get().min(events), done.min(events));
            bail!(
                "the time limit is over: {} of {} events played, {} stored",
                thousands(played),
                thousands(events),
                thousands(stored)
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Records that the writer has not committed yet.
pub async fn writer_lag(platform: &Platform) -> anyhow::Result<u64> {
    let cluster = platform.cluster().clone();
    let lag =
        tokio::task::spawn_blocking(move || lag_of(&cluster)).await.context("asking for the lag panicked")?;
    Ok(lag?)
}

fn lag_of(cluster: &Cluster) -> Result<u64, AdminError> {
    let admin = Admin::new(cluster, REQUEST_TIMEOUT)?;
    let committed: HashMap<i32, i64> = admin
        .group_offsets(&writer_group(DEFAULT_TOPIC))?
        .into_iter()
        .filter(|offset| offset.topic == DEFAULT_TOPIC)
        .map(|offset| (offset.partition, offset.committed_offset))
        .collect();
    let topic = admin.describe_topic(DEFAULT_TOPIC)?;
    let lag = topic.partitions.iter().map(|partition| {
        let start = partition.start_offset.unwrap_or(0);
        let done = committed.get(&partition.partition).copied().unwrap_or(start);
        u64::try_from(partition.end_offset.unwrap_or(0) - done).unwrap_or(0)
    });
    Ok(lag.sum())
}
