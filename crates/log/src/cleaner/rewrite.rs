//! Writes what stays of a group of segments into a new one.
//!
//! Owns the `.cleaned` file until it is whole. Invariants: it is synced piece by piece, so that the syncs of
//! appends, which may have to wait for the file system's other writes, never find much of ours; a file that is not
//! finished is removed, now or by the next start.

use std::collections::HashSet;
use std::io::{self, IoSlice};
use std::sync::Arc;

use super::filter::Filter;
use super::swap::cleaned_path;
use super::{CleanError, Cleaner, Next};
use crate::batch::BatchHeader;
use crate::disk::{DiskFile, OpenMode, write_all_at};
use crate::segment::{Segment, SegmentEnd};

/// Bytes written between two syncs.
const SYNC_BYTES: usize = 1 << 20;

/// A new segment that is being written.
struct Writing {
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    position: u64,
    /// Written at once, and then synced.
    buffer: Vec<u8>,
    /// Of the batches in the buffer.
    headers: Vec<BatchHeader>,
    /// The offsets of markers that stay.
    markers: HashSet<i64>,
}

impl Cleaner<'_> {
    /// Replaces a group of segments by one with what stays of them; returns its size.
    pub(super) fn rewrite(&self, group: &[Arc<Segment>], filter: &mut Filter) -> Result<u64, CleanError> {
        let first = &group[0];
        let written = self.write_cleaned(group, filter);
        if written.is_err() {
            // What can't be removed now, the next start removes.
            let _ = self.storage.disk.remove_file(&cleaned_path(first));
        }
        let (segment, file) = written?;
        let size_bytes = segment.end().position;
        self.swap(group, segment, file)?;
        Ok(size_bytes)
    }

    fn write_cleaned(
        &self,
        group: &[Arc<Segment>],
        filter: &mut Filter,
    ) -> Result<(Arc<Segment>, Arc<dyn DiskFile>), CleanError> {
        let (first, last) = (&group[0], group.last().unwrap_or(&group[0]));
        filter.group_end_offset = self.log.end_of_segment(last);
        let failed = |source: io::Error| CleanError::io(first, source);
        let file = self.storage.disk.open(&cleaned_path(first), OpenMode::Truncate).map_err(failed)?;
        let segment = Arc::new(Segment::cleaned(first));
        let (buffer, headers, markers) = (Vec::new(), Vec::new(), HashSet::new());
        let mut writing = Writing { segment, file, position: 0, buffer, headers, markers };
        for source in group {
            self.for_each_batch(source, |batch| {
                let retained = filter.filter(&batch);
                let retained = retained.map_err(|error| CleanError::records(source, &batch.header, error))?;
                if let Some(bytes) = retained {
                    writing.buffer.extend_from_slice(&bytes);
                    let header = BatchHeader::parse(&bytes).expect("a whole batch");
                    if header.is_control() && header.record_count > 0 {
                        writing.markers.insert(header.last_offset());
                    }
                    writing.headers.push(header);
                }
                if writing.buffer.len() >= SYNC_BYTES {
                    self.flush(&mut writing).map_err(failed)?;
                }
                Ok(Next::Go)
            })?;
        }
        self.flush(&mut writing).map_err(failed)?;
        let Writing { segment, file, position, markers, .. } = writing;
        // A reader may have the records of an aborted transaction still, as long as its marker is there.
        let mut aborted = Vec::new();
        for source in group {
            aborted.extend(source.all_aborted(self.storage).map_err(failed)?);
        }
        aborted.retain(|txn| markers.contains(&txn.last_offset));
        segment.finish_cleaned(SegmentEnd { offset: filter.group_end_offset, position }, aborted);
        Ok((segment, file))
    }

    fn flush(&self, writing: &mut Writing) -> io::Result<()> {
        let Writing { segment, file, position, buffer, headers, .. } = writing;
        write_all_at(&**file, &mut [IoSlice::new(buffer)], *position)?;
        file.sync_data()?;
        *position += buffer.len() as u64;
        let interval_bytes = self.log.config().index_interval_bytes;
        headers.drain(..).for_each(|header| segment.index_cleaned(&header, interval_bytes));
        buffer.clear();
        Ok(())
    }
}
