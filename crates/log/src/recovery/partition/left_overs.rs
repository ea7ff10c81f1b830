//! What an interrupted process has left in a partition's folder.
//!
//! Owns the files between two states: swaps of the cleaner, segments below the log's start, temporary names. Invariants: only
//! what a decision made durable before has given up is removed. Does not look for the log's end.

use std::io;

use super::{Recovery, SegmentFile};
use crate::cleaner::{CLEANED_SUFFIX, SWAP_SUFFIX, remove_if_there};
use crate::data_dir::DELETED_EXTENSION;
use crate::disk::OpenMode;
use crate::recovery::RecoverError;
use crate::segment::{HeaderScan, Segment, SegmentEnd, SegmentError, parse_file_name};

impl Recovery<'_> {
    /// Finishes what the cleaner had decided: a `.swap` file counts, and the segments go that it was made from.
    pub(super) fn finish_swaps(&mut self) -> Result<(), RecoverError> {
        let io_error = |source| RecoverError::Io { path: self.dir.to_path_buf(), source };
        let disk = &*self.storage.disk;
        let entries = disk.read_dir(&self.dir).map_err(io_error)?;
        let bases = |extension: &'static str| {
            entries
                .iter()
                .filter_map(move |entry| Some((parse_file_name(&entry.name, extension)?, entry.len)))
        };
        for (base_offset, len) in bases(&SWAP_SUFFIX[1..]) {
            let end = SegmentEnd { offset: base_offset, position: len };
            let swapped = Segment::existing(self.dir.clone(), base_offset, end);
            let swap = swapped.log_path().with_extension(&SWAP_SUFFIX[1..]);
            let file = disk.open(&swap, OpenMode::Read).map_err(io_error)?;
            let mut scan = HeaderScan::new(&*file, 0, len);
            let mut end_offset = base_offset;
            while let Some(located) = scan.next_header().map_err(|error| match error {
                SegmentError::Io(source) => RecoverError::Io { path: swap.clone(), source },
                SegmentError::Bad(bad) => {
                    self.damaged(&swapped, bad.position, end_offset, len - bad.position, bad.what)
                }
            })? {
                end_offset = located.header.next_offset();
            }
            let replaced = bases("log").filter(|(base, _)| (base_offset + 1..end_offset).contains(base));
            for (base, _) in replaced {
                let old = Segment::existing(self.dir.clone(), base, SegmentEnd::default());
                old.paths().iter().try_for_each(|path| remove_if_there(disk, path)).map_err(io_error)?;
            }
            for path in swapped.paths().iter().skip(1) {
                remove_if_there(disk, path).map_err(io_error)?;
            }
            let renamed = disk.sync_dir(&self.dir).and_then(|()| disk.rename(&swap, &swapped.log_path()));
            renamed.and_then(|()| disk.sync_dir(&self.dir)).map_err(io_error)?;
        }
        Ok(())
    }

    /// Removes segments that end at or below the log's start: the last end came between the writing of the
    /// start and their removal. Some of them may be gone, in any order.
    pub(super) fn remove_below(&mut self, files: &mut Vec<SegmentFile>, log_start: i64) -> io::Result<()> {
        let below = files.windows(2).take_while(|pair| pair[1].base_offset <= log_start).count();
        for file in files.drain(..below) {
            let segment = Segment::existing(self.dir.clone(), file.base_offset, SegmentEnd::default());
            segment.paths().iter().try_for_each(|path| remove_if_there(&*self.storage.disk, path))?;
            self.changed = true;
        }
        Ok(())
    }

    /// The log files by base offset. Leftovers of interrupted replacements, removals and checkpoints are
    /// removed.
    pub(super) fn list(&self, recovery_point: i64) -> io::Result<Vec<SegmentFile>> {
        let disk = &*self.storage.disk;
        let mut files = Vec::new();
        for entry in disk.read_dir(&self.dir)? {
            let path = self.dir.join(&entry.name);
            let snapshot = parse_file_name(&entry.name, "snapshot");
            let extension = entry.name.rsplit('.').next();
            let left_over = extension.is_some_and(|found| found == "tmp" || found == DELETED_EXTENSION);
            if left_over
                || entry.name.ends_with(CLEANED_SUFFIX)
                || snapshot.is_some_and(|offset| offset != recovery_point)
            {
                disk.remove_file(&path)?;
            } else if let Some(base_offset) = parse_file_name(&entry.name, "log") {
                files.push(SegmentFile { base_offset, len: entry.len });
            }
        }
        files.sort_by_key(|file| file.base_offset);
        Ok(files)
    }
}
