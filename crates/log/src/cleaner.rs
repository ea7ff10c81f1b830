//! Log compaction: of the records of a key only the last one stays, at its offset.
//!
//! Owns one cleaning of one log, in Kafka's semantics. Invariants: the active segment, what is not durable,
//! what lies above the last stable offset or above the recovery point is never touched; a group of segments
//! is replaced by one as a whole or not at all, whatever fails in between; the last batch of a group stays,
//! if only as an empty one, so that offsets have no hole between segments; a batch whose CRC is wrong is
//! never written again. Memory is bounded by the key map's limit; more keys take more passes. Does not choose
//! the log (the keeper does) and has no clock.

mod chunks;
mod dirty;
mod error;
mod filter;
mod key_map;
mod rewrite;
mod swap;
mod transactions;

pub(crate) use dirty::Dirtiness;
pub(crate) use error::CleanError;
pub(crate) use swap::{CLEANED_SUFFIX, SWAP_SUFFIX, remove_if_there};

use std::sync::Arc;

use crate::batch::BatchHeader;
use crate::partition_log::PartitionLog;
use crate::segment::{AbortedTransaction, Segment};
use crate::storage::Storage;
use chunks::BatchChunks;
use filter::Filter;
use key_map::KeyMap;
use transactions::CleanedTransactions;

/// Segments that become one at most: their files are open until they have.
const MAX_GROUP_SEGMENTS: usize = 64;

/// What one cleaning did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Cleaning {
    /// Where the dirty part begins now.
    pub end_offset: i64,
    /// Bytes of the segments that were looked through.
    pub read_bytes: u64,
    /// Bytes of the segments that replace them.
    pub written_bytes: u64,
}

/// What the parts of one cleaning share.
struct Cleaner<'a> {
    log: &'a Arc<PartitionLog>,
    storage: &'a Storage,
    /// Asked between chunks: whether the cleaning should end where it is.
    stop: &'a dyn Fn() -> bool,
}

/// Cleans the part of the log below `dirty.end_offset`, as far as the keys of its dirty part fit in the key
/// map. The caller maintains the log.
pub(crate) fn clean(
    log: &Arc<PartitionLog>,
    storage: &Storage,
    dirty: &Dirtiness,
    now_ms: i64,
    stop: &dyn Fn() -> bool,
) -> Result<Cleaning, CleanError> {
    let cleaner = Cleaner { log, storage, stop };
    let segments = log.segments_below(dirty.end_offset);
    // No segment goes while we maintain the log, also if its start is raised meanwhile.
    let aborted = log.known_aborted_transactions(log.log_start_offset(), dirty.end_offset)?;
    let mut keys = KeyMap::new(storage.options.cleaner_key_map_bytes);
    // Of those that ended below the dirty part no marker would be met.
    let in_dirty = |txn: &&AbortedTransaction| txn.last_offset >= dirty.first_offset;
    let mut txns = CleanedTransactions::new(aborted.iter().filter(in_dirty).copied().collect());
    let end_offset = cleaner.map_keys(&segments, dirty, &mut keys, &mut txns)?;
    let mut cleaning = Cleaning { end_offset, ..Cleaning::default() };
    let config = log.config();
    let mut filter = Filter {
        keys,
        mapped_end_offset: end_offset,
        txns: CleanedTransactions::new(aborted),
        last_batches: log.last_batches_of_producers(),
        group_end_offset: 0,
        now_ms,
        delete_retention_ms: config.delete_retention_ms,
    };
    let touched: Vec<_> =
        segments.into_iter().take_while(|segment| segment.base_offset() < end_offset).collect();
    for group in groups(&touched, u64::from(config.segment_bytes)) {
        cleaning.read_bytes += group.iter().map(|segment| segment.end().position).sum::<u64>();
        cleaning.written_bytes += cleaner.rewrite(group, &mut filter)?;
    }
    Ok(cleaning)
}

