//! Makes a damaged log one that a broker starts with.
//!
//! Owns the plan, which is shown before anything is done, and its steps. Invariants: every byte that leaves a log
//! is in a side file, synced, before it does; a repair that is interrupted at any point can be run again; what
//! stays in a log was checked. Does not touch logs that are whole.
//!
//! A hole is bridged by batches without records, as a compaction of Kafka's leaves them: their header spans the lost
//! offsets, so that offsets stay continuous, nothing is assigned twice, and clients step over them.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use tidings_model::TopicPartition;

use super::OfflineDataDir;
use super::check::{Damage, PartitionCheck};
use crate::batch::BatchBuilder;
use crate::checkpoint;
use crate::disk::{DiskFile, OpenMode, read_exact_at, write_all_at};
use crate::recovery::CUT_EXTENSION;
use crate::recovery::judge::{Judge, Verdict};
use crate::segment::{file_name, parse_file_name};

/// What the operator gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The log ends before this offset; everything from it on is taken out.
    TruncateAt(i64),
    /// Only what is damaged is taken out; valid batches behind it stay at their offsets.
    DropDamaged,
}

/// Why a log can't be repaired that way.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// There is nothing to do.
    #[error("{topic_partition} is whole: there is nothing to repair")]
    Whole {
        /// The partition.
        topic_partition: TopicPartition,
    },
    /// The cut would leave damage in the log.
    #[error(
        "{topic_partition} is damaged from offset {first_damaged} on: cutting at {offset} would leave that in the log"
    )]
    CutBehindDamage {
        /// The partition.
        topic_partition: TopicPartition,
        /// Where the cut was wanted.
        offset: i64,
        /// The first offset that is lost.
        first_damaged: i64,
    },
    /// There is no such offset.
    #[error(
        "{topic_partition} has no offset {offset}: expected one from {log_start_offset} to {log_end_offset}"
    )]
    OutOfRange {
        /// The partition.
        topic_partition: TopicPartition,
        /// Where the cut was wanted.
        offset: i64,
        /// The first readable offset.
        log_start_offset: i64,
        /// The log's end.
        log_end_offset: i64,
    },
    /// More offsets are lost than a segment can hold.
    #[error(
        "{topic_partition}: {count} offsets from {first_offset} on are lost, more than one segment can hold"
    )]
    Hole {
        /// The partition.
        topic_partition: TopicPartition,
        /// The first offset lost.
        first_offset: i64,
        /// How many.
        count: i64,
    },
    /// The directory was opened to look at it only.
    #[error("the data directory is open for reading only")]
    ReadOnly,
    /// The disk failed; the repair can be run again.
    #[error("repairing {} failed: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
}

/// What a repair will do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairPlan {
    /// The partition.
    pub topic_partition: TopicPartition,
    /// The steps.
    pub steps: Vec<RepairStep>,
}

/// One step of a repair. All paths are within the partition's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairStep {
    /// The next start checks the log from here on.
    MoveRecoveryPoint {
        /// The recovery point afterwards.
        to: i64,
    },
    /// Where the log begins is written down: the segments below are lost.
    RaiseLogStart {
        /// The first readable offset afterwards.
        to: i64,
    },
    /// A whole segment leaves the log under another name.
    SetAside {
        /// The segment's log file.
        file: PathBuf,
        /// Its bytes.
        bytes: u64,
        /// Its new name.
        kept: PathBuf,
    },
    /// The end of a segment leaves the log.
    Cut {
        /// The segment's log file.
        file: PathBuf,
        /// Where it ends afterwards.
        position: u64,
        /// How many bytes go.
        bytes: u64,
        /// Where they are kept.
        kept: PathBuf,
    },
    /// Damaged pieces of a segment give way to empty batches that span their offsets.
    Bridge {
        /// The segment's log file.
        file: PathBuf,
        /// The pieces, by position.
        pieces: Vec<Piece>,
    },
}

/// A damaged piece of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub position: u64,
    /// How long it is.
    pub bytes: u64,
    /// The first offset lost.
    pub first_offset: i64,
    /// The offset behind the last one lost.
    pub next_offset: i64,
    /// Where the bytes are kept; none where there are none.
    pub kept: Option<PathBuf>,
}

