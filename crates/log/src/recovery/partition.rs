//! Recovers one partition's folder.
//!
//! Owns the way from the recovery point to the log's end. Invariants: as in [`super`].

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidings_model::TopicPartition;

use super::judge::{Judge, Verdict};
use super::{Cut, RecoverError};
use crate::config::LogConfig;
use crate::data_dir::partition_metadata_id;
use crate::disk::{DiskFile, OpenMode, read_file};
use crate::leader_epochs::LeaderEpochs;
use crate::partition_log::{LEADER_EPOCHS, PartitionLog, Recovered};
use crate::producers::Producers;
use crate::segment::{HeaderScan, Segment, SegmentEnd, SegmentError, file_name, parse_file_name};
use crate::storage::Storage;

pub(super) struct PartitionOutcome {
    pub log: PartitionLog,
    pub checked_bytes: u64,
    pub cuts: Vec<Cut>,
    pub rebuilt: Vec<PathBuf>,
    pub changed: bool,
}

struct Recovery<'a> {
    storage: &'a Arc<Storage>,
    topic_partition: &'a TopicPartition,
    dir: Arc<Path>,
    producers: Producers,
    /// From here on batches are not in `producers` yet.
    replay_from: i64,
    epochs: LeaderEpochs,
    checked_bytes: u64,
    cuts: Vec<Cut>,
    rebuilt: Vec<PathBuf>,
    changed: bool,
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
    recovery_point: Option<i64>,
    log_start: Option<i64>,
) -> Result<PartitionOutcome, RecoverError> {
    let dir: Arc<Path> = storage.root.join(topic_partition.to_string()).into();
    let mut recovery = Recovery {
        storage,
        topic_partition,
        dir: dir.clone(),
        producers: Producers::default(),
        replay_from: 0,
        epochs: LeaderEpochs::default(),
        checked_bytes: 0,
        cuts: Vec::new(),
        rebuilt: Vec::new(),
        changed: false,
    };
    let files = recovery.list(recovery_point.unwrap_or(0));
    let files = files.map_err(|source| RecoverError::Io { path: dir.to_path_buf(), source })?;
    let first_offset = files.first().map_or(log_start.unwrap_or(0), |file| file.base_offset);
    let recovery_point = recovery_point.unwrap_or(first_offset).max(first_offset);
    let io_error = |source| RecoverError::Io { path: dir.to_path_buf(), source };
    recovery.load_state(first_offset, recovery_point).map_err(io_error)?;
    let segments = recovery.segments(files, first_offset, recovery_point)?;
    let topic_id = partition_metadata_id(&*storage.disk, &dir).map_err(io_error)?;
    let recovered = Recovered {
        topic_partition: topic_partition.clone(),
        topic_id,
        dir: dir.clone(),
        segments,
        log_start_offset: log_start.unwrap_or(first_offset).max(first_offset),
        producers: recovery.producers,
        epochs: recovery.epochs,
        recovery_point,
    };
    Ok(PartitionOutcome {
        log: PartitionLog::new(storage.clone(), recovered, LogConfig::default()),
        checked_bytes: recovery.checked_bytes,
        cuts: recovery.cuts,
        rebuilt: recovery.rebuilt,
        changed: recovery.changed,
    })
}