impl Cleaner<'_> {
    fn check_stop(&self) -> Result<(), CleanError> {
        if (self.stop)() || self.log.is_deleted() { Err(CleanError::Stopped) } else { Ok(()) }
    }

    /// Hands every batch of a segment to `visit`, after a check of its CRC.
    fn for_each_batch(
        &self,
        segment: &Arc<Segment>,
        mut visit: impl FnMut(crate::batch::Batch) -> Result<Next, CleanError>,
    ) -> Result<(), CleanError> {
        let file = self.storage.open_files.get(&*self.storage.disk, segment);
        let file = file.map_err(|source| CleanError::io(segment, source))?;
        let mut chunks = BatchChunks::new(&*file, segment.end().position);
        loop {
            if chunks.will_read() {
                self.check_stop()?;
            }
            match chunks.next_batch().map_err(|error| CleanError::of(segment, error))? {
                Some(batch) => {
                    if let Next::Stop = visit(batch)? {
                        return Ok(());
                    }
                }
                None => return Ok(()),
            }
        }
    }

    /// Notes the last offset of each key of the dirty part; returns where the part ends that fitted.
    fn map_keys(
        &self,
        segments: &[Arc<Segment>],
        dirty: &Dirtiness,
        keys: &mut KeyMap,
        txns: &mut CleanedTransactions,
    ) -> Result<i64, CleanError> {
        let mut end_offset = dirty.first_offset;
        for segment in segments {
            let behind = self.log.end_of_segment(segment);
            if behind <= dirty.first_offset {
                continue;
            }
            let mut full = false;
            self.for_each_batch(segment, |batch| {
                let header = batch.header;
                if header.next_offset() <= dirty.first_offset {
                    return Ok(Next::Go);
                }
                if keys.is_full_for(header.record_count.unsigned_abs() as usize) {
                    full = true;
                    return Ok(Next::Stop);
                }
                if !txns.on_batch(&batch).discards && !header.is_control() {
                    let records = batch
                        .unpacked_records()
                        .map_err(|error| CleanError::records(segment, &header, error))?;
                    for record in records {
                        let record = record.map_err(|error| CleanError::records(segment, &header, error))?;
                        if let Some(key) = record.key.filter(|_| record.offset >= dirty.first_offset) {
                            keys.put(&key, record.offset);
                        }
                    }
                }
                end_offset = header.next_offset();
                Ok(Next::Go)
            })?;
            if full {
                return Ok(end_offset);
            }
            end_offset = behind.min(dirty.end_offset);
        }
        Ok(end_offset)
    }
}

/// Whether to look at the next batch.
enum Next {
    Go,
    Stop,
}

/// Neighbours that fit in one segment together, so that segments which shrink do not become ever more.
fn groups(segments: &[Arc<Segment>], segment_bytes: u64) -> Vec<&[Arc<Segment>]> {
    let mut groups = Vec::new();
    let mut first = 0;
    let mut group_bytes = 0;
    for (index, segment) in segments.iter().enumerate() {
        let size_bytes = segment.end().position;
        let fits = group_bytes + size_bytes <= segment_bytes
            && index - first < MAX_GROUP_SEGMENTS
            && !segments[first].out_of_reach(segment.end().offset);
        if index > first && !fits {
            groups.push(&segments[first..index]);
            (first, group_bytes) = (index, 0);
        }
        group_bytes += size_bytes;
    }
    if first < segments.len() {
        groups.push(&segments[first..]);
    }
    groups
}

/// Whether the records of a batch are those of a producer's last one; see [`Filter`].
pub(crate) type LastBatches = std::collections::HashMap<i64, LastBatch>;

/// The last thing that a producer has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastBatch {
    pub producer_epoch: i16,
    /// The last offset of its last batch with records; none when only a marker is known of the epoch.
    pub last_offset: Option<i64>,
}

impl LastBatch {
    fn is(&self, header: &BatchHeader) -> bool {
        match self.last_offset {
            Some(last_offset) => header.last_offset() == last_offset,
            None => header.is_control() && header.producer_epoch == self.producer_epoch,
        }
    }
}
