//! Transactions as a partition sees them: where they are open, and which ones were aborted.
//!
//! Owns the last stable offset. Invariants: it lies at or below the first record of every transaction that has no durable
//! marker; an aborted transaction is in its segment's index before the offset passes the marker, so that a reader who may
//! see its records also learns to skip them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Acquire, Ordering::Release};

use bytes::Bytes;
use parking_lot::Mutex;

use super::append::ProducerCheck;
use super::{AppendError, AppendOptions, Appended, PartitionLog, ReadError, Writer};
use crate::batch::{BatchHeader, EndTxnMarker, TransactionResult};
use crate::producers::{ActiveProducer, EndedTransaction, OpenTransaction};
use crate::segment::{AbortedTransaction, Segment, SegmentError};

/// Where transactions without a durable marker begin.
#[derive(Debug)]
pub(super) struct UnstableOffsets {
    /// The smallest of them, or `i64::MAX`; read without the lock.
    first: AtomicI64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    first_open: i64,
    /// Transactions whose marker is not durable yet: first record and marker, in the order of the markers.
    ending: VecDeque<(i64, i64)>,
}

impl UnstableOffsets {
    pub fn new(first_open: Option<i64>) -> Self {
        let first_open = first_open.unwrap_or(i64::MAX);
        let state = State { first_open, ending: VecDeque::new() };
        Self { first: AtomicI64::new(first_open), state: Mutex::new(state) }
    }

    pub fn first(&self) -> i64 {
        self.first.load(Acquire)
    }

    /// An append has changed which transactions are open.
    fn update(&self, first_open: Option<i64>, ended: Option<EndedTransaction>, high_watermark: i64) {
        let mut state = self.state.lock();
        state.first_open = first_open.unwrap_or(i64::MAX);
        state.ending.extend(ended.map(|ended| (ended.first_offset, ended.marker_offset)));
        self.publish(&mut state, high_watermark);
    }

    /// Markers below the high watermark are durable.
    pub fn high_watermark_moved(&self, high_watermark: i64) {
        if self.first() != i64::MAX {
            self.publish(&mut self.state.lock(), high_watermark);
        }
    }

    fn publish(&self, state: &mut State, high_watermark: i64) {
        while state.ending.front().is_some_and(|(_, marker_offset)| *marker_offset < high_watermark) {
            state.ending.pop_front();
        }
        let first_ending = state.ending.iter().map(|(first_offset, _)| *first_offset).min();
        self.first.store(state.first_open.min(first_ending.unwrap_or(i64::MAX)), Release);
    }
}

impl PartitionLog {
    /// Appends the marker that ends the producer's transaction here. Such a marker counts even where the producer has no
    /// open transaction: it fences older epochs. With `is_epoch_bumped` (KIP-890) the epoch must be newer than that of
    /// everything the producer has here; [`AppendError::Sequence`] tells that it is not. Like
    /// [`PartitionLog::append_with_more`], it leaves the commit to be begun by what follows.
    pub fn append_marker(
        self: &Arc<Self>,
        (producer_id, producer_epoch): (i64, i16),
        marker: EndTxnMarker,
        is_epoch_bumped: bool,
        options: AppendOptions,
    ) -> Result<Appended, AppendError> {
        let batch = marker.batch(producer_id, producer_epoch, options.now_ms);
        self.append_checked(batch, options, true, ProducerCheck::Marker { marker, is_epoch_bumped })
    }

    /// Which transactions were aborted that touch an offset between `from` and `to`, which is excluded: what a
    /// `read_committed` consumer must skip there. An offset below the log's start is out of range: what was aborted
    /// there is not known any more, and whoever has read it before the start was raised must not show it.
    pub fn aborted_transactions(&self, from: i64, to: i64) -> Result<Vec<AbortedTransaction>, ReadError> {
        let found = self.known_aborted_transactions(from, to)?;
        // The start is raised before the first segment goes: seen afterwards, it tells whether one was missed.
        let (log_start_offset, end_offset) = (self.log_start_offset(), self.log_end_offset());
        if from < log_start_offset {
            let topic_partition = self.topic_partition.clone();
            return Err(ReadError::OffsetOutOfRange {
                topic_partition,
                offset: from,
                log_start_offset,
                end_offset,
            });
        }
        Ok(found)
    }

    /// The same, as far as the log still has their segments.
    pub(crate) fn known_aborted_transactions(
        &self,
        from: i64,
        to: i64,
    ) -> Result<Vec<AbortedTransaction>, ReadError> {
        // Taken at once: retention may take segments away meanwhile, and none may be skipped for that.
        let segments: Vec<Arc<Segment>> = {
            let all = self.segments.read();
            let first = all.partition_point(|segment| segment.base_offset() <= from).saturating_sub(1);
            let with_aborted = all[first..].iter().filter(|segment| segment.txn_index().summary().is_some());
            with_aborted.cloned().collect()
        };
        let mut found = Vec::new();
        for segment in segments {
            let more = segment
                .collect_aborted(&self.storage, (from, to), &mut found)
                .map_err(|error| self.read_error(&segment, from, SegmentError::Io(error)))?;
            if !more {
                break;
            }
        }
        Ok(found)
    }