/// Planning.
impl OfflineDataDir {
    /// What it takes to repair a partition that was just checked. Changes nothing.
    pub fn plan_repair(&self, check: &PartitionCheck, remedy: Remedy) -> Result<RepairPlan, RepairError> {
        let topic_partition = check.topic_partition.clone();
        if check.is_whole() {
            return Err(RepairError::Whole { topic_partition });
        }
        let before_log = check.damages.iter().filter(|damage| damage.is_before_log());
        let mut steps: Vec<_> =
            before_log.map(|damage| RepairStep::RaiseLogStart { to: damage.next_offset }).collect();
        steps.extend(match remedy {
            Remedy::TruncateAt(offset) => self.plan_cut(check, offset)?,
            Remedy::DropDamaged => self.plan_bridges(check)?,
        });
        Ok(RepairPlan { topic_partition, steps })
    }

    fn plan_cut(&self, check: &PartitionCheck, offset: i64) -> Result<Vec<RepairStep>, RepairError> {
        let topic_partition = check.topic_partition.clone();
        if let Some(first_damaged) = check.first_damaged_offset().filter(|first| offset > *first) {
            return Err(RepairError::CutBehindDamage { topic_partition, offset, first_damaged });
        }
        let PartitionCheck { log_start_offset, log_end_offset, .. } = *check;
        if !(log_start_offset..=log_end_offset).contains(&offset) {
            return Err(RepairError::OutOfRange {
                topic_partition,
                offset,
                log_start_offset,
                log_end_offset,
            });
        }
        let folder = self.folder(&check.topic_partition);
        let failed = |source| RepairError::Io { path: folder.clone(), source };
        let mut files = self.log_files(&folder).map_err(failed)?;
        let mut steps = Vec::new();
        // The newest first, so that an interrupted repair leaves no gap.
        while let Some((base_offset, bytes)) = files.pop_if(|(base_offset, _)| *base_offset >= offset) {
            if base_offset == offset && files.is_empty() {
                // The log keeps its first segment, empty.
                files.push((base_offset, bytes));
                break;
            }
            let file = folder.join(file_name(base_offset, "log"));
            let kept = self.free_name(&folder, base_offset, 0).map_err(failed)?;
            steps.push(RepairStep::SetAside { file, bytes, kept });
        }
        // Without a segment the next start makes one at the log's start.
        let last = files.last().copied();
        let (position, end_offset) = match last {
            Some((base_offset, len)) => self.end_below(&folder, base_offset, len, offset).map_err(failed)?,
            None => (0, log_start_offset),
        };
        if end_offset < check.recovery_point {
            // Before anything else: a log that ends before its recovery point is refused.
            steps.insert(0, RepairStep::MoveRecoveryPoint { to: end_offset });
        }
        if let Some((base_offset, len)) = last.filter(|(_, len)| position < *len) {
            let file = folder.join(file_name(base_offset, "log"));
            let kept = self.free_name(&folder, base_offset, position).map_err(failed)?;
            steps.push(RepairStep::Cut { file, position, bytes: len - position, kept });
        }
        Ok(steps)
    }

    /// Log files by base offset, with their lengths.
    pub(super) fn log_files(&self, folder: &Path) -> io::Result<Vec<(i64, u64)>> {
        let entries = self.disk.read_dir(folder)?;
        let named =
            entries.iter().filter_map(|entry| Some((parse_file_name(&entry.name, "log")?, entry.len)));
        let mut files: Vec<_> = named.collect();
        files.sort_unstable();
        Ok(files)
    }

    /// The end of the last batch that lies wholly below `offset`: its position, and the offset behind it.
    fn end_below(&self, folder: &Path, base_offset: i64, len: u64, offset: i64) -> io::Result<(u64, i64)> {
        let file = self.disk.open(&folder.join(file_name(base_offset, "log")), OpenMode::Read)?;
        let mut judge = Judge::new(&*file, len, i64::MIN);
        let (mut position, mut end_offset) = (0, base_offset);
        while let Some(header) = judge.header(position)? {
            let below = header.base_offset >= end_offset && header.next_offset() <= offset;
            if !below || !matches!(judge.check(position, header.base_offset)?, Verdict::Valid(_)) {
                break;
            }
            position += header.size_bytes() as u64;
            end_offset = header.next_offset();
        }
        Ok((position, end_offset))
    }

