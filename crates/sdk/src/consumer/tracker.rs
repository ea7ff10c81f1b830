//! What of a partition is done, when records are done in any order.
//!
//! **Invariant:** the offset to commit has nothing undone before it. What is done behind it survives a restart in the
//! commit's metadata (`encoding`), and is not handed out again.
//!
//! The tracker is told which offsets were delivered, so the holes that compaction and transactions leave between them
//! count as done. It does no I/O and knows no time.

mod encoding;

use std::collections::VecDeque;
use std::ops::Range;

pub(super) use encoding::capacity;

/// What to do with a record that was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// Work on it.
    New,
    /// It was done before a restart.
    AlreadyDone,
    /// The partition went back: what was known of it counts no more, and neither do records in hand. Work on this one.
    WentBack,
}

/// The state of one partition since it was assigned.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    /// The first offset that may be delivered; `None` until the first one is, where the group had committed nothing.
    start_offset: Option<i64>,
    /// Behind the last record delivered, and what was skipped after it.
    end_offset: Option<i64>,
    /// The last record delivered.
    last_offset: Option<i64>,
    /// What was delivered from the first record on that is not done, by offset: records are mostly done from the front.
    delivered: VecDeque<Delivered>,
    /// Done before the restart, behind `start_offset`: sorted, disjoint, not empty.
    done_before: Vec<Range<i64>>,
    has_done_some: bool,
}

#[derive(Debug)]
struct Delivered {
    offset: i64,
    timestamp_ms: Option<i64>,
    is_done: bool,
}

impl Tracker {
    /// Goes on from what the group has committed. Metadata that is none of ours says nothing.
    pub(super) fn resume(committed_offset: Option<i64>, metadata: &[u8]) -> Self {
        let done_before =
            committed_offset.map(|offset| encoding::decode(offset, metadata)).unwrap_or_default();
        Self { start_offset: committed_offset, done_before, ..Self::default() }
    }

    /// Nothing was delivered, and what comes next has this offset or a later one: tells where the partition begins, if that is not
    /// known.
    pub(super) fn begin(&mut self, offset: i64) {
        self.start_offset.get_or_insert(offset);
    }

    /// The offset that comes next, if that is known.
    pub(super) fn position(&self) -> Option<i64> {
        self.end_offset.or(self.start_offset)
    }

    /// The last record delivered. What was skipped after it has come to nobody.
    pub(super) fn last_offset(&self) -> Option<i64> {
        self.last_offset
    }

    /// Takes note of a delivered record.
    pub(super) fn deliver(&mut self, offset: i64, timestamp_ms: Option<i64>) -> Delivery {
        // Offsets of a partition only rise, unless the log was cut or made anew: then nothing known of it holds.
        let went_back = self.position().is_some_and(|position| offset < position);
        if went_back {
            *self = Self { has_done_some: true, ..Self::default() };
        }
        self.start_offset.get_or_insert(offset);
        self.end_offset = Some(offset + 1);
        self.last_offset = Some(offset);
        if self.done_range(offset).is_some() {
            return Delivery::AlreadyDone;
        }
        self.delivered.push_back(Delivered { offset, timestamp_ms, is_done: false });
        if went_back { Delivery::WentBack } else { Delivery::New }
    }

    /// No record is between the offset that comes next and this one, as far as nothing is outstanding.
    pub(super) fn skip_to(&mut self, offset: i64) {
        let is_ahead = self.position().is_some_and(|position| position < offset);
        if is_ahead && self.first_outstanding().is_none() {
            self.end_offset = Some(offset);
            self.has_done_some = true;
        }
    }

    /// What of these offsets, none of which was delivered, was still to come: nothing before the start, and not what was done
    /// before the restart. Sorted.
    pub(super) fn awaited_in(&self, offsets: Range<i64>) -> Vec<Range<i64>> {
        let Some(start_offset) = self.start_offset else { return Vec::new() };
        let mut awaited = Vec::new();
        let mut from = offsets.start.max(start_offset);
        for done in &self.done_before {
            awaited.push(from..done.start.min(offsets.end));
            from = from.max(done.end);
        }
        awaited.push(from..offsets.end);
        awaited.retain(|range| !range.is_empty());
        awaited
    }

