//! A data directory: the lock, the identity, and all partitions' logs.
//!
//! Owns which logs exist. Invariants: one process has it open; no log is handed out before recovery; a
//! log's folder is durable before its creation returns, and gone for good before its deletion does.

mod checkpointer;
mod error;
mod keeper;
mod meta;
mod snapshot;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use tidings_model::{TopicId, TopicPartition};

use crate::checkpoint;
use crate::commit::CommitTicket;
use crate::config::{DataDirOptions, LogConfig};
use crate::disk::{Disk, DiskLock, DiskSpace, OpenMode, read_file, replace_file, write_file};
use crate::health::StorageState;
use crate::leader_epochs::LeaderEpochs;
use crate::partition_log::{PartitionLog, Recovered};
use crate::producers::Producers;
use crate::recovery::{RecoverError, RecoveryReport, recover_logs};
use crate::segment::Segment;
use crate::space::LowSpace;
use crate::storage::Storage;
pub(crate) use checkpointer::{Checkpointer, Extent};
pub use error::{CloseError, CreateError, DeleteError, OpenError};
pub(crate) use keeper::DELETED_EXTENSION;
use keeper::Keeper;
pub use keeper::{Chores, DeleteRecordsError, KeepReport};
pub(crate) use meta::{META, PARTITION_METADATA, check_version, partition_metadata_id};
use meta::{Meta, encode_partition_metadata};
pub use snapshot::{SnapshotError, SnapshotFile};

/// The logs by partition.
pub(crate) type Logs = RwLock<HashMap<TopicPartition, Arc<PartitionLog>>>;

/// How often `flush.ms` is looked at, at the least: settings may change meanwhile.
const FLUSH_CHECK_MS: i64 = 1000;
/// How often at the most, however small it is.
const FLUSH_PAUSE_MS: i64 = 10;

const LOCK: &str = ".lock";
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
/// What Kafka 4 writes there: a JSON text with the broker's epoch, which a single node doesn't have.
const CLEAN_SHUTDOWN_TEXT: &[u8] = b"{\"version\":0,\"brokerEpoch\":-1}";

/// A data directory that is locked but not looked through yet.
#[derive(Debug)]
pub struct UnrecoveredDataDir {
    storage: Arc<Storage>,
    checkpointer: Arc<Checkpointer>,
    keeper: Arc<Keeper>,
    meta: Meta,
    lock: Box<dyn DiskLock>,
}

impl UnrecoveredDataDir {
    /// Loads every log, cuts torn tails, and makes durable what an unclean end left in doubt.
    pub fn recover(self) -> Result<(Arc<DataDir>, RecoveryReport), RecoverError> {
        let marker = self.storage.root.join(CLEAN_SHUTDOWN);
        let disk = &*self.storage.disk;
        let failed = |path: &Path, source| RecoverError::Io { path: path.to_owned(), source };
        let clean = read_file(disk, &marker).map_err(|error| failed(&marker, error))?.is_some();
        let (logs, mut report) = recover_logs(&self.storage)?;
        report.clean = clean;
        *self.checkpointer.logs.write() = logs;
        if report.changed {
            self.checkpointer.sync().map_err(|source| failed(&self.storage.root, source))?;
        }
        if report.stale_checkpoints {
            let written = self.keeper.starts.rewrite().and_then(|()| self.keeper.cleaner_offsets.write());
            written.map_err(|source| failed(&self.storage.root, source))?;
        }
        if report.changed || report.stale_checkpoints {
            self.checkpointer.write_recovery_points().map_err(|source| failed(&self.storage.root, source))?;
        }
        if clean {
            disk.remove_file(&marker).map_err(|error| failed(&marker, error))?;
            disk.sync_dir(&self.storage.root).map_err(|error| failed(&marker, error))?;
        }
        if report.changed {
            // So that the next start need not check the same bytes again.
            self.storage.checkpoints.ring();
        }
        self.storage.check_space();
        Ok((Arc::new(DataDir::start(self)), report))
    }
}

/// An open data directory. Dropping it without [`DataDir::close`] is like a crash that loses nothing
/// acknowledged.
#[derive(Debug)]
pub struct DataDir {
    storage: Arc<Storage>,
    checkpointer: Arc<Checkpointer>,
    keeper: Arc<Keeper>,
    meta: Meta,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Makes names of folders on their way out unique.
    deletions: AtomicU64,
    _lock: Box<dyn DiskLock>,
}

