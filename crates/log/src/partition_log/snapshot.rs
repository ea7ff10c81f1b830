//! What a snapshot needs of a log: its durable end, held for an instant, and the files below it.
//!
//! Invariants: what lies below a durable end never changes in the files that hold it; those files are the log's for as long
//! as the maintenance lock is held.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::{Marks, PartitionLog};
use crate::segment::{Segment, SegmentId};

/// Where a log is durable up to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DurableEnd {
    pub offset: i64,
    segment: SegmentId,
    position: u64,
}

/// Keeps the durable end from moving.
pub(crate) struct HeldEnd<'a>(MutexGuard<'a, Marks>);

impl HeldEnd<'_> {
    pub fn end(&self) -> DurableEnd {
        let mark = self.0.high_watermark;
        DurableEnd { offset: mark.offset, segment: mark.segment, position: mark.position }
    }
}

impl PartitionLog {
    /// Waits until nobody changes files of closed segments, without keeping anybody from it.
    pub(crate) fn wait_for_maintenance(&self) {
        drop(self.maintenance.lock());
    }

    /// Keeps the durable end where it is: for moments only, because commits wait for it.
    pub(crate) fn hold_durable_end(&self) -> HeldEnd<'_> {
        HeldEnd(self.marks.lock())
    }

    /// The segments that hold what lies below `end`, each with the bytes of it that do. To be called while the log is
    /// maintained, from before the end was found.
    pub(crate) fn files_below(&self, end: DurableEnd) -> Vec<(Arc<Segment>, u64)> {
        let segments = self.segments.read();
        let below = segments.partition_point(|segment| segment.base_offset() < end.offset);
        // A log always has a segment, if an empty one.
        let kept = &segments[..below.max(1)];
        let bytes = |segment: &Arc<Segment>| {
            let whole = segment.end();
            if segment.base_offset() >= end.offset {
                0
            } else if whole.offset <= end.offset {
                whole.position
            } else {
                assert!(segment.id() == end.segment, "{}: an end elsewhere", self.topic_partition);
                end.position
            }
        };
        kept.iter().map(|segment| (segment.clone(), bytes(segment))).collect()
    }
}