    /// Marks a delivered record as done. Answers whether it was outstanding.
    pub(super) fn complete(&mut self, offset: i64) -> bool {
        let Some(index) = self.outstanding_index(offset) else { return false };
        self.delivered[index].is_done = true;
        while self.delivered.front().is_some_and(|first| first.is_done) {
            self.delivered.pop_front();
        }
        self.has_done_some = true;
        true
    }

    fn outstanding_index(&self, offset: i64) -> Option<usize> {
        let index = match self.delivered.front()?.offset == offset {
            true => 0,
            false => self.delivered.binary_search_by_key(&offset, |delivered| delivered.offset).ok()?,
        };
        (!self.delivered[index].is_done).then_some(index)
    }

    /// The first record that is not done, among those delivered.
    fn first_outstanding(&self) -> Option<&Delivered> {
        self.delivered.iter().find(|delivered| !delivered.is_done)
    }

    /// The offset to commit: everything before it is done. `None` if nothing is known yet.
    pub(super) fn next_offset(&self) -> Option<i64> {
        if let Some(first) = self.first_outstanding() {
            return Some(first.offset);
        }
        let position = self.position()?;
        Some(self.done_range(position).map_or(position, |range| range.end))
    }

    /// What to commit: the offset, and the metadata that says what is done behind it, in at most `max_bytes`.
    pub(super) fn snapshot(&self, max_bytes: usize) -> Option<(i64, String)> {
        let next_offset = self.next_offset()?;
        Some((next_offset, encoding::encode(next_offset, &self.done_behind(next_offset), max_bytes)))
    }

    /// [`Tracker::snapshot`] as if these records were done, too.
    pub(super) fn snapshot_with(&mut self, done: &[i64], max_bytes: usize) -> Option<(i64, String)> {
        let as_done: Vec<usize> = done.iter().filter_map(|offset| self.outstanding_index(*offset)).collect();
        as_done.iter().for_each(|index| self.delivered[*index].is_done = true);
        let snapshot = self.snapshot(max_bytes);
        as_done.iter().for_each(|index| self.delivered[*index].is_done = false);
        snapshot
    }

    /// Whether anything was done since the partition was assigned.
    pub(super) fn has_done_some(&self) -> bool {
        self.has_done_some
    }

    /// Offsets from the one to commit to the last one delivered: what the metadata has to describe.
    pub(super) fn span(&self) -> i64 {
        match (self.end_offset, self.next_offset()) {
            (Some(end_offset), Some(next_offset)) => (end_offset - next_offset).max(0),
            _ => 0,
        }
    }

    /// The timestamp of the first record that is not done, among those delivered.
    pub(super) fn oldest_timestamp_ms(&self) -> Option<i64> {
        self.first_outstanding().and_then(|first| first.timestamp_ms)
    }

    /// Ranges done behind `next_offset`, sorted.
    fn done_behind(&self, next_offset: i64) -> Vec<Range<i64>> {
        let mut ranges: Vec<Range<i64>> = Vec::new();
        let mut push = |range: Range<i64>| match ranges.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        };
        let mut from = next_offset;
        for outstanding in self.delivered.iter().filter(|delivered| !delivered.is_done) {
            push(from..outstanding.offset);
            from = outstanding.offset + 1;
        }
        let position = self.end_offset.or(self.start_offset).unwrap_or(next_offset);
        push(from..position);
        for range in &self.done_before {
            push(range.start.max(position).max(next_offset)..range.end);
        }
        ranges
    }

    fn done_range(&self, offset: i64) -> Option<&Range<i64>> {
        let index = self.done_before.partition_point(|range| range.end <= offset);
        self.done_before.get(index).filter(|range| range.contains(&offset))
    }
}

#[cfg(test)]
mod tests;
