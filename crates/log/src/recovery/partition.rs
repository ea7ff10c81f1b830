//! Recovers one partition's folder.
//!
//! Owns the way from the recovery point to the log's end. Invariants: as in [`super`].

mod left_overs;
mod place;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidings_model::TopicPartition;

use super::judge::{Judge, Rest, Verdict};
use super::{Cut, LateStart, RecoverError};
use crate::batch::{BatchHeader, EndTxnMarker, MAX_MARKER_BYTES};
use crate::cleaner::remove_if_there;
use crate::config::LogConfig;
use crate::data_dir::partition_metadata_id;
use crate::disk::{DiskFile, OpenMode, read_exact_at, read_file};
use crate::leader_epochs::LeaderEpochs;
use crate::partition_log::{LEADER_EPOCHS, PartitionLog, Recovered, aborted};
use crate::producers::{Producers, Snapshot};
use crate::segment::{
    BadBatch, HeaderScan, Segment, SegmentEnd, SegmentError, TxnIndex, TxnIndexSummary, file_name,
    parse_file_name,
};
use crate::storage::Storage;

pub(super) struct PartitionOutcome {
    pub log: PartitionLog,
    pub checked_bytes: u64,
    pub cuts: Vec<Cut>,
    pub late_start: Option<LateStart>,
    pub rebuilt: Vec<PathBuf>,
    pub changed: bool,
    /// Whether a checkpoint file has an offset behind the log's end.
    pub stale_checkpoints: bool,
}

struct Recovery<'a> {
    storage: &'a Arc<Storage>,
    topic_partition: &'a TopicPartition,
    dir: Arc<Path>,
    producers: Producers,
    /// From here on batches are not in `producers` yet.
    replay_from: i64,
    holes_end: i64,
    epochs: LeaderEpochs,
    /// What the snapshot says about the segments' transaction indexes, where it counts.
    txn_indexes: BTreeMap<i64, TxnIndexSummary>,
    checked_bytes: u64,
    cuts: Vec<Cut>,
    rebuilt: Vec<PathBuf>,
    changed: bool,
}

/// What the checkpoint files say about a log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checkpoints {
    pub recovery_point: Option<i64>,
    /// None where the file is damaged.
    pub log_start_offset: Option<i64>,
    /// Of logs that were compacted; their offsets have holes within segments.
    pub first_dirty_offset: Option<i64>,
    /// Where these holes end.
    pub holes_end: i64,
}

/// Where a segment's file is on disk.
struct SegmentFile {
    base_offset: i64,
    len: u64,
}

