//! Producer ids: numbers that are never given twice, over restarts too.
//!
//! Owns the current block. Invariant: an id leaves only after the block it belongs to stands durably in the metadata
//! log (a ProducerIdsRecord, as in Kafka), so that after a crash the next block begins above it. Does not know which
//! producer got which id.

use tokio::sync::Mutex;

use crate::metadata_log::{MetadataLog, WriteError};
use crate::topics::records::producer_ids_record;

/// Ids taken from the log at a time (Kafka's ProducerIdsBlock).
const BLOCK_SIZE: i64 = 1000;

/// Gives out producer ids.
pub(crate) struct ProducerIds {
    metadata: MetadataLog,
    node_id: i32,
    block: Mutex<Block>,
}

struct Block {
    next: i64,
    end: i64,
}

impl ProducerIds {
    /// Ids from `first` on, of which none was given out yet.
    pub(crate) fn new(metadata: MetadataLog, node_id: i32, first: i64) -> ProducerIds {
        ProducerIds { metadata, node_id, block: Mutex::new(Block { next: first, end: first }) }
    }

    /// An id that nobody had before. May be dropped while waiting: at worst a block is skipped.
    pub(crate) async fn next(&self) -> Result<i64, WriteError> {
        let mut block = self.block.lock().await;
        if block.next == block.end {
            let end = block.end + BLOCK_SIZE;
            let record = producer_ids_record(self.node_id, end).unwrap_or_default();
            self.metadata.write(&[record]).await?;
            block.end = end;
        }
        let id = block.next;
        block.next += 1;
        Ok(id)
    }
}