    /// Whether the batch's producer has a transaction open here, in the batch's epoch.
    pub fn is_in_transaction(&self, header: &BatchHeader) -> bool {
        self.writer.lock().producers.has_open_transaction(header.producer_id, header.producer_epoch)
    }

    /// Says that the batch was refused before it came here, and is about to come again: where its producer is new, later
    /// batches of it are out of order until then.
    pub fn await_batch(&self, header: &BatchHeader) {
        self.writer.lock().await_batches(std::slice::from_ref(header));
    }

    /// The transactions that no marker has ended yet, in no order.
    pub fn open_transactions(&self) -> Vec<OpenTransaction> {
        self.writer.lock().producers.open_transactions()
    }

    /// What is known of producers, in no order.
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        self.writer.lock().producers.active()
    }

    /// Takes batches that are in the file into the producers' state, before anybody can see them.
    pub(super) fn apply_producers(&self, writer: &mut Writer, headers: &[BatchHeader], records: &Bytes) {
        writer.awaited.forget(headers);
        let mut at = 0;
        for header in headers {
            let bytes = at..at + header.size_bytes();
            at = bytes.end;
            let marker = header.is_control().then(|| EndTxnMarker::parse(&records.slice(bytes))).flatten();
            let ended = writer.producers.apply(header, marker.as_ref());
            if !header.is_transactional() {
                continue;
            }
            let first_open = writer.producers.first_unstable_offset();
            if let Some(aborted) = ended.and_then(|ended| aborted(ended, first_open)) {
                writer.active.push_aborted(&self.storage, aborted);
            }
            self.unstable.update(first_open, ended, self.high_watermark());
        }
    }

    /// Writes all segments' transaction indexes to their files.
    pub(super) fn flush_txn_indexes(&self) -> io::Result<()> {
        let segments = self.segments.read().clone();
        segments.iter().try_for_each(|segment| segment.flush_txn_index(&self.storage))
    }
}

/// The index entry of a transaction that has ended, if it was aborted.
pub(crate) fn aborted(ended: EndedTransaction, first_open: Option<i64>) -> Option<AbortedTransaction> {
    let EndedTransaction { producer_id, first_offset, marker_offset, result } = ended;
    let last_stable_offset = first_open.unwrap_or(marker_offset + 1);
    (result == TransactionResult::Abort).then_some(AbortedTransaction {
        producer_id,
        first_offset,
        last_offset: marker_offset,
        last_stable_offset,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchBuilder;
    use crate::config::LogConfig;
    use crate::partition_log::{Origin, UpTo};
    use crate::testing::SimDisk;
    use crate::testing::logs::{NOW_MS, append_durably, batch, create, open, partition};

    /// A fetch had its records, then they were deleted, and the list of what to skip was empty.
    #[test]
    fn nothing_is_said_of_what_was_deleted_meanwhile() {
        let data_dir = open(&SimDisk::new());
        let orders = create(&data_dir, LogConfig::default());
        let records = BatchBuilder::new().producer(7, 0, 0).transactional();
        let records = records.record(NOW_MS, Some(b"key"), Some(b"aborted"), &[]).build();
        let options = AppendOptions { origin: Origin::Transaction, leader_epoch: 0, now_ms: NOW_MS };
        orders.append(records, options).expect("append");
        let marker = EndTxnMarker { result: TransactionResult::Abort, coordinator_epoch: 0 };
        let options = AppendOptions { origin: Origin::Coordinator, leader_epoch: 0, now_ms: NOW_MS };
        let ended = orders.append_marker((7, 0), marker, false, options).expect("append");
        ended.commit.wait_blocking().expect("commit");
        orders.roll_now().expect("roll");
        append_durably(&orders, batch(NOW_MS));
        data_dir.checkpoint().expect("checkpoint");
        let fetched = orders.read(0, 1000, UpTo::LastStable, true).expect("read");
        assert_eq!(orders.aborted_transactions(0, fetched.end_offset).expect("read").len(), 1);
        data_dir.delete_records(&[(partition(), Some(2))], NOW_MS).remove(0).expect("delete");
        assert_eq!(fetched.slice.read().expect("the file is held").len(), fetched.slice.len);
        let error = orders.aborted_transactions(0, fetched.end_offset).expect_err("below the start");
        assert!(
            matches!(error, ReadError::OffsetOutOfRange { offset: 0, log_start_offset: 2, .. }),
            "{error}"
        );
        assert_eq!(orders.known_aborted_transactions(0, 3).expect("read"), []);
    }
}