/// Loads a log. Without a recovery point everything is checked.
pub(super) fn recover_partition(
    storage: &Arc<Storage>,
    topic_partition: &TopicPartition,
    checkpoints: Checkpoints,
) -> Result<PartitionOutcome, RecoverError> {
    let Checkpoints { recovery_point, log_start_offset: log_start, holes_end, .. } = checkpoints;
    let dir: Arc<Path> = storage.root.join(topic_partition.to_string()).into();
    let mut recovery = Recovery {
        storage,
        topic_partition,
        dir: dir.clone(),
        producers: Producers::default(),
        replay_from: 0,
        holes_end,
        epochs: LeaderEpochs::default(),
        txn_indexes: BTreeMap::new(),
        checked_bytes: 0,
        cuts: Vec::new(),
        rebuilt: Vec::new(),
        changed: false,
    };
    let io_error = |source| RecoverError::Io { path: dir.to_path_buf(), source };
    let recorded = log_start;
    let log_start = log_start.unwrap_or(0).max(0);
    recovery.finish_swaps()?;
    let mut files = recovery.list(recovery_point.unwrap_or(0)).map_err(io_error)?;
    recovery.remove_below(&mut files, log_start).map_err(io_error)?;
    let first_offset = files.first().map_or(log_start, |file| file.base_offset);
    let late_start = recorded.filter(|recorded| *recorded < first_offset).map(|recorded| LateStart {
        topic_partition: topic_partition.clone(),
        recorded,
        offset: first_offset,
    });
    let recovery_point = recovery_point.unwrap_or(first_offset).max(first_offset);
    recovery.load_state(first_offset, recovery_point).map_err(io_error)?;
    recovery.check_txn_indexes(&files, first_offset).map_err(io_error)?;
    let mut segments = recovery.segments(files, first_offset, recovery_point)?;
    for segment in &segments {
        // What was made anew may lie below the recovery point, where no checkpoint comes by.
        segment.flush_txn_index(storage).map_err(io_error)?;
    }
    let end_offset = segments.last().map_or(0, |segment| segment.end().offset);
    let mut recovery_point = recovery_point;
    if end_offset < log_start {
        // Records below the start were lost, which `durability = "process"` allows; the start was synced.
        segments = vec![recovery.begin_anew(&segments, log_start)?];
        recovery_point = log_start;
    }
    // After a cut the cleaner goes on at the end: it has not seen what will come there.
    let first_dirty_offset = checkpoints.first_dirty_offset.map(|offset| offset.min(end_offset));
    let topic_id = partition_metadata_id(&*storage.disk, &dir).map_err(io_error)?;
    let recovered = Recovered {
        topic_partition: topic_partition.clone(),
        topic_id,
        dir: dir.clone(),
        segments,
        log_start_offset: log_start.max(first_offset),
        producers: recovery.producers,
        epochs: recovery.epochs,
        recovery_point,
        first_dirty_offset,
    };
    Ok(PartitionOutcome {
        log: PartitionLog::new(storage.clone(), recovered, LogConfig::default()),
        checked_bytes: recovery.checked_bytes,
        cuts: recovery.cuts,
        late_start,
        rebuilt: recovery.rebuilt,
        changed: recovery.changed,
        stale_checkpoints: first_dirty_offset != checkpoints.first_dirty_offset,
    })
}

