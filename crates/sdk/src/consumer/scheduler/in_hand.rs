//! How much is in hand: of a partition, or of all.

use super::Limits;
use crate::record::ReceivedRecord;

/// Records, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct InHand {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl InHand {
    pub(super) fn of<'a>(records: impl IntoIterator<Item = &'a ReceivedRecord>) -> Self {
        let mut in_hand = Self::default();
        for record in records {
            in_hand.records += 1;
            in_hand.bytes += record.size_bytes();
        }
        in_hand
    }

    pub(super) fn add(&mut self, more: Self) {
        self.records += more.records;
        self.bytes += more.bytes;
    }

    pub(super) fn remove(&mut self, less: Self) {
        self.records -= less.records;
        self.bytes -= less.bytes;
    }

    /// Whether it is this part of what may be in hand, or more.
    pub(super) fn is_share(self, limits: &Limits, part: usize, of: usize) -> bool {
        self.records >= (limits.max_buffered_records * part).div_ceil(of)
            || self.bytes >= (limits.max_buffered_bytes * part).div_ceil(of)
    }
}
