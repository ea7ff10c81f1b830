//! A snapshot of everything that a server keeps, as of one instant.
//!
//! Owns the order. The spool comes first: what leaves it later is in the store or on the topic by then. Then the store stands
//! still for the instant of the logs. So the store has what the committed offsets say it has, and whatever it counts as
//! published is on the topic.

use std::path::Path;
use std::sync::{Arc, Weak};

use anyhow::{Context, bail};
use tidings_activity::{ActivityCopier, INSTANCE_FILE};
use tidings_broker::BrokerHandle;
use tidings_log::{Disk, RealDisk, SnapshotFile};

use super::{SPOOL_FILE, STORE_FILE};
use crate::control::{Snapshot, TakeSnapshot};

/// Of a broker alone.
pub fn of_broker(broker: &Arc<BrokerHandle>) -> Arc<TakeSnapshot> {
    // The broker has to be alone when it is stopped.
    let broker = Arc::downgrade(broker);
    Arc::new(move |folder| {
        let broker = alive(&broker)?;
        Ok(Snapshot { files: broker.snapshot(folder, || ())?, min_free_bytes: broker.min_free_bytes() })
    })
}

/// Of the whole platform; without a broker of its own, of the services' files.
pub fn of_platform(
    data_dir: &Path,
    broker: Option<&Arc<BrokerHandle>>,
    activity: ActivityCopier,
) -> Arc<TakeSnapshot> {
    let (data_dir, broker) = (data_dir.to_owned(), broker.map(Arc::downgrade));
    Arc::new(move |folder| {
        let min_free_bytes = match &broker {
            Some(broker) => alive(broker)?.min_free_bytes(),
            None => 0,
        };
        require_room(&data_dir, min_free_bytes)?;
        let mut files = take(folder, broker.as_ref(), &activity)?;
        if broker.is_some() {
            files.push(copy_instance(&data_dir, folder)?);
        }
        Ok(Snapshot { files, min_free_bytes })
    })
}

fn take(
    folder: &Path,
    broker: Option<&Weak<BrokerHandle>>,
    activity: &ActivityCopier,
) -> anyhow::Result<Vec<SnapshotFile>> {
    let spooled = activity.copy_spool(&folder.join(SPOOL_FILE)).context("copy the spool")?;
    let mut store = Ok(None);
    let mut stand_still = || match activity.begin_store() {
        Ok(begun) => {
            let (held, copy) = begun.unzip();
            store = Ok(copy);
            held
        }
        Err(error) => {
            store = Err(error);
            None
        }
    };
    let mut files = match broker {
        Some(broker) => alive(broker)?.snapshot(folder, stand_still)?,
        None => {
            drop(stand_still());
            Vec::new()
        }
    };
    match store? {
        Some(copy) => {
            let bytes = copy.write_to(&folder.join(STORE_FILE))?;
            files.push(SnapshotFile { path: STORE_FILE.into(), bytes });
        }
        None => {
            tracing::warn!("the activities are in PostgreSQL and not in this backup: pg_dump copies them")
        }
    }
    files.extend(spooled.map(|bytes| SnapshotFile { path: SPOOL_FILE.into(), bytes }));
    Ok(files)
}

/// The writer's group in the copied logs has this instance as a member: without its name what is restored would wait until that
/// member's session is over. With a cluster, where the original goes on, what is restored is another instance.
fn copy_instance(data_dir: &Path, folder: &Path) -> anyhow::Result<SnapshotFile> {
    let bytes = std::fs::copy(data_dir.join(INSTANCE_FILE), folder.join(INSTANCE_FILE));
    Ok(SnapshotFile { path: INSTANCE_FILE.into(), bytes: bytes.context("copy the name of the instance")? })
}

/// Store and spool are copied. Without room for that above what the broker keeps free, it would refuse produces meanwhile.
fn require_room(data_dir: &Path, min_free_bytes: u64) -> anyhow::Result<()> {
    let wal = format!("{STORE_FILE}-wal");
    let length = |name: &str| std::fs::metadata(data_dir.join(name)).map_or(0, |found| found.len());
    let needed_bytes = length(STORE_FILE) + length(&wal) + length(SPOOL_FILE);
    let space = RealDisk.space(data_dir).context("ask for free space")?;
    if space.available_bytes < needed_bytes.saturating_add(min_free_bytes) {
        bail!(
            "the copy of the store takes up to {needed_bytes} bytes beside it for the time of the backup, and of {} bytes \
             that are free {min_free_bytes} must stay so (log.min.free.bytes)",
            space.available_bytes
        );
    }
    Ok(())
}

fn alive(broker: &Weak<BrokerHandle>) -> anyhow::Result<Arc<BrokerHandle>> {
    broker.upgrade().context("the broker is stopped")
}
