//! What all logs of a data directory share.
//!
//! Owns the disk, the options, the open files, the committer, the storage's health and its free space. Invariants: each
//! thread that syncs the file system has a descriptor of its own, because a write-back error is reported
//! once per descriptor.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use parking_lot::{Condvar, Mutex};

use crate::commit::Committer;
use crate::config::DataDirOptions;
use crate::disk::{Disk, DiskRoot};
use crate::health::Health;
use crate::open_files::OpenFiles;
use crate::space::{CHECK_EVERY_BYTES, LowSpace, SpaceWatch};

#[derive(Debug)]
pub(crate) struct Storage {
    pub disk: Arc<dyn Disk>,
    pub root: PathBuf,
    pub options: DataDirOptions,
    pub open_files: OpenFiles,
    pub health: Health,
    pub space: SpaceWatch,
    pub committer: Committer,
    /// The committer's descriptor.
    pub commit_root: Box<dyn DiskRoot>,
    pub checkpoints: CheckpointBell,
}

impl Storage {
    pub fn new(disk: Arc<dyn Disk>, root: PathBuf, options: DataDirOptions) -> std::io::Result<Self> {
        Ok(Self {
            commit_root: disk.open_root(&root)?,
            open_files: OpenFiles::new(options.max_open_files.min(half_of_allowed_files())),
            health: Health::default(),
            space: SpaceWatch::new(options.min_free_bytes),
            committer: Committer::new(),
            checkpoints: CheckpointBell::default(),
            disk,
            root,
            options,
        })
    }

    /// Looks at the file system now.
    pub fn check_space(&self) -> Option<LowSpace> {
        self.space.check(&*self.disk, &self.root, &*self.commit_root)
    }

    /// To be called when a write has failed.
    pub fn note_failed_write(&self) {
        self.space.note_failed_write(&self.root, &*self.commit_root);
    }

    /// Counts appended bytes; rings for a checkpoint when there are many, and looks at the disk's space now and then.
    pub fn note_appended(&self, bytes: u64) {
        let before = self.checkpoints.appended_bytes.fetch_add(bytes, Relaxed);
        if before / CHECK_EVERY_BYTES != (before + bytes) / CHECK_EVERY_BYTES {
            self.check_space();
        }
        if before < self.options.checkpoint_bytes && before + bytes >= self.options.checkpoint_bytes {
            self.checkpoints.ring();
        }
    }
}

/// Sockets need the other half.
fn half_of_allowed_files() -> usize {
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    allowed.map_or(usize::MAX, |count| usize::try_from(count / 2).unwrap_or(usize::MAX))
}

/// Wakes the checkpoint thread.
#[derive(Debug, Default)]
pub(crate) struct CheckpointBell {
    /// Bytes appended since the last checkpoint began.
    pub appended_bytes: AtomicU64,
    closed: AtomicBool,
    rung: Mutex<bool>,
    wake: Condvar,
}

impl CheckpointBell {
    pub fn ring(&self) {
        *self.rung.lock() = true;
        self.wake.notify_one();
    }

    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        self.ring();
    }

    /// Waits for the bell; false when it is time to end.
    pub fn wait(&self) -> bool {
        let mut rung = self.rung.lock();
        while !*rung {
            self.wake.wait(&mut rung);
        }
        *rung = false;
        !self.closed.load(Relaxed)
    }
}