impl DataDir {
    /// Locks a data directory, creating it if needed, and checks that it is ours to use.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: impl Into<PathBuf>,
        options: DataDirOptions,
    ) -> Result<UnrecoveredDataDir, OpenError> {
        let path = path.into();
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                OpenError::NotWritable { path: path.clone(), source }
            }
            _ => OpenError::Io { path: path.clone(), source },
        };
        disk.create_dir_all(&path).map_err(failed)?;
        let lock = take_lock(&*disk, &path).map_err(failed)?;
        let lock = lock.map_err(|holder| OpenError::Locked { path: path.clone(), holder })?;
        let meta = Meta::load_or_create(&*disk, &path, &options)?;
        let root = disk.open_root(&path).map_err(failed)?;
        let storage = Arc::new(Storage::new(disk, path.clone(), options).map_err(failed)?);
        let checkpointer = Arc::new(Checkpointer::new(storage.clone(), root));
        let keeper = Arc::new(Keeper::new(storage.clone(), checkpointer.clone()));
        Ok(UnrecoveredDataDir { storage, checkpointer, keeper, meta, lock })
    }

    /// Whether a process has a data directory open. Leaves everything there as it is, and holds the lock that is free for no
    /// longer than it takes to see that.
    pub fn is_in_use(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
        let lock = path.join(LOCK);
        // Locking makes the file, and the server may be another user's.
        Ok(read_file(disk, &lock)?.is_some() && disk.lock(&lock)?.is_none())
    }

    fn start(unrecovered: UnrecoveredDataDir) -> Self {
        let UnrecoveredDataDir { storage, checkpointer, keeper, meta, lock } = unrecovered;
        let committer = storage.clone();
        let checkpoints = checkpointer.clone();
        let keeping = keeper.clone();
        let threads = vec![
            spawn("log-commit", move || committer.committer.run(&committer)),
            spawn("log-checkpoint", move || checkpoints.run()),
            spawn("log-keeper", move || keeping.run()),
        ];
        let (threads, deletions) = (Mutex::new(threads), AtomicU64::new(0));
        Self { storage, checkpointer, keeper, meta, threads, deletions, _lock: lock }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.storage.root
    }

    /// The cluster id in `meta.properties`.
    pub fn cluster_id(&self) -> &str {
        &self.meta.cluster_id
    }

    /// The directory's own id in `meta.properties`.
    pub fn directory_id(&self) -> &str {
        &self.meta.directory_id
    }

    /// Whether writes are possible.
    pub fn storage_state(&self) -> StorageState {
        let (health, space) = (&self.storage.health, &self.storage.space);
        match (health.failure(), space.is_read_only(), space.low()) {
            (Some(why), ..) => StorageState::Failed { why: why.clone() },
            (None, true, _) => StorageState::ReadOnly,
            (None, false, Some(low)) => StorageState::LowSpace(low),
            (None, false, None) => StorageState::Healthy,
        }
    }

    /// Looks at the file system now; to be called every second or so, because nothing else notices that space has come
    /// back, that somebody else takes it, or that it cannot be written any more.
    pub fn check_space(&self) -> Option<LowSpace> {
        self.storage.check_space()
    }

    /// Whether less than [`Self::min_free_bytes`] were free at the last look.
    pub fn is_low_on_space(&self) -> bool {
        self.storage.space.low().is_some()
    }

    /// Free bytes as found last.
    pub fn available_bytes(&self) -> u64 {
        self.storage.space.available_bytes()
    }

    /// Bytes that must stay free for clients' writes to be taken.
    pub fn min_free_bytes(&self) -> u64 {
        self.storage.check_space();
        self.storage.space.min_free_bytes()
    }

    /// The room on the file system now.
    pub fn space(&self) -> io::Result<DiskSpace> {
        self.storage.disk.space(&self.storage.root)
    }

    /// All logs, in no order.
    pub fn logs(&self) -> Vec<Arc<PartitionLog>> {
        self.checkpointer.logs.read().values().cloned().collect()
    }

    /// The log of a partition.
    pub fn log(&self, topic_partition: &TopicPartition) -> Option<Arc<PartitionLog>> {
        self.checkpointer.logs.read().get(topic_partition).cloned()
    }

    /// Creates empty logs: all of them, durable on return, or none. Waits for one sync.
    pub fn create_logs(
        &self,
        new: &[(TopicPartition, TopicId, LogConfig)],
    ) -> Result<Vec<Arc<PartitionLog>>, CreateError> {
        let _no_checkpoint = self.checkpointer.exclusive();
        if let Some(why) = self.storage.health.failure() {
            return Err(CreateError::StorageFailed { why: why.clone() });
        }
        let exists = |(topic_partition, ..): &&(TopicPartition, _, _)| self.log(topic_partition).is_some();
        if let Some((topic_partition, ..)) = new.iter().find(exists) {
            return Err(CreateError::Exists { topic_partition: topic_partition.clone() });
        }
        if let (Err(source), Some((topic_partition, ..))) = (self.ensure_in_place(), new.first()) {
            return Err(CreateError::Io { topic_partition: topic_partition.clone(), source });
        }
        let mut created = Vec::with_capacity(new.len());
        for (topic_partition, topic_id, config) in new {
            match self.create_folder(topic_partition, *topic_id, config) {
                Ok(log) => created.push(log),
                Err(source) => {
                    self.remove_folders(new);
                    return Err(CreateError::Io { topic_partition: topic_partition.clone(), source });
                }
            }
        }
        if let Err(error) = self.checkpointer.sync() {
            let why = self.storage.health.fail(format!("syncing new partitions failed: {error}"));
            return Err(CreateError::StorageFailed { why });
        }
        let mut logs = self.checkpointer.logs.write();
        for log in &created {
            logs.insert(log.topic_partition().clone(), log.clone());
        }
        Ok(created)
    }

    /// Where the directory was moved or its file system is gone, its path would get new folders that the next start does not find
    /// with the rest.
    fn ensure_in_place(&self) -> io::Result<()> {
        let lock = self.storage.root.join(LOCK);
        self.storage.disk.open(&lock, OpenMode::Read).map(drop).map_err(|error| {
            let hint = "the data directory was moved or unmounted while it was in use: put it back";
            io::Error::new(error.kind(), format!("{}: {error}; {hint}", lock.display()))
        })
    }

    fn create_folder(
        &self,
        topic_partition: &TopicPartition,
        topic_id: TopicId,
        config: &LogConfig,
    ) -> io::Result<Arc<PartitionLog>> {
        let disk = &*self.storage.disk;
        let dir: Arc<Path> = self.storage.root.join(topic_partition.to_string()).into();
        disk.create_dir_all(&dir)?;
        write_file(
            disk,
            &dir.join(meta::PARTITION_METADATA),
            encode_partition_metadata(topic_id).as_bytes(),
        )?;
        let segment = Arc::new(Segment::created(dir.clone(), 0));
        drop(disk.open(&segment.log_path(), OpenMode::Truncate)?);
        // The sync that follows covers the name.
        segment.take_new_name();
        let recovered = Recovered {
            topic_partition: topic_partition.clone(),
            topic_id,
            dir,
            segments: vec![segment],
            log_start_offset: 0,
            producers: Producers::default(),
            epochs: LeaderEpochs::default(),
            recovery_point: 0,
            first_dirty_offset: None,
        };
        Ok(Arc::new(PartitionLog::new(self.storage.clone(), recovered, *config)))
    }

    fn remove_folders(&self, new: &[(TopicPartition, TopicId, LogConfig)]) {
        for (topic_partition, ..) in new {
            // What can't be removed is an empty log after the next start, and nobody's.
            let _ = self.storage.disk.remove_dir_all(&self.storage.root.join(topic_partition.to_string()));
        }
    }

    /// Deletes logs for good: their folders are renamed, which is made durable, and then removed. Logs
    /// that don't exist are skipped.
    pub fn delete_logs(&self, partitions: &[TopicPartition]) -> Result<(), DeleteError> {
        let no_checkpoint = self.checkpointer.exclusive();
        let disk = &*self.storage.disk;
        let mut doomed = Vec::new();
        let (mut had_start, mut was_cleaned) = (false, false);
        for topic_partition in partitions {
            let Some(log) = self.checkpointer.logs.write().remove(topic_partition) else { continue };
            log.mark_deleted();
            had_start |= log.log_start_offset() > 0;
            was_cleaned |= log.first_dirty_offset().is_some();
            let number = self.deletions.fetch_add(1, Relaxed);
            let process = std::process::id();
            let name = format!("{:.200}.{process:x}-{number:x}-delete", topic_partition.to_string());
            let folder = self.storage.root.join(name);
            disk.rename(log.dir(), &folder)
                .map_err(|source| DeleteError { topic_partition: topic_partition.clone(), source })?;
            doomed.push((topic_partition, folder));
        }
        let Some((first, _)) = doomed.first() else { return Ok(()) };
        let failed = |topic_partition: &TopicPartition, source| DeleteError {
            topic_partition: topic_partition.clone(),
            source,
        };
        disk.sync_dir(&self.storage.root).map_err(|source| failed(first, source))?;
        // A later log of the same name must not find this one's recovery point. A full disk may have room for the
        // points only after the folders are gone; a start drops points of logs that don't exist.
        let points = self.forget_deleted(had_start, was_cleaned);
        drop(no_checkpoint);
        for (topic_partition, folder) in &doomed {
            disk.remove_dir_all(folder).map_err(|source| failed(topic_partition, source))?;
        }
        if points.is_err() {
            let _no_checkpoint = self.checkpointer.exclusive();
            self.forget_deleted(had_start, was_cleaned).map_err(|source| failed(first, source))?;
        }
        Ok(())
    }

    /// Writes the checkpoint files without the logs that are gone.
    fn forget_deleted(&self, had_start: bool, was_cleaned: bool) -> io::Result<()> {
        self.checkpointer.write_recovery_points()?;
        if had_start {
            self.keeper.starts.rewrite()?;
        }
        if was_cleaned { self.keeper.cleaner_offsets.write() } else { Ok(()) }
    }

    /// Has the keeper's thread do its chores, as of `now_ms`; does not wait.
    pub fn wake_keeper(&self, now_ms: i64, chores: Chores) {
        self.keeper.bell.ring(now_ms, chores);
    }

    /// Does the keeper's chores, as of `now_ms`, on this thread.
    pub fn keep(&self, now_ms: i64, chores: Chores) -> KeepReport {
        self.keeper.keep(now_ms, chores)
    }

    /// How many files of removed segments wait for `file.delete.delay.ms` to pass.
    pub fn doomed_files_count(&self) -> usize {
        self.keeper.doomed_count()
    }

    /// With [`crate::Durability::Process`]: begins to flush the logs whose `flush.ms` is over. Answers the ticket of
    /// these flushes, and after how many milliseconds to ask again.
    pub fn flush_old(&self, now_ms: i64) -> (CommitTicket, i64) {
        let mut newest = CommitTicket::ready();
        let mut ask_again_ms = FLUSH_CHECK_MS;
        for log in self.logs() {
            let (ticket, due_ms) = log.flush_if_old(now_ms);
            newest = newest.newest(ticket);
            ask_again_ms = ask_again_ms.min(due_ms.unwrap_or(FLUSH_CHECK_MS));
        }
        (newest, ask_again_ms.max(FLUSH_PAUSE_MS))
    }

    /// Makes everything durable now and moves the recovery points, so that a crash costs less.
    pub fn checkpoint(&self) -> Result<(), CloseError> {
        self.checkpointer.checkpoint(Extent::Whole).map_err(|why| self.close_error(why))
    }

    /// Ends cleanly: refuses further appends, commits what was appended, and marks the directory so that
    /// the next start has nothing to recover. Reads of logs still held go on.
    pub fn close(&self) -> Result<(), CloseError> {
        self.logs().iter().for_each(|log| log.close());
        self.stop_threads();
        let root = &self.storage.root;
        self.checkpointer.checkpoint(Extent::Whole).map_err(|why| self.close_error(why))?;
        if let StorageState::Failed { why } = self.storage_state() {
            return Err(self.close_error(why.to_string()));
        }
        let disk = &*self.storage.disk;
        let logs = self.logs();
        let marks = logs.iter().map(|log| (log.topic_partition().clone(), log.high_watermark()));
        checkpoint::write(disk, &root.join(checkpoint::HIGH_WATERMARKS), marks)
            .and_then(|()| replace_file(disk, &root.join(CLEAN_SHUTDOWN), CLEAN_SHUTDOWN_TEXT))
            .map_err(|error| self.close_error(error.to_string()))
    }

    fn close_error(&self, why: String) -> CloseError {
        CloseError { path: self.storage.root.clone(), why }
    }

    fn stop_threads(&self) {
        self.keeper.bell.close();
        self.storage.committer.close();
        self.storage.checkpoints.close();
        for thread in self.threads.lock().drain(..) {
            thread.join().expect("a log thread does not panic");
        }
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        self.stop_threads();
    }
}

/// Locks a data directory, or tells which process has it locked, if that has said so.
pub(crate) fn take_lock(disk: &dyn Disk, root: &Path) -> io::Result<Result<Box<dyn DiskLock>, Option<u32>>> {
    let path = root.join(LOCK);
    if let Some(lock) = disk.lock(&path)? {
        // Only a courtesy to whoever finds the lock taken; the lock itself is what counts.
        let _ = write_file(disk, &path, format!("{}\n", std::process::id()).as_bytes());
        return Ok(Ok(lock));
    }
    let text = read_file(disk, &path)?.unwrap_or_default();
    Ok(Err(std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok())))
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).expect("the system starts threads")
}
