//! Where logs begin, durably: Kafka's `log-start-offset-checkpoint`.
//!
//! Owns that file. Invariants: a log's start is in the file, synced, before the log knows it, but where the disk has no room
//! for that, and then as soon as it has; a log that was deleted is not in it, so that a later one of the same name begins at 0.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::checkpoint;
use crate::data_dir::Checkpointer;
use crate::partition_log::PartitionLog;
use crate::storage::Storage;

#[derive(Debug)]
pub(crate) struct Starts {
    storage: Arc<Storage>,
    checkpointer: Arc<Checkpointer>,
    /// Held from the look at the logs until the file is written.
    writing: Mutex<()>,
    /// Whether logs begin later than the file says.
    is_behind: AtomicBool,
}

impl Starts {
    pub fn new(storage: Arc<Storage>, checkpointer: Arc<Checkpointer>) -> Self {
        Self { storage, checkpointer, writing: Mutex::new(()), is_behind: AtomicBool::new(false) }
    }

    /// Raises logs' starts: all of them, durable on return, or none. Logs that were deleted meanwhile are
    /// left out.
    pub fn raise(&self, moves: &[(Arc<PartitionLog>, i64)]) -> io::Result<()> {
        if moves.iter().all(|(log, start)| *start <= log.log_start_offset()) {
            return Ok(());
        }
        let _writing = self.writing.lock();
        self.write(moves)?;
        moves.iter().for_each(|(log, start)| log.raise_log_start(*start));
        Ok(())
    }

    /// Raises logs' starts where there is no room to write them down.
    pub fn raise_unrecorded(&self, moves: &[(Arc<PartitionLog>, i64)]) {
        self.is_behind.store(true, Relaxed);
        moves.iter().for_each(|(log, start)| log.raise_log_start(*start));
    }

    /// Writes down what could not be written before. What fails is tried again the next time.
    pub fn catch_up(&self) {
        if self.is_behind.load(Relaxed)
            && let Err(error) = self.rewrite()
        {
            tracing::debug!("writing {} failed again: {error}", checkpoint::LOG_START_OFFSETS);
        }
    }

    /// Writes the starts as they are, of the logs that exist.
    pub fn rewrite(&self) -> io::Result<()> {
        let _writing = self.writing.lock();
        self.write(&[])
    }

    fn write(&self, moves: &[(Arc<PartitionLog>, i64)]) -> io::Result<()> {
        let mut starts = HashMap::new();
        {
            let logs = self.checkpointer.logs.read();
            let raised = moves.iter().filter(|(log, _)| {
                logs.get(log.topic_partition()).is_some_and(|known| Arc::ptr_eq(known, log))
            });
            let present = logs.values().map(|log| (log.topic_partition(), log.log_start_offset()));
            let raised = raised.map(|(log, start)| (log.topic_partition(), *start));
            for (topic_partition, start) in present.chain(raised).filter(|(_, start)| *start > 0) {
                let known = starts.entry(topic_partition.clone()).or_insert(start);
                *known = start.max(*known);
            }
        }
        let path = self.storage.root.join(checkpoint::LOG_START_OFFSETS);
        checkpoint::write(&*self.storage.disk, &path, starts.into_iter())?;
        self.is_behind.store(false, Relaxed);
        Ok(())
    }
}
