//! A look at batches that an earlier process has written, before they are handed out.
//!
//! Owns the check of their offsets. No CRC covers a base offset, so a bit that flipped there on the disk would move
//! records to other offsets, and no client could tell. In a log without holes each flip makes a batch overlap its
//! neighbour. What this process has written is not looked at: fetches of new records cost nothing here.

use std::sync::Arc;

use super::Mark;
use crate::disk::DiskFile;
use crate::segment::{BadBatch, HeaderScan, Segment, SegmentError};
use crate::storage::Storage;

/// Where a slice from `position` on must end so that the offsets of its batches fit to each other and to what lies
/// around them: at `stop`, or before the first batch that may be damaged. An error when that is the first one.
pub(super) fn fitting(
    segment: &Arc<Segment>,
    storage: &Storage,
    file: &dyn DiskFile,
    position: u64,
    stop: Mark,
) -> Result<Mark, SegmentError> {
    let end = segment.end();
    let from = segment.boundary(storage, position)?;
    let mut scan = HeaderScan::new(file, from, end.position).starting_at(segment.base_offset());
    // Where the newest batch begins: whether it ends where it says is known only from what follows.
    let mut newest = Mark { offset: segment.base_offset(), position: from, ..stop };
    let mut next_offset = segment.base_offset();
    loop {
        let bad = match scan.next_header() {
            Ok(None) if next_offset <= end.offset => return Ok(stop),
            Ok(None) => {
                let what = format!("offsets up to {next_offset} do not end at {}", end.offset);
                BadBatch { position: newest.position, what }
            }
            Ok(Some(located)) if located.position >= stop.position => return Ok(stop),
            Ok(Some(located)) => {
                newest = Mark { offset: next_offset, position: located.position, ..stop };
                next_offset = located.header.next_offset();
                continue;
            }
            Err(SegmentError::Bad(bad)) => bad,
            Err(error) => return Err(error),
        };
        return if newest.position > position { Ok(newest) } else { Err(bad.into()) };
    }
}
