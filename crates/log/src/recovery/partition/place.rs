//! Where in a segment damage begins.
//!
//! Owns the errors of what was found while hopping from header to header. Invariant: they name the first offset that is lost in
//! the segment, which is the one that a check of the log names, and at which a repair can cut.

use std::io;

use super::Recovery;
use crate::disk::DiskFile;
use crate::recovery::RecoverError;
use crate::recovery::judge::{Judge, Search, Verdict};
use crate::segment::{BadBatch, Segment, SegmentEnd, SegmentError};

impl Recovery<'_> {
    /// The error for what a hop met in a segment of `len` bytes.
    pub(super) fn hop_error(
        &self,
        segment: &Segment,
        file: &dyn DiskFile,
        len: u64,
        error: SegmentError,
    ) -> RecoverError {
        match error {
            SegmentError::Io(source) => self.io_error(segment)(source),
            SegmentError::Bad(bad) => {
                self.first_damage(segment, file, len, bad).unwrap_or_else(self.io_error(segment))
            }
        }
    }

    /// Looks at every batch before what a hop has met. Hops check no CRC, and may begin in the midst of the file, where the
    /// offset expected is not known.
    fn first_damage(
        &self,
        segment: &Segment,
        file: &dyn DiskFile,
        len: u64,
        bad: BadBatch,
    ) -> io::Result<RecoverError> {
        let mut judge = Judge::new(file, len, self.holes_end);
        let mut end = SegmentEnd { offset: segment.base_offset(), position: 0 };
        let mut damage = bad.what;
        while end.position < bad.position {
            match judge.check(end.position, end.offset)? {
                Verdict::Valid(header) => {
                    end.position += header.size_bytes() as u64;
                    end.offset = header.next_offset();
                }
                Verdict::Invalid { what } => {
                    damage = what;
                    break;
                }
            }
        }
        let behind = judge.next_valid(&mut Search::behind(end.position, end.offset))?;
        let lost_bytes = behind.map_or(len, |behind| behind.position) - end.position;
        Ok(self.damaged(segment, end.position, end.offset, lost_bytes, damage))
    }
}
