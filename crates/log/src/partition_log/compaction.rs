//! What the cleaner needs of a log, and does to it.
//!
//! Owns the exchange of segments under readers. Invariants: a read that has a segment goes on with it; a read
//! that begins afterwards finds the new one; offsets of the log do not change.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use super::{NEVER_CLEANED, PartitionLog};
use crate::cleaner::LastBatches;
use crate::segment::Segment;

impl PartitionLog {
    /// Where the part begins that was not cleaned yet; none when the log never was.
    pub(crate) fn first_dirty_offset(&self) -> Option<i64> {
        Some(self.first_dirty_offset.load(Acquire)).filter(|offset| *offset != NEVER_CLEANED)
    }

    pub(crate) fn set_first_dirty_offset(&self, offset: i64) {
        self.first_dirty_offset.store(offset, Release);
    }

    /// Whether the cleaner has found damage.
    pub(crate) fn is_uncleanable(&self) -> bool {
        self.uncleanable.load(Acquire)
    }

    pub(crate) fn set_uncleanable(&self) {
        self.uncleanable.store(true, Release);
    }

    /// The closed segments that begin below `offset`.
    pub(crate) fn segments_below(&self, offset: i64) -> Vec<Arc<Segment>> {
        let segments = self.segments.read();
        let closed = &segments[..segments.len() - 1];
        closed.iter().take_while(|segment| segment.base_offset() < offset).cloned().collect()
    }

    /// The base offset of the segment behind a closed one.
    pub(crate) fn end_of_segment(&self, segment: &Segment) -> i64 {
        self.segment_behind(segment).map_or(segment.end().offset, |next| next.base_offset())
    }

    /// The last thing that each producer has written, by producer id.
    pub(crate) fn last_batches_of_producers(&self) -> LastBatches {
        self.writer.lock().producers.last_batches()
    }

    /// Puts one segment in the place of neighbours.
    pub(crate) fn replace_segments(&self, old: &[Arc<Segment>], new: Arc<Segment>) {
        let mut segments = self.segments.write();
        let at = segments.iter().position(|segment| segment.id() == old[0].id());
        let at = at.expect("nobody else changes closed segments while we maintain the log");
        let replaced = &segments[at..at + old.len()];
        assert!(replaced.iter().zip(old).all(|(known, old)| known.id() == old.id()), "neighbours");
        segments.splice(at..at + old.len(), [new]);
    }
}
