//! Reads one partition's folder from the first byte to the last.
//!
//! Owns the tally of what is whole, what is damaged and what would be lost with it. Invariants: the same rules as
//! recovery's, so that what a check calls whole does not stop a start; nothing is written.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidings_model::TopicPartition;

use super::side_files::{IndexReaders, check_folder, check_txn_indexes};
use super::walk::{Bounds, DamagedBytes, Found, Walk};
use super::{OfflineDataDir, SideFault};
use crate::disk::OpenMode;
use crate::segment::{Segment, SegmentEnd, file_name, parse_file_name};

/// What a check has found in one partition.
#[derive(Debug, Clone)]
pub struct PartitionCheck {
    /// Which.
    pub topic_partition: TopicPartition,
    /// The first readable offset.
    pub log_start_offset: i64,
    /// The offset behind the last valid batch.
    pub log_end_offset: i64,
    /// Below it everything had been made durable when the last checkpoint was written.
    pub recovery_point: i64,
    /// Segments.
    pub segments_count: usize,
    /// Bytes of the segments' log files.
    pub bytes: u64,
    /// Valid batches.
    pub batches_count: u64,
    /// Records in them, by their headers.
    pub records_count: u64,
    /// Places where data is lost. A start refuses those that lie where it looks.
    pub damages: Vec<Damage>,
    /// Bytes at the very end that look like a torn write, which was never acknowledged; the next start cuts them.
    pub torn_tail: Option<TornTail>,
    /// Files that are made again by themselves.
    pub side_faults: Vec<SideFault>,
}

impl PartitionCheck {
    /// Whether nothing is lost.
    pub fn is_whole(&self) -> bool {
        self.damages.is_empty()
    }

    /// Where damage begins that is in the log, and not before its first segment: a cut must not be behind it.
    pub fn first_damaged_offset(&self) -> Option<i64> {
        let within = self.damages.iter().find(|damage| !damage.is_before_log());
        within.map(|damage| damage.first_offset)
    }
}

/// A place in a log where batches are missing that should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The base offset of the segment.
    pub segment_base_offset: i64,
    /// Where the damage begins.
    pub position: u64,
    /// Bytes that form no valid batch.
    pub bytes: u64,
    /// The first offset that is lost.
    pub first_offset: i64,
    /// The offset behind the last one lost.
    pub next_offset: i64,
    /// Valid batches that follow in the partition, in this file and later ones.
    pub valid_batches_behind: u64,
    /// Their bytes.
    pub valid_bytes_behind: u64,
    /// Expected and found.
    pub what: String,
}

impl Damage {
    /// Whether segments are missing at the log's beginning. A start goes on without them.
    pub fn is_before_log(&self) -> bool {
        self.first_offset < self.segment_base_offset
    }
}

/// Bytes at a log's end that are no whole batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub file: PathBuf,
    /// Where they begin.
    pub position: u64,
    /// How many.
    pub bytes: u64,
    /// Later segments, which the start takes out of the log with it and keeps under other names.
    pub later_segments_count: usize,
}

struct SegmentFile {
    base_offset: i64,
    len: u64,
}

struct Checker<'a> {
    dir: &'a OfflineDataDir,
    folder: Arc<Path>,
    check: PartitionCheck,
    holes_end: i64,
    valid_bytes: u64,
    progress: &'a dyn Fn(u64),
}

impl OfflineDataDir {
    /// Checks everything in a partition's folder. `progress` is told how many bytes more were read.
    pub fn check(
        &self,
        topic_partition: &TopicPartition,
        progress: &dyn Fn(u64),
    ) -> io::Result<PartitionCheck> {
        let folder = self.folder(topic_partition);
        let (segments, names) = self.list(&folder)?;
        let log_start = self.recorded_start(topic_partition);
        let first_offset = segments.first().map_or(log_start.unwrap_or(0), |file| file.base_offset);
        let recovery_point = self.recovery_points.get(topic_partition).copied().unwrap_or(first_offset);
        let check = PartitionCheck {
            topic_partition: topic_partition.clone(),
            log_start_offset: log_start.unwrap_or(first_offset).max(first_offset),
            log_end_offset: first_offset,
            recovery_point: recovery_point.max(first_offset),
            segments_count: segments.len(),
            bytes: segments.iter().map(|file| file.len).sum(),
            batches_count: 0,
            records_count: 0,
            damages: Vec::new(),
            torn_tail: None,
            side_faults: Vec::new(),
        };
        let holes_end = self.holes_end(topic_partition);
        let mut checker =
            Checker { dir: self, folder: folder.into(), check, holes_end, valid_bytes: 0, progress };
        checker.beginning(&segments)?;
        checker.segments(&segments)?;
        checker.finish(&segments, &names)
    }

