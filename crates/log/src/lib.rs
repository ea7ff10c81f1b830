//! Record batches, segments, indexes, recovery: the durable log.
//!
//! Owns the files of a data directory, in Kafka's formats. Invariants: what a [`CommitTicket`] has
//! confirmed survives a power cut and is what readers find; everything that is not confirmed is invisible
//! to consumers. Synchronous code that starts three threads: one commits, one writes
//! checkpoints, one removes and cleans. Does not
//! know the wire protocol, topics' settings beyond [`LogConfig`], or any clock.

pub mod batch;
mod checkpoint;
mod cleaner;
mod commit;
mod config;
mod data_dir;
mod disk;
mod health;
mod index;
mod leader_epochs;
pub mod offline;
mod open_files;
mod partition_log;
mod producers;
mod recovery;
mod segment;
mod space;
mod storage;
pub mod testing;

pub use commit::{CommitError, CommitTicket};
pub use config::{CleanupPolicy, CommitHere, DataDirOptions, Durability, LogConfig};
pub use data_dir::{
    Chores, CloseError, CreateError, DataDir, DeleteError, DeleteRecordsError, KeepReport, OpenError,
    SnapshotError, SnapshotFile, UnrecoveredDataDir,
};
pub use disk::{
    DirEntry, Disk, DiskDir, DiskFile, DiskLock, DiskRoot, DiskSpace, OpenMode, RealDisk, UnsyncedDisk,
};
pub use health::StorageState;
pub use partition_log::{
    AppendError, AppendOptions, Appended, FetchWaiter, Fetched, FileSlice, Origin, PartitionLog, ReadError,
    TimestampedOffset, UpTo,
};
pub use producers::{ActiveProducer, OpenTransaction, SequenceError};
pub use recovery::{Cut, LateStart, RecoverError, RecoveryReport};
pub use segment::AbortedTransaction;
pub use space::LowSpace;
