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
    pub(super) fn reaches(self, limits: &Limits, part: usize, of: usize) -> bool {
        self.against(limits).any(|(found, limit)| found * of as u128 >= limit * part as u128)
    }

    /// Whether it is more than this part of what may be in hand.
    pub(super) fn exceeds(self, limits: &Limits, part: usize, of: usize) -> bool {
        self.against(limits).any(|(found, limit)| found * of as u128 > limit * part as u128)
    }

    /// Wide, for a limit may be as large as numbers are.
    fn against(self, limits: &Limits) -> impl Iterator<Item = (u128, u128)> {
        let (records, bytes) = (self.records as u128, self.bytes as u128);
        let limits = (limits.max_buffered_records as u128, limits.max_buffered_bytes as u128);
        [(records, limits.0), (bytes, limits.1)].into_iter()
    }
}