impl Recovery<'_> {
    /// Replaces all segments by an empty one.
    fn begin_anew(&mut self, segments: &[Arc<Segment>], offset: i64) -> Result<Arc<Segment>, RecoverError> {
        let topic_partition = self.topic_partition;
        tracing::warn!(
            "{topic_partition}: the log ends below its start, offset {offset}, and begins anew there"
        );
        let first = self.create_first(offset)?;
        for segment in segments.iter().filter(|segment| segment.base_offset() < offset) {
            for path in segment.paths() {
                let removed = remove_if_there(&*self.storage.disk, &path);
                removed.map_err(|source| RecoverError::Io { path, source })?;
            }
        }
        self.epochs.truncate(offset);
        Ok(first)
    }

    /// Loads the newest snapshot that the recovery point covers, and the leader epochs.
    fn load_state(&mut self, first_offset: i64, recovery_point: i64) -> io::Result<()> {
        let disk = &*self.storage.disk;
        self.replay_from = first_offset;
        let path = self.dir.join(file_name(recovery_point, "snapshot"));
        match read_file(disk, &path)?.map(|bytes| Snapshot::decode(&bytes)) {
            Some(Ok(snapshot)) => {
                self.producers = snapshot.producers;
                self.txn_indexes = snapshot.txn_indexes;
                self.replay_from = recovery_point;
            }
            Some(Err(error)) => {
                tracing::warn!("{}: {error}; rebuilding from the log", path.display());
                self.rebuilt.push(path);
            }
            None if recovery_point > first_offset => self.rebuilt.push(path),
            None => {}
        }
        let path = self.dir.join(LEADER_EPOCHS);
        if let Some(bytes) = read_file(disk, &path)? {
            match std::str::from_utf8(&bytes).ok().and_then(LeaderEpochs::decode) {
                Some(epochs) => self.epochs = epochs,
                None => {
                    // They come from the batches' headers, as the producers do.
                    self.forget_snapshot(first_offset);
                    self.rebuilt.push(path);
                }
            }
        }
        self.epochs.truncate(recovery_point);
        Ok(())
    }

    /// The snapshot does not count: producers and aborted transactions are made anew from the log.
    fn forget_snapshot(&mut self, first_offset: i64) {
        self.replay_from = first_offset;
        self.producers = Producers::default();
        self.txn_indexes.clear();
    }

    /// Holds the transaction indexes against the snapshot. Files that it does not know are left-overs.
    fn check_txn_indexes(&mut self, files: &[SegmentFile], first_offset: i64) -> io::Result<()> {
        let disk = &*self.storage.disk;
        self.txn_indexes.retain(|base_offset, _| files.iter().any(|file| file.base_offset == *base_offset));
        for (base_offset, summary) in &self.txn_indexes {
            let path = self.dir.join(file_name(*base_offset, "txnindex"));
            if TxnIndex::adopt(disk, &path, *summary)?.is_none() {
                tracing::warn!("{} is missing or damaged; rebuilding from the log", path.display());
                self.rebuilt.push(path);
                // A transaction may have begun in any segment before.
                self.forget_snapshot(first_offset);
                self.changed = true;
                break;
            }
        }
        for entry in disk.read_dir(&self.dir)? {
            let base_offset = parse_file_name(&entry.name, "txnindex");
            if base_offset.is_some_and(|base_offset| !self.txn_indexes.contains_key(&base_offset)) {
                disk.remove_file(&self.dir.join(&entry.name))?;
            }
        }
        Ok(())
    }

    /// Takes a batch of the log into the state of producers and transactions.
    fn apply(
        &mut self,
        segment: &Segment,
        file: &dyn DiskFile,
        position: u64,
        header: &BatchHeader,
    ) -> io::Result<()> {
        self.epochs.assign(header.leader_epoch, header.base_offset);
        if header.base_offset < self.replay_from {
            return Ok(());
        }
        let marker = if header.is_control() { read_marker(file, position, header)? } else { None };
        let Some(ended) = self.producers.apply(header, marker.as_ref()) else { return Ok(()) };
        if let Some(aborted) = aborted(ended, self.producers.first_unstable_offset()) {
            segment.push_aborted(self.storage, aborted);
        }
        Ok(())
    }

    fn segments(
        &mut self,
        files: Vec<SegmentFile>,
        first_offset: i64,
        recovery_point: i64,
    ) -> Result<Vec<Arc<Segment>>, RecoverError> {
        let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(files.len().max(1));
        let mut next_offset = first_offset;
        for (index, file) in files.iter().enumerate() {
            let next_base = files.get(index + 1).map(|next| next.base_offset);
            let end = SegmentEnd { offset: next_base.unwrap_or(file.base_offset), position: file.len };
            let segment = Arc::new(Segment::existing(self.dir.clone(), file.base_offset, end));
            if let Some(summary) = self.txn_indexes.get(&file.base_offset) {
                let adopted = TxnIndex::adopt(&*self.storage.disk, &segment.txn_index_path(), *summary);
                segment.txn_index().replace(adopted.map_err(self.io_error(&segment))?.unwrap_or_default());
            }
            segments.push(segment.clone());
            if next_base.is_some_and(|next_base| next_base <= recovery_point) {
                self.replay_closed(&segment, end)?;
                next_offset = end.offset;
                continue;
            }
            if file.base_offset != next_offset {
                let what =
                    format!("expected a segment from offset {next_offset}, found {}", file.base_offset);
                return Err(self.damaged(&segment, 0, next_offset, file.len, what));
            }
            next_offset = self.recover_segment(&segment, file, next_base, recovery_point)?;
            // Without a missing offset what was cut is the rest of a write that failed and was not acknowledged.
            if next_base.is_some_and(|base| base > next_offset) {
                // What was lost had not been synced, and so had nothing of what came after.
                self.set_aside(&files[index + 1..], next_offset)?;
                break;
            }
        }
        if segments.is_empty() {
            segments.push(self.create_first(first_offset)?);
        }
        if next_offset < recovery_point {
            let segment = segments.last().expect("just pushed").clone();
            let what = format!("the log ends before its recovery point, offset {recovery_point}");
            return Err(self.damaged(&segment, segment.end().position, next_offset, 0, what));
        }
        Ok(segments)
    }

    /// Takes segments out of the log that begin behind its end, and keeps their bytes under other names.
    fn set_aside(&mut self, files: &[SegmentFile], offset: i64) -> Result<(), RecoverError> {
        for file in files {
            let segment = Segment::existing(self.dir.clone(), file.base_offset, SegmentEnd::default());
            let [log, index, time_index, txn_index] = segment.paths();
            let kept = self.dir.join(file_name(file.base_offset, &format!("0.{CUT_EXTENSION}")));
            self.storage.disk.rename(&log, &kept).map_err(self.io_error(&segment))?;
            for path in [index, time_index, txn_index] {
                // Without its log an index is nothing; the next segment of this name replaces it.
                let _ = self.storage.disk.remove_file(&path);
            }
            let topic_partition = self.topic_partition.clone();
            self.cuts.push(Cut {
                topic_partition,
                file: log,
                position: 0,
                offset,
                bytes: file.len,
                kept: Some(kept),
            });
            self.changed = true;
        }
        Ok(())
    }

    fn create_first(&mut self, first_offset: i64) -> Result<Arc<Segment>, RecoverError> {
        let segment = Arc::new(Segment::created(self.dir.clone(), first_offset));
        let created = self.storage.disk.open(&segment.log_path(), OpenMode::Truncate);
        created.map_err(|source| RecoverError::Io { path: segment.log_path(), source })?;
        self.changed = true;
        Ok(segment)
    }

    fn io_error(&self, segment: &Segment) -> impl FnOnce(io::Error) -> RecoverError + use<> {
        let path = segment.log_path();
        move |source| RecoverError::Io { path, source }
    }

    fn damaged(
        &self,
        segment: &Segment,
        position: u64,
        offset: i64,
        lost_bytes: u64,
        what: String,
    ) -> RecoverError {
        let (topic_partition, file) = (self.topic_partition.clone(), segment.log_path());
        RecoverError::Damaged { topic_partition, file, position, offset, lost_bytes, what }
    }

    /// A segment below the recovery point is read only when the snapshot is missing.
    fn replay_closed(&mut self, segment: &Arc<Segment>, end: SegmentEnd) -> Result<(), RecoverError> {
        if self.replay_from >= end.offset {
            return Ok(());
        }
        let file = self.open(segment)?;
        self.replay_headers(segment, &*file, 0, end)
    }

    fn open(&self, segment: &Arc<Segment>) -> Result<Arc<dyn DiskFile>, RecoverError> {
        let opened = self.storage.disk.open(&segment.log_path(), OpenMode::Write);
        opened.map_err(self.io_error(segment))
    }

    /// Takes the batches from `position` up to `end` into the producers' state, trusting them.
    fn replay_headers(
        &mut self,
        segment: &Segment,
        file: &dyn DiskFile,
        position: u64,
        end: SegmentEnd,
    ) -> Result<(), RecoverError> {
        let mut scan = HeaderScan::new(file, position, end.position);
        loop {
            let next = scan.next_header();
            match next {
                Ok(Some(located)) if located.header.base_offset >= end.offset => return Ok(()),
                Ok(Some(located)) => {
                    let applied = self.apply(segment, file, located.position, &located.header);
                    applied.map_err(self.io_error(segment))?;
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.hop_error(segment, file, end.position, error)),
            }
        }
    }

    /// The segment with the recovery point, or one above it: checks every batch from there on. Returns
    /// the offset behind the last valid one.
    fn recover_segment(
        &mut self,
        segment: &Arc<Segment>,
        found: &SegmentFile,
        next_base: Option<i64>,
        recovery_point: i64,
    ) -> Result<i64, RecoverError> {
        let file = self.open(segment)?;
        let point = recovery_point.max(found.base_offset);
        let from = self.position_of(segment, &*file, found, point)?;
        let mut judge = Judge::new(&*file, found.len, self.holes_end);
        let mut end = SegmentEnd { offset: point, position: from };
        while end.position < found.len {
            match judge.check(end.position, end.offset).map_err(self.io_error(segment))? {
                Verdict::Valid(header) => {
                    let applied = self.apply(segment, &*file, end.position, &header);
                    applied.map_err(self.io_error(segment))?;
                    end.position += header.size_bytes() as u64;
                    end.offset = header.next_offset();
                }
                Verdict::Invalid { what } => {
                    let rest = judge.rest(end, next_base).map_err(self.io_error(segment))?;
                    self.take_off(rest, &mut judge, segment, found, end, what)?;
                    file.set_len(end.position).map_err(self.io_error(segment))?;
                    break;
                }
            }
        }
        judge.rewrite(from, end.position).map_err(self.io_error(segment))?;
        self.checked_bytes += end.position - from;
        self.changed |= found.len > from;
        let usable = segment.recovered(self.storage, &*file, end, from);
        if !usable.map_err(|error| self.hop_error(segment, &*file, end.position, error))? {
            self.changed = true;
            // Before the first checkpoint there is nothing on disk that could be missed.
            if recovery_point > found.base_offset {
                let [_, index, time_index, _] = segment.paths();
                self.rebuilt.extend([index, time_index]);
            }
        }
        Ok(end.offset)
    }

    /// Notes that the bytes behind the log's end are cut, unless they are damage. Where valid batches are among them, they are kept
    /// under another name.
    fn take_off(
        &mut self,
        rest: Rest,
        judge: &mut Judge<'_>,
        segment: &Arc<Segment>,
        found: &SegmentFile,
        end: SegmentEnd,
        what: String,
    ) -> Result<(), RecoverError> {
        let kept = match rest {
            Rest::Damaged { stop } => {
                return Err(self.damaged(segment, end.position, end.offset, stop - end.position, what));
            }
            Rest::Torn { holds_batches: false } => None,
            Rest::Torn { holds_batches: true } => {
                let name = file_name(segment.base_offset(), &format!("{}.{CUT_EXTENSION}", end.position));
                let path = self.dir.join(name);
                judge.copy(&*self.storage.disk, &path, end.position).map_err(self.io_error(segment))?;
                Some(path)
            }
        };
        self.cuts.push(Cut {
            topic_partition: self.topic_partition.clone(),
            file: segment.log_path(),
            position: end.position,
            offset: end.offset,
            bytes: found.len - end.position,
            kept,
        });
        self.changed = true;
        Ok(())
    }

    /// The position of the recovery point in its segment. The batches before it are trusted, and taken
    /// into the producers' state where the snapshot is missing.
    fn position_of(
        &mut self,
        segment: &Arc<Segment>,
        file: &dyn DiskFile,
        found: &SegmentFile,
        point: i64,
    ) -> Result<u64, RecoverError> {
        if point == found.base_offset {
            return Ok(0);
        }
        let floor = if self.replay_from < point {
            0
        } else {
            segment.floor_in_file(self.storage, file, found.len, point).map_err(self.io_error(segment))?
        };
        let mut scan = HeaderScan::new(file, floor, found.len);
        loop {
            let next = scan.next_header();
            match next {
                Ok(Some(located)) if located.header.base_offset >= point => return Ok(located.position),
                Ok(Some(located)) => {
                    let applied = self.apply(segment, file, located.position, &located.header);
                    applied.map_err(self.io_error(segment))?;
                    if located.header.next_offset() == point {
                        return Ok(scan.position());
                    }
                }
                Ok(None) => {
                    let what = format!("the log ends before its recovery point, offset {point}");
                    let bad = BadBatch { position: found.len, what };
                    return Err(self.hop_error(segment, file, found.len, SegmentError::Bad(bad)));
                }
                Err(error) => return Err(self.hop_error(segment, file, found.len, error)),
            }
        }
    }
}

/// The marker in a control batch, if it is one.
fn read_marker(file: &dyn DiskFile, position: u64, header: &BatchHeader) -> io::Result<Option<EndTxnMarker>> {
    if header.size_bytes() > MAX_MARKER_BYTES {
        return Ok(None);
    }
    let mut bytes = vec![0; header.size_bytes()];
    read_exact_at(file, &mut bytes, position)?;
    Ok(EndTxnMarker::parse(&bytes.into()))
}

/// Ends the names of files that hold what was cut off a log.
pub(crate) const CUT_EXTENSION: &str = "cut";