impl Recovery<'_> {
    /// The log files by base offset. Leftovers of interrupted replacements and checkpoints are removed.
    fn list(&self, recovery_point: i64) -> io::Result<Vec<SegmentFile>> {
        let disk = &*self.storage.disk;
        let mut files = Vec::new();
        for entry in disk.read_dir(&self.dir)? {
            let path = self.dir.join(&entry.name);
            let snapshot = parse_file_name(&entry.name, "snapshot");
            if entry.name.ends_with(".tmp") || snapshot.is_some_and(|offset| offset != recovery_point) {
                disk.remove_file(&path)?;
            } else if let Some(base_offset) = parse_file_name(&entry.name, "log") {
                files.push(SegmentFile { base_offset, len: entry.len });
            }
        }
        files.sort_by_key(|file| file.base_offset);
        Ok(files)
    }

    /// Loads the newest snapshot that the recovery point covers, and the leader epochs.
    fn load_state(&mut self, first_offset: i64, recovery_point: i64) -> io::Result<()> {
        let disk = &*self.storage.disk;
        self.replay_from = first_offset;
        let path = self.dir.join(file_name(recovery_point, "snapshot"));
        match read_file(disk, &path)?.map(|bytes| Producers::decode(&bytes)) {
            Some(Ok(producers)) => {
                self.producers = producers;
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
                    self.replay_from = first_offset;
                    self.producers = Producers::default();
                    self.rebuilt.push(path);
                }
            }
        }
        self.epochs.truncate(recovery_point);
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
            next_offset = self.recover_segment(&segment, file, recovery_point)?;
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
            let [log, index, time_index] = segment.paths();
            let kept = self.dir.join(file_name(file.base_offset, &format!("0.{CUT_EXTENSION}")));
            self.storage.disk.rename(&log, &kept).map_err(self.io_error(&segment))?;
            for path in [index, time_index] {
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
                    self.epochs.assign(located.header.leader_epoch, located.header.base_offset);
                    if located.header.base_offset >= self.replay_from {
                        self.producers.apply(&located.header);
                    }
                }
                Ok(None) => return Ok(()),
                Err(SegmentError::Io(source)) => return Err(self.io_error(segment)(source)),
                Err(SegmentError::Bad(bad)) => {
                    let lost = end.position - bad.position;
                    return Err(self.damaged(segment, bad.position, end.offset, lost, bad.what));
                }
            }
        }
    }

    /// The segment with the recovery point, or one above it: checks every batch from there on. Returns
    /// the offset behind the last valid one.
    fn recover_segment(
        &mut self,
        segment: &Arc<Segment>,
        found: &SegmentFile,
        recovery_point: i64,
    ) -> Result<i64, RecoverError> {
        let file = self.open(segment)?;
        let point = recovery_point.max(found.base_offset);
        let from = self.position_of(segment, &*file, found, point)?;
        let mut judge = Judge::new(&*file, found.len);
        let mut end = SegmentEnd { offset: point, position: from };
        while end.position < found.len {
            match judge.check(end.position, end.offset).map_err(self.io_error(segment))? {
                Verdict::Valid(header) => {
                    self.epochs.assign(header.leader_epoch, header.base_offset);
                    self.producers.apply(&header);
                    end.position += header.size_bytes() as u64;
                    end.offset = header.next_offset();
                }
                Verdict::Invalid { what } => {
                    self.judge_rest(&mut judge, segment, found, end, what)?;
                    file.set_len(end.position).map_err(self.io_error(segment))?;
                    break;
                }
            }
        }
        judge.rewrite(from, end.position).map_err(self.io_error(segment))?;
        self.checked_bytes += end.position - from;
        self.changed |= found.len > from;
        let usable = segment.recovered(self.storage, &*file, end, from);
        if !usable.map_err(|error| self.segment_error(segment, end, error))? {
            self.changed = true;
            // Before the first checkpoint there is nothing on disk that could be missed.
            if recovery_point > found.base_offset {
                self.rebuilt.extend(segment.paths().into_iter().skip(1));
            }
        }
        Ok(end.offset)
    }

    fn segment_error(&self, segment: &Segment, end: SegmentEnd, error: SegmentError) -> RecoverError {
        match error {
            SegmentError::Io(source) => self.io_error(segment)(source),
            SegmentError::Bad(bad) => {
                self.damaged(segment, bad.position, end.offset, end.position - bad.position, bad.what)
            }
        }
    }

    /// Decides about the bytes behind the last valid batch. Where nothing valid follows they are a torn
    /// tail. Where something does, they are damage, unless a sector was never written: then the crash came
    /// before the sync of these bytes, and nothing from there on was ever acknowledged. What is cut then
    /// is kept under another name.
    fn judge_rest(
        &mut self,
        judge: &mut Judge<'_>,
        segment: &Arc<Segment>,
        found: &SegmentFile,
        end: SegmentEnd,
        what: String,
    ) -> Result<(), RecoverError> {
        let behind = judge.valid_batch_behind(end.position, end.offset).map_err(self.io_error(segment))?;
        let mut kept = None;
        if let Some(stop) = behind {
            if !judge.has_unwritten_sector(end, stop).map_err(self.io_error(segment))? {
                return Err(self.damaged(segment, end.position, end.offset, stop - end.position, what));
            }
            let name = file_name(segment.base_offset(), &format!("{}.{CUT_EXTENSION}", end.position));
            let path = self.dir.join(name);
            judge.copy(&*self.storage.disk, &path, end.position).map_err(self.io_error(segment))?;
            kept = Some(path);
        }
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
                    self.epochs.assign(located.header.leader_epoch, located.header.base_offset);
                    if located.header.base_offset >= self.replay_from {
                        self.producers.apply(&located.header);
                    }
                    if located.header.next_offset() == point {
                        return Ok(scan.position());
                    }
                }
                Ok(None) => {
                    let what = format!("the log ends before its recovery point, offset {point}");
                    return Err(self.damaged(segment, found.len, point, 0, what));
                }
                Err(SegmentError::Io(source)) => return Err(self.io_error(segment)(source)),
                Err(SegmentError::Bad(bad)) => {
                    let lost = found.len - bad.position;
                    return Err(self.damaged(segment, bad.position, point, lost, bad.what));
                }
            }
        }
    }
}

/// Ends the names of files that hold what was cut off a log.
pub(crate) const CUT_EXTENSION: &str = "cut";