    fn plan_bridges(&self, check: &PartitionCheck) -> Result<Vec<RepairStep>, RepairError> {
        let folder = self.folder(&check.topic_partition);
        let mut steps: Vec<RepairStep> = Vec::new();
        let spans_point =
            |damage: &&Damage| (damage.first_offset + 1..damage.next_offset).contains(&check.recovery_point);
        if let Some(damage) = check.damages.iter().find(spans_point) {
            // A start begins at the batch of its recovery point, which must not lie within the one bridge. It goes behind that and
            // not before it, where damage at the end of a segment would count as a torn tail until the bridge stands.
            steps.push(RepairStep::MoveRecoveryPoint { to: damage.next_offset });
        }
        for damage in check.damages.iter().filter(|damage| !damage.is_before_log()) {
            let piece = self.piece(check, &folder, damage)?;
            match steps.last_mut() {
                Some(RepairStep::Bridge { file, pieces }) if *file == damage.file => pieces.push(piece),
                _ => steps.push(RepairStep::Bridge { file: damage.file.clone(), pieces: vec![piece] }),
            }
        }
        Ok(steps)
    }

    fn piece(&self, check: &PartitionCheck, folder: &Path, damage: &Damage) -> Result<Piece, RepairError> {
        let Damage { position, bytes, first_offset, next_offset, segment_base_offset, .. } = *damage;
        if next_offset - segment_base_offset > i64::from(i32::MAX) {
            let topic_partition = check.topic_partition.clone();
            return Err(RepairError::Hole {
                topic_partition,
                first_offset,
                count: next_offset - first_offset,
            });
        }
        let failed = |source| RepairError::Io { path: folder.to_owned(), source };
        let kept = if bytes == 0 {
            None
        } else {
            Some(self.free_name(folder, segment_base_offset, position).map_err(failed)?)
        };
        Ok(Piece { position, bytes, first_offset, next_offset, kept })
    }

    /// A name for what is taken out that no earlier repair or recovery has used.
    fn free_name(&self, folder: &Path, base_offset: i64, position: u64) -> io::Result<PathBuf> {
        let entries = self.disk.read_dir(folder)?;
        let taken = |name: &str| entries.iter().any(|entry| entry.name == name);
        let plain = file_name(base_offset, &format!("{position}.{CUT_EXTENSION}"));
        let numbered = |number| file_name(base_offset, &format!("{position}.{number}.{CUT_EXTENSION}"));
        let free = std::iter::once(plain).chain((2..).map(numbered)).find(|name| !taken(name));
        Ok(folder.join(free.expect("numbers don't end")))
    }
}

/// Carrying out.
impl OfflineDataDir {
    /// Does what the plan says; durable on return. After an error it can be planned and run again.
    pub fn repair(&mut self, plan: &RepairPlan) -> Result<(), RepairError> {
        if self.lock.is_none() {
            return Err(RepairError::ReadOnly);
        }
        self.keep_recovery_points()?;
        for step in &plan.steps {
            let path = match step {
                RepairStep::MoveRecoveryPoint { .. } => self.root.join(checkpoint::RECOVERY_POINTS),
                RepairStep::RaiseLogStart { .. } => self.root.join(checkpoint::LOG_START_OFFSETS),
                RepairStep::SetAside { file, .. } | RepairStep::Cut { file, .. } => file.clone(),
                RepairStep::Bridge { file, .. } => file.clone(),
            };
            self.carry_out(&plan.topic_partition, step).map_err(|source| RepairError::Io { path, source })?;
        }
        Ok(())
    }

    /// Makes the recovery points durable by which the plan was made: those that a killed process had just written may not be. Should a
    /// power cut bring older ones back, a start would take the damage for a torn tail and cut off what is valid behind it.
    fn keep_recovery_points(&self) -> Result<(), RepairError> {
        if self.recovery_points.is_empty() {
            return Ok(());
        }
        let path = self.root.join(checkpoint::RECOVERY_POINTS);
        checkpoint::write(&*self.disk, &path, self.recovery_points.clone().into_iter())
            .map_err(|source| RepairError::Io { path, source })
    }