    /// Bytes of all log files, for a progress bar.
    pub fn log_bytes(&self, topic_partition: &TopicPartition) -> io::Result<u64> {
        let (segments, _) = self.list(&self.folder(topic_partition))?;
        Ok(segments.iter().map(|file| file.len).sum())
    }

    fn list(&self, folder: &Path) -> io::Result<(Vec<SegmentFile>, Vec<String>)> {
        let entries = self.disk.read_dir(folder)?;
        let log = |entry: &crate::disk::DirEntry| {
            let base_offset = parse_file_name(&entry.name, "log")?;
            Some(SegmentFile { base_offset, len: entry.len })
        };
        let mut segments: Vec<_> = entries.iter().filter_map(log).collect();
        segments.sort_by_key(|file| file.base_offset);
        Ok((segments, entries.into_iter().map(|entry| entry.name).collect()))
    }
}

impl Checker<'_> {
    /// Notes what is missing before the first segment. Segments that go leave a record of the log's new start before.
    fn beginning(&mut self, files: &[SegmentFile]) -> io::Result<()> {
        let Some(first) = files.first().filter(|file| file.base_offset > 0) else { return Ok(()) };
        let topic_partition = &self.check.topic_partition;
        let is_missing = |start: &i64| *start < first.base_offset;
        let Some(_) = self.dir.recorded_start(topic_partition).filter(is_missing) else { return Ok(()) };
        let Some(start) = self.dir.recorded_start_now(topic_partition)?.filter(is_missing) else {
            return Ok(());
        };
        let what = format!("the log begins at offset {start} by its record: no segment from there on");
        self.damage(first, nothing_at(0, start, what), first.base_offset);
        Ok(())
    }

    fn segments(&mut self, files: &[SegmentFile]) -> io::Result<()> {
        for (index, file) in files.iter().enumerate() {
            let next_base = files.get(index + 1).map(|next| next.base_offset);
            self.segment(file, next_base)?;
            let end = self.check.log_end_offset;
            let missing = next_base.is_none_or(|base| base > end);
            if let Some(torn) = &mut self.check.torn_tail
                && missing
            {
                torn.later_segments_count = files.len() - index - 1;
                break;
            }
            let Some(next_base) = next_base else { break };
            // Below the recovery point a compaction may have removed what the end of a segment held.
            if end < next_base && next_base > self.check.recovery_point {
                let what = format!("expected a segment from offset {end}, found {next_base}");
                self.damage(file, nothing_at(file.len, end, what), next_base);
            }
            self.check.log_end_offset = end.max(next_base);
        }
        let end = self.check.log_end_offset;
        if end < self.check.recovery_point {
            // Without a segment a start makes an empty one, and is refused by what that lacks.
            let none = SegmentFile { base_offset: end, len: 0 };
            let last = files.last().unwrap_or(&none);
            let what =
                format!("the log ends before its recovery point, offset {}", self.check.recovery_point);
            self.damage(last, nothing_at(last.len, end, what), self.check.recovery_point);
            self.check.log_end_offset = self.check.recovery_point;
        }
        Ok(())
    }

    fn segment(&mut self, found: &SegmentFile, limit: Option<i64>) -> io::Result<()> {
        let disk = &*self.dir.disk;
        let end = SegmentEnd { offset: found.base_offset, position: found.len };
        let segment = Segment::existing(self.folder.clone(), found.base_offset, end);
        let file = disk.open(&segment.log_path(), OpenMode::Read)?;
        let mut indexes = IndexReaders::open(disk, &segment)?;
        let (recovery_point, holes_end) = (self.check.recovery_point, self.holes_end);
        let bounds =
            Bounds { len: found.len, next_offset: found.base_offset, recovery_point, holes_end, limit };
        let mut walk = Walk::new(&*file, bounds);
        let damages_count = self.check.damages.len();
        while let Some(next) = walk.next_found()? {
            match next {
                Found::Batch(batch) => {
                    let bytes = batch.header.size_bytes() as u64;
                    self.check.batches_count += 1;
                    self.check.records_count += u64::try_from(batch.header.record_count).unwrap_or(0);
                    self.valid_bytes += bytes;
                    indexes.compare(&batch)?;
                    (self.progress)(bytes);
                }
                Found::Damage(damage) => {
                    (self.progress)(damage.bytes);
                    self.judge(found, damage, walk.next_offset(), limit);
                }
            }
        }
        let lost_to =
            self.check.damages[damages_count..].last().map_or(i64::MIN, |damage| damage.next_offset);
        self.check.log_end_offset = walk.next_offset().max(lost_to);
        let whole = self.check.damages.len() == damages_count && self.check.torn_tail.is_none();
        // Behind the recovery point index files lag behind the log, and may not exist yet.
        if whole && limit.is_some_and(|limit| limit <= recovery_point) {
            self.check.side_faults.extend(indexes.finish()?);
        }
        Ok(())
    }

    /// Tells a torn tail, which the next start cuts, from damage.
    fn judge(&mut self, found: &SegmentFile, damage: DamagedBytes, next_offset: i64, limit: Option<i64>) {
        if damage.torn {
            let DamagedBytes { position, bytes, .. } = damage;
            let file = self.log_path(found);
            self.check.torn_tail = Some(TornTail { file, position, bytes, later_segments_count: 0 });
            return;
        }
        let behind = if damage.followed { next_offset } else { limit.unwrap_or(self.check.recovery_point) };
        self.damage(found, damage, behind);
    }

    fn log_path(&self, file: &SegmentFile) -> PathBuf {
        Segment::existing(self.folder.clone(), file.base_offset, SegmentEnd::default()).log_path()
    }

    /// Notes damage; what follows it is not known yet, so its counts begin as what came before.
    fn damage(&mut self, found: &SegmentFile, damage: DamagedBytes, next_offset: i64) {
        self.check.damages.push(Damage {
            file: self.log_path(found),
            segment_base_offset: found.base_offset,
            position: damage.position,
            bytes: damage.bytes,
            first_offset: damage.offset,
            next_offset: next_offset.max(damage.offset),
            valid_batches_behind: self.check.batches_count,
            valid_bytes_behind: self.valid_bytes,
            what: damage.what,
        });
    }

    fn finish(mut self, segments: &[SegmentFile], names: &[String]) -> io::Result<PartitionCheck> {
        let (batches_count, valid_bytes) = (self.check.batches_count, self.valid_bytes);
        for damage in &mut self.check.damages {
            damage.valid_batches_behind = batches_count - damage.valid_batches_behind;
            damage.valid_bytes_behind = valid_bytes - damage.valid_bytes_behind;
        }
        let recovery_point = self.check.recovery_point;
        if segments.is_empty() && self.check.is_whole() {
            let what = "is missing; the next start makes it, empty";
            let name = file_name(self.check.log_start_offset, "log");
            self.check.side_faults.push(SideFault::new(self.folder.join(name), what));
        }
        let needs_snapshot = (recovery_point > self.check.log_start_offset).then_some(recovery_point);
        let mut faults = check_folder(&*self.dir.disk, &self.folder, names, needs_snapshot)?;
        let is_there = |base_offset: i64| segments.iter().any(|file| file.base_offset == base_offset);
        faults.extend(check_txn_indexes(&*self.dir.disk, &self.folder, recovery_point, is_there)?);
        // One name, one line.
        let mut seen = HashSet::new();
        self.check.side_faults.extend(faults);
        self.check.side_faults.retain(|fault| seen.insert(fault.file.clone()));
        Ok(self.check)
    }
}

/// Where batches are missing without a byte in their place.
fn nothing_at(position: u64, offset: i64, what: String) -> DamagedBytes {
    DamagedBytes { position, bytes: 0, offset, what, followed: false, torn: false }
}
