//! What can go wrong with a data directory, operation by operation.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tidings_model::TopicPartition;

/// Why a data directory could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("data directory {} is in use by another process{}", path.display(), of_pid(*holder))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process, if it has told its number.
        holder: Option<u32>,
    },
    /// There is none.
    #[error("{} is no data directory: it has no meta.properties", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// It may not be written to.
    #[error("data directory {} is not writable: {source}", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another version of the program, or another program, wrote it.
    #[error("data directory {} has the wrong version: expected {expected}, found {found}", path.display())]
    Version {
        /// The directory.
        path: PathBuf,
        /// What this program reads and writes.
        expected: String,
        /// What `meta.properties` says.
        found: String,
    },
    /// It belongs to another node.
    #[error("data directory {} belongs to node.id {found}, not {expected}", path.display())]
    Node {
        /// The directory.
        path: PathBuf,
        /// The node id in the options.
        expected: i32,
        /// What `meta.properties` says.
        found: String,
    },
    /// The disk failed.
    #[error("opening data directory {} failed: {source}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

fn of_pid(holder: Option<u32>) -> String {
    holder.map(|process_id| format!(" (pid {process_id})")).unwrap_or_default()
}

/// Why a log could not be created; then none of those asked for was.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// It is there already.
    #[error("{topic_partition} exists already")]
    Exists {
        /// The partition.
        topic_partition: TopicPartition,
    },
    /// The disk failed.
    #[error("creating {topic_partition} failed: {source}")]
    Io {
        /// The partition.
        topic_partition: TopicPartition,
        /// What the disk said.
        source: io::Error,
    },
    /// A sync failed, now or earlier: no writes until a restart.
    #[error("writes have stopped: {why}")]
    StorageFailed {
        /// What failed.
        why: Arc<str>,
    },
}

/// Why a log could not be deleted. It refuses reads and appends all the same.
#[derive(Debug, thiserror::Error)]
#[error("deleting {topic_partition} failed: {source}")]
pub struct DeleteError {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// What the disk said.
    pub source: io::Error,
}

/// Why the clean shutdown could not be completed; the next start recovers.
#[derive(Debug, thiserror::Error)]
#[error("closing data directory {} failed: {why}", path.display())]
pub struct CloseError {
    /// The directory.
    pub path: PathBuf,
    /// What failed.
    pub why: String,
}