    fn carry_out(&mut self, topic_partition: &TopicPartition, step: &RepairStep) -> io::Result<()> {
        let disk = &*self.disk;
        let folder = self.folder(topic_partition);
        match step {
            RepairStep::MoveRecoveryPoint { to } => {
                self.recovery_points.insert(topic_partition.clone(), *to);
                let points = self.recovery_points.clone();
                checkpoint::write(disk, &self.root.join(checkpoint::RECOVERY_POINTS), points.into_iter())
            }
            RepairStep::RaiseLogStart { to } => {
                let starts = self.log_start_offsets.get_or_insert_default();
                starts.insert(topic_partition.clone(), *to);
                let starts = starts.clone();
                checkpoint::write(disk, &self.root.join(checkpoint::LOG_START_OFFSETS), starts.into_iter())
            }
            RepairStep::SetAside { file, kept, .. } => {
                self.remove_indexes(file)?;
                disk.rename(file, kept)?;
                disk.sync_dir(&folder)
            }
            RepairStep::Cut { file, position, bytes, kept } => {
                self.keep(file, *position, *bytes, kept)?;
                self.remove_indexes(file)?;
                let file = disk.open(file, OpenMode::Write)?;
                file.set_len(*position)?;
                file.sync_data()?;
                disk.sync_dir(&folder)
            }
            RepairStep::Bridge { file, pieces } => self.bridge(&folder, file, pieces),
        }
    }

    /// Copies bytes into a side file, durably.
    fn keep(&self, file: &Path, position: u64, bytes: u64, kept: &Path) -> io::Result<()> {
        let disk = &*self.disk;
        let source = disk.open(file, OpenMode::Read)?;
        let target = disk.open(kept, OpenMode::Truncate)?;
        copy(&*source, position, bytes, &*target, 0)?;
        target.sync_data()?;
        disk.sync_dir(kept.parent().ok_or(io::ErrorKind::InvalidInput)?)
    }

    /// Writes the segment anew beside itself and lets it take the old one's place in one step.
    fn bridge(&self, folder: &Path, path: &Path, pieces: &[Piece]) -> io::Result<()> {
        let disk = &*self.disk;
        for piece in pieces {
            if let Some(kept) = &piece.kept {
                self.keep(path, piece.position, piece.bytes, kept)?;
            }
        }
        let source = match disk.open(path, OpenMode::Read) {
            // The log's only segment is what was lost; an empty one is damaged in the same way.
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.open(path, OpenMode::CreateNew)?,
            opened => opened?,
        };
        let len = source.len()?;
        // A start removes what an interrupted repair leaves under this name.
        let temporary = path.with_extension("tmp");
        let target = disk.open(&temporary, OpenMode::Truncate)?;
        let (mut from, mut to) = (0, 0);
        for piece in pieces {
            copy(&*source, from, piece.position - from, &*target, to)?;
            to += piece.position - from;
            from = piece.position + piece.bytes;
            if piece.next_offset > piece.first_offset {
                let filler = BatchBuilder::without_records(piece.first_offset, piece.next_offset);
                write_all_at(&*target, &mut [IoSlice::new(&filler)], to)?;
                to += filler.len() as u64;
            }
        }
        copy(&*source, from, len - from, &*target, to)?;
        target.sync_data()?;
        self.remove_indexes(path)?;
        disk.rename(&temporary, path)?;
        disk.sync_dir(folder)
    }

    /// Positions have changed; the indexes are made again when they are needed.
    fn remove_indexes(&self, log: &Path) -> io::Result<()> {
        for extension in ["index", "timeindex", "txnindex"] {
            match self.disk.remove_file(&log.with_extension(extension)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

const COPY_BYTES: usize = 256 << 10;

fn copy(source: &dyn DiskFile, from: u64, bytes: u64, target: &dyn DiskFile, to: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    let mut done = 0;
    while done < bytes {
        let count = usize::try_from(bytes - done).unwrap_or(usize::MAX).min(COPY_BYTES);
        read_exact_at(source, &mut buffer[..count], from + done)?;
        write_all_at(target, &mut [IoSlice::new(&buffer[..count])], to + done)?;
        done += count as u64;
    }
    Ok(())
}
